//! The end of a connection, as our own side brings it about.

use bowline_proto::CloseFrame;

use crate::connection::Connection;
use crate::connection::outbound::{Outbound, closed_by_us};
use crate::error::{Error, ErrorKind};
use crate::events;

impl Connection {
    /// Begins the closing handshake, unless it has begun.
    pub(crate) fn start_close(&self, frame: &CloseFrame) {
        self.start_close_with(frame, closed_by_us(), |_| ());
    }

    /// The same. Later senders get `error`; `prepare` is called right before.
    pub(crate) fn start_close_with(
        &self,
        frame: &CloseFrame,
        error: Error,
        prepare: impl FnOnce(&mut Outbound),
    ) {
        // Both are locked, so that whoever reads on finds that ours was the first Close frame, and whoever sends that it was sent.
        let mut inbound = self.inbound();
        let mut outbound = self.outbound();
        if !outbound.has_transport() {
            // That is how the connection ends, not by us; and there is nobody to wait for.
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
        outbound.close(Some(frame), error);
        self.end_cork();
        self.write_now(outbound);
        if let Some(concluded) = concluded {
            self.report_end(concluded);
        }
        self.waker.set_task_waits(true);
        self.waker.wake_reader();
        self.waker.wake_task();
        if decides {
            events::connection_closed(self.addresses.peer, events::Initiator::Us, Some(frame.code()));
        }
    }

    /// The application will neither read nor close: writes what was accepted, and ends the transport.
    pub(crate) fn abandon(&self) {
        let mut outbound = self.outbound();
        if outbound.closed().is_some() {
            drop(outbound);
            // The closing handshake goes on, but nobody wants the messages that are left.
            return self.discard_input();
        }
        // Before the lock is given back, so that a close beside this one comes first or is refused.
        let error = Error::new(ErrorKind::Closed, "the connection is closed: its WebSocket was dropped");
        outbound.stop_accepting(error.clone());
        self.end_cork();
        self.write_now(outbound);
        let mut inbound = self.inbound();
        inbound.discard();
        inbound.close_transport(error);
        drop(inbound);
        self.waker.wake_task();
        events::connection_closed(self.addresses.peer, events::Initiator::Us, None);
    }

    /// The application will not read any more, but someone will close.
    pub(crate) fn discard_input(&self) {
        self.inbound().discard();
        self.waker.wake_task();
    }

    /// Ends the transport at once.
    pub(crate) fn close_transport(&self, error: &Error) {
        let mut inbound = self.inbound();
        inbound.close_transport(error.clone());
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
