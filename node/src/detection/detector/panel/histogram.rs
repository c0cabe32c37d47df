//! Ranks of positive numbers in constant room: counts by quarter octave, halved when they grow old.

use minicbor::{Decode, Encode};

/// Bins per factor of two.
const PER_OCTAVE: f64 = 4.0;
/// Bins; they reach from 2^-16 to 2^16.
const BINS: usize = 128;
/// Counts are halved when there are so many: half of what is known is then about the last half of it.
const TOTAL_MAX: u32 = 60_000;

/// Counts by size.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Histogram {
    #[n(0)]
    counts: Vec<u16>,
    #[n(1)]
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BINS], total: 0 }
    }
}

impl Histogram {
    /// Takes a number in.
    pub(super) fn add(&mut self, value: f64) {
        if self.total >= TOTAL_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
        }
        if let Some(count) = self.counts.get_mut(bin(value)) {
            *count = count.saturating_add(1);
            self.total += 1;
        }
    }

    /// How many were taken in (and not forgotten).
    #[must_use]
    pub(super) const fn total(&self) -> u32 {
        self.total
    }

    /// The number that a share `p` lies below (upper edge of its bin); 0 of nothing.
    #[must_use]
    pub(super) fn quantile(&self, p: f64) -> f64 {
        let wanted = p * f64::from(self.total);
        let mut below = 0.0;
        for (at, &count) in self.counts.iter().enumerate() {
            let next = below + f64::from(count);
            if count > 0 && next >= wanted {
                let within = (wanted - below) / f64::from(count);
                return ((at as f64 + within) / PER_OCTAVE - 16.0).exp2();
            }
            below = next;
        }
        0.0
    }
}

fn bin(value: f64) -> usize {
    let at = (value.max(1e-9).log2() + 16.0) * PER_OCTAVE;
    (at.max(0.0) as usize).min(BINS - 1)
}
