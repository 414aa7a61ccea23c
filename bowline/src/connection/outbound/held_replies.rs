//! The bounds of the replies to a batch that are held back: their number and their age.

use std::time::Duration;

use tokio::time::Instant;

/// The most replies that a `WebSocket` holds back while it works through a batch.
const HELD_MAX: u16 = 1024;

/// The longest time for which replies are held back while the application computes.
const HELD_TIME: Duration = Duration::from_millis(1);

/// The number of replies that a look at the connection is good for, unless the connection changes earlier.
///
/// Each look also takes a unit of tokio's budget, which therefore pays for as many replies as for frames that
/// are read.
pub(crate) const FREE: u16 = 32;

/// The replies that a `WebSocket` holds back while it works through a batch.
#[derive(Default)]
pub(crate) struct HeldReplies {
    count: u16,
    /// The count up to which replies are free: they may be held back without a look at the connection.
    free_until: u16,
    /// The count at which the clock is read next. It is read at the first reply, every second one of the
    /// first eight, and at every eighth one, since reading the clock costs a tenth of a small message.
    next_check: u16,
    /// The time at which the first of them has waited long enough.
    due: Option<Instant>,
}

impl HeldReplies {
    /// Adds a reply if it is free, and the first one has not waited for too long. Returns whether it did.
    #[inline]
    pub(crate) fn add_free(&mut self) -> bool {
        let is_free = self.count < self.free_until && (self.count < self.next_check || !self.is_due());
        self.count += u16::from(is_free);
        is_free
    }

    /// Adds a reply. Returns whether it has to be written, together with those before it, instead of being
    /// held back. `free` is the number of replies after it that need no look at the connection.
    pub(crate) fn add(&mut self, free: u16) -> bool {
        let is_due = self.count >= self.next_check && self.is_due();
        self.count = self.count.saturating_add(1);
        self.free_until = self.count.saturating_add(free).min(HELD_MAX - 1);
        is_due || self.count >= HELD_MAX
    }

    /// Has the connection looked at before the next reply is held back.
    #[inline]
    pub(crate) fn end_free(&mut self) {
        self.free_until = 0;
    }

    /// Reads the clock, which starts at the first reply. Returns whether that reply is too old.
    #[inline(never)]
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if self.count == 0 {
            self.due = Some(now + HELD_TIME);
        }
        let is_due = self.due.is_some_and(|due| now >= due);
        if !is_due {
            self.next_check += match self.next_check {
                0 => 1,
                1..7 => 2,
                _ => 8,
            };
        }
        is_due
    }

    pub(crate) fn clear(&mut self) {
        (self.count, self.free_until, self.next_check) = (0, 0, 0);
    }
}
