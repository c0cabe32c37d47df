//! Tier 0: one series, in a few hundred bytes and a fraction of a microsecond per point.
//!
//! ```text
//!            ┌ running means, spread, difference, residuals ─► records ─► novelty (first of its kind)
//!  value ────┤
//!            └ residual of level and of the hour's profile ─────────────► reach  (how far out, held)
//! ```
//!
//! * **novelty** asks of nine statistics whether they do what they never did ([`Record`]), and
//!   takes the largest answer: one extreme witness is enough, since each was already believed by its
//!   habit. It speaks when something begins.
//! * **reach** is the residual in units of the series' own robust scale, the residual being the smaller
//!   of those from a running level and from a profile by hour of the day: only what surprises both is
//!   surprising. The largest value counts, and the second and third largest of the last few rows with
//!   tails of their own, so that a lasting excursion needs to be less far out than a single one.
//!
//! Updates are clipped (Huber's psi, as in Gelper, Fried & Croux, J. Forecasting 29 (2010)): an odd
//! value hardly teaches.

use minicbor::{Decode, Encode};

use super::record::Record;

/// Statistics whose records are kept.
pub(super) const STATISTICS: usize = 9;
/// Spans of the running means, in rows.
const MEAN_SPANS: [f64; 4] = [3.0, 8.0, 24.0, 72.0];
/// Span of the running spread, in rows.
const SPREAD_SPAN: f64 = 96.0;
/// Values kept, for the difference to the oldest.
const RING: usize = 12;
/// Rows over which order statistics of the residual are taken.
const NEAR: usize = 5;
/// Bins of the daily profile.
const HOURS: usize = 24;
/// Days after which the profile of an hour is trusted, in values seen in it.
const PROFILE_TRUSTED: u8 = 6;
/// Rows before reach is told.
const REACH_WARM_UP: u32 = 30;

/// Weights of the records above and below, per statistic.
pub(super) type Weights = [(f64, f64); STATISTICS];

/// Tail and peak of one order statistic of the residual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
struct Tail {
    /// Running 98 % quantile.
    #[n(0)]
    quantile: f32,
    /// Largest so far, slowly forgotten.
    #[n(1)]
    peak: f32,
}

/// What one value amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beat {
    /// Largest weighted record margin; 0 when nothing is new.
    pub novelty: f64,
    /// Distance in robust scales.
    pub reach: f64,
}

/// Tunable numbers of reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReachTuning {
    /// Weight of the first, second and third largest residual.
    pub(super) weight: [f64; 3],
    /// Share of the 98 % quantile that the scale is at least.
    pub(super) tail: [f64; 3],
    /// Share of the peak that the scale is at least.
    pub(super) peak: [f64; 3],
    /// Weight of what is below.
    pub(super) below: f64,
    /// The scale is at least this share of the level.
    pub(super) floor: f64,
}

/// The state of one series.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Pulse {
    #[n(0)]
    seen: u32,
    #[n(1)]
    ring: [f32; RING],
    #[n(2)]
    means: [f32; 4],
    #[n(3)]
    spread: f32,
    #[n(4)]
    slow: f32,
    #[n(5)]
    profile: [f32; HOURS],
    #[n(6)]
    profile_seen: [u8; HOURS],
    #[n(7)]
    level: f32,
    #[n(8)]
    offset: f32,
    #[n(9)]
    scale: f32,
    #[n(10)]
    size: f32,
    #[n(11)]
    near: [f32; NEAR],
    #[n(12)]
    tails: [Tail; 3],
    #[n(13)]
    records: [Record; STATISTICS],
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            seen: 0,
            ring: [0.0; RING],
            means: [0.0; 4],
            spread: 0.0,
            slow: 0.0,
            profile: [0.0; HOURS],
            profile_seen: [0; HOURS],
            level: 0.0,
            offset: 0.0,
            scale: 0.0,
            size: 0.0,
            near: [0.0; NEAR],
            tails: [Tail::default(); 3],
            records: [Record::default(); STATISTICS],
        }
    }
}

impl Pulse {
    /// Judges a finite value, then learns from it. `hour`: of the day, where the time is known.
    pub(super) fn update(
        &mut self,
        value: f64,
        hour: Option<u8>,
        weights: &Weights,
        tuning: &ReachTuning,
    ) -> Beat {
        if self.seen == 0 {
            self.begin(value);
        }
        let mut novelty = 0.0_f64;
        self.each_margin(value, hour, |at, (above, below)| {
            let (up, down) = weights[at];
            novelty = novelty.max(up * above).max(down * below);
        });
        let reach = self.reach(value, hour, tuning);
        self.learn_profile(value, hour);
        self.seen = self.seen.saturating_add(1);
        Beat { novelty, reach }
    }

    fn begin(&mut self, value: f64) {
        let v = value as f32;
        self.ring = [v; RING];
        self.means = [v; 4];
        (self.slow, self.level) = (v, v);
    }

    /// Moves the statistics on, and tells each one's record margins.
    pub(super) fn each_margin(
        &mut self,
        value: f64,
        hour: Option<u8>,
        mut tell: impl FnMut(usize, (f64, f64)),
    ) {
        let seen = self.seen as usize;
        let share = 1.0 / (seen as f64 + 1.0);
        let oldest = f64::from(self.ring[seen % RING]);
        self.ring[seen % RING] = value as f32;
        let records = &mut self.records;
        let mut record = |at: usize, x: f64| tell(at, records[at].update(x));
        record(0, value);
        for (at, span) in MEAN_SPANS.into_iter().enumerate() {
            let mean = step(&mut self.means[at], value, (2.0 / (span + 1.0)).max(share));
            if seen as f64 >= span {
                record(1 + at, mean);
            }
        }
        let deviation = value - f64::from(self.means[3]);
        let variance =
            step(&mut self.spread, deviation * deviation, (2.0 / (SPREAD_SPAN + 1.0)).max(share));
        if seen as f64 >= SPREAD_SPAN {
            record(5, variance.sqrt());
        }
        if seen >= RING {
            record(6, value - oldest);
        }
        record(7, value - f64::from(self.slow));
        step(&mut self.slow, value, 0.02);
        let hour = hour.map(usize::from).filter(|&h| h < HOURS);
        if let Some(hour) = hour.filter(|&h| self.profile_seen[h] >= PROFILE_TRUSTED) {
            record(8, value - f64::from(self.profile[hour]));
        }
    }

    fn reach(&mut self, value: f64, hour: Option<u8>, tuning: &ReachTuning) -> f64 {
        let seen = self.seen as usize;
        let young = self.seen < REACH_WARM_UP;
        let share = 1.0 / (seen as f64 + 1.0);
        let size = step(&mut self.size, value, share.max(0.005)).abs();
        let least = (tuning.floor * size).max(1e-9);
        let scale = f64::from(self.scale);
        let wide = 4.0 * scale.max(least);
        let of_level = value - f64::from(self.level);
        let expected = hour
            .map(usize::from)
            .filter(|&h| h < HOURS && self.profile_seen[h] >= 2)
            .map_or(f64::from(self.level), |h| f64::from(self.profile[h]));
        let of_profile = value - expected - f64::from(self.offset);
        self.offset += (0.1 * of_profile.clamp(-wide, wide)) as f32;
        let clipped = if young { of_level } else { of_level.clamp(-wide, wide) };
        self.level += (0.1 * clipped) as f32;
        let residual = if of_level * of_profile <= 0.0 {
            0.0
        } else if of_profile.abs() < of_level.abs() {
            of_profile
        } else {
            of_level
        };
        self.near[seen % NEAR] = residual as f32;
        let reach = self.reach_of(scale.max(least), residual, seen, tuning);
        let taught =
            if young { residual.abs() } else { residual.abs().min(3.0 * scale.max(least)) };
        step(&mut self.scale, taught, share.max(0.01));
        if young { 0.0 } else { reach }
    }

    fn reach_of(&mut self, scale: f64, residual: f64, seen: usize, tuning: &ReachTuning) -> f64 {
        let mut reach = 0.0_f64;
        for (k, size) in medians(&self.near, residual, seen).into_iter().enumerate() {
            let tail = &mut self.tails[k];
            let (quantile, peak) = (f64::from(tail.quantile), f64::from(tail.peak));
            let unit = scale.max(tuning.tail[k] * quantile).max(tuning.peak[k] * peak);
            let sided = if size < 0.0 { -size * tuning.below } else { size };
            reach = reach.max(tuning.weight[k] * sided / unit);
            let size = size.abs();
            let stride = 0.1 * quantile.max(scale);
            let moved = quantile + if size > quantile { 0.98 * stride } else { -0.02 * stride };
            tail.quantile = moved.max(0.0) as f32;
            tail.peak = (peak * 0.998).max(size) as f32;
        }
        reach
    }

    fn learn_profile(&mut self, value: f64, hour: Option<u8>) {
        let Some(hour) = hour.map(usize::from).filter(|&h| h < HOURS) else { return };
        let seen = self.profile_seen[hour];
        let weight = (1.0 / (f64::from(seen) + 1.0)).max(0.02);
        step(&mut self.profile[hour], value, weight);
        self.profile_seen[hour] = seen.saturating_add(1);
    }
}

/// Medians of the last one, three and five residuals: the `k`-th is as far out as `k + 1` of the last
/// `2k + 1` rows at least.
fn medians(near: &[f32; NEAR], residual: f64, seen: usize) -> [f64; 3] {
    let back = |rows: usize| near[(seen + NEAR - rows) % NEAR];
    let (a, b, c) = (residual as f32, back(1), back(2));
    let three = a.min(b).max(a.max(b).min(c));
    let (d, e) = (back(3), back(4));
    // The median of five is that of: the larger of the smaller ones, the smaller of the larger, the fifth.
    let low = a.min(b).max(c.min(d));
    let high = a.max(b).min(c.max(d));
    let five = low.min(high).max(low.max(high).min(e));
    [residual, f64::from(three), f64::from(five)]
}

/// Moves a running mean on.
fn step(mean: &mut f32, value: f64, weight: f64) -> f64 {
    let moved = f64::from(*mean) + weight * (value - f64::from(*mean));
    *mean = moved as f32;
    moved
}
