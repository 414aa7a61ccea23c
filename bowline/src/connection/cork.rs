//! The cork: which messages are held back, to leave with one write.
//!
//! A message is written in the call that accepts it ([`write_path`](super::write_path)), with two exceptions:
//! replies to a batch, and the messages of a `SendBatch`.
//!
//! # Replies to a batch
//!
//! A `WebSocket` that has just been handed a message while more messages are in memory is working through a
//! batch. Its replies are likely to be followed by more replies, so they are held back and leave
//! with one write:
//!
//! ```text
//! time ----------------------------------------------------------------------------------------->
//! transport   [1][2][3] arrive in one read
//! recv        1             2             3 (nothing more in memory)      waits
//! send            reply 1       reply 2       reply 3
//! queue           1             1 2           1 2 3 --write-->
//! end of poll     awaited: whatever is still in the queue is written
//! ```
//!
//! A reply is held back only under two conditions. First, the `WebSocket` that sends the reply is working
//! through a [`Batch`](super::inbound::batch::Batch): the batch alone knows whether more messages are in
//! memory. A `Sender` is never part of a batch, and always writes at once.
//!
//! Second, something is about to write, so held replies never stay in the queue. On a runtime with several
//! threads, and for a foreign stream, `cork` wakes the driver. On a runtime with one thread, `cork` hands
//! tokio a waker that tokio calls or drops at the end of the poll. `cork` also sets `corked`, which stays set
//! until one of these has written. Only the thread that corked holds replies back, and only while `corked` is
//! set. So whatever the application does next, the replies leave:
//!
//! - It takes the last message of the batch: the reply to it is written together with all others.
//! - It receives again, and nothing is in memory: `recv` uncorks before it waits.
//! - It computes: one of the next replies finds that the first has waited a millisecond, and everything is
//!   written.
//! - It awaits something else, or returns: its poll ends, and the driver or the waker uncorks. A runtime of
//!   one thread may never run the driver after this poll, if the future that it blocks on is then ready, so
//!   the driver is not relied on there.
//! - It replies without end: 1,024 replies, or four times the high-water mark, are written.
//! - The runtime is dropped: the driver writes as it is dropped.
//!
//! # The messages of a `SendBatch`
//!
//! A `SendBatch` corks before each of its messages, holds the messages back, and writes them when it is
//! dropped. A guard that is leaked, or kept across an await, holds nothing back for longer than its poll. But
//! waking a driver would cost as much as five messages, and a broadcast would wake every driver in vain. So
//! the first batch of a poll spawns a task, which wakes the drivers of those connections only whose batches
//! are still open when the poll has ended:
//!
//! ```text
//! poll          batch A: cork, messages, drop: write   batch B: cork, messages, kept   ends
//! open batches  A                        none          B                               B
//! spawned task                                                                         wakes B's driver
//! ```
//!
//! On a runtime with one thread, the first batch of a poll hands tokio a waker instead, as replies do. That
//! waker writes the messages of all open batches. A foreign stream is left to its driver, as for replies.
//!
//! There are two more differences from replies. The age of the messages is not looked at, since the guard
//! says that more will follow. And if another thread has corked the connection, the message is written at
//! once: whoever uncorks may be due on that thread, which may compute for a long time.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::panicking;

use tokio::runtime::{Handle, Id};
use tokio::task::yield_now;

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::sync::{Mutex, MutexGuard, Poller, poller, spawn};

impl Connection {
    /// Begins to hold back the replies to a batch. They are written when the poll under way has ended, even
    /// if the application never calls again.
    ///
    /// On a runtime with several threads, the driver writes them. On a runtime with one thread, `block_on`
    /// may return before the driver has run, so [`EndOfPoll`] writes them, if need be to a foreign stream
    /// together with the driver. Without tokio, nobody says when the poll ends, so nothing is held back.
    ///
    /// If a `SendBatch` on another thread has just corked, its cork stays: whoever uncorks may be due on that
    /// thread only.
    #[inline(never)]
    pub(crate) fn cork(self: &Arc<Self>) {
        let poller = poller();
        if poller == Poller::Foreign || !self.try_cork_here() {
            return;
        }
        if poller == Poller::OneThread && !EndOfPoll::watch(Watched::Connection(Arc::clone(self))) {
            self.uncork();
        }
        if poller != Poller::OneThread || self.is_foreign {
            self.waker.wake_driver();
        }
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

    /// The poll that held messages back has ended, and the future of the runtime is not ready yet. So the
    /// messages are written now.
    ///
    /// Foreign code may defer a waker, and tokio panics if that happens in the call of a deferred waker. This
    /// is such a call, so a foreign stream is left to the driver, which has been woken. At least no later
    /// message is held back. Other foreign code that is due is left to the driver, too: wakers, and drops of
    /// payloads.
    #[cold]
    fn end_watch(&self) {
        let corked = self.corked.load(Ordering::SeqCst);
        if self.is_foreign && corked != 0 {
            let _ = self.corked.compare_exchange(corked, UNWATCHED, Ordering::SeqCst, Ordering::SeqCst);
        } else if self.corked.swap(0, Ordering::SeqCst) != 0 {
            let mut outbound = self.outbound();
            if !outbound.is_blocked() {
                self.write_locked(&mut outbound);
            }
            if outbound.unlock_only() {
                self.waker.wake_driver();
            }
        }
    }

    /// The poll that held messages back has ended, and the runtime's future is ready. So the messages are
    /// written now.
    fn end_poll(&self) {
        // As at the end of a `SendBatch`, a foreign stream is left to the driver while a panic is under way.
        if !(panicking() && self.is_foreign) {
            self.uncork();
        }
    }

    /// Begins to hold back the messages of a `SendBatch`, unless another thread has corked the connection.
    #[inline]
    pub(crate) fn cork_send_batch(self: &Arc<Self>) {
        if !self.is_corked_here() {
            self.open_send_batch();
        }
    }

    #[inline(never)]
    fn open_send_batch(self: &Arc<Self>) {
        if !self.try_cork_here() {
            return;
        }
        let ends = OpenBatches::add(self);
        if !ends || (self.is_foreign && poller() == Poller::OneThread) {
            self.waker.wake_driver();
        }
    }

    /// Corks the connection for this thread. Returns `false` if the connection is corked already.
    fn try_cork_here(&self) -> bool {
        self.corked.compare_exchange(0, this_thread(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Ends the cork of this thread, if there is one. The caller then locks the outbound half and writes, in
    /// the order of [`uncork`](Self::uncork).
    pub(crate) fn end_cork_here(self: &Arc<Self>) {
        if self.corked.compare_exchange(this_thread(), 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            OpenBatches::remove(self);
        }
    }

    /// Holds nothing back from now on. The caller writes the replies that were held back.
    pub(crate) fn end_cork(&self) {
        self.corked.store(0, Ordering::SeqCst);
    }

    /// Returns whether a message with this [`Hold`] is a reply that may be held back.
    ///
    /// A reply of another thread is never held back, since the thread that works through the batch may
    /// compute for a long time.
    #[inline]
    pub(crate) fn holds_back(&self, hold: Hold) -> bool {
        hold == Hold::InBatch && self.is_corked_here()
    }

    /// Returns whether this thread has corked the connection.
    #[inline]
    pub(crate) fn is_corked_here(&self) -> bool {
        self.corked.load(Ordering::SeqCst) == this_thread()
    }

    /// Returns whether replies may be held back.
    #[inline]
    pub(crate) fn is_corked(&self) -> bool {
        self.corked.load(Ordering::SeqCst) != 0
    }
}

/// The value of `corked` with which no thread's messages are held back, though the driver has not run yet.
const UNWATCHED: usize = 1;

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
/// watch --yield_now--> deferred --future is pending--> woken: the messages are written here or by the driver
///                         '------future is ready----> dropped: the messages are written here
/// ```
struct EndOfPoll {
    /// Present until the waker is woken.
    watched: Option<Watched>,
}

/// The messages that are held back until the end of a poll.
enum Watched {
    /// The messages of one connection, such as the replies to a batch.
    Connection(Arc<Connection>),
    /// The messages of all `SendBatch`es that are still open.
    Batches(Arc<Mutex<OpenBatches>>),
}

thread_local! {
    /// Watchers of this thread that were woken, so that most batches take no allocation.
    static SPARES: RefCell<Vec<Arc<EndOfPoll>>> = const { RefCell::new(Vec::new()) };
}

/// The most spare watchers of a thread: as many connections can work through a batch between two wake-ups.
const SPARES_MAX: usize = 64;

impl EndOfPoll {
    /// Has the messages written at the end of the poll under way. Returns `false` if no runtime polls on this
    /// thread, since nobody says then when that end is.
    fn watch(watched: Watched) -> bool {
        // This fails only while the thread ends.
        let spare = SPARES.try_with(|spares| spares.borrow_mut().pop()).ok().flatten();
        let mut end = spare.unwrap_or_else(|| Arc::new(Self { watched: None }));
        if let Some(end) = Arc::get_mut(&mut end) {
            end.watched = Some(watched);
        }
        let waker = Waker::from(Arc::clone(&end));
        // The first poll defers the waker.
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        drop(waker);
        // If there is no list to defer to, `end` is the last reference.
        Arc::get_mut(&mut end).is_none_or(|end| end.watched.take().is_none())
    }
}

impl Wake for EndOfPoll {
    fn wake(mut self: Arc<Self>) {
        let Some(end) = Arc::get_mut(&mut self) else { return };
        match end.watched.take() {
            // Most of the time the reader has already written all held replies.
            Some(Watched::Connection(connection)) if connection.is_corked() => connection.end_watch(),
            Some(Watched::Batches(batches)) => {
                for connection in OpenBatches::take(&batches) {
                    connection.end_watch();
                }
            }
            _ => {}
        }
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARES_MAX {
                spares.push(self);
            }
        });
    }

    /// Called if the waker can't be deferred, which [`watch`](Self::watch) notices.
    fn wake_by_ref(self: &Arc<Self>) {}
}

impl Drop for EndOfPoll {
    fn drop(&mut self) {
        match self.watched.take() {
            Some(Watched::Connection(connection)) => connection.end_poll(),
            Some(Watched::Batches(batches)) => {
                // Each by a drop of its own, so that a stream that panics stops nobody else's messages.
                let connections = OpenBatches::take(&batches).into_iter().map(Watched::Connection);
                drop(connections.map(|watched| Self { watched: Some(watched) }).collect::<Vec<_>>());
            }
            None => {}
        }
    }
}

/// The connections that a thread has corked for the `SendBatch`es of this poll, and whose batches are open.
///
/// ```text
/// no end is due --the first batch of a poll--> an end is due --it comes, or is dropped--> no end is due
/// ```
#[derive(Default)]
struct OpenBatches {
    connections: Vec<Arc<Connection>>,
    /// The runtime that has the waker or the task for the end of the poll. If this thread now runs another
    /// runtime, that end may not come for a long time.
    due_on: Option<Id>,
}

thread_local! {
    /// Behind a lock, since the task may run on another thread of its runtime.
    static OPEN_BATCHES: Arc<Mutex<OpenBatches>> = Arc::default();
}

impl OpenBatches {
    /// Has the messages of `connection` written when the poll under way has ended. Returns `false` if nobody
    /// knows when that is, because there is no runtime.
    fn add(connection: &Arc<Connection>) -> bool {
        let Ok(runtime) = Handle::try_current().map(|runtime| runtime.id()) else { return false };
        let Ok(batches) = OPEN_BATCHES.try_with(Arc::clone) else { return false };
        let mut open = lock(&batches);
        open.connections.push(Arc::clone(connection));
        let is_due = open.due_on.replace(runtime) == Some(runtime);
        drop(open);
        let watches = || EndOfPoll::watch(Watched::Batches(Arc::clone(&batches)));
        let is_due = is_due || (poller() == Poller::OneThread && watches());
        if !is_due {
            let end = EndOfBatches(batches);
            spawn(async move { drop(end) });
        }
        true
    }

    /// Ends the list: another batch begins a new one.
    fn take(batches: &Mutex<Self>) -> Vec<Arc<Connection>> {
        std::mem::take(&mut *lock(batches)).connections
    }

    /// Removes `connection`, whose batch has ended within its poll.
    fn remove(connection: &Arc<Connection>) {
        let _ = OPEN_BATCHES.try_with(|batches| {
            let mut open = lock(batches);
            let position = open.connections.iter().rposition(|other| Arc::ptr_eq(other, connection));
            // The guard of the batch has a reference of its own, so that nothing is dropped under the lock.
            position.map(|position| open.connections.swap_remove(position))
        });
    }
}

fn lock(batches: &Mutex<OpenBatches>) -> MutexGuard<'_, OpenBatches> {
    batches.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the drivers of the connections whose batches are still open, when the task that owns this value has
/// run, or is dropped with its runtime.
struct EndOfBatches(Arc<Mutex<OpenBatches>>);

impl Drop for EndOfBatches {
    fn drop(&mut self) {
        // Nothing foreign runs here, so that a stream that panics stops nobody else's messages.
        for connection in OpenBatches::take(&self.0) {
            connection.waker.wake_driver();
        }
    }
}
