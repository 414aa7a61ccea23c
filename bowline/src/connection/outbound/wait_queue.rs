//! Tasks that wait for a change of a locked state, in order of arrival.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

use crate::connection::outbound::deferred::{Deferred, DeferredList};

/// A queue of tasks that wait for a change of the locked state that contains the queue. An empty queue is one
/// pointer.
///
/// The queue neither wakes nor drops a waker: both may run foreign code, and the state is locked. Wakers are
/// pushed to `deferred` instead, which runs after the lock.
///
/// # Turns
///
/// Two kinds of waiters stand in one line, in order of arrival. A future leaves its place when it is dropped,
/// so a future in front is always a reason to wait. A hand-polled waiter, such as a `Sink`, may silently stop
/// polling. Such a waiter keeps its place, but must not hold up the others forever:
///
/// ```text
/// line: P (hand-polled, has stopped), F (a future)
///
/// room in the write buffer   wake_first: P is woken; so is F, as P might never be polled
/// F is polled                ask_turn: P was woken but not polled, and is marked as missed; F yields (Soon)
/// other tasks run            P had the time to be polled first
/// F is polled                ask_turn: P was missed already: F passes P (Now)
/// ```
///
/// Without the yield, F could be polled before P by chance, and P would lose its turn although P was about to
/// be polled. Without the mark, F would yield to P again and again.
#[derive(Default)]
pub(crate) struct WaitQueue(Option<Box<Waiters>>);

#[derive(Default)]
struct Waiters {
    /// The waiters, in order of their tickets.
    queue: VecDeque<Waiter>,
    /// The number of tickets issued so far, which is the newest ticket.
    tickets: u64,
}

struct Waiter {
    ticket: NonZeroU64,
    /// Taken when the waiter is woken. The waiter keeps its place until it leaves.
    waker: Option<Waker>,
    manner: Manner,
}

/// The manner of waiting, which decides whether later waiters may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A future, which leaves its place when it is dropped. Nobody passes it.
    Future,
    /// A hand-polled waiter, which may silently stop polling. If the waiter was woken and is not polled,
    /// others pass it.
    ///
    /// ```text
    /// Waiting --wake_first--> Woken --a later waiter asks for its turn--> Missed (passed from now on)
    ///
    /// any state --polled again: Turn::Later--> Waiting
    /// any state --polled again: Turn::Soon---> Woken
    /// ```
    Poll(Attention),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    /// Not woken since the last poll.
    Waiting,
    /// Woken since the last poll, or about to be polled again.
    Woken,
    /// A later waiter has yielded to this one once.
    Missed,
}

impl Manner {
    /// A hand-polled waiter that was not woken.
    pub(crate) const POLL: Self = Self::Poll(Attention::Waiting);
    /// A hand-polled waiter that has yielded, and will therefore be polled again.
    pub(crate) const WOKEN: Self = Self::Poll(Attention::Woken);
}

/// The answer to a caller that asks for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The caller may go ahead.
    Now,
    /// All waiters in front were woken and may be about to be polled. The caller has to ask again after other
    /// tasks have run.
    Soon,
    /// Someone in front waits, or there is no room: the caller has to wait.
    Later,
}

/// A place in a [`WaitQueue`], or none yet.
#[derive(Default)]
pub(crate) struct Place(Option<NonZeroU64>);

impl Place {
    /// Returns whether the place is in a queue.
    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_some()
    }
}

impl WaitQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns whether it is the turn of the waiter at `place`. Marks the hand-polled waiters in front that
    /// were woken and have not been polled.
    #[inline]
    pub(crate) fn ask_turn(&mut self, place: &Place) -> Turn {
        match &mut self.0 {
            None => Turn::Now,
            Some(waiters) => waiters.ask_turn(place),
        }
    }

    /// Waits at `place`, which is added at the end of the queue if it is new.
    pub(crate) fn wait(
        &mut self,
        place: &mut Place,
        manner: Manner,
        waker: &Waker,
        deferred: &mut DeferredList,
    ) {
        let waiters = self.0.get_or_insert_default();
        if let Some(position) = waiters.position(place) {
            let waiter = &mut waiters.queue[position];
            waiter.manner = manner;
            if !waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                deferred.extend(waiter.waker.replace(waker.clone()).map(Deferred::DropWaker));
            }
        } else {
            waiters.tickets += 1;
            let ticket = NonZeroU64::new(waiters.tickets).expect("a queue issues fewer than 2^64 tickets");
            place.0 = Some(ticket);
            waiters.queue.push_back(Waiter { ticket, waker: Some(waker.clone()), manner });
        }
    }

    /// Removes the place from the queue.
    pub(crate) fn leave(&mut self, place: &mut Place, deferred: &mut DeferredList) {
        if let Some(waiters) = &mut self.0 {
            if let Some(position) = waiters.position(place) {
                let waiter = waiters.queue.remove(position);
                deferred.extend(waiter.and_then(|waiter| waiter.waker).map(Deferred::DropWaker));
            }
            if waiters.queue.is_empty() {
                self.0 = None;
            }
        }
        place.0 = None;
    }

    /// Wakes the first waiter. If that waiter is hand-polled, all others up to the first future are woken
    /// too, as a hand-polled waiter might not be polled again.
    pub(crate) fn wake_first(&mut self, deferred: &mut DeferredList) {
        for waiter in self.0.iter_mut().flat_map(|waiters| &mut waiters.queue) {
            deferred.extend(waiter.waker.take().map(Deferred::Wake));
            match &mut waiter.manner {
                Manner::Future => return,
                Manner::Poll(attention @ Attention::Waiting) => *attention = Attention::Woken,
                Manner::Poll(_) => {}
            }
        }
    }

    /// Wakes all waiters.
    pub(crate) fn wake_all(&mut self, deferred: &mut DeferredList) {
        let all = self.0.iter_mut().flat_map(|waiters| &mut waiters.queue);
        deferred.extend(all.filter_map(|waiter| waiter.waker.take()).map(Deferred::Wake));
    }
}

impl Waiters {
    fn ask_turn(&mut self, place: &Place) -> Turn {
        let mut turn = Turn::Now;
        for waiter in &mut self.queue {
            if place.0 == Some(waiter.ticket) {
                break;
            }
            match &mut waiter.manner {
                Manner::Future | Manner::Poll(Attention::Waiting) => return Turn::Later,
                Manner::Poll(attention @ Attention::Woken) => {
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
