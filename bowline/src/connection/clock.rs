//! Time in four bytes, as the task of every connection keeps several points of it.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// How long something takes, in whole milliseconds, rounded up.
///
/// What is longer than twelve days is twelve days: nobody waits for the difference.
#[derive(Clone, Copy)]
pub(crate) struct Span(u32);

impl Span {
    const MAX: u32 = 1 << 30;

    /// An eighth of it, but something.
    pub(crate) fn eighth(self) -> Self {
        Self((self.0 / 8).max(1))
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(u32::try_from(millis).map_or(Self::MAX, |millis| millis.clamp(1, Self::MAX)))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration::from_millis(self.0.into()).fmt(f)
    }
}

/// A point in time, in whole milliseconds since some other, modulo 2^32.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(NonZeroU32);

impl Moment {
    pub(crate) const FIRST: Self = Self(NonZeroU32::MIN);

    pub(crate) fn min(self, other: Self) -> Self {
        if other.millis_since(self) < 0 { other } else { self }
    }

    pub(crate) fn plus(self, span: Span) -> Self {
        self.plus_millis(span.0)
    }

    fn plus_millis(self, millis: u32) -> Self {
        Self(NonZeroU32::new(self.0.get().wrapping_add(millis)).unwrap_or(NonZeroU32::MIN))
    }

    #[expect(clippy::cast_possible_wrap, reason = "that is how the earlier is told from the later")]
    fn millis_since(self, other: Self) -> i32 {
        self.0.get().wrapping_sub(other.0.get()) as i32
    }
}

/// What time it is.
pub(crate) struct Now {
    moment: Moment,
    /// When it began.
    begun: Instant,
    /// Some of it has passed.
    partial: bool,
}

impl Now {
    /// By a clock on which `instant` is `moment`.
    pub(crate) fn by(instant: Instant, moment: Moment) -> Self {
        let now = Instant::now();
        let nanos = nanos_between(instant, now);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is meant modulo 2^32"
        )]
        let moment = moment.plus_millis(nanos.div_euclid(1_000_000) as u32);
        let passed = nanos.rem_euclid(1_000_000).unsigned_abs();
        Self { moment, begun: now - Duration::from_nanos(passed), partial: passed > 0 }
    }

    /// So much later.
    pub(crate) fn after(&self, span: Span) -> Moment {
        self.moment.plus_millis(u32::from(self.partial)).plus(span)
    }

    pub(crate) fn is_past(&self, moment: Moment) -> bool {
        moment.millis_since(self.moment) <= 0
    }

    /// When it is `moment`.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        let millis = moment.millis_since(self.moment);
        let distance = Duration::from_millis(millis.unsigned_abs().into());
        if millis < 0 { self.begun - distance } else { self.begun + distance }
    }
}

/// How much later `later` is; negative if it is earlier, as tests may have it.
fn nanos_between(earlier: Instant, later: Instant) -> i64 {
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match later.checked_duration_since(earlier) {
        Some(duration) => nanos(duration),
        None => -nanos(earlier.saturating_duration_since(later)),
    }
}
