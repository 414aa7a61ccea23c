//! What all connections of a run share: where they run, what they count, and who is told that something is
//! wrong.

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

/// How many violations are printed with all that is known.
const PRINTED: u64 = 20;

pub struct Run {
    seed: u64,
    pub runtimes: Vec<Handle>,
    pub watchdog: Arc<Watchdog>,
    pub prepared: Stock,
    pub counts: Counts,
    /// How often each thing was exercised.
    coverage: Mutex<BTreeMap<String, u64>>,
}

/// What has happened so far.
#[derive(Default)]
pub struct Counts {
    pub connections: AtomicU64,
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    pub pings: AtomicU64,
    /// Futures that were dropped before they were ready.
    pub cancelled: Arc<AtomicU64>,
    /// Connections of which something was wrong.
    pub violations: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    First,
    /// Of a connection that was blamed before.
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

    /// Notes that something is wrong.
    pub fn violated(&self, violation: Violation, text: String) {
        let first = u64::from(violation == Violation::First);
        let number = self.counts.violations.fetch_add(first, Relaxed) + first;
        if number <= PRINTED {
            let what = if violation == Violation::First { "VIOLATION" } else { "and more" };
            println!("{what} {number} (seed {}): {text}\n", self.seed);
        }
    }

    /// Which futures of a task are dropped, and what else it decides; the same for each run with the seed.
    pub fn cancels(&self, one_in: u64, task: impl Hash) -> Cancels {
        let mut hasher = DefaultHasher::new();
        (self.seed, task).hash(&mut hasher);
        Cancels::new(one_in, Random(hasher.finish()), Arc::clone(&self.counts.cancelled))
    }

    pub fn coverage(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
