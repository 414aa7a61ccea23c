//! The write path: which messages are written at once, and which replies are held back.
//!
//! A message is written in the call that accepts it, with one exception: the cork. A `WebSocket` that has just been handed a message
//! while more messages are in memory is working off a batch. Its replies are likely to be followed by more replies, so they are held
//! back and leave with one write:
//!
//! ```text
//! time ----------------------------------------------------------------------------------------->
//! transport   [1][2][3] arrive in one read
//! recv        1             2             3 (nothing more in memory)      waits
//! send            reply 1       reply 2       reply 3
//! queue           1             1 2           1 2 3 --write-->
//! driver          woken: writes if replies are still held back when this poll ends
//! ```
//!
//! Replies never stay in the queue for long, whatever the application does next:
//!
//! - It takes the last message of the batch: the reply to it is written together with all others.
//! - It receives again, and nothing is in memory: they are written before `recv` waits.
//! - It computes: the next reply finds that the first one is older than a millisecond, and all are written.
//! - It awaits something else, or returns: its poll ends, and the driver writes. Where no driver may run after this poll, as in
//!   `block_on` of a runtime with one thread, a waker that tokio drops or wakes at the end of the poll does it.
//! - It replies without end: 1,024 replies, or four times the high-water mark, are written.
//! - The runtime is dropped: the driver writes as it is dropped.
//!
//! Whether more messages are in memory is known to the `WebSocket` alone, in its [`Batch`](super::inbound::batch::Batch). No flag is
//! shared between threads, and a `Sender`, which is never part of a batch, always writes at once.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use tokio::task::yield_now;

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::outbound::Outbound;
use crate::connection::outbound::guard::OutboundGuard;
use crate::connection::outbound::wait_queue::{Place, Turn};
use crate::error::{Error, TrySendError};
use crate::message::Payload;
use crate::sync::{Poller, poller};

impl Connection {
    pub(crate) fn try_send<'a, M: Into<Payload<'a>>>(
        self: &Arc<Self>,
        message: M,
        hold: Hold,
    ) -> Result<(), TrySendError<M>> {
        let mut outbound = self.outbound();
        if outbound.closed().is_some() {
            return Err(TrySendError::Closed(message));
        }
        if outbound.turn(&Place::default()) != Turn::Now {
            return Err(TrySendError::Full(message));
        }
        let accepted = self.accept(outbound, message.into(), hold);
        debug_assert!(accepted.is_ok(), "an open connection with room accepts a message");
        Ok(())
    }

    /// Accepts a message for which there is room.
    #[inline]
    pub(crate) fn accept(
        self: &Arc<Self>,
        mut outbound: OutboundGuard<'_>,
        mut payload: Payload<'_>,
        hold: Hold,
    ) -> Result<(), Error> {
        let accepted = outbound.accept(&mut payload);
        self.write(outbound, hold);
        // What is left of the payload is dropped here, behind the lock: that may be the application's code.
        accepted
    }

    /// Writes, unless that is better left for later; gives the lock back.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn write(self: &Arc<Self>, mut outbound: OutboundGuard<'_>, hold: Hold) {
        if !outbound.is_blocked() {
            if hold == Hold::InBatch && !outbound.is_reply_due() {
                let is_first = outbound.holds_one();
                outbound.give_back();
                if is_first {
                    self.write_later();
                }
                return;
            }
            self.write_locked(&mut outbound);
        }
        outbound.give_back();
    }

    /// Writes all that waits, unless the transport takes no more.
    pub(crate) fn write_now(&self, mut outbound: OutboundGuard<'_>) {
        if !outbound.is_blocked() {
            self.write_locked(&mut outbound);
        }
        outbound.give_back();
    }

    /// Writes as much as the transport takes.
    #[inline(never)]
    pub(crate) fn write_locked(&self, outbound: &mut Outbound) {
        let was_blocked = outbound.is_blocked();
        if let Err(error) = outbound.write(&mut self.context()) {
            self.writing_failed(outbound, error);
        } else if outbound.is_blocked() && !was_blocked {
            // From here on the task waits for the transport, and knows since when.
            self.waker.set_task_waits(true);
            self.waker.wake_task();
        }
    }

    #[cold]
    fn writing_failed(&self, outbound: &mut Outbound, error: io::Error) {
        outbound.close_transport(Error::of_transport("writing to the peer failed", error));
        self.waker.wake_task();
    }

    /// Has what is held back written even if the application never calls again: when the poll under way has ended, by the
    /// connection's task or by us.
    #[inline(never)]
    fn write_later(self: &Arc<Self>) {
        match poller() {
            Poller::Task => self.waker.wake_task(),
            Poller::BlockOn => EndOfPoll::watch(self),
            Poller::Foreign => self.write_held(),
        }
    }

    /// Writes what is held back.
    pub(crate) fn write_held(&self) {
        let outbound = self.outbound();
        if outbound.holds() {
            self.write_now(outbound);
        }
    }

    /// Writes what it can, now that nobody will look after the connection any more.
    pub(crate) fn write_last(&self) {
        self.write_locked(&mut self.outbound());
    }
}

/// Finds the end of the poll under way: tokio wakes a waker that was deferred when the future has yielded, and drops it when
/// the future is ready, since then nobody is left to be woken.
struct EndOfPoll {
    /// Until it was woken.
    connection: Option<Arc<Connection>>,
}

thread_local! {
    /// One of this thread that was woken, so that a batch takes no allocation.
    static SPARE: Cell<Option<Arc<EndOfPoll>>> = const { Cell::new(None) };
}

impl EndOfPoll {
    fn watch(connection: &Arc<Connection>) {
        let mut end =
            SPARE.try_with(Cell::take).ok().flatten().unwrap_or_else(|| Arc::new(Self { connection: None }));
        if let Some(end) = Arc::get_mut(&mut end) {
            end.connection = Some(Arc::clone(connection));
        }
        let waker = Waker::from(Arc::clone(&end));
        // Its first poll defers the waker. Where there is nothing to defer to, nobody but us keeps `end`, and it writes as it is
        // dropped.
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
    }
}

impl Wake for EndOfPoll {
    fn wake(mut self: Arc<Self>) {
        self.wake_by_ref();
        if let Some(end) = Arc::get_mut(&mut self) {
            end.connection = None;
            // It fails only while the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Most of the time the reader has written it all.
        let holds = |connection: &&Arc<Connection>| connection.outbound().holds();
        if let Some(connection) = self.connection.as_ref().filter(holds) {
            connection.waker.wake_task();
        }
    }
}

impl Drop for EndOfPoll {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.write_held();
        }
    }
}
