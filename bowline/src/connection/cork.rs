//! The write path: which messages are written at once, and which replies are held back.
//!
//! A message is written in the call that accepts it, with one exception: the cork. A `WebSocket` that has
//! just been handed a message while more messages are in memory is working off a batch. Its replies are
//! likely to be followed by more replies, so they are held back and leave with one write:
//!
//! ```text
//! time ----------------------------------------------------------------------------------------->
//! transport   [1][2][3] arrive in one read
//! recv        1             2             3 (nothing more in memory)      waits
//! send            reply 1       reply 2       reply 3
//! queue           1             1 2           1 2 3 --write-->
//! driver          woken: uncorks when this poll ends
//! ```
//!
//! The `WebSocket` alone knows whether more messages are in memory, from its
//! [`Batch`](super::inbound::batch::Batch). A `Sender` is never part of a batch, and always writes at once.
//!
//! A second condition makes sure that held replies never stay in the queue. `cork` wakes the driver, and
//! `corked` stays set until the driver has run. Replies are held back only while it is set, and only those of
//! the thread that corked. So whatever the application does next, the replies leave:
//!
//! - It takes the last message of the batch: the reply to it is written together with all others.
//! - It receives again, and nothing is in memory: `recv` uncorks before it waits.
//! - It computes: the clock shows one of the next replies that the first one has waited for a millisecond.
//! - It awaits something else, or returns: its poll ends, and the driver uncorks. Where the driver may never
//!   run after this poll, as in `block_on` of a runtime with one thread, a waker that tokio drops at the end
//!   of the poll does it.
//! - It replies without end: 1,024 replies, or four times the high-water mark, are written.
//! - The runtime is dropped: the driver writes as it is dropped.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    /// Accepts `message` if this is possible without waiting, and returns it otherwise.
    pub(crate) fn try_send<'a, M: Into<Payload<'a>>>(
        self: &Arc<Self>,
        message: M,
        hold: Hold,
    ) -> Result<(), TrySendError<M>> {
        let mut outbound = self.outbound();
        if outbound.closed().is_some() {
            return Err(TrySendError::Closed(message));
        }
        if outbound.ask_turn(&Place::default()) != Turn::Now {
            return Err(TrySendError::Full(message));
        }
        let accepted = self.accept(outbound, message.into(), hold);
        debug_assert!(accepted.is_ok(), "an open connection with room accepts a message");
        Ok(())
    }

    /// Accepts a message for which there is room, and writes as [`write`](Self::write) does.
    #[inline]
    pub(crate) fn accept(
        self: &Arc<Self>,
        mut outbound: OutboundGuard<'_>,
        mut payload: Payload<'_>,
        hold: Hold,
    ) -> Result<(), Error> {
        let accepted = outbound.accept(&mut payload);
        self.write(outbound, hold);
        // The rest of the payload is dropped here, after the lock: its drop may be the application's code.
        accepted
    }

    /// Writes and unlocks, unless a reply to a batch is better held back.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn write(self: &Arc<Self>, mut outbound: OutboundGuard<'_>, hold: Hold) {
        // A reply of another thread is never held back, since the thread that works off the batch may compute
        // for long.
        let is_reply = || hold == Hold::InBatch && self.corked.load(Ordering::SeqCst) == this_thread();
        if !outbound.is_blocked() && (!is_reply() || outbound.note_reply()) {
            self.write_locked(&mut outbound);
        }
        outbound.unlock();
    }

    /// Writes the whole queue and unlocks. A transport that is blocked is left to the driver.
    pub(crate) fn write_now(&self, mut outbound: OutboundGuard<'_>) {
        if !outbound.is_blocked() {
            self.write_locked(&mut outbound);
        }
        outbound.unlock();
    }

    /// Writes as much as the transport accepts, and has the driver go on if that is not all.
    #[inline(never)]
    pub(crate) fn write_locked(&self, outbound: &mut Outbound) {
        let was_blocked = outbound.is_blocked();
        if let Err(error) = outbound.write(&mut self.context()) {
            self.write_failed(outbound, error);
        } else if outbound.is_blocked() && !was_blocked {
            // The driver has to wait for the transport, and to know since when it waits.
            self.waker.set_driver_waits(true);
            self.waker.wake_driver();
        }
    }

    #[cold]
    fn write_failed(&self, outbound: &mut Outbound, error: io::Error) {
        outbound.close_transport(Error::of_transport("writing to the peer failed", error));
        self.waker.wake_driver();
    }

    /// Begins to hold back the replies to a batch. They are written when the poll under way has ended, even
    /// if the application never calls again.
    ///
    /// Within a task of tokio, the driver does so: it runs after this poll. `block_on` of a runtime with one
    /// thread may return from this poll without running any other task, so that [`EndOfPoll`] watches for the
    /// end. Without tokio, nobody says when the poll ends, so that nothing is held back.
    #[inline(never)]
    pub(crate) fn cork(self: &Arc<Self>) {
        let poller = poller();
        // Nobody knows when the tasks of the runtime will run, so that nothing is held back.
        let thread = if poller == Poller::Foreign { 0 } else { this_thread() };
        if self.corked.swap(thread, Ordering::SeqCst) != 0 {
            return;
        }
        if poller == Poller::BlockOn {
            EndOfPoll::watch(self);
        }
        self.waker.wake_driver();
    }

    /// Writes the replies that are held back. Nothing is held back from now on, until the `WebSocket`
    /// receives again.
    ///
    /// `corked` is cleared before the outbound half is locked, so that no held reply is left behind:
    ///
    /// ```text
    /// thread of the batch                        driver
    /// -------------------                        ------
    /// lock outbound, queue a reply
    /// corked is set: hold the reply back
    ///                                            corked = 0
    /// unlock
    ///                                            lock outbound, write the reply
    /// lock outbound, queue a reply
    /// corked is 0: write the reply
    /// ```
    ///
    /// In the other order, the driver could write an empty queue and unlock, the reply be held back, and only
    /// then `corked` be cleared: nobody would write the reply. `SeqCst` puts all changes of `corked` in one
    /// order with those of other threads; between a reply and the driver, the lock of the outbound half
    /// orders them as well.
    pub(crate) fn uncork(&self) {
        if self.corked.swap(0, Ordering::SeqCst) != 0 {
            self.write_now(self.outbound());
        }
    }

    /// Holds nothing back from now on. The caller writes the replies that were held back.
    pub(crate) fn end_cork(&self) {
        self.corked.store(0, Ordering::SeqCst);
    }

    /// Returns whether replies may be held back.
    #[inline]
    pub(crate) fn is_corked(&self) -> bool {
        self.corked.load(Ordering::SeqCst) != 0
    }

    /// Accepts nothing more, and writes as much as the transport accepts. No driver will look after the
    /// connection any more.
    pub(crate) fn write_last(&self, error: Error) {
        let mut outbound = self.outbound();
        // Both happen under one lock, so that everything that was accepted is written.
        outbound.stop_accepting(error);
        self.end_cork();
        self.write_locked(&mut outbound);
    }
}

thread_local! {
    /// Only the address counts, which differs between threads that run.
    static THREAD: u8 = const { 0 };
}

/// Returns a number that no other running thread has, and that is not 0.
#[inline]
fn this_thread() -> usize {
    THREAD.with(|thread| std::ptr::from_ref(thread).addr())
}

/// Detects the end of the poll under way, where no driver may run after it.
///
/// `yield_now` hands the waker to tokio's list of deferred wakers. The list has its wakers woken when the
/// polled future has returned `Pending`, and dropped when the future is ready, since then nobody is left to
/// be woken. Both therefore mean that the poll has ended:
///
/// ```text
/// watch --yield_now--> deferred --future is pending--> woken: the driver is woken, and will run
///                         '------future is ready----> dropped: the replies are written here
/// ```
///
/// A waker that tokio refuses to defer is dropped at the end of [`watch`](Self::watch), which writes at once.
struct EndOfPoll {
    /// Present until the waker is woken.
    connection: Option<Arc<Connection>>,
}

thread_local! {
    /// A watcher of this thread that was woken, so that most batches take no allocation.
    static SPARE: Cell<Option<Arc<EndOfPoll>>> = const { Cell::new(None) };
}

impl EndOfPoll {
    /// Writes the replies of `connection` at the end of the poll under way.
    fn watch(connection: &Arc<Connection>) {
        let mut end =
            SPARE.try_with(Cell::take).ok().flatten().unwrap_or_else(|| Arc::new(Self { connection: None }));
        if let Some(end) = Arc::get_mut(&mut end) {
            end.connection = Some(Arc::clone(connection));
        }
        let waker = Waker::from(Arc::clone(&end));
        // The first poll defers the waker. If there is no list to defer to, `end` is the last reference, and
        // its drop writes.
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
    }
}

impl Wake for EndOfPoll {
    fn wake(mut self: Arc<Self>) {
        self.wake_by_ref();
        if let Some(end) = Arc::get_mut(&mut self) {
            end.connection = None;
            // This fails only while the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Most of the time the reader has already written all of them.
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.is_corked()) {
            connection.waker.wake_driver();
        }
    }
}

impl Drop for EndOfPoll {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.uncork();
        }
    }
}
