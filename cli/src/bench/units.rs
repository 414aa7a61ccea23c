//! Numbers and times as a person reads them.

use std::fmt;
use std::time::Duration;

/// A number with its digits in groups of three: `50,000`.
pub(crate) struct Grouped(pub(crate) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut grouped = String::with_capacity(digits.len() * 4 / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}

/// A time in nanoseconds, in the unit that suits it, with three digits: `1.24ms`.
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return f.pad(&format!("{}ns", self.0)),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let value = ratio(self.0, unit);
        f.pad(&match value {
            ..10.0 => format!("{value:.2}{name}"),
            ..100.0 => format!("{value:.1}{name}"),
            _ => format!("{value:.0}{name}"),
        })
    }
}

/// A number of bytes in powers of 1024: `1.5 MiB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_024 => return f.pad(&format!("{} B", self.0)),
            1_024..1_048_576 => (1_024, "KiB"),
            1_048_576..1_073_741_824 => (1_048_576, "MiB"),
            _ => (1_073_741_824, "GiB"),
        };
        f.pad(&format!("{:.1} {name}", ratio(self.0, unit)))
    }
}

/// The quotient of two numbers, and 0 if the second is 0.
#[expect(clippy::cast_precision_loss, reason = "for people, who read a few digits")]
pub(crate) fn ratio(number: u64, by: u64) -> f64 {
    if by == 0 { 0.0 } else { number as f64 / by as f64 }
}

/// A number of events a second, from a number and a time in nanoseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and positive")]
pub(crate) fn per_second(count: u64, nanos: u64) -> u64 {
    (ratio(count, nanos) * 1e9).round() as u64
}

/// A time in nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_chosen_by_size() {
        assert_eq!(Grouped(1).to_string(), "1");
        assert_eq!(Grouped(1_234_567).to_string(), "1,234,567");
        assert_eq!(Span(999).to_string(), "999ns");
        assert_eq!(Span(1_240_000).to_string(), "1.24ms");
        assert_eq!(Span(123_456).to_string(), "123µs");
        assert_eq!(Span(61_000_000_000).to_string(), "61.0s");
        assert_eq!(Bytes(1_536).to_string(), "1.5 KiB");
    }
}
