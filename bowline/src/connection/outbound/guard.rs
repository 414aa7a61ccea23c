//! The sending half, while it is locked, and what has to wait until it no longer is.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::task::Waker;

use bytes::Bytes;

use crate::connection::outbound::Outbound;
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard};
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
fn run_all(mut list: Vec<Later>) {
    list.drain(..).for_each(Later::run);
    if list.capacity() <= SPARE_CAPACITY {
        // It fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(list));
    }
}

/// Access to a [`Outbound`]. Once that is given back, the foreign code runs that the access has come to run.
pub(crate) struct OutboundGuard<'a>(Option<MutexGuard<'a, Outbound>>);

impl<'a> OutboundGuard<'a> {
    #[inline]
    pub(crate) fn new(outbound: &'a Mutex<Outbound>) -> Self {
        Self(Some(outbound.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl OutboundGuard<'_> {
    /// What dropping it does, by a shorter way if nothing is to be run.
    #[inline]
    pub(crate) fn give_back(mut self) {
        if self.later.is_empty() {
            self.0 = None;
            std::mem::forget(self);
        }
    }

    #[cold]
    fn unlock_and_run(&mut self) {
        let later = std::mem::take(&mut self.later);
        self.0 = None;
        run_all(later);
    }
}

impl Drop for OutboundGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.later.is_empty() {
            self.unlock_and_run();
        }
    }
}

impl Deref for OutboundGuard<'_> {
    type Target = Outbound;

    fn deref(&self) -> &Outbound {
        self.0.as_ref().expect("it is locked until it is dropped")
    }
}

impl DerefMut for OutboundGuard<'_> {
    fn deref_mut(&mut self) -> &mut Outbound {
        self.0.as_mut().expect("it is locked until it is dropped")
    }
}
