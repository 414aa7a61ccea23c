//! Points in time of four bytes each, since every driver stores several.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// A duration in whole milliseconds, rounded up.
///
/// Durations of more than twelve days become twelve days: nobody waits for the difference.
#[derive(Clone, Copy)]
pub(crate) struct Span(u32);

impl Span {
    const MAX: u32 = 1 << 30;

    /// Returns an eighth of the span, and at least one millisecond.
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

/// A point in time, in whole milliseconds since an arbitrary epoch, modulo 2^32.
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

    #[expect(
        clippy::cast_possible_wrap,
        reason = "the sign of the difference tells which of the two is earlier"
    )]
    fn millis_since(self, other: Self) -> i32 {
        self.0.get().wrapping_sub(other.0.get()) as i32
    }
}

/// The current time, as a [`Moment`] and as an [`Instant`].
pub(crate) struct Now {
    moment: Moment,
    /// The instant at which `moment` began.
    begun: Instant,
    /// Set if a part of the millisecond of `moment` has passed.
    partial: bool,
}

impl Now {
    /// Reads the clock. `instant` and `moment` denote the same point in time; the result is relative to it.
    pub(crate) fn by(instant: Instant, moment: Moment) -> Self {
        let now = Instant::now();
        let nanos = nanos_between(instant, now);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "moments are modulo 2^32"
        )]
        let moment = moment.plus_millis(nanos.div_euclid(1_000_000) as u32);
        let passed = nanos.rem_euclid(1_000_000).unsigned_abs();
        Self { moment, begun: now - Duration::from_nanos(passed), partial: passed > 0 }
    }

    /// Returns the moment at which `span` has passed, rounded up.
    pub(crate) fn after(&self, span: Span) -> Moment {
        self.moment.plus_millis(u32::from(self.partial)).plus(span)
    }

    /// Returns whether `moment` is now or earlier.
    pub(crate) fn is_past(&self, moment: Moment) -> bool {
        moment.millis_since(self.moment) <= 0
    }

    /// Returns the instant at which `moment` begins.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        let millis = moment.millis_since(self.moment);
        let distance = Duration::from_millis(millis.unsigned_abs().into());
        if millis < 0 { self.begun - distance } else { self.begun + distance }
    }
}

/// Returns the nanoseconds from `earlier` to `later`. The result is negative if `later` is earlier, which
/// happens in tests with a paused clock.
fn nanos_between(earlier: Instant, later: Instant) -> i64 {
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match later.checked_duration_since(earlier) {
        Some(duration) => nanos(duration),
        None => -nanos(earlier.saturating_duration_since(later)),
    }
}
