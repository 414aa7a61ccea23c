//! Tasks that wait, in order of arrival.

use std::collections::VecDeque;
use std::task::Waker;

/// A queue of tasks that wait for a change of the state it is in. As long as nobody waits it is a pointer.
#[derive(Default)]
pub(crate) struct WaitQueue(Option<Box<Waiters>>);

#[derive(Default)]
struct Waiters {
    /// In order of their tickets. The waker is taken when it is woken; the place stays until it is left.
    queue: VecDeque<(u64, Option<Waker>)>,
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
        self.0.is_none()
    }

    /// Whether nobody is in front of `place`.
    pub(crate) fn is_first(&self, place: &Place) -> bool {
        let first = self.0.as_ref().and_then(|waiters| waiters.queue.front());
        first.is_none_or(|(ticket, _)| place.0 == Some(*ticket))
    }

    /// Waits at `place`, at the end if it is a new one.
    pub(crate) fn wait(&mut self, place: &mut Place, waker: &Waker) {
        let waiters = self.0.get_or_insert_default();
        if let Some(position) = waiters.position(place) {
            let known = &mut waiters.queue[position].1;
            if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                *known = Some(waker.clone());
            }
        } else {
            place.0 = Some(waiters.next_ticket);
            waiters.queue.push_back((waiters.next_ticket, Some(waker.clone())));
            waiters.next_ticket += 1;
        }
    }

    /// Gives the place up.
    pub(crate) fn leave(&mut self, place: &mut Place) {
        if let Some(waiters) = &mut self.0 {
            if let Some(position) = waiters.position(place) {
                waiters.queue.remove(position);
            }
            if waiters.queue.is_empty() {
                self.0 = None;
            }
        }
        place.0 = None;
    }

    /// Takes the waker of the first who waits.
    pub(crate) fn take_first(&mut self, woken: &mut Vec<Waker>) {
        let first = self.0.as_mut().and_then(|waiters| waiters.queue.front_mut());
        woken.extend(first.and_then(|(_, waker)| waker.take()));
    }

    /// Takes the wakers of all who wait.
    pub(crate) fn take_all(&mut self, woken: &mut Vec<Waker>) {
        let all = self.0.iter_mut().flat_map(|waiters| waiters.queue.iter_mut());
        woken.extend(all.filter_map(|(_, waker)| waker.take()));
    }
}

impl Waiters {
    fn position(&self, place: &Place) -> Option<usize> {
        self.queue.binary_search_by_key(&place.0?, |(ticket, _)| *ticket).ok()
    }
}
