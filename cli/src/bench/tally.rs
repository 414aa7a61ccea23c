//! Measurements, by one thread or by all.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::bench::units::ratio;

/// The longest time that is told apart, in nanoseconds: one hour.
const LONGEST: u64 = 3_600_000_000_000;

/// The largest number of slices of the time of a run.
const SLICES: usize = 100;

/// The least time of a slice: 50 ms.
const SLICE: u64 = 50_000_000;

/// The kind of the error that counts messages which are no replies.
pub(crate) const UNEXPECTED: &str = "unexpected messages";

/// A distribution of times, in nanoseconds, with three significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order"))
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time within which this share of all is, such as 0.99.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share).min(self.0.max())
    }

    pub(crate) fn min(&self) -> u64 {
        self.0.min()
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.mean()
    }

    fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }
}

/// A part of the time of the run: the latencies of the messages that were due in it.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// In microseconds, with two significant digits, since there are many of these.
    latency: Histogram<u32>,
}

impl Slice {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST / 1_000, 2).expect("the bounds are in order");
        Self { latency }
    }

    pub(crate) fn count(&self) -> u64 {
        self.latency.len()
    }

    /// The time within which this share of the slice's latencies is, in nanoseconds.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        self.latency.value_at_quantile(share).min(self.latency.max()) * 1_000
    }
}

/// The number of messages and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volume {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Volume {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// The times of opening connections.
#[derive(Clone, Debug)]
pub(crate) struct Openings {
    /// From the time at which the connection was due, or begun if there is no schedule, until it was open.
    pub(crate) total: Times,
    pub(crate) tcp: Times,
    pub(crate) tls: Times,
    pub(crate) upgrade: Times,
}

/// The measurements of a thread, or of all.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) openings: Openings,
    /// From the time at which a message was due, or sent if there is no schedule, until its reply was there.
    pub(crate) latency: Times,
    /// The lateness of this program: from the time at which something was due until it was begun.
    pub(crate) lag: Times,
    pub(crate) sent: Volume,
    /// The replies.
    pub(crate) received: Volume,
    /// The time of the last reply, in nanoseconds from the start.
    pub(crate) last_reply: u64,
    /// Messages that are no replies, by `--match`.
    pub(crate) ignored: u64,
    /// The messages that came back to the connection that had sent them, in a broadcast.
    pub(crate) own: u64,
    /// The number of errors of each kind.
    pub(crate) errors: BTreeMap<String, u64>,
    slices: Vec<Slice>,
    slice_nanos: u64,
}

impl Tally {
    /// Begins a tally of a run of so many nanoseconds.
    pub(crate) fn new(duration: u64) -> Self {
        let times = Times::new;
        Self {
            openings: Openings { total: times(), tcp: times(), tls: times(), upgrade: times() },
            latency: times(),
            lag: times(),
            sent: Volume::default(),
            received: Volume::default(),
            last_reply: 0,
            ignored: 0,
            own: 0,
            errors: BTreeMap::new(),
            slices: Vec::new(),
            slice_nanos: duration.div_ceil(SLICES as u64).max(SLICE),
        }
    }

    /// Records the latency of a message that was due at a time after the start.
    pub(crate) fn record_latency(&mut self, due: u64, latency: u64) {
        self.latency.record(latency);
        let at = usize::try_from(due / self.slice_nanos).unwrap_or(usize::MAX);
        if at >= self.slices.len() {
            self.slices.resize_with((at + 1).min(SLICES), Slice::new);
        }
        if let Some(slice) = self.slices.get_mut(at) {
            slice.latency.saturating_record(latency / 1_000);
        }
    }

    pub(crate) fn error(&mut self, kind: impl Into<String>) {
        self.errors_of(kind, 1);
    }

    pub(crate) fn errors_of(&mut self, kind: impl Into<String>, count: u64) {
        if count > 0 {
            *self.errors.entry(kind.into()).or_default() += count;
        }
    }

    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The slices with the times at which they begin, in seconds.
    pub(crate) fn slices(&self) -> impl Iterator<Item = (f64, &Slice)> {
        let start = |at: usize| ratio(at as u64 * self.slice_nanos, 1_000_000_000);
        self.slices.iter().enumerate().map(move |(at, slice)| (start(at), slice))
    }

    /// The length of a slice in seconds.
    pub(crate) fn slice_seconds(&self) -> f64 {
        ratio(self.slice_nanos, 1_000_000_000)
    }

    /// The slice before the one that is being filled.
    pub(crate) fn last_full_slice(&self) -> Option<&Slice> {
        self.slices.len().checked_sub(2).map(|at| &self.slices[at])
    }

    /// Adds what another thread has measured.
    pub(crate) fn add(&mut self, other: &Self) {
        for (own, other) in [
            (&mut self.openings.total, &other.openings.total),
            (&mut self.openings.tcp, &other.openings.tcp),
            (&mut self.openings.tls, &other.openings.tls),
            (&mut self.openings.upgrade, &other.openings.upgrade),
            (&mut self.latency, &other.latency),
            (&mut self.lag, &other.lag),
        ] {
            own.add(other);
        }
        self.sent.add(other.sent);
        self.received.add(other.received);
        self.last_reply = self.last_reply.max(other.last_reply);
        self.ignored += other.ignored;
        self.own += other.own;
        for (kind, count) in &other.errors {
            self.errors_of(kind, *count);
        }
        if self.slices.len() < other.slices.len() {
            self.slices.resize_with(other.slices.len(), Slice::new);
        }
        for (own, other) in self.slices.iter_mut().zip(&other.slices) {
            own.latency.add(&other.latency).expect("the bounds are the same");
        }
    }
}

/// The measurements of one thread.
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    /// The time of the run, which is shorter than planned if it was interrupted.
    pub(crate) elapsed: u64,
    /// The connections that were open at the beginning of the run.
    pub(crate) opened: u64,
}
