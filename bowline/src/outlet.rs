//! Sending by polls, for the traits that are made of them.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame};

use crate::connection::Connection;
use crate::error::Error;
use crate::transmit::Transmit;
use crate::wait::Place;

/// A place from which messages are sent, one at a time.
pub(crate) struct Outlet {
    connection: Arc<Connection>,
    /// Among those who wait for their turn to send.
    turn: Place,
    /// Among those who wait for a change.
    change: Place,
    /// Where a flush under way ends.
    flush_end: Option<u64>,
    closing: bool,
}

impl Outlet {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, turn: Place::default(), change: Place::default(), flush_end: None, closing: false }
    }

    /// Lets `accept` put a message into the write buffer, once it is its turn and there is room.
    pub(crate) fn poll_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        accept: impl FnOnce(&mut Transmit) -> Result<T, Error>,
    ) -> Poll<Result<T, Error>> {
        let sent = ready!(self.connection.poll_send(cx, &mut self.turn, accept))?;
        self.flush_end = None;
        Poll::Ready(Ok(sent))
    }

    #[cfg(feature = "futures")]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits until all that was sent before was handed to the transport.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.connection.uncork();
        let mut transmit = self.connection.transmit();
        let end = *self.flush_end.get_or_insert(transmit.end());
        if transmit.has_written(end) {
            transmit.watchers.leave(&mut self.change);
            self.flush_end = None;
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = transmit.closed().filter(|_| !transmit.has_transport()) {
            return Poll::Ready(Err(error.clone()));
        }
        transmit.watchers.wait(&mut self.change, cx.waker());
        Poll::Pending
    }

    /// Closes the connection with 1000, and waits until it has ended.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !std::mem::replace(&mut self.closing, true) {
            let frame = CloseFrame::new(CloseCode::NORMAL, "").expect("1000 may be sent");
            self.connection.begin_close(&frame);
        }
        let mut transmit = self.connection.transmit();
        if !transmit.is_finished() {
            transmit.watchers.wait(&mut self.change, cx.waker());
            return Poll::Pending;
        }
        transmit.watchers.leave(&mut self.change);
        drop(transmit);
        Poll::Ready(self.connection.receive().peer_close().map(drop))
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut transmit = self.connection.transmit();
        transmit.senders.leave(&mut self.turn);
        transmit.watchers.leave(&mut self.change);
        // It may have been its turn.
        transmit.wake_senders();
    }
}
