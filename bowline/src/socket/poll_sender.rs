//! Sending through polls, for the traits `AsyncWrite` and `Sink`.
//!
//! A future gives its place in the queue of senders back when it is dropped. A trait object with `poll_*`
//! methods may be kept and never polled again, as after a timeout. Therefore its place is skipped once it was
//! woken in vain.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame};

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::outbound::Queue;
use crate::connection::outbound::guard::OutboundGuard;
use crate::connection::outbound::wait_queue::{Manner, Place, Turn};
use crate::error::Error;

/// A sender that is polled, with its places in the queues of the connection.
///
/// It waits in the queue of senders, in order of arrival. If it is not polled after it was woken, the senders
/// after it pass: see [`Manner::Poll`].
pub(crate) struct PollSender {
    pub(crate) connection: Arc<Connection>,
    /// The permission to hold back messages, if this sends on behalf of the `WebSocket`.
    #[cfg_attr(not(feature = "futures"), expect(dead_code, reason = "byte streams use that of their batch"))]
    pub(crate) hold: Hold,
    /// The place in the queue of senders.
    turn: Place,
    /// The place among the tasks that watch what is written.
    watch: Place,
    /// The place among the tasks that wait for the end.
    end: Place,
    /// The position in the outbound stream that a flush under way waits for.
    flush_end: Option<u64>,
    /// The closing handshake was started here.
    closing: bool,
}

impl PollSender {
    pub(crate) fn new(connection: Arc<Connection>, hold: Hold) -> Self {
        let (turn, watch, end) = Default::default();
        Self { connection, hold, turn, watch, end, flush_end: None, closing: false }
    }

    /// Waits until a message can be accepted, and returns the lock under which to accept it.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<OutboundGuard<'_>, Error>> {
        let progress = ready!(tokio::task::coop::poll_proceed(cx));
        let mut outbound = self.connection.outbound();
        if let Some(error) = outbound.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        let turn = outbound.ask_turn(&self.turn);
        if turn != Turn::Now {
            // A sender that gives way counts as woken, and is skipped if it does not come back.
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
            // There may be space for the next sender, too.
            outbound.wake_senders();
        }
        // A flush that was begun earlier does not cover the message that comes now.
        self.flush_end = None;
        Poll::Ready(Ok(outbound))
    }

    /// Has the next flush cover what is accepted now, although a flush has begun.
    #[cfg(feature = "futures")]
    pub(crate) fn restart_flush(&mut self) {
        self.flush_end = None;
    }

    /// Waits until the transport has taken all accepted messages.
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
        ready!(self.poll_finished(cx));
        Poll::Ready(self.connection.inbound().closing_result().map(drop))
    }

    /// Waits until the connection has ended, and returns how it ended for a reader.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_finished(cx));
        Poll::Ready(self.connection.inbound().outcome())
    }

    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut outbound = self.connection.outbound();
        if !outbound.is_finished() {
            outbound.wait(Queue::End, &mut self.end, Manner::Future, cx.waker());
            return Poll::Pending;
        }
        outbound.leave(Queue::End, &mut self.end);
        Poll::Ready(())
    }
}

impl Drop for PollSender {
    fn drop(&mut self) {
        if self.turn.is_taken() || self.watch.is_taken() || self.end.is_taken() {
            let mut outbound = self.connection.outbound();
            outbound.leave(Queue::Senders, &mut self.turn);
            outbound.leave(Queue::Watchers, &mut self.watch);
            outbound.leave(Queue::End, &mut self.end);
            // This may have been the sender whose turn it was.
            outbound.wake_senders();
        }
    }
}
