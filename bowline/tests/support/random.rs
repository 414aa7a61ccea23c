//! Random numbers from a seed.

use std::ops::RangeInclusive;

/// `SplitMix64`: short, and good enough to try things out.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Creates a separate generator for a part, so that the parts don't depend on each other's use.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let size = (range.end() - range.start()) as u64 + 1;
        range.start() + usize::try_from(self.next() % size).unwrap()
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.within(1..=100) <= percent
    }

    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.within(0..=from.len() - 1)]
    }
}
