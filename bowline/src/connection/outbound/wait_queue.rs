//! Tasks that wait for a change of a locked state, in order of arrival.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

use crate::connection::outbound::later::Later;

/// A queue of tasks that wait for a change of the state the queue is in. An empty queue is one pointer.
///
/// Wakers are neither woken nor dropped here: both may run foreign code, and the state is locked. They go to `later`,
/// to be dealt with after the lock.
#[derive(Default)]
pub(crate) struct WaitQueue(Option<Box<Waiters>>);

#[derive(Default)]
struct Waiters {
    /// In order of their tickets.
    queue: VecDeque<Waiter>,
    /// How many tickets were given out, which is the newest of them.
    tickets: u64,
}

struct Waiter {
    ticket: NonZeroU64,
    /// Taken when the waiter is called; the place stays until it is left.
    waker: Option<Waker>,
    manner: Manner,
}

/// How one waits, which decides whether those behind may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A future, which leaves its place when it is dropped: nobody passes.
    Future,
    /// Polls by hand, which may stop at any time without a word: one who was called and does not come is passed.
    ///
    /// ```text
    /// Waits --called--> Called --seen by one behind--> Missed (passed from then on)
    ///   ^                 ^ '-- polled, no room --.        |
    ///   |                 '-- polled, gives way --+--------'
    ///   '------------------------------------------'
    /// ```
    Poll(Attention),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    /// Not called since the last poll.
    Waits,
    Called,
    /// One behind it has given way to it once.
    Missed,
}

impl Manner {
    pub(crate) const POLL: Self = Self::Poll(Attention::Waits);
    pub(crate) const CALLED: Self = Self::Poll(Attention::Called);
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the turn of whoever asked.
    Now,
    /// All in front were called and may be about to come: ask again after other tasks have run.
    Soon,
    Later,
}

/// A place in a [`WaitQueue`], once one was needed.
#[derive(Default)]
pub(crate) struct Place(Option<NonZeroU64>);

impl Place {
    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_some()
    }
}

impl WaitQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is the turn of the one at `place`.
    #[inline]
    pub(crate) fn turn(&mut self, place: &Place) -> Turn {
        match &mut self.0 {
            None => Turn::Now,
            Some(waiters) => waiters.turn(place),
        }
    }

    /// Waits at `place`, at the end if it is a new one.
    pub(crate) fn wait(&mut self, place: &mut Place, manner: Manner, waker: &Waker, later: &mut Vec<Later>) {
        let waiters = self.0.get_or_insert_default();
        if let Some(position) = waiters.position(place) {
            let waiter = &mut waiters.queue[position];
            waiter.manner = manner;
            if !waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                later.extend(waiter.waker.replace(waker.clone()).map(Later::DropWaker));
            }
        } else {
            waiters.tickets += 1;
            let ticket = NonZeroU64::new(waiters.tickets).expect("nobody waits for 2^64 others");
            place.0 = Some(ticket);
            waiters.queue.push_back(Waiter { ticket, waker: Some(waker.clone()), manner });
        }
    }

    /// Gives the place up.
    pub(crate) fn leave(&mut self, place: &mut Place, later: &mut Vec<Later>) {
        if let Some(waiters) = &mut self.0 {
            if let Some(position) = waiters.position(place) {
                let waiter = waiters.queue.remove(position);
                later.extend(waiter.and_then(|waiter| waiter.waker).map(Later::DropWaker));
            }
            if waiters.queue.is_empty() {
                self.0 = None;
            }
        }
        place.0 = None;
    }

    /// Calls the first who waits; if that is one who polls, all up to the first future, as they might not come.
    pub(crate) fn call_first(&mut self, later: &mut Vec<Later>) {
        for waiter in self.0.iter_mut().flat_map(|waiters| &mut waiters.queue) {
            later.extend(waiter.waker.take().map(Later::Wake));
            match &mut waiter.manner {
                Manner::Future => return,
                Manner::Poll(attention @ Attention::Waits) => *attention = Attention::Called,
                Manner::Poll(_) => {}
            }
        }
    }

    /// Calls all who wait.
    pub(crate) fn call_all(&mut self, later: &mut Vec<Later>) {
        let all = self.0.iter_mut().flat_map(|waiters| &mut waiters.queue);
        later.extend(all.filter_map(|waiter| waiter.waker.take()).map(Later::Wake));
    }
}

impl Waiters {
    fn turn(&mut self, place: &Place) -> Turn {
        let mut turn = Turn::Now;
        for waiter in &mut self.queue {
            if place.0 == Some(waiter.ticket) {
                break;
            }
            match &mut waiter.manner {
                Manner::Future | Manner::Poll(Attention::Waits) => return Turn::Later,
                Manner::Poll(attention @ Attention::Called) => {
                    *attention = Attention::Missed;
                    turn = Turn::Soon;
                }
                Manner::Poll(Attention::Missed) => {}
            }
        }
        turn
    }

    fn position(&self, place: &Place) -> Option<usize> {
        self.queue.binary_search_by_key(&place.0?, |waiter| waiter.ticket).ok()
    }
}
