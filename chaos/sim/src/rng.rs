//! Chance: one seeded generator per purpose, so that a draw more in one place moves nothing elsewhere.

use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};

/// A seeded generator.
#[derive(Debug)]
pub struct Rng(StdRng);

impl Rng {
    /// For one purpose of one seed.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let digest = medic_state::Digest::of(&[&seed.to_be_bytes(), purpose.as_bytes()]);
        Self(StdRng::from_seed(digest.0))
    }

    /// From here on, this process has no other chance: what asks the C library for random bytes (hash
    /// maps, for their keys) gets them from here. Once in a process.
    pub fn rule(self) {
        mad_turmoil::rand::set_rng(self.0);
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// True `part` times in `whole`.
    pub fn chance(&mut self, part: u32, whole: u32) -> bool {
        self.0.random_ratio(part.min(whole), whole)
    }

    /// One of these; `None` when there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() {
            return None;
        }
        of.get(self.0.random_range(0..of.len()))
    }
}
