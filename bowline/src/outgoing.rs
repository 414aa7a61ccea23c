//! Sending by polls, for the traits that work so.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame};

use crate::connection::Connection;
use crate::error::Error;
use crate::locked::Locked;
use crate::wait::Place;

/// What one who polls has begun to wait for.
///
/// It waits among those who watch, not in the line of the senders: one who stopped polling, as after a timeout, would hold
/// up all behind it. So it has no place in that line, and takes room as it finds it.
pub(crate) struct Outgoing {
    pub(crate) connection: Arc<Connection>,
    place: Place,
    /// Where a flush under way ends.
    flush_end: Option<u64>,
    /// We have closed, and wait for the end.
    closing: bool,
}

impl Outgoing {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, place: Place::default(), flush_end: None, closing: false }
    }

    /// Waits until a message may be accepted, and gives the lock under which it may.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<Locked<'_>, Error>> {
        let progress = ready!(tokio::task::coop::poll_proceed(cx));
        let mut transmit = self.connection.transmit();
        if let Some(error) = transmit.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        if !transmit.takes_data() {
            transmit.watchers.wait(&mut self.place, cx.waker());
            return Poll::Pending;
        }
        progress.made_progress();
        transmit.watchers.leave(&mut self.place);
        // A flush that was begun before does not cover what comes now.
        self.flush_end = None;
        Poll::Ready(Ok(transmit))
    }

    /// Waits until all that was accepted was handed to the transport.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut transmit = self.connection.transmit();
        if self.flush_end.is_none() && !transmit.is_blocked() {
            self.connection.write_locked(&mut transmit);
        }
        let end = *self.flush_end.get_or_insert(transmit.end());
        let result = if transmit.has_written(end) {
            Ok(())
        } else if let Some(error) = transmit.closed().filter(|_| !transmit.has_transport()) {
            Err(error.clone())
        } else {
            transmit.watchers.wait(&mut self.place, cx.waker());
            return Poll::Pending;
        };
        transmit.watchers.leave(&mut self.place);
        self.flush_end = None;
        Poll::Ready(result)
    }

    /// Closes with 1000, and waits until the connection has ended.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.closing {
            self.closing = true;
            let frame = CloseFrame::new(CloseCode::NORMAL, "").expect("1000 may be sent");
            self.connection.begin_close(&frame);
        }
        let mut transmit = self.connection.transmit();
        if !transmit.is_finished() {
            transmit.watchers.wait(&mut self.place, cx.waker());
            return Poll::Pending;
        }
        transmit.watchers.leave(&mut self.place);
        drop(transmit);
        Poll::Ready(self.connection.receive().peer_close().map(drop))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.connection.transmit().watchers.leave(&mut self.place);
        }
    }
}
