//! The state that all connections of a run share: runtimes, counts, and the report of violations.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::cancel::Cancels;
use super::record::Stock;
use super::watchdog::Watchdog;
use crate::soak::peer::Random;

/// The number of violations that are printed in full.
const PRINTED: u64 = 20;

pub struct Run {
    seed: u64,
    pub runtimes: Vec<Handle>,
    pub watchdog: Arc<Watchdog>,
    pub prepared: Stock,
    pub counts: Counts,
    /// The number of times that each feature was exercised.
    coverage: Mutex<BTreeMap<String, u64>>,
}

/// The events so far.
#[derive(Default)]
pub struct Counts {
    pub connections: AtomicU64,
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    pub pings: AtomicU64,
    /// The number of futures dropped before they were ready.
    pub cancelled: Arc<AtomicU64>,
    /// The number of connections with a violation.
    pub violations: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    First,
    /// A further violation of a connection that was blamed before.
    More,
}

impl Run {
    pub fn new(seed: u64, runtimes: Vec<Handle>) -> Self {
        Self {
            seed,
            runtimes,
            watchdog: Arc::default(),
            prepared: Stock::default(),
            counts: Counts::default(),
            coverage: Mutex::default(),
        }
    }

    /// Records a violation.
    pub fn violated(&self, violation: Violation, text: String) {
        let first = u64::from(violation == Violation::First);
        let number = self.counts.violations.fetch_add(first, Relaxed) + first;
        if number <= PRINTED {
            let what = if violation == Violation::First { "VIOLATION" } else { "and more" };
            println!("{what} {number} (seed {}): {text}\n", self.seed);
        }
    }

    /// Returns the decisions of a task: the futures that it drops, and others. They depend only on the seed.
    pub fn cancels(&self, one_in: u64, task: impl Hash) -> Cancels {
        let mut hasher = DefaultHasher::new();
        (self.seed, task).hash(&mut hasher);
        Cancels::new(one_in, Random(hasher.finish()), Arc::clone(&self.counts.cancelled))
    }

    pub fn coverage(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
