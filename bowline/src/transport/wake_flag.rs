//! A waker that remembers its calls, so that a task polls only the futures that have called it.
//!
//! The task of an HTTP/2 connection is woken for each message that one of its WebSockets sends. Without the
//! flag, each time it would ask the socket for bytes, the clock for the time and the server for its end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Wake, Waker};

use crate::sync::{AtomicBool, Mutex};

/// The flag of a future or stream, and its waker.
pub(crate) struct WakeFlag {
    shared: Arc<Shared>,
    /// The waker of `shared`.
    waker: Waker,
    /// The waker that `shared` has of the task.
    task: Waker,
}

struct Shared {
    woken: AtomicBool,
    /// The waker of the task that polls.
    task: Mutex<Waker>,
}

impl WakeFlag {
    /// Returns a flag that is set.
    pub(crate) fn new() -> Self {
        let task = Waker::noop();
        let shared = Arc::new(Shared { woken: AtomicBool::new(true), task: Mutex::new(task.clone()) });
        Self { waker: Waker::from(Arc::clone(&shared)), shared, task: task.clone() }
    }

    /// Returns a context whose waker sets the flag, and wakes the task of `cx`.
    pub(crate) fn context(&mut self, cx: &Context<'_>) -> Context<'_> {
        self.follow(cx);
        Context::from_waker(&self.waker)
    }

    /// Clears the flag, and returns `true` if it was set. From now on, it wakes the task of `cx`.
    pub(crate) fn take(&mut self, cx: &Context<'_>) -> bool {
        self.follow(cx);
        // Acquire: a poll that follows sees what had happened before the wake-up.
        self.shared.woken.swap(false, Ordering::Acquire)
    }

    /// Makes the flag wake the task of `cx`. A call that came before has set the flag.
    #[inline]
    fn follow(&mut self, cx: &Context<'_>) {
        if !self.task.will_wake(cx.waker()) {
            self.change_task(cx.waker());
        }
    }

    #[cold]
    fn change_task(&mut self, waker: &Waker) {
        self.task.clone_from(waker);
        let before = {
            let mut task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *task, self.task.clone())
        };
        // A waker may be the application's, whose drop is foreign code: the lock is released before.
        drop(before);
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: see `take`.
        self.woken.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.wake();
    }
}
