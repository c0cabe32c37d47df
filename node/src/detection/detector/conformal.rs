//! How often does this series score so high? A p-value that stays true under drift.
//!
//! The conformal p-value of a score is the share of earlier scores at least as high (Vovk, Gammerman &
//! Shafer, "Algorithmic Learning in a Random World", 2005). That share is kept as the levels that the scores
//! exceed at seven rates, each steered by its own errors: after a score above it a level rises, after every
//! other it sinks, in such a proportion that it is exceeded at its rate whatever the scores do (adaptive
//! conformal inference, Gibbs & Candès, NeurIPS 2021; quantile tracking: Angelopoulos, Candès & Tibshirani,
//! NeurIPS 2023, proposition 1). No distribution, independence or stationarity is assumed:
//!
//! `exceedances in n rows <= rate * n + (highest - lowest logarithm of a score) / step + 1`
//!
//! Until `1 / rate` scores were seen a level is the highest of them, and no p-value is below
//! `1 / (scores seen + 1)`: nobody knows more after so few. Below the least rate the tail is continued as a
//! power law through the last two levels (Weissman, JASA 73 (1978)), down to that bound.

use minicbor::{Decode, Encode};

/// Rates of the levels, half a decade apart.
const RATES: [f64; 7] = [0.1, 0.031_623, 0.01, 0.003_162_3, 0.001, 0.000_316_23, 0.000_1];
/// Steps of the logarithms of the levels, after a score above: the rarer, the larger, in proportion to the
/// root, so that what lasts is rare for longer, and few rows cannot break a small rate.
const STEPS: [f64; RATES.len()] = [0.03, 0.053, 0.095, 0.17, 0.3, 0.53, 0.95];
/// Logarithms of scores are taken within these bounds.
const LOG_MAX: f64 = 9.0;

/// The levels.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Conformal {
    #[n(0)]
    seen: u32,
    /// Natural logarithms. A level counts as at least as high as those of higher rates.
    #[n(1)]
    levels: [f32; RATES.len()],
}

impl Conformal {
    /// The p-value of a score (0 or more), which then counts among the earlier ones. Above 0; 1 where it is
    /// among the usual nine tenths, or the first.
    pub(super) fn update(&mut self, score: f64) -> f64 {
        let p = self.share(score).max(1.0 / (f64::from(self.seen) + 1.0));
        self.learn(logarithm(score), |step, _| step);
        p
    }

    /// Counts a score among the earlier ones, for whom the share of few is of interest: the n-th step of a level
    /// is one n-th, as a mean's, until that is no longer than the usual one.
    pub(super) fn note(&mut self, score: f64) {
        self.learn(logarithm(score), |step, expected| step.max(1.0 / expected));
    }

    /// Share of earlier scores at least as high; 1 where there has been none.
    pub(super) fn share(&self, score: f64) -> f64 {
        if self.seen == 0 { 1.0 } else { self.tail(logarithm(score)) }
    }

    /// `paced`: a level's step, by its usual one and how many scores were expected above it so far.
    fn learn(&mut self, x: f64, paced: impl Fn(f64, f64) -> f64) {
        if self.seen == 0 {
            self.levels = [x as f32; RATES.len()];
        }
        let seen = f64::from(self.seen);
        let mut high = f64::MIN;
        for ((level, rate), step) in self.levels.iter_mut().zip(RATES).zip(STEPS) {
            let at = f64::from(*level);
            high = high.max(at);
            let step = paced(step, seen * rate);
            let moved = if seen * rate < 1.0 {
                at.max(x)
            } else if x > high {
                at + step * (1.0 - rate)
            } else {
                (at - step * rate).max(-LOG_MAX)
            };
            *level = moved as f32;
        }
        self.seen = self.seen.saturating_add(1);
    }

    /// Share of scores whose logarithm is above `x`, by the levels alone.
    fn tail(&self, x: f64) -> f64 {
        let mut levels = self.levels;
        for at in 1..levels.len() {
            levels[at] = levels[at].max(levels[at - 1]);
        }
        let above = levels.iter().take_while(|level| x > f64::from(**level)).count();
        let Some(last) = above.checked_sub(1) else { return 1.0 };
        let next = above.min(RATES.len() - 1);
        let from = next.saturating_sub(1);
        let (low, high) = (f64::from(levels[from]), f64::from(levels[next]));
        let gap = high - low;
        if gap <= 0.0 {
            return RATES[last];
        }
        let share = (x - low) / gap;
        let p = RATES[from] * (RATES[next] / RATES[from]).powf(share);
        // Between two levels, the share lies between their rates: it reaches the lower one only above it.
        if last < next { p.clamp(RATES[next] * (1.0 + 1e-9), RATES[last]) } else { p.max(1e-12) }
    }
}

fn logarithm(score: f64) -> f64 {
    score.max(0.0).ln().clamp(-LOG_MAX, LOG_MAX)
}

#[cfg(test)]
mod tests {
    use medic_raft::env::{Entropy as _, RngEntropy};

    use super::*;

    fn uniform(noise: &RngEntropy) -> f64 {
        ((noise.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Share of p-values at most `rate` among `rows` scores.
    fn share(rate: f64, rows: u32, score: impl Fn(&RngEntropy, u32) -> f64) -> f64 {
        let (mut conformal, noise) = (Conformal::default(), RngEntropy::seeded(11));
        let low = (0..rows).filter(|&row| conformal.update(score(&noise, row)) <= rate).count();
        low as f64 / f64::from(rows)
    }

    #[test]
    fn a_stated_rate_holds_for_any_tail_and_under_drift() {
        type Score = fn(&RngEntropy, u32) -> f64;
        let scores: [(&str, Score); 5] = [
            ("uniform", |noise, _| uniform(noise)),
            ("exponential", |noise, _| -uniform(noise).ln()),
            ("Pareto, without a mean", |noise, _| 1.0 / uniform(noise)),
            ("drift", |noise, row| (f64::from(row) / 5e3).exp() * uniform(noise)),
            ("a step", |noise, row| if row < 20_000 { 1.0 } else { 30.0 } * uniform(noise)),
        ];
        for (name, score) in scores {
            for rate in [0.001, 0.002, 0.01, 0.05] {
                let found = share(rate, 40_000, score);
                // The promise, with steps of 0.3 and scores that grow by a factor of e^8; between two levels, where
                // it is the shape of the tail that is assumed, a third more.
                assert!(found <= 1.3 * rate + 8.0 / 0.3 / 40_000.0, "{name}: {found} at {rate}");
                assert!(found >= 0.5 * rate, "{name}: {found} at {rate}");
            }
        }
    }

    #[test]
    fn the_bound_holds_against_an_adversary() {
        let mut conformal = Conformal::default();
        let (rate, rows) = (0.001, 30_000_u32);
        let mut low = 0;
        for row in 0..rows {
            // A score just above the level, whenever one was paid for.
            let high = conformal.levels[..5].iter().copied().fold(f32::MIN, f32::max);
            let score = if row % 97 == 0 { f64::from(high).exp() * 1.001 } else { 1.0 };
            low += u32::from(conformal.update(score) <= rate);
        }
        let bound = rate * f64::from(rows) + 2.0 * LOG_MAX / STEPS[4] + 1.0;
        assert!(f64::from(low) <= bound, "{low} rows, at most {bound} were promised");
    }

    #[test]
    fn a_share_of_few_is_not_far_from_their_ranks() {
        let (mut conformal, noise) = (Conformal::default(), RngEntropy::seeded(5));
        for row in 0..400_u32 {
            conformal.note(if row == 5 { 30.0 } else { -uniform(&noise).ln() });
        }
        let share = |score| conformal.share(score);
        let rare = share(12.0);
        assert!((1e-4..0.02).contains(&rare), "{rare}: once in four hundred");
        let common = share(3.2);
        assert!((0.02..0.1).contains(&common), "{common}: one in twenty-five");
    }

    #[test]
    fn nobody_knows_more_than_was_seen() {
        let mut conformal = Conformal::default();
        for seen in 0..500_u32 {
            let p = conformal.update(f64::from(seen + 1) * 1e3);
            assert!(p >= 1.0 / (f64::from(seen) + 1.0) && p <= 1.0, "{p} after {seen}");
        }
        for odd in [0.0, -1.0, f64::MAX, f64::NAN] {
            let p = conformal.update(odd);
            assert!(p > 0.0 && p <= 1.0, "{p} of {odd}");
        }
    }
}
