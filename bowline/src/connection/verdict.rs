//! A time within which the peer has to do something, by a clock that may be read late.

use crate::connection::clock::{Moment, Now, Span};

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
///
/// Every connection keeps two of them, so that they are packed.
#[derive(Clone, Copy)]
#[repr(Rust, packed)]
pub(crate) struct Verdict {
    at: Moment,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Look,
    End { pardons: Pardons },
}

/// How often a clock that is read late is still forgiven before the time is up all the same.
#[derive(Clone, Copy)]
enum Pardons {
    Three,
    Two,
    One,
    None,
}

impl Pardons {
    fn less(self) -> Option<Self> {
        match self {
            Self::Three => Some(Self::Two),
            Self::Two => Some(Self::One),
            Self::One => Some(Self::None),
            Self::None => None,
        }
    }
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
            Stage::Look => Pardons::Three,
            Stage::End { pardons } => pardons,
        };
        let next = match (self.stage, is_late) {
            (Stage::Look, false) => Some((self.at.plus(margin), pardons)),
            (Stage::End { .. }, false) => None,
            (_, true) => pardons.less().map(|pardons| (now.after(margin), pardons)),
        };
        if let Some((at, pardons)) = next {
            *self = Self { at, stage: Stage::End { pardons } };
        }
        next.is_none()
    }
}
