//! Random numbers from a seed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{self, Runtime};

/// A generator of random numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator. Each seed has its own numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number of 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Returns an index below the bound.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("the number is below a usize")
    }

    /// Returns `true` in so many of a thousand cases.
    pub fn permille(&mut self, cases: u64) -> bool {
        self.below(1000) < cases
    }
}

/// Returns the seeds of the schedules that run: that of the environment variable `BOWLINE_HUB_SEED`, or else
/// all of these.
pub fn seeds(all: impl IntoIterator<Item = u64>) -> Vec<u64> {
    match std::env::var("BOWLINE_HUB_SEED") {
        Ok(seed) => vec![seed.parse().expect("BOWLINE_HUB_SEED is a number")],
        Err(_) => all.into_iter().collect(),
    }
}

/// Runs the schedules of some seeds, some of them at the same time, each in a runtime of its own thread.
pub fn for_each_seed(seeds: &[u64], threads: usize, run: impl Fn(u64, &Runtime) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if *seed > 0 && seed % 100 == 0 {
                        println!("seed {seed} begins");
                    }
                    let runtime = runtime::Builder::new_current_thread().enable_all().build();
                    run(*seed, &runtime.expect("the operating system allows a runtime"));
                }
            });
        }
    });
}
