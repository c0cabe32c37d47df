//! Tier 0: one series, in a few hundred bytes and a fraction of a microsecond per point.
//!
//! ```text
//!            ┌ running means, spreads, differences, residuals ─► records ─► novelty (first of its kind)
//!  value ────┤
//!            └ residual of level and of the hour's profile ─────────────► reach  (how far out, held)
//! ```
//!
//! * **novelty** asks of some fifteen statistics whether they do what they never did ([`Record`]), and
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
pub const STATISTICS: usize = 15;
/// Spans of the running means, in rows.
const MEAN_SPANS: [f64; 4] = [3.0, 8.0, 24.0, 72.0];
/// Spans of the running spreads, in rows.
const SPREAD_SPANS: [f64; 3] = [12.0, 36.0, 96.0];
/// Values kept for differences.
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
pub type Weights = [(f64, f64); STATISTICS];

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
pub struct ReachTuning {
    /// Weight of the first, second and third largest residual.
    pub weight: [f64; 3],
    /// Share of the 98 % quantile that the scale is at least.
    pub tail: [f64; 3],
    /// Share of the peak that the scale is at least.
    pub peak: [f64; 3],
    /// Weight of what is below.
    pub below: f64,
    /// The scale is at least this share of the level.
    pub floor: f64,
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
    spreads: [f32; 3],
    #[n(4)]
    fast: f32,
    #[n(5)]
    slow: f32,
    #[n(6)]
    profile: [f32; HOURS],
    #[n(7)]
    profile_seen: [u8; HOURS],
    #[n(8)]
    profile_mean: f32,
    #[n(9)]
    level: f32,
    #[n(10)]
    offset: f32,
    #[n(11)]
    scale: f32,
    #[n(12)]
    size: f32,
    #[n(13)]
    near: [f32; NEAR],
    #[n(14)]
    tails: [Tail; 3],
    #[n(15)]
    records: [Record; STATISTICS],
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            seen: 0,
            ring: [0.0; RING],
            means: [0.0; 4],
            spreads: [0.0; 3],
            fast: 0.0,
            slow: 0.0,
            profile: [0.0; HOURS],
            profile_seen: [0; HOURS],
            profile_mean: 0.0,
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
    pub fn update(
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
        (self.fast, self.slow, self.level) = (v, v, v);
    }

    /// Moves the statistics on, and tells each one's record margins.
    pub fn each_margin(
        &mut self,
        value: f64,
        hour: Option<u8>,
        mut tell: impl FnMut(usize, (f64, f64)),
    ) {
        let seen = self.seen as usize;
        let before = |back: usize| f64::from(self.ring[(seen + RING - back) % RING]);
        let differences = [1, 4, 12].map(|back| (seen >= back).then(|| value - before(back)));
        self.ring[seen % RING] = value as f32;
        let mut record = |at: usize, x: Option<f64>, records: &mut [Record; STATISTICS]| {
            if let Some(x) = x {
                tell(at, records[at].update(x));
            }
        };
        let records = &mut self.records;
        record(0, Some(value), records);
        for (at, span) in MEAN_SPANS.into_iter().enumerate() {
            let mean = step(&mut self.means[at], value, alpha(span, seen));
            record(1 + at, (seen as f64 >= span).then_some(mean), records);
        }
        for (at, span) in SPREAD_SPANS.into_iter().enumerate() {
            let deviation = value - f64::from(self.means[at + 1]);
            let variance = step(&mut self.spreads[at], deviation * deviation, alpha(span, seen));
            record(5 + at, (seen as f64 >= span).then(|| variance.sqrt()), records);
        }
        for (at, difference) in differences.into_iter().enumerate() {
            record(8 + at, difference, records);
        }
        for (at, level, weight) in [(11, &mut self.fast, 0.1), (12, &mut self.slow, 0.02)] {
            let residual = value - f64::from(*level);
            step(level, value, weight);
            record(at, Some(residual), records);
        }
        let hour = hour.map(usize::from).filter(|&h| h < HOURS);
        let trusted = hour.filter(|&h| self.profile_seen[h] >= PROFILE_TRUSTED);
        if let Some(hour) = trusted {
            let residual = value - f64::from(self.profile[hour]);
            let mean = step(&mut self.profile_mean, residual, 1.0 / 4.5);
            record(13, Some(residual), records);
            record(14, Some(mean), records);
        }
    }

    fn reach(&mut self, value: f64, hour: Option<u8>, tuning: &ReachTuning) -> f64 {
        let seen = self.seen as usize;
        let young = self.seen < REACH_WARM_UP;
        let size = step(&mut self.size, value, (1.0 / (seen as f64 + 1.0)).max(0.005)).abs();
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
        let taught = if young { residual.abs() } else { residual.abs().min(3.0 * scale.max(least)) };
        step(&mut self.scale, taught, (1.0 / (seen as f64 + 1.0)).max(0.01));
        if young { 0.0 } else { reach }
    }

    fn reach_of(&mut self, scale: f64, residual: f64, seen: usize, tuning: &ReachTuning) -> f64 {
        let mut reach = 0.0_f64;
        for k in 0..3 {
            let size = order(&self.near, residual, seen, k);
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

/// The `k`-th largest of the last `2k + 1` residuals, or smallest if that is further out; 0 when neither has
/// that sign.
fn order(near: &[f32; NEAR], residual: f64, seen: usize, k: usize) -> f64 {
    if k == 0 {
        return residual;
    }
    let count = (2 * k + 1).min(seen + 1);
    let mut last = [0.0_f32; NEAR];
    for (back, slot) in last.iter_mut().take(count).enumerate() {
        *slot = near[(seen + NEAR * 2 - back) % NEAR];
    }
    let last = &mut last[..count];
    last.sort_unstable_by(f32::total_cmp);
    let up = if count > k { f64::from(last[count - 1 - k]).max(0.0) } else { 0.0 };
    let down = if count > k { f64::from(last[k]).min(0.0) } else { 0.0 };
    if up >= -down { up } else { down }
}

/// Weight of a new value in a running mean over `span` rows: a plain mean until there are as many.
fn alpha(span: f64, seen: usize) -> f64 {
    (2.0 / (span + 1.0)).max(1.0 / (seen as f64 + 1.0))
}

fn step(mean: &mut f32, value: f64, weight: f64) -> f64 {
    let moved = f64::from(*mean) + weight * (value - f64::from(*mean));
    *mean = moved as f32;
    moved
}
