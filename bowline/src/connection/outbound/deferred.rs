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
    static SPARE: Cell<Option<Box<Calls>>> = const { Cell::new(None) };
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
    DropAttachment(#[expect(dead_code, reason = "its drop is what runs")] Box<dyn Send>),
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
            Self::DropWaker(_) | Self::DropPayload(_) | Self::DropError(_) | Self::DropAttachment(_) => {}
        }
    }
}

/// A list of foreign code that runs once no lock is held. An empty list takes one word and no allocation.
#[derive(Default)]
pub(crate) struct DeferredList(Option<Box<Calls>>);

/// The content of a list, which has at least one element unless it is a spare.
#[derive(Default)]
struct Calls(Vec<Deferred>);

impl DeferredList {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn push(&mut self, deferred: Deferred) {
        // The spare is missing for a moment while this thread runs a list, and while the thread ends.
        let spare = || SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default();
        self.0.get_or_insert_with(spare).0.push(deferred);
    }

    pub(crate) fn extend(&mut self, deferred: impl IntoIterator<Item = Deferred>) {
        deferred.into_iter().for_each(|deferred| self.push(deferred));
    }

    /// Runs everything in the list, and keeps the memory of the list for this thread. No lock may be held.
    #[cold]
    pub(crate) fn run(self) {
        let Some(mut calls) = self.0 else { return };
        calls.0.drain(..).for_each(Deferred::run);
        if calls.0.capacity() <= SPARE_CAPACITY {
            // This fails only while the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(Some(calls)));
        }
    }
}
