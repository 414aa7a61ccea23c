//! Tasks that wait, in order of arrival.

use std::collections::VecDeque;
use std::task::Waker;

/// A queue of tasks that wait for a change of the state it is in.
#[derive(Default)]
pub(crate) struct WaitQueue {
    /// In order of their tickets. The waker is taken when it is woken; the place stays until it is left.
    waiters: VecDeque<(u64, Option<Waker>)>,
    next_ticket: u64,
}

/// A place in a [`WaitQueue`], once one was needed.
#[derive(Default)]
pub(crate) struct Place(Option<u64>);

impl Place {
    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_some()
    }
}

impl WaitQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether nobody is in front of `place`.
    pub(crate) fn is_first(&self, place: &Place) -> bool {
        self.waiters.front().is_none_or(|(ticket, _)| place.0 == Some(*ticket))
    }

    /// Waits at `place`, at the end if it is a new one.
    pub(crate) fn wait(&mut self, place: &mut Place, waker: &Waker) {
        if let Some(position) = self.position(place) {
            let known = &mut self.waiters[position].1;
            if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                *known = Some(waker.clone());
            }
        } else {
            place.0 = Some(self.next_ticket);
            self.waiters.push_back((self.next_ticket, Some(waker.clone())));
            self.next_ticket += 1;
        }
    }

    /// Gives the place up.
    pub(crate) fn leave(&mut self, place: &mut Place) {
        if let Some(position) = self.position(place) {
            self.waiters.remove(position);
            if self.waiters.is_empty() {
                self.waiters = VecDeque::new();
            }
        }
        place.0 = None;
    }

    /// Takes the waker of the first who waits.
    pub(crate) fn take_first(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.waiters.front_mut().and_then(|(_, waker)| waker.take()));
    }

    /// Takes the wakers of all who wait.
    pub(crate) fn take_all(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.waiters.iter_mut().filter_map(|(_, waker)| waker.take()));
    }

    fn position(&self, place: &Place) -> Option<usize> {
        self.waiters.binary_search_by_key(&place.0?, |(ticket, _)| *ticket).ok()
    }
}
