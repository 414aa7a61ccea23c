//! Sending by polls, for the traits that work so.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame};

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::outbound::Queue;
use crate::connection::outbound::guard::OutboundGuard;
use crate::connection::outbound::wait_queue::{Manner, Place, Turn};
use crate::error::Error;

/// What one who polls has begun to wait for.
///
/// It stands in the line of the senders, as all do; but one who stops polling, as after a timeout, is passed once it was
/// called: see [`Manner::Poll`].
pub(crate) struct PollSender {
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

impl PollSender {
    pub(crate) fn new(connection: Arc<Connection>, hold: Hold) -> Self {
        let (turn, watch, end) = Default::default();
        Self { connection, hold, turn, watch, end, flush_end: None, closing: false }
    }

    /// Waits until a message may be accepted, and gives the lock under which it may.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<OutboundGuard<'_>, Error>> {
        let progress = ready!(tokio::task::coop::poll_proceed(cx));
        let mut outbound = self.connection.outbound();
        if let Some(error) = outbound.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        let turn = outbound.turn(&self.turn);
        if turn != Turn::Now {
            // One that gives way was called, and may be passed should it not come again.
            let manner = if turn == Turn::Soon { Manner::WOKEN } else { Manner::POLL };
            outbound.wait(Queue::Senders, &mut self.turn, manner, cx.waker());
            drop(outbound);
            if turn == Turn::Soon {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        progress.made_progress();
        if self.turn.is_taken() {
            outbound.leave(Queue::Senders, &mut self.turn);
            // There may be room for the next, too.
            outbound.wake_senders();
        }
        // A flush that was begun before does not cover what comes now.
        self.flush_end = None;
        Poll::Ready(Ok(outbound))
    }

    /// Waits until all that was accepted was handed to the transport.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut outbound = self.connection.outbound();
        if self.flush_end.is_none() && !outbound.is_blocked() {
            self.connection.write_locked(&mut outbound);
        }
        let end = *self.flush_end.get_or_insert(outbound.end());
        let Some(result) = outbound.flushed(end) else {
            outbound.wait(Queue::Watchers, &mut self.watch, Manner::Future, cx.waker());
            return Poll::Pending;
        };
        outbound.leave(Queue::Watchers, &mut self.watch);
        self.flush_end = None;
        Poll::Ready(result)
    }

    /// Closes with 1000, and waits until the connection has ended.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.closing {
            self.closing = true;
            let frame = CloseFrame::new(CloseCode::NORMAL, "").expect("1000 may be sent");
            self.connection.start_close(&frame);
        }
        let mut outbound = self.connection.outbound();
        if !outbound.is_finished() {
            outbound.wait(Queue::End, &mut self.end, Manner::Future, cx.waker());
            return Poll::Pending;
        }
        outbound.leave(Queue::End, &mut self.end);
        drop(outbound);
        Poll::Ready(self.connection.inbound().peer_close().map(drop))
    }
}

impl Drop for PollSender {
    fn drop(&mut self) {
        if self.turn.is_taken() || self.watch.is_taken() || self.end.is_taken() {
            let mut outbound = self.connection.outbound();
            outbound.leave(Queue::Senders, &mut self.turn);
            outbound.leave(Queue::Watchers, &mut self.watch);
            outbound.leave(Queue::End, &mut self.end);
            // It may have been its turn.
            outbound.wake_senders();
        }
    }
}
