//! The end of a connection, as our own side brings it about.

use bowline_proto::CloseFrame;

use crate::connection::Connection;
use crate::connection::outbound::{Transmit, closed_by_us};
use crate::error::{Error, ErrorKind};
use crate::events;

impl Connection {
    /// Begins the closing handshake, unless it has begun.
    pub(crate) fn begin_close(&self, frame: &CloseFrame) {
        self.begin_close_with(frame, closed_by_us(), |_| ());
    }

    /// The same. Later senders get `error`; `prepare` is called right before.
    pub(crate) fn begin_close_with(
        &self,
        frame: &CloseFrame,
        error: Error,
        prepare: impl FnOnce(&mut Transmit),
    ) {
        // Both are locked, so that whoever reads on finds that ours was the first Close frame, and whoever sends that it was sent.
        let mut receive = self.receive();
        let mut transmit = self.transmit();
        if !transmit.has_transport() {
            // That is how the connection ends, not by us; and there is nobody to wait for.
            drop(receive);
            prepare(&mut transmit);
            let lost = transmit.closed().filter(|_| !transmit.is_finished()).cloned();
            drop(transmit);
            return lost.iter().for_each(|error| self.lose(error));
        }
        let effects = receive.close();
        drop(receive);
        let concluded = self.apply_locked(&mut transmit, effects);
        let decides = transmit.closed().is_none();
        prepare(&mut transmit);
        transmit.close(Some(frame), error);
        self.write_now(transmit);
        if let Some(concluded) = concluded {
            self.conclude(concluded);
        }
        self.signals.set_task_waits(true);
        self.signals.wake_reader();
        self.signals.wake_task();
        if decides {
            events::connection_closed(self.addresses.peer, "us", Some(frame.code()));
        }
    }

    /// The application will neither read nor close: writes what was accepted, and ends the transport.
    pub(crate) fn abandon(&self) {
        let mut transmit = self.transmit();
        if transmit.closed().is_some() {
            drop(transmit);
            // The closing handshake goes on, but nobody wants the messages that are left.
            return self.stop_reading();
        }
        // Before the lock is given back, so that a close beside this one comes first or is refused.
        let error = Error::new(ErrorKind::Closed, "the connection is closed: its WebSocket was dropped");
        transmit.refuse(error.clone());
        self.write_now(transmit);
        let mut receive = self.receive();
        receive.discard();
        receive.lose(error);
        drop(receive);
        self.signals.wake_task();
        events::connection_closed(self.addresses.peer, "us", None);
    }

    /// The application will not read any more, but someone will close.
    pub(crate) fn stop_reading(&self) {
        self.receive().discard();
        self.signals.wake_task();
    }

    /// Ends the transport at once.
    pub(crate) fn lose(&self, error: &Error) {
        let mut receive = self.receive();
        receive.lose(error.clone());
        let read_half = receive.release();
        drop(receive);
        drop(read_half);
        let mut transmit = self.transmit();
        transmit.lose(error.clone());
        transmit.finish();
        drop(transmit);
        self.settle();
    }
}
