//! Who is woken when the transport is ready.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The connection's own waker, for both directions of its transport.
///
/// A transport remembers one waker a direction, or only one at all. So each poll, whoever makes it, gives it this
/// one, and it wakes those who wait at the time: the reader if there is one, and the connection's task. A caller's
/// waker never reaches the transport.
#[derive(Default)]
pub(crate) struct Signals {
    slots: Mutex<Slots>,
    /// The transport called since [`begin_read`](Self::begin_read) and found no reader.
    missed: AtomicBool,
}

#[derive(Default)]
struct Slots {
    reader: Option<Waker>,
    task: Option<Waker>,
    /// The connection's task waits for the transport too, beside a reader.
    task_waits: bool,
    /// The connection's task will see by itself whether a reader that was woken has come, and wants no waking for it.
    task_watches: bool,
}

impl Signals {
    /// To be called before the transport is polled for bytes.
    pub(crate) fn begin_read(&self) {
        self.missed.store(false, Ordering::SeqCst);
    }

    /// A reader goes to sleep, after the transport had nothing; `false` if that has changed since.
    pub(crate) fn sleep_reader(&self, waker: &Waker) -> bool {
        let mut slots = self.slots();
        if self.missed.load(Ordering::SeqCst) {
            return false;
        }
        let earlier = slots.reader.replace(waker.clone());
        drop(slots);
        drop(earlier);
        true
    }

    /// The reader has gone, and whether it was asleep.
    pub(crate) fn remove_reader(&self) -> bool {
        let reader = self.slots().reader.take();
        reader.is_some()
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
        let reader = self.slots().reader.take();
        reader.inspect(Waker::wake_by_ref);
    }

    pub(crate) fn wake_task(&self) {
        let task = self.slots().task.clone();
        task.inspect(Waker::wake_by_ref);
    }

    /// The waker of the connection's task; `None` once it has ended.
    pub(crate) fn set_task(&self, waker: Option<&Waker>) {
        let mut slots = self.slots();
        match (&mut slots.task, waker) {
            (Some(known), Some(waker)) => known.clone_from(waker),
            (task, waker) => *task = waker.cloned(),
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
        let reader = slots.reader.take();
        // Also if there is one: it may be the waker of an earlier poll, while a later one is about to go to sleep.
        self.missed.store(true, Ordering::SeqCst);
        // A reader need not come, though it was woken: its future may be kept without being polled. The task looks after
        // that, but is woken for it only once in a while.
        let watched = slots.task_watches;
        slots.task_watches |= reader.is_some();
        let task = if slots.task_waits || !watched { slots.task.clone() } else { None };
        drop(slots);
        reader.inspect(Waker::wake_by_ref);
        task.inspect(Waker::wake_by_ref);
    }
}
