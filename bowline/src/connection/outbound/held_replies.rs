//! The bounds of the replies to a batch that are held back: their number and their age.

use std::time::Duration;

use tokio::time::Instant;

/// The most replies that a `WebSocket` holds back while it works through a batch.
const HELD_MAX: u32 = 1024;

/// The longest time for which replies are held back while the application computes. The clock is read at the
/// first reply, every second one of the first eight, and at every eighth one, since reading the clock costs a
/// tenth of a small message.
const HELD_TIME: Duration = Duration::from_millis(1);

/// The replies that a `WebSocket` holds back while it works through a batch.
#[derive(Default)]
pub(crate) struct HeldReplies {
    count: u32,
    /// The reply at which the bounds are checked next, counted from 0.
    next_check: u32,
    /// The time at which the first of them has waited long enough.
    due: Option<Instant>,
}

impl HeldReplies {
    /// Adds a reply. Returns whether it has to be written, together with those before it, instead of being
    /// held back.
    #[expect(clippy::inline_always, reason = "measured: 15 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn note_reply(&mut self) -> bool {
        let is_checked = self.count == self.next_check;
        self.count += 1;
        is_checked && self.check_bounds()
    }

    /// Starts the clock at the first reply. Returns whether there are too many replies, or the first of them
    /// is too old.
    #[inline(never)]
    fn check_bounds(&mut self) -> bool {
        self.next_check += match self.count {
            1 => 1,
            2..8 => 2,
            _ => 8,
        };
        let now = Instant::now();
        if self.count == 1 {
            self.due = Some(now + HELD_TIME);
        }
        self.count >= HELD_MAX || self.due.is_some_and(|due| now >= due)
    }

    pub(crate) fn clear(&mut self) {
        (self.count, self.next_check) = (0, 0);
    }
}
