//! Sending by polls, for the traits that work so.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame};

use crate::connection::Connection;
use crate::connection::batch::Hold;
use crate::connection::outbound::Queue;
use crate::connection::outbound::guard::Locked;
use crate::connection::wait_queue::{Manner, Place, Turn};
use crate::error::Error;

/// What one who polls has begun to wait for.
///
/// It stands in the line of the senders, as all do; but one who stops polling, as after a timeout, is passed once it was
/// called: see [`Manner::Poll`].
pub(crate) struct Outgoing {
    pub(crate) connection: Arc<Connection>,
    /// Whether what it sends may be held back: if it stands for the `WebSocket`.
    #[cfg_attr(not(feature = "futures"), expect(dead_code, reason = "byte streams always may"))]
    pub(crate) hold: Hold,
    /// In the line of the senders.
    turn: Place,
    /// Among those who watch what is written.
    watch: Place,
    /// Among those who wait for the end.
    end: Place,
    /// Where a flush under way ends.
    flush_end: Option<u64>,
    /// We have closed, and wait for the end.
    closing: bool,
}

impl Outgoing {
    pub(crate) fn new(connection: Arc<Connection>, hold: Hold) -> Self {
        let (turn, watch, end) = Default::default();
        Self { connection, hold, turn, watch, end, flush_end: None, closing: false }
    }

    /// Waits until a message may be accepted, and gives the lock under which it may.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<Locked<'_>, Error>> {
        let progress = ready!(tokio::task::coop::poll_proceed(cx));
        let mut transmit = self.connection.transmit();
        if let Some(error) = transmit.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        let turn = transmit.turn(&self.turn);
        if turn != Turn::Now {
            // One that gives way was called, and may be passed should it not come again.
            let manner = if turn == Turn::Soon { Manner::CALLED } else { Manner::POLL };
            transmit.wait(Queue::Senders, &mut self.turn, manner, cx.waker());
            drop(transmit);
            if turn == Turn::Soon {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        progress.made_progress();
        if self.turn.is_taken() {
            transmit.leave(Queue::Senders, &mut self.turn);
            // There may be room for the next, too.
            transmit.wake_senders();
        }
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
            transmit.wait(Queue::Watchers, &mut self.watch, Manner::Future, cx.waker());
            return Poll::Pending;
        };
        transmit.leave(Queue::Watchers, &mut self.watch);
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
            transmit.wait(Queue::End, &mut self.end, Manner::Future, cx.waker());
            return Poll::Pending;
        }
        transmit.leave(Queue::End, &mut self.end);
        drop(transmit);
        Poll::Ready(self.connection.receive().peer_close().map(drop))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.turn.is_taken() || self.watch.is_taken() || self.end.is_taken() {
            let mut transmit = self.connection.transmit();
            transmit.leave(Queue::Senders, &mut self.turn);
            transmit.leave(Queue::Watchers, &mut self.watch);
            transmit.leave(Queue::End, &mut self.end);
            // It may have been its turn.
            transmit.wake_senders();
        }
    }
}
