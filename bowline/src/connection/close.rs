//! The end of a connection that our own side brings about.

use bowline_proto::CloseFrame;

use crate::connection::Connection;
use crate::connection::outbound::{Outbound, closed_by_us};
use crate::error::{Error, ErrorKind};
use crate::events;

impl Connection {
    /// Starts the closing handshake, unless it was started before.
    pub(crate) fn start_close(&self, frame: &CloseFrame) {
        self.start_close_with(frame, closed_by_us(), |_| ());
    }

    /// Starts the closing handshake as [`start_close`](Self::start_close) does. Later senders receive
    /// `error`.
    ///
    /// `prepare` is called right before, with the outbound half locked.
    pub(crate) fn start_close_with(
        &self,
        frame: &CloseFrame,
        error: Error,
        prepare: impl FnOnce(&mut Outbound),
    ) {
        // Both halves are locked, since they have to agree on which Close frame was first. Otherwise another
        // thread could read the peer's Close frame after `inbound.close()`, and send its echo before our
        // frame: the inbound half would report ours as the first, the outbound half the peer's.
        let mut inbound = self.inbound();
        let mut outbound = self.outbound();
        if !outbound.has_transport() {
            // The connection ends by the loss of the transport, not by this close, and there is nobody to
            // wait for.
            drop(inbound);
            prepare(&mut outbound);
            let lost = outbound.closed().filter(|_| !outbound.is_finished()).cloned();
            drop(outbound);
            return lost.iter().for_each(|error| self.close_transport(error));
        }
        let effects = inbound.close();
        drop(inbound);
        let concluded = self.apply_locked(&mut outbound, effects);
        let decides = outbound.closed().is_none();
        prepare(&mut outbound);
        outbound.close(frame, error);
        self.end_cork();
        self.write_now(outbound);
        if let Some(concluded) = concluded {
            self.report_end(concluded);
        }
        self.waker.set_driver_waits(true);
        self.waker.wake_reader();
        self.waker.wake_driver();
        if decides {
            events::connection_closed(self.addresses.peer, events::Initiator::Us, Some(frame.code()));
        }
    }

    /// Ends a connection whose application will neither read nor close: writes what was accepted, then ends
    /// the transport without a Close frame.
    pub(crate) fn abandon(&self) {
        let mut outbound = self.outbound();
        if outbound.closed().is_some() {
            drop(outbound);
            // The closing handshake goes on, but nobody wants the messages that are left.
            return self.discard_input();
        }
        // This happens before the lock is released, so a concurrent close either comes first or is refused.
        let error = Error::new(ErrorKind::Closed, "the connection is closed: its WebSocket was dropped");
        outbound.stop_accepting(error.clone());
        self.end_cork();
        self.write_now(outbound);
        let mut inbound = self.inbound();
        inbound.discard();
        inbound.mark_lost(error);
        drop(inbound);
        self.waker.wake_driver();
        events::connection_closed(self.addresses.peer, events::Initiator::Us, None);
    }

    /// Discards all that was and will be received. The application does not read any more, but a supervisor
    /// will close.
    pub(crate) fn discard_input(&self) {
        self.inbound().discard();
        self.waker.wake_driver();
    }

    /// Closes the transport at once. `error` is the reason unless an earlier one is known.
    pub(crate) fn close_transport(&self, error: &Error) {
        let mut inbound = self.inbound();
        inbound.mark_lost(error.clone());
        let read_half = inbound.release();
        drop(inbound);
        drop(read_half);
        let mut outbound = self.outbound();
        outbound.close_transport(error.clone());
        outbound.finish();
        drop(outbound);
        self.settle();
    }
}
