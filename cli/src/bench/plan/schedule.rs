//! Rates, and the times at which messages are due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// A number of events in a time: `50000/s`, `50k/s`, `600/min`, `2.5/s`, or `100`, which is `100/s`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rate {
    events: u64,
    /// The time in which the events happen, in nanoseconds.
    nanos: u64,
}

impl Rate {
    pub(crate) const fn per_second(events: u64) -> Self {
        Self { events, nanos: SECOND }
    }

    /// The rate of `count` sources that have this rate each.
    pub(crate) fn times(self, count: u64) -> Option<Self> {
        Some(Self { events: self.events.checked_mul(count)?, ..self })
    }

    /// The time of the event with this number, the first of which is 0, in nanoseconds from the start.
    pub(crate) fn due(self, number: u64) -> u64 {
        let nanos = u128::from(number) * u128::from(self.nanos) / u128::from(self.events);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// The number of events that are due before `nanos` have passed.
    pub(crate) fn due_before(self, nanos: u64) -> u64 {
        let events = (u128::from(nanos) * u128::from(self.events)).div_ceil(u128::from(self.nanos));
        u64::try_from(events).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let unit = match unit.trim() {
            "s" | "sec" | "second" => SECOND,
            "m" | "min" | "minute" => 60 * SECOND,
            "h" | "hour" => 3600 * SECOND,
            unit => return Err(format!("the unit {unit:?} is none of s, min and h")),
        };
        let invalid = || "expected a rate such as 100/s, 50k/s or 600/min".to_owned();
        let number = number.trim();
        let (number, factor) = match number.chars().last().ok_or_else(invalid)? {
            'k' | 'K' => (&number[..number.len() - 1], 1_000),
            'm' | 'M' => (&number[..number.len() - 1], 1_000_000),
            _ => (number, 1),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let scale = u32::try_from(fraction.len()).ok().filter(|&digits| digits <= 6).ok_or_else(invalid)?;
        let digits = format!("{whole}{fraction}");
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let events = digits.parse::<u64>().ok().and_then(|digits| digits.checked_mul(factor));
        let events = events.ok_or_else(invalid)?;
        // More than one event a nanosecond is no schedule.
        let rate = Self { events, nanos: unit * 10_u64.pow(scale) };
        if events == 0 || events > rate.nanos {
            return Err("a rate is more than 0, and less than 1 a nanosecond".into());
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(SECOND, "s"), (60 * SECOND, "min"), (3600 * SECOND, "h")] {
            let events = u128::from(self.events) * u128::from(unit);
            let (whole, rest) = (events / u128::from(self.nanos), events % u128::from(self.nanos));
            if rest == 0 {
                return write!(
                    f,
                    "{}/{name}",
                    crate::bench::units::Grouped(u64::try_from(whole).unwrap_or(u64::MAX))
                );
            }
        }
        let time = Duration::from_nanos(self.nanos);
        write!(f, "{} in {}", self.events, humantime::format_duration(time))
    }
}

/// The times at which the messages of all connections are due.
///
/// The connections take turns, so that messages are due at even distances:
///
/// ```text
/// connection 0   |           |           |
/// connection 1       |           |           |
/// connection 2           |           |           |
///                +---+---+---+---+---+---+---+---+---> time
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// The rate of all connections together.
    pub(crate) rate: Rate,
    pub(crate) connections: u64,
}

impl Schedule {
    /// The time at which a message of a connection is due, in nanoseconds from the start.
    pub(crate) fn due(&self, connection: u64, sequence: u64) -> u64 {
        self.rate.due(sequence.saturating_mul(self.connections).saturating_add(connection))
    }

    /// The number of messages of a connection that are due before `nanos` have passed.
    pub(crate) fn due_before(&self, connection: u64, nanos: u64) -> u64 {
        let all = self.rate.due_before(nanos);
        all.saturating_sub(connection).div_ceil(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_and_written() {
        for (text, shown) in [
            ("100", "100/s"),
            ("50k/s", "50,000/s"),
            ("600/min", "10/s"),
            ("2.5/s", "150/min"),
            ("1/h", "1/h"),
        ] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for text in ["", "0", "x", "1/day", "-1/s", "1e3", "99999999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn connections_take_turns() {
        let schedule = Schedule { rate: Rate::per_second(3), connections: 3 };
        assert_eq!(schedule.due(0, 1), SECOND);
        assert_eq!(schedule.due(1, 0), SECOND / 3);
        for nanos in [0, 1, SECOND / 3, SECOND / 3 + 1, SECOND, SECOND + 1, 10 * SECOND] {
            for connection in 0..3 {
                let due =
                    (0..1000).take_while(|&sequence| schedule.due(connection, sequence) < nanos).count();
                assert_eq!(schedule.due_before(connection, nanos), due as u64, "{connection} {nanos}");
            }
        }
    }
}
