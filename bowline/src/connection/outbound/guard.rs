//! Access to the outbound half of a connection.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use crate::connection::outbound::Outbound;
use crate::sync::{Mutex, MutexGuard};

/// The lock of an [`Outbound`] half. After the guard has unlocked, it runs the foreign code that was
/// collected meanwhile: see [`Deferred`](crate::connection::outbound::deferred::Deferred).
///
/// The list is moved out of the half before the half is unlocked. Another thread may lock the half right
/// after that, and collects in a list of its own. Code that runs from the list may lock the half again, on
/// the same thread or another one.
///
/// The holder of the guard may change anything, so the next reply to a batch looks at the connection again:
/// see [`Connection::accept_free`](crate::connection::Connection::accept_free).
pub(crate) struct OutboundGuard<'a>(Option<MutexGuard<'a, Outbound>>);

impl<'a> OutboundGuard<'a> {
    #[inline]
    pub(crate) fn new(outbound: &'a Mutex<Outbound>) -> Self {
        outbound.lock().unwrap_or_else(PoisonError::into_inner).into()
    }
}

impl<'a> From<MutexGuard<'a, Outbound>> for OutboundGuard<'a> {
    #[inline]
    fn from(mut outbound: MutexGuard<'a, Outbound>) -> Self {
        outbound.end_free_replies();
        Self(Some(outbound))
    }
}

impl OutboundGuard<'_> {
    /// Unlocks, as a drop of the guard does. This way is shorter if there is nothing to run.
    #[inline]
    pub(crate) fn unlock(mut self) {
        if self.deferred.is_empty() {
            self.0 = None;
            std::mem::forget(self);
        }
    }

    /// Unlocks, and leaves the foreign code to the next guard. Returns whether there is any.
    pub(crate) fn unlock_only(mut self) -> bool {
        let is_left = !self.deferred.is_empty();
        self.0 = None;
        std::mem::forget(self);
        is_left
    }

    /// Unlocks, then runs the foreign code.
    #[cold]
    fn unlock_and_run(&mut self) {
        let deferred = std::mem::take(&mut self.deferred);
        self.0 = None;
        deferred.run();
    }
}

impl Drop for OutboundGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.deferred.is_empty() {
            self.unlock_and_run();
        }
    }
}

impl Deref for OutboundGuard<'_> {
    type Target = Outbound;

    fn deref(&self) -> &Outbound {
        self.0.as_ref().expect("the guard holds the lock until it is dropped")
    }
}

impl DerefMut for OutboundGuard<'_> {
    fn deref_mut(&mut self) -> &mut Outbound {
        self.0.as_mut().expect("the guard holds the lock until it is dropped")
    }
}
