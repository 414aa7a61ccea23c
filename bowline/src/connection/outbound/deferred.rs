//! Foreign code that runs once no lock is held.

use std::cell::Cell;
use std::task::Waker;

use bytes::Bytes;

use crate::connection::outbound::control::{ControlFrame, ControlHook};
use crate::error::Error;
use crate::transport::WriteTransport;

/// The largest capacity of a list that is kept as the spare.
const SPARE_CAPACITY: usize = 64;

thread_local! {
    /// An empty list of this thread, so that collecting takes no allocation.
    static SPARE: Cell<Vec<Deferred>> = const { Cell::new(Vec::new()) };
}

/// Foreign code that a locked half needs to run, and that runs after the lock.
///
/// A waker is an executor's code. A hook, and the drop of a waker, payload, stream or error, may be an
/// application's code. All of it may well call the connection, and would then wait for the lock that its own
/// thread holds:
///
/// ```text
/// send --locks outbound--> write --a payload is written--> drop(payload)
///                                                            '--the application's Drop calls try_send
///                                                                 '--locks outbound: waits forever
/// ```
pub(crate) enum Deferred {
    /// Wake a waiter.
    Wake(Waker),
    /// Call the application's function for control frames.
    Control(Box<(ControlHook, ControlFrame)>),
    DropWaker(#[expect(dead_code, reason = "its drop is what runs")] Waker),
    DropPayload(#[expect(dead_code, reason = "its drop is what runs")] Bytes),
    DropError(#[expect(dead_code, reason = "its drop is what runs")] Error),
    /// Drop the writable half of a transport that has ended in order.
    Forget(WriteTransport),
    /// Drop the writable half of a transport at once: bytes on their way may be lost.
    Abort(WriteTransport),
}

impl Deferred {
    fn run(self) {
        match self {
            Self::Wake(waker) => waker.wake(),
            Self::Control(call) => {
                let (hook, frame) = *call;
                hook.call(frame);
            }
            Self::Forget(transport) => transport.forget(),
            Self::Abort(transport) => transport.abort(),
            Self::DropWaker(_) | Self::DropPayload(_) | Self::DropError(_) => {}
        }
    }
}

/// Returns an empty list.
pub(crate) fn spare_list() -> Vec<Deferred> {
    SPARE.try_with(Cell::take).unwrap_or_default()
}

/// Runs everything in the list, and keeps the list as the spare of this thread. No lock may be held.
#[cold]
pub(crate) fn run_all(mut list: Vec<Deferred>) {
    list.drain(..).for_each(Deferred::run);
    if list.capacity() <= SPARE_CAPACITY {
        // This fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(list));
    }
}
