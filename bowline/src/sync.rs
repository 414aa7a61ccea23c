//! Locks, atomics and `spawn`: from std and tokio, or from loom in the models that try all interleavings of
//! threads.
//!
//! The crate `bowline-interleavings` compiles this file by its path, with `--cfg bowline_loom`.

#[cfg(bowline_loom)]
#[allow(unused_imports, reason = "the tests compile this file too, and use one of them")]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(bowline_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(bowline_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(not(bowline_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Spawns the task of a connection.
#[cfg(not(bowline_loom))]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// The executor that polls a future.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "the models compile this file too")]
pub(crate) enum Poller {
    /// A tokio runtime whose threads run its tasks, whatever becomes of this poll.
    Task,
    /// A tokio runtime of one thread. Once the future that it blocks on is ready, nothing runs its tasks.
    OneThread,
    /// An executor other than tokio.
    Foreign,
}

/// Returns the executor that polls on this thread.
#[cfg(not(bowline_loom))]
pub(crate) fn poller() -> Poller {
    use tokio::runtime::{Handle, RuntimeFlavor};

    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::CurrentThread) => Poller::OneThread,
        Ok(_) => Poller::Task,
        Err(_) => Poller::Foreign,
    }
}

/// Returns the executor of the models, in which each task is a thread of its own.
#[cfg(bowline_loom)]
#[allow(dead_code, reason = "the tests compile this file too")]
pub(crate) fn poller() -> Poller {
    Poller::Task
}

#[cfg(bowline_loom)]
#[allow(unused_imports, reason = "the tests compile this file too, and each uses one of them")]
pub(crate) use self::threads::{block_on, spawn};

/// An executor with one thread for each task. (The one of loom prints at each wait.)
#[cfg(bowline_loom)]
mod threads {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    use loom::sync::{Condvar, Mutex};

    #[derive(Default)]
    struct ThreadWaker {
        woken: Mutex<bool>,
        wakes: Condvar,
    }

    impl Wake for ThreadWaker {
        fn wake(self: Arc<Self>) {
            *self.woken.lock().expect("no thread panics while holding the lock") = true;
            self.wakes.notify_one();
        }
    }

    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        loom::thread::spawn(|| block_on(task));
    }

    pub(crate) fn block_on<T>(task: impl Future<Output = T>) -> T {
        let thread = Arc::new(ThreadWaker::default());
        let waker = Waker::from(Arc::clone(&thread));
        let mut task = pin!(task);
        loop {
            if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            let mut woken = thread.woken.lock().expect("no thread panics while holding the lock");
            while !std::mem::take(&mut *woken) {
                woken = thread.wakes.wait(woken).expect("no thread panics while holding the lock");
            }
        }
    }
}
