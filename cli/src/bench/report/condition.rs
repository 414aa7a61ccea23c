//! The conditions of `--fail-if`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::bench::plan::schedule::Rate;
use crate::bench::report::Report;
use crate::bench::units::{Grouped, Span};

/// A condition under which the run has failed: `p99>50ms`, `errors>0`, `rate<900/s`.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// The text that the user wrote.
    text: String,
    measure: Measure,
    comparison: Comparison,
    /// Nanoseconds, errors, or events a second.
    bound: u64,
}

/// The quantity that is compared.
#[derive(Clone, Copy, Debug)]
enum Measure {
    /// The latency within which this share of the messages is.
    Latency(f64),
    Errors,
    Rate,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Condition {
    /// Returns why the run has failed, if it has by this condition.
    pub(crate) fn failure(&self, report: &Report) -> Option<String> {
        let latency = &report.tally.latency;
        let value = match self.measure {
            Measure::Latency(_) if latency.count() == 0 => {
                return Some(format!("--fail-if {self}: there is no latency, as nothing was measured"));
            }
            Measure::Latency(share) => latency.quantile(share),
            Measure::Errors => report.tally.error_count(),
            Measure::Rate => report.rate(),
        };
        let is_met = match self.comparison {
            Comparison::Less => value < self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::More => value > self.bound,
            Comparison::AtLeast => value >= self.bound,
        };
        let shown = match self.measure {
            Measure::Latency(_) => Span(value).to_string(),
            Measure::Errors => Grouped(value).to_string(),
            Measure::Rate => format!("{}/s", Grouped(value)),
        };
        is_met.then(|| format!("--fail-if {self}: it is {shown}"))
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || "expected a condition such as 'p99>50ms', 'errors>0' or 'rate<900/s'".to_owned();
        let at = text.find(['<', '>']).ok_or_else(expected)?;
        let (name, rest) = text.split_at(at);
        let (comparison, bound) = [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::More),
        ]
        .into_iter()
        .find_map(|(sign, comparison)| Some((comparison, rest.strip_prefix(sign)?.trim())))
        .ok_or_else(expected)?;
        let measure = match name.trim() {
            "p50" => Measure::Latency(0.5),
            "p90" => Measure::Latency(0.9),
            "p99" => Measure::Latency(0.99),
            "p99.9" => Measure::Latency(0.999),
            "p99.99" => Measure::Latency(0.9999),
            "max" => Measure::Latency(1.0),
            "errors" => Measure::Errors,
            "rate" => Measure::Rate,
            name => {
                return Err(format!(
                    "{name:?} is none of p50, p90, p99, p99.9, p99.99, max, errors and rate"
                ));
            }
        };
        let bound = match measure {
            Measure::Latency(_) => {
                let time: Duration = humantime::parse_duration(bound)
                    .map_err(|_| format!("{bound:?} is no time such as 50ms"))?;
                u64::try_from(time.as_nanos()).map_err(|_| "the time is too long")?
            }
            Measure::Errors => bound.parse().map_err(|_| format!("{bound:?} is no number of errors"))?,
            // A second after the start, so many events were due.
            Measure::Rate => bound.parse::<Rate>()?.due_before(1_000_000_000),
        };
        Ok(Self { text: text.to_owned(), measure, comparison, bound })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_read() {
        let bound =
            |text: &str| text.parse::<Condition>().map(|condition| (condition.comparison, condition.bound));
        assert_eq!(bound("p99>50ms"), Ok((Comparison::More, 50_000_000)));
        assert_eq!(bound("p99.99 >= 1s"), Ok((Comparison::AtLeast, 1_000_000_000)));
        assert_eq!(bound("errors>0"), Ok((Comparison::More, 0)));
        assert_eq!(bound("rate<=1k/s"), Ok((Comparison::AtMost, 1_000)));
        for text in ["", "p99", "p98>1ms", "p99>50", "p99>", "errors>1ms", "rate<x", "p99=1ms"] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
    }
}
