//! Who is woken when the transport is ready.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use crate::sync::{AtomicBool, Mutex, MutexGuard};
use crate::transport::polling;

/// The connection's own waker, for both directions of its transport.
///
/// A transport remembers one waker a direction, or only one at all. So each poll, whoever makes it, gives it this
/// one, and it wakes those who wait at the time: the reader if there is one, and the connection's task. A caller's
/// waker never reaches the transport.
///
/// The reader's waker is foreign: it is neither woken nor dropped under a lock of the connection. A transport that calls
/// while it is polled does so under such a lock, so that the reader is then left to the task. The task's own waker is
/// tokio's, which only schedules, and may be woken anywhere.
///
/// Its size counts: measured, 8 bytes more are 100 more of resident memory, as what fits between tokio's blocks then does not.
#[derive(Default)]
pub(crate) struct Signals {
    slots: Mutex<Slots>,
    /// The transport called since [`begin_read`](Self::begin_read). Set with `slots` locked.
    called: AtomicBool,
    /// There is a reader in `slots`, at least as far as the reader itself knows.
    asleep: AtomicBool,
    /// Since the application was handed something, nobody has touched the receiving half, in which nothing was left for it.
    /// Changed with that half locked.
    quiet: AtomicBool,
}

#[derive(Default)]
struct Slots {
    reader: Option<Waker>,
    task: Option<Waker>,
    /// The connection's task waits for the transport too, beside a reader.
    task_waits: bool,
    /// The connection's task will see by itself whether a reader that was woken has come, and wants no waking for it.
    task_watches: bool,
    /// The transport called while it was polled: the task is to wake the reader.
    reader_is_due: bool,
}

impl Signals {
    /// To be called before the transport is polled for bytes.
    pub(crate) fn begin_read(&self) {
        if self.called.load(Ordering::Acquire) {
            self.called.swap(false, Ordering::AcqRel);
        }
    }

    /// Whether the transport, having had nothing since [`begin_read`](Self::begin_read), has called since.
    #[inline]
    pub(crate) fn was_called(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }

    /// A reader goes to sleep, after the transport had nothing; `false` if that has changed since. The waker of an earlier poll is
    /// `retired`: it is to be dropped once no lock is held.
    pub(crate) fn sleep_reader(&self, waker: &Waker, retired: &mut Option<Waker>) -> bool {
        let mut slots = self.slots();
        if self.called.load(Ordering::Acquire) {
            return false;
        }
        *retired = slots.reader.replace(waker.clone());
        self.asleep.store(true, Ordering::Relaxed);
        true
    }

    /// The same for a reader that has not looked at the receiving half, if there is no need to.
    #[inline]
    pub(crate) fn sleep_in_quiet(&self, waker: &Waker) -> bool {
        self.quiet.load(Ordering::Relaxed)
            && !self.called.load(Ordering::Relaxed)
            && self.sleep_if_quiet(waker)
    }

    #[inline(never)]
    fn sleep_if_quiet(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut slots = self.slots();
        // Again, now that it is locked: whoever has since changed that half for a reader wakes it, through this lock. In this
        // order, as whoever reads makes it unquiet first, and forgets the call then.
        if self.called.load(Ordering::Acquire) || !self.quiet.load(Ordering::Relaxed) {
            drop(slots);
            return false;
        }
        let retired = slots.reader.replace(waker);
        self.asleep.store(true, Ordering::Relaxed);
        drop(slots);
        drop(retired);
        true
    }

    pub(crate) fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Whether there is a reader that was not woken, as far as the reader itself knows.
    #[inline]
    pub(crate) fn has_sleeping_reader(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// The reader has gone; its waker, if it was asleep, is to be dropped once no lock is held.
    #[inline]
    #[must_use = "it is to be dropped once no lock is held"]
    pub(crate) fn remove_reader(&self) -> Option<Waker> {
        if !self.asleep.load(Ordering::Relaxed) {
            return None;
        }
        self.take_reader(&mut self.slots())
    }

    fn take_reader(&self, slots: &mut Slots) -> Option<Waker> {
        self.asleep.store(false, Ordering::Relaxed);
        slots.reader.take()
    }

    pub(crate) fn has_reader(&self) -> bool {
        self.slots().reader.is_some()
    }

    /// Whether a reader is asleep; then the connection's task need not watch it.
    pub(crate) fn leave_to_reader(&self) -> bool {
        let mut slots = self.slots();
        slots.task_watches &= slots.reader.is_none();
        slots.reader.is_some()
    }

    /// Whether a reader was woken that the connection's task has to watch.
    pub(crate) fn is_watched(&self) -> bool {
        self.slots().task_watches
    }

    /// Sets whether the connection's task will see by itself what becomes of a reader.
    pub(crate) fn watch(&self, watches: bool) {
        self.slots().task_watches = watches;
    }

    pub(crate) fn wake_reader(&self) {
        let reader = self.take_reader(&mut self.slots());
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(crate) fn wake_task(&self) {
        let task = self.slots().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The waker of the connection's task; `None` once it has ended. Wakes a reader that was left to the task.
    pub(crate) fn set_task(&self, waker: Option<&Waker>) {
        let mut slots = self.slots();
        match (&mut slots.task, waker) {
            (Some(known), Some(waker)) => known.clone_from(waker),
            (task, waker) => *task = waker.cloned(),
        }
        if std::mem::take(&mut slots.reader_is_due) {
            let reader = self.take_reader(&mut slots);
            drop(slots);
            reader.into_iter().for_each(Waker::wake);
        }
    }

    /// Has the connection's task woken even if there is a reader, or not.
    pub(crate) fn set_task_waits(&self, waits: bool) {
        self.slots().task_waits = waits;
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut slots = self.slots();
        let reader = if polling::is_polled(Arc::as_ptr(self).addr()) {
            slots.reader_is_due |= slots.reader.is_some();
            None
        } else {
            self.take_reader(&mut slots)
        };
        // Also if there is one: it may be the waker of an earlier poll, while a later one is about to go to sleep.
        // A swap, as `begin_read` has one: whichever of them is later has seen all that was before the other.
        self.called.swap(true, Ordering::AcqRel);
        // A reader need not come, though it was woken: its future may be kept without being polled. The task looks after
        // that, but is woken for it only once in a while.
        let watched = slots.task_watches;
        slots.task_watches |= reader.is_some();
        let wakes_task = slots.task_waits || slots.reader_is_due || !watched;
        let task = if wakes_task { slots.task.clone() } else { None };
        drop(slots);
        reader.into_iter().chain(task).for_each(Waker::wake);
    }
}
