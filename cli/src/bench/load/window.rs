//! The messages of a connection that wait for a reply.

use std::collections::VecDeque;

/// The place of a message whose reply came before that of an earlier one.
const ANSWERED: u64 = u64::MAX;

/// The messages of one connection that were sent, or are due, and have no reply yet.
///
/// Messages have consecutive numbers, and replies usually arrive in order, so a queue is enough.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The number of the first message in the queue.
    first: u64,
    /// The time at which each message was due, in nanoseconds, or `ANSWERED`.
    due: VecDeque<u64>,
}

impl Window {
    /// Adds the next message. Returns its number.
    pub(crate) fn push(&mut self, due: u64) -> u64 {
        self.due.push_back(due);
        self.first + self.due.len() as u64 - 1
    }

    /// Takes out the message with this number. Returns the time at which it was due, or `None` if no such
    /// message waits for a reply.
    pub(crate) fn take(&mut self, number: u64) -> Option<u64> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let due = std::mem::replace(self.due.get_mut(at)?, ANSWERED);
        while self.due.front() == Some(&ANSWERED) {
            self.due.pop_front();
            self.first += 1;
        }
        (due != ANSWERED).then_some(due)
    }

    /// Takes out the oldest message.
    pub(crate) fn take_first(&mut self) -> Option<u64> {
        self.take(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_in_any_order_and_once() {
        let mut window = Window::default();
        assert_eq!([10, 11, 12, 13].map(|due| window.push(due)), [0, 1, 2, 3]);
        assert_eq!(window.take(2), Some(12));
        assert_eq!(window.take(2), None);
        assert_eq!(window.take_first(), Some(10));
        assert_eq!(window.take(0), None);
        assert_eq!(window.take_first(), Some(11));
        assert_eq!(window.take_first(), Some(13));
        assert_eq!(window.take_first(), None);
        assert_eq!(window.take(4), None);
        assert_eq!(window.push(14), 4);
        assert_eq!(window.take(4), Some(14));
    }
}
