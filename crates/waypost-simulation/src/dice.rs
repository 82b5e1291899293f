//! Random numbers that are the same in every run.

use std::cell::Cell;

/// Random numbers by `SplitMix64`: the same for the same seed.
#[derive(Debug)]
pub struct Dice(Cell<u64>);

impl Dice {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Uniform over all of `u64`.
    pub fn roll(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    pub fn uniform(&self) -> f64 {
        ((self.roll() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// With this mean.
    pub fn exponential(&self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }
}
