//! Which of many findings to believe: the share of false ones among those that detectors propose is
//! kept below a stated level, however many they propose and in whatever order.
//!
//! ```text
//!  votes of detectors alone ─► p-value ─► a test begins: it is given its α ─► p/τ ≤ α: a finding
//!  (a fact among them: no test)            (fixed while it lasts)             else it waits, or ends
//! ```
//!
//! LORD++ (Ramdas, Yang, Wainwright & Jordan, "Online control of the false discovery rate with
//! decaying memory", NeurIPS 2017): the α of the t-th test is
//!
//! ```text
//!   α_t = W₀ γ_t + (q − W₀) γ_{t−τ₁} + q Σ_{j≥2} γ_{t−τ_j},    γ_j ∝ j^−1.6,  Σ γ_j = 1
//! ```
//!
//! over the discoveries at τ₁ < τ₂ < … before t, with q the level and W₀ = q/2; the sum of all α never
//! exceeds q times the number of discoveries. Tests may overlap in time: each is given its α by what was
//! known when it began (Zrnic, Ramdas & Jordan, JMLR 22 (2021), "asynchronous"). What detectors propose
//! is improbable already, so p-values are taken given that: divided by τ, the largest that counts as
//! proposed (Tian & Ramdas, "ADDIS", NeurIPS 2019, on what is discarded).
//!
//! Memory ends after [`MEMORY`]: what was believed a day ago earns nothing any more, and a stream of
//! mistakes does not make it deaf for ever. So where nothing at all is wrong, the expected number of
//! false findings is at most W₀ a day and stream; there is one stream to a shard. That is as true as
//! the detectors' p-values are.
//!
//! Invariant: bounded, deterministic, no clock. Deliberately absent: facts (a limit that is crossed, a
//! probe that fails), which no test decides.

use medic_state::{Millis, Ppm, Timestamp};
use minicbor::{Decode, Encode};

/// The level where none is configured: one false finding in ten, of those that rest on tests alone.
pub const LEVEL: Ppm = Ppm(100_000);
/// The largest p-value that counts as proposed: two soft votes about an instance of a hundred series.
pub const PROPOSED: f64 = 0.1;
/// How long tests and discoveries count.
pub const MEMORY: Millis = Millis::from_secs(86_400);
/// Discoveries remembered. One that is forgotten earns nothing: a smaller α, never a greater one.
const FOUND_MAX: usize = 64;
/// 1 / ζ(1.6), to which the γ sum up to one.
const GAMMA_1: f64 = 0.437_490_165_8;

/// What one stream of tests has seen: how many, and after how many of them something was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stream {
    /// When its memory begins.
    #[n(0)]
    begun: Timestamp,
    /// Tests since.
    #[n(1)]
    tests: u64,
    /// Discoveries since, by the number of tests begun before each; at most [`FOUND_MAX`].
    #[n(2)]
    found: Vec<u64>,
    /// Discoveries ever, those forgotten included.
    #[n(3)]
    discoveries: u64,
}

impl Stream {
    /// Begins a test; gives its α for a level. Zero at level zero.
    pub fn begin(&mut self, level: Ppm, now: Timestamp) -> f64 {
        self.forget(now);
        self.tests = self.tests.saturating_add(1);
        let q = f64::from(level.0) / 1e6;
        let wealth = q / 2.0;
        let mut alpha = wealth * gamma(self.tests);
        for (n, at) in self.found.iter().enumerate() {
            let earned = if n == 0 { q - wealth } else { q };
            alpha += earned * gamma(self.tests.saturating_sub(*at));
        }
        alpha
    }

    /// A test that was begun here has found something.
    pub fn discover(&mut self) {
        if self.found.len() >= FOUND_MAX {
            self.found.remove(0);
        }
        self.found.push(self.tests);
        self.discoveries = self.discoveries.saturating_add(1);
    }

    /// Discoveries ever.
    #[must_use]
    pub const fn discoveries(&self) -> u64 {
        self.discoveries
    }

    /// Tests begun within its memory.
    #[must_use]
    pub const fn tests(&self) -> u64 {
        self.tests
    }

    /// Takes over what another owner saw, if that is more, or more recent.
    pub fn take_over(&mut self, other: Self) {
        let (own, others) = ((self.begun, self.tests), (other.begun, other.tests));
        // Positions no test can have come from elsewhere than damage.
        let sound = other.found.len() <= FOUND_MAX
            && other.found.is_sorted()
            && other.found.last().is_none_or(|last| *last <= other.tests);
        if others > own && sound {
            *self = other;
        }
    }

    fn forget(&mut self, now: Timestamp) {
        // Either way: a clock that was ahead must not keep it from forgetting.
        let off = now.since(self.begun).0.max(self.begun.since(now).0);
        if off >= MEMORY.0 {
            *self = Self { begun: now, discoveries: self.discoveries, ..Self::default() };
        }
    }
}

/// γ_j; zero for none.
fn gamma(j: u64) -> f64 {
    if j == 0 { 0.0 } else { GAMMA_1 * (j as f64).powf(-1.6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    /// Marsaglia's xorshift64: uniform in (0, 1).
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        }
    }

    /// Plays so many tests, a share of them of something true; gives false and true discoveries, and how
    /// many were true.
    fn play(seed: u64, level: Ppm, tests: u32, share_true: f64) -> (f64, f64, f64) {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..10 {
            chance.next();
        }
        let mut stream = Stream::default();
        let (mut wrong, mut right, mut there) = (0.0, 0.0, 0.0);
        for _ in 0..tests {
            let real = chance.next() < share_true;
            // What is real has the p-value of a normal mean of 4.
            let p = if real { chance.next().powf(12.0) } else { chance.next() };
            there += f64::from(u8::from(real));
            if p <= stream.begin(level, NOW) {
                stream.discover();
                if real { right += 1.0 } else { wrong += 1.0 }
            }
        }
        (wrong, right, there)
    }

    #[test]
    fn the_rate_of_false_discoveries_stays_below_the_level_and_power_is_kept() {
        for (level, share) in [(0.05, 0.1), (0.1, 0.1), (0.1, 0.3), (0.2, 0.05)] {
            let ppm = Ppm((level * 1e6) as u32);
            let (mut rate, mut found, mut all) = (0.0, 0.0, 0.0);
            let runs = 400_u32;
            for seed in 1..=u64::from(runs) {
                let (wrong, right, there) = play(seed, ppm, 500, share);
                rate += wrong / f64::max(wrong + right, 1.0) / f64::from(runs);
                (found, all) = (found + right, all + there);
            }
            assert!(rate <= level, "{rate} at level {level}, {share} true");
            let power = found / all;
            assert!(power >= 0.4, "power {power} at level {level}, {share} true");
        }
    }

    #[test]
    fn where_nothing_is_wrong_the_number_of_findings_is_bounded() {
        let (mut runs_with, mut total) = (0.0, 0.0);
        let runs = 2_000_u32;
        for seed in 1..=u64::from(runs) {
            let (wrong, _, _) = play(seed, LEVEL, 300, 0.0);
            (runs_with, total) = (runs_with + f64::from(u8::from(wrong > 0.0)), total + wrong);
        }
        // Nothing is true, so the rate is the share of runs with any discovery. Two deviations more.
        let (share, mean) = (runs_with / f64::from(runs), total / f64::from(runs));
        assert!(share <= 0.06 && mean <= 0.065, "{share} of runs, {mean} each: W0 is 0.05");
        assert!(share >= 0.02, "{share}: it would find nothing at all");
    }

    #[test]
    fn what_was_spent_never_exceeds_what_discoveries_earned() {
        let mut chance = Chance(7);
        let mut stream = Stream::default();
        let (mut spent, mut discoveries) = (0.0, 0.0_f64);
        for n in 0..5_000_u32 {
            spent += stream.begin(LEVEL, NOW);
            if n.is_multiple_of(37) || chance.next() < 0.02 {
                stream.discover();
                discoveries += 1.0;
            }
            assert!(spent <= 0.1 * discoveries.max(1.0), "{spent} after {discoveries}");
            assert!(stream.found.len() <= FOUND_MAX);
        }
    }

    #[test]
    fn after_many_mistakes_it_hears_again_the_next_day() {
        let mut stream = Stream::default();
        let first = stream.begin(LEVEL, NOW);
        for _ in 0..1_000 {
            stream.begin(LEVEL, NOW);
        }
        let deaf = stream.begin(LEVEL, NOW.plus(Millis(MEMORY.0 - 1)));
        assert!(deaf < first / 10_000.0, "{deaf}, {first} at first");
        let again = stream.begin(LEVEL, NOW.plus(MEMORY));
        assert!((again - first).abs() < 1e-12, "{again}");
        // A clock that is put back by more than a day.
        let back = stream.begin(LEVEL, Timestamp(5));
        assert!((back - first).abs() < 1e-12 && stream.tests() == 1);
    }

    #[test]
    fn a_successor_goes_on_where_the_owner_was() {
        let mut owner = Stream::default();
        for n in 0..20 {
            owner.begin(LEVEL, NOW);
            if n % 5 == 0 {
                owner.discover();
            }
        }
        let bytes = medic_state::codec::encode(&owner);
        let mut heir = Stream::default();
        heir.begin(LEVEL, NOW);
        heir.take_over(medic_state::codec::decode(&bytes).unwrap_or_default());
        assert_eq!(heir, owner);
        let (mine, theirs) = (heir.begin(LEVEL, NOW), owner.begin(LEVEL, NOW));
        assert!((mine - theirs).abs() < 1e-15);
        heir.take_over(Stream { tests: 3, ..owner.clone() });
        assert_eq!(heir, owner, "older news");
        heir.take_over(Stream { tests: 99, found: vec![200], ..owner.clone() });
        assert_eq!(heir, owner, "damage");
    }
}
