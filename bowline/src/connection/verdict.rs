//! A time within which the peer has to do something, by a clock that may be read late.

use crate::connection::clock::{Moment, Now, Span};

/// How often a clock that was read late is forgiven before the time is up all the same.
const PARDONS: u8 = 3;

/// A time within which the peer has to do something.
///
/// When this process stood still (stopped, suspended, starved of its processor), all deadlines that passed meanwhile are
/// handled at once, before anyone has read what the peer has done in time. So the time is up only if it was looked at twice
/// and neither was late: shortly before the end, and at the end. A late look puts the end off, for as long as it takes the
/// runtime to find out what has arrived.
///
/// ```text
/// Look --in time--> End --in time--> up
///   '----- late ----> ^-.
///                     '-' late
/// ```
#[derive(Clone, Copy)]
pub(crate) struct Verdict {
    at: Moment,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Look,
    End { pardons: u8 },
}

impl Verdict {
    /// The time begins now.
    pub(crate) fn after(now: &Now, time: Span) -> Self {
        Self { at: now.after(time.minus(time.eighth())), stage: Stage::Look }
    }

    /// When to look next.
    pub(crate) fn next_look(self) -> Moment {
        self.at
    }

    /// Looks whether the time is up; `time` is that with which it has begun.
    pub(crate) fn is_up(&mut self, now: &Now, time: Span) -> bool {
        if !now.is_past(self.at) {
            return false;
        }
        let margin = time.eighth();
        let is_late = now.is_past(self.at.plus(margin));
        let pardons = match self.stage {
            Stage::Look => PARDONS,
            Stage::End { pardons } => pardons,
        };
        match (self.stage, is_late) {
            (Stage::Look, false) => {
                *self = Self { at: self.at.plus(margin), stage: Stage::End { pardons } };
                false
            }
            (_, true) if pardons > 0 => {
                *self = Self { at: now.after(margin), stage: Stage::End { pardons: pardons - 1 } };
                false
            }
            _ => true,
        }
    }
}
