//! The sending half, while it is locked.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::task::Waker;

use crate::sync::{Mutex, MutexGuard};
use crate::transmit::Transmit;

/// Access to a [`Transmit`]. Once that is given back, those are woken whom the access has given something to do.
///
/// Not before: a waker is code of the executor's, which may well call us.
pub(crate) struct Locked<'a>(Option<MutexGuard<'a, Transmit>>);

impl<'a> Locked<'a> {
    #[inline]
    pub(crate) fn new(transmit: &'a Mutex<Transmit>) -> Self {
        Self(Some(transmit.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Locked<'_> {
    /// What dropping it does, by a shorter way if nobody is to be woken.
    #[inline]
    pub(crate) fn give_back(mut self) {
        if self.woken.is_empty() {
            self.0 = None;
            std::mem::forget(self);
        }
    }

    #[cold]
    fn unlock_and_wake(&mut self) {
        let woken = std::mem::take(&mut self.woken);
        self.0 = None;
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.woken.is_empty() {
            self.unlock_and_wake();
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Transmit;

    fn deref(&self) -> &Transmit {
        self.0.as_ref().expect("it is locked until it is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Transmit {
        self.0.as_mut().expect("it is locked until it is dropped")
    }
}
