//! The senders that wait for room in the browser's buffer, in order of arrival.

use std::task::Waker;

/// A line of senders. The one in front sends next.
///
/// A future leaves the line when it is dropped. A hand-polled waiter, such as a `Sink`, may silently stop
/// polling. If it was woken and has not been polled by the next time that there is room, then it loses its
/// place:
///
/// ```text
/// HandPolled --wake_first--> Woken --polled: wait-->       HandPolled
///                                  --polled: leave-->      (sends)
///                                  --wake_first again-->   (out of the line)
/// ```
///
/// The line neither wakes nor drops a waker, since its owner is locked: it returns them.
#[derive(Default)]
pub(crate) struct Turns {
    /// Short, so a deque would only add to the size of programs.
    line: Vec<Waiter>,
    /// The number of tickets issued so far.
    tickets: u64,
}

struct Waiter {
    ticket: u64,
    waker: Waker,
    kind: WaiterKind,
}

/// The kind of waiting, which decides whether a waiter can lose its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaiterKind {
    /// A future, which keeps its place until it is dropped.
    Future,
    /// A hand-polled waiter.
    HandPolled,
    /// A hand-polled waiter that was woken and has not been polled since.
    Woken,
}

/// A place in the line, or none yet.
#[derive(Default)]
pub(crate) struct Ticket(Option<u64>);

impl Ticket {
    pub(crate) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Turns {
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Returns whether nobody stands in front of the holder of this ticket.
    pub(crate) fn is_first(&self, ticket: &Ticket) -> bool {
        self.line.first().is_none_or(|first| Some(first.ticket) == ticket.0)
    }

    /// Waits at the place of the ticket, or at the end of the line. Returns the waker that was replaced.
    pub(crate) fn wait(&mut self, ticket: &mut Ticket, kind: WaiterKind, waker: &Waker) -> Option<Waker> {
        if let Some(waiter) = self.line.iter_mut().find(|waiter| Some(waiter.ticket) == ticket.0) {
            waiter.kind = kind;
            return Some(std::mem::replace(&mut waiter.waker, waker.clone()));
        }
        self.tickets += 1;
        ticket.0 = Some(self.tickets);
        self.line.push(Waiter { ticket: self.tickets, waker: waker.clone(), kind });
        None
    }

    /// Gives up the place of the ticket. Returns the waker.
    pub(crate) fn leave(&mut self, ticket: &mut Ticket) -> Option<Waker> {
        let ticket = ticket.0.take()?;
        self.remove(ticket)
    }

    /// Adds the wakers to call so that the next sender uses the room that there is.
    pub(crate) fn wake_first(&mut self, wakers: &mut Vec<Waker>) {
        while let Some(first) = self.line.first_mut() {
            if first.kind != WaiterKind::Woken {
                if first.kind == WaiterKind::HandPolled {
                    first.kind = WaiterKind::Woken;
                }
                return wakers.push(first.waker.clone());
            }
            let ticket = first.ticket;
            wakers.extend(self.remove(ticket));
        }
    }

    /// Takes a waiter out of the line. (`Vec::remove` would bring the panic that names its index.)
    fn remove(&mut self, ticket: u64) -> Option<Waker> {
        let mut removed = None;
        self.line.retain_mut(|waiter| {
            let stays = waiter.ticket != ticket;
            if !stays {
                removed = Some(std::mem::replace(&mut waiter.waker, Waker::noop().clone()));
            }
            stays
        });
        removed
    }

    /// Empties the line, and adds the wakers of all who stood in it.
    pub(crate) fn wake_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.line.drain(..).map(|waiter| waiter.waker));
    }
}
