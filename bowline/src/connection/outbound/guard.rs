//! Access to the outbound half of a connection.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use crate::connection::outbound::Outbound;
use crate::connection::outbound::later::run_all;
use crate::sync::{Mutex, MutexGuard};

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
