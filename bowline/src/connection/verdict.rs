//! A time limit for the peer that tolerates late clock reads.

use crate::connection::clock::{Moment, Now, Span};

/// A time limit within which the peer has to do something.
///
/// A process may be paused: stopped, suspended, or starved of CPU time. All deadlines that pass meanwhile are
/// handled at once afterwards, before anyone has read the bytes that the peer sent in time. The time is
/// therefore up only if the clock was read twice and neither reading was late: shortly before the end, and at
/// the end. A late reading postpones the end by an eighth of the time, in which the runtime finds out which
/// bytes have arrived. At most three late readings are forgiven.
///
/// ```text
/// Look --in time--> End --in time, or late without a pardon left--> up
///   '--late, one     ^ '--late, one pardon less--.
///      pardon less---'---------------------------'
/// ```
///
/// Every driver stores up to two verdicts, so verdicts are packed.
#[derive(Clone, Copy)]
#[repr(Rust, packed)]
pub(crate) struct Verdict {
    at: Moment,
    stage: VerdictStage,
}

/// The purpose of the next reading of the clock.
#[derive(Clone, Copy)]
enum VerdictStage {
    /// The next reading of the clock is the one shortly before the end.
    Look,
    /// The next reading of the clock is the one at the end.
    End { pardons: Pardons },
}

/// The number of late readings that are still forgiven. An enum rather than a number, so that a
/// [`VerdictStage`], or the lack of one, fits into one byte.
#[derive(Clone, Copy)]
enum Pardons {
    Three,
    Two,
    One,
    None,
}

impl Pardons {
    /// Returns the pardons that are left after one more late reading, or `None` if there was none left.
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
    /// Starts the time limit now.
    pub(crate) fn after(now: &Now, time: Span) -> Self {
        Self { at: now.after(time.minus(time.eighth())), stage: VerdictStage::Look }
    }

    /// Returns when the clock has to be read next.
    pub(crate) fn next_look(self) -> Moment {
        self.at
    }

    /// Returns whether the time is up, and forgives a late reading of the clock. `time` is the span with
    /// which the limit was started.
    pub(crate) fn check_expired(&mut self, now: &Now, time: Span) -> bool {
        if !now.is_past(self.at) {
            return false;
        }
        let margin = time.eighth();
        let is_late = now.is_past(self.at.plus(margin));
        let pardons = match self.stage {
            VerdictStage::Look => Pardons::Three,
            VerdictStage::End { pardons } => pardons,
        };
        let next = match (self.stage, is_late) {
            (VerdictStage::Look, false) => Some((self.at.plus(margin), pardons)),
            (VerdictStage::End { .. }, false) => None,
            (_, true) => pardons.less().map(|pardons| (now.after(margin), pardons)),
        };
        if let Some((at, pardons)) = next {
            *self = Self { at, stage: VerdictStage::End { pardons } };
        }
        next.is_none()
    }
}
