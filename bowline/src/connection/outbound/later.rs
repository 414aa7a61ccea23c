//! Foreign code that waits until no lock is held.

use std::cell::Cell;
use std::task::Waker;

use bytes::Bytes;

use crate::error::Error;
use crate::transport::WriteTransport;

/// The most capacity of a spare list.
const SPARE_CAPACITY: usize = 64;

thread_local! {
    /// An empty list of this thread, so that collecting takes no allocation.
    static SPARE: Cell<Vec<Later>> = const { Cell::new(Vec::new()) };
}

/// Foreign code that a locked half has come to run: it runs after the lock.
///
/// A waker is an executor's code, and the drop of a waker, payload, stream or error may be an application's. All of it
/// may well call the connection, whose locks it would wait for on the thread that holds them.
pub(crate) enum Later {
    Wake(Waker),
    DropWaker(#[expect(dead_code, reason = "it is dropped")] Waker),
    DropPayload(#[expect(dead_code, reason = "it is dropped")] Bytes),
    DropError(#[expect(dead_code, reason = "it is dropped")] Error),
    Forget(WriteTransport),
    Abort(WriteTransport),
}

impl Later {
    fn run(self) {
        match self {
            Self::Wake(waker) => waker.wake(),
            Self::Forget(transport) => transport.forget(),
            Self::Abort(transport) => transport.abort(),
            Self::DropWaker(_) | Self::DropPayload(_) | Self::DropError(_) => {}
        }
    }
}

/// Returns a list to collect in.
pub(crate) fn spare_list() -> Vec<Later> {
    SPARE.try_with(Cell::take).unwrap_or_default()
}

#[cold]
pub(crate) fn run_all(mut list: Vec<Later>) {
    list.drain(..).for_each(Later::run);
    if list.capacity() <= SPARE_CAPACITY {
        // It fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(list));
    }
}
