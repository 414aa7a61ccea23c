//! The report of a run: as text, as JSON, and as a page.

pub(crate) mod condition;
mod html;
mod json;
mod svg;
mod text;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::html::write_page;
pub(crate) use self::json::document;
pub(crate) use self::text::write;

use crate::bench::plan::{Mode, Pace, Plan};
use crate::bench::tally::{Measured, Tally, Times, UNEXPECTED};
use crate::bench::units::nanos;
use crate::bench::units::{Span, per_second, ratio};

/// The quantiles that a report shows.
pub(crate) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// A lateness of this program, in nanoseconds, that changes what is measured.
const NOTABLE_LAG: u64 = 1_000_000;

/// The report of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) plan: Arc<Plan>,
    pub(crate) tally: Tally,
    /// The time of the run in nanoseconds.
    pub(crate) elapsed: u64,
    /// The number of connections that were open when the run began.
    pub(crate) opened: u64,
    /// `true` if a signal has ended the run.
    pub(crate) is_interrupted: bool,
    /// The time that this program took of the processors.
    pub(crate) cpu_time: Duration,
    /// The time in which it took it.
    wall_time: Duration,
}

impl Report {
    pub(crate) fn new(
        plan: Arc<Plan>,
        measured: Measured,
        is_interrupted: bool,
        cpu_time: Duration,
        wall_time: Duration,
    ) -> Self {
        let Measured { mut tally, elapsed, opened } = measured;
        if plan.mode == Mode::Broadcast {
            count_missing(&mut tally, opened);
        }
        Self { plan, tally, elapsed, opened, is_interrupted, cpu_time, wall_time }
    }

    /// Replies a second. A server that is behind goes on to reply after the run, and that time counts, too.
    pub(crate) fn rate(&self) -> u64 {
        per_second(self.tally.received.messages, self.busy())
    }

    /// The time from the start to the last reply, and at least that of the run.
    pub(crate) fn busy(&self) -> u64 {
        self.elapsed.max(self.tally.last_reply)
    }

    /// The time of the run, to a millisecond.
    pub(crate) fn duration(&self) -> impl Display + use<> {
        humantime::format_duration(Duration::from_millis(self.elapsed / 1_000_000))
    }

    /// The number of threads, as text.
    pub(crate) fn threads(&self) -> String {
        match self.plan.threads {
            1 => "1 thread".into(),
            threads => format!("{threads} threads"),
        }
    }

    /// The share of its threads' time that this program was at work.
    pub(crate) fn utilization(&self) -> f64 {
        let available = nanos(self.wall_time).saturating_mul(self.plan.threads as u64);
        ratio(nanos(self.cpu_time), available)
    }

    /// Returns whether the run has measured what it was to measure.
    pub(crate) fn has_measured(&self) -> bool {
        match self.plan.mode {
            Mode::Idle => self.opened > 0,
            Mode::Echo | Mode::Broadcast | Mode::Connect => self.tally.received.messages > 0,
        }
    }

    /// The rows of the table: names and distributions, the main one first.
    pub(crate) fn rows(&self) -> Vec<(&'static str, &Times)> {
        let Tally { openings, latency, lag, .. } = &self.tally;
        [
            ("latency", latency),
            ("connect", &openings.total),
            ("  tcp", &openings.tcp),
            ("  tls", &openings.tls),
            ("  upgrade", &openings.upgrade),
            ("own lag", lag),
        ]
        .into_iter()
        // In the mode `connect`, the first two are the same.
        .filter(|(name, times)| times.count() > 0 && (self.plan.mode != Mode::Connect || *name != "connect"))
        .collect()
    }

    /// Warnings about the measurement itself.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (lag, latency) = (self.tally.lag.quantile(0.99), self.tally.latency.quantile(0.99));
        if lag > NOTABLE_LAG && lag > latency / 10 {
            warnings.push(format!(
                "this program was late itself, by {} at p99 (own lag), and the latencies contain that: \
                 lower the \
                 rate, or run server and program on different machines",
                Span(lag)
            ));
        }
        if self.utilization() > 0.9 && matches!(self.plan.pace, Pace::Closed { .. }) {
            warnings.push(format!(
                "this program was busy for {:.0} % of the time of its {}, so it may be slower than the \
                 server",
                self.utilization() * 100.0,
                self.threads(),
            ));
        }
        if self.plan.mode == Mode::Echo && self.tally.errors.contains_key(UNEXPECTED) {
            let text = "some messages of the server are no replies to messages of their connection: tell the \
                    replies \
                        apart with --match, or use --mode broadcast";
            warnings.push(text.into());
        }
        if self.is_interrupted {
            warnings.push("the run was interrupted".into());
        }
        warnings
    }
}

/// Counts the messages that did not reach all connections.
fn count_missing(tally: &mut Tally, opened: u64) {
    let sent = tally.sent.messages;
    // Not all servers send a message back to the connection that has sent it.
    let own = if tally.own == 0 { sent } else { 0 };
    let expected = (sent * opened).saturating_sub(own);
    let received = tally.received.messages;
    tally.errors_of("missing messages", expected.saturating_sub(received));
    tally.errors_of(UNEXPECTED, received.saturating_sub(expected));
}
