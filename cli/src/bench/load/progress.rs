//! The status line of a run in progress.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bench::load::station::Station;

/// The numbers of one thread for the status line. The thread writes them now and then, and the main thread
/// reads them.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    open: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    errors: AtomicU64,
    /// Of the last slice of the run, in nanoseconds.
    p99: AtomicU64,
}

/// The numbers of all threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) open: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) errors: u64,
    pub(crate) p99: u64,
}

impl Progress {
    /// Writes the numbers of the thread.
    pub(crate) fn update(&self, station: &Station) {
        let tally = station.tally.borrow();
        self.open.store(station.open(), Ordering::Relaxed);
        self.sent.store(tally.sent.messages, Ordering::Relaxed);
        self.received.store(tally.received.messages, Ordering::Relaxed);
        self.errors.store(tally.error_count(), Ordering::Relaxed);
        let p99 = tally.last_full_slice().map_or(0, |slice| slice.quantile(0.99));
        self.p99.store(p99, Ordering::Relaxed);
    }
}

impl Snapshot {
    /// Adds up the numbers of all threads.
    pub(crate) fn of<'a>(threads: impl IntoIterator<Item = &'a Progress>) -> Self {
        let mut all = Self::default();
        for thread in threads {
            all.open += thread.open.load(Ordering::Relaxed);
            all.sent += thread.sent.load(Ordering::Relaxed);
            all.received += thread.received.load(Ordering::Relaxed);
            all.errors += thread.errors.load(Ordering::Relaxed);
            all.p99 = all.p99.max(thread.p99.load(Ordering::Relaxed));
        }
        all
    }
}
