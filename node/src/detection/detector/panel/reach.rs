//! How far out is a value, in units of the series' own robust scale?
//!
//! The residual is the smaller of those from a running level and from a profile by hour of the day: only what
//! surprises both is surprising. The largest value counts, and the second and third largest of the last few
//! rows with tails of their own, so that a lasting excursion needs to be less far out than a single one.
//!
//! Updates are clipped (Huber's psi, as in Gelper, Fried & Croux, J. Forecasting 29 (2010)): an odd value hardly
//! teaches.

use minicbor::{Decode, Encode};

use super::pulse::step;

/// The share of residuals that a [`Tail`] lies above.
const TAIL: f64 = 0.98;
/// Rows over which order statistics of the residual are taken.
const NEAR: usize = 5;
/// Rows before reach is told.
pub(super) const WARM_UP: u32 = 30;
/// Share of the peaks of the largest and the third largest residual that their units are at least.
const PEAK: [f64; 2] = [0.08, 0.1];

/// Tunable numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReachTuning {
    /// Weight of the whole.
    pub(super) weight: f64,
    /// Shares of the 98 % quantiles of the largest and the third largest residual that their units are at
    /// least.
    pub(super) tail: [f64; 2],
    /// Weight of what is below.
    pub(super) below: f64,
    /// The scale is at least this share of the level.
    pub(super) floor: f64,
    /// Weight of a new row in the scale.
    pub(super) rate: f64,
}

impl ReachTuning {
    /// The size of a residual, by what its side weighs.
    pub(super) fn sided(&self, residual: f64) -> f64 {
        if residual < 0.0 { -residual * self.below } else { residual }
    }
}

/// Tail and peak of one order statistic of the residual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
struct Tail {
    /// Running 98 % quantile ([`TAIL`]).
    #[n(0)]
    quantile: f32,
    /// Largest so far, slowly forgotten.
    #[n(1)]
    peak: f32,
}

/// Level, scale and tails of one series.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Reach {
    #[n(0)]
    level: f32,
    #[n(1)]
    offset: f32,
    #[n(2)]
    pub(super) scale: f32,
    #[n(3)]
    size: f32,
    #[n(4)]
    near: [f32; NEAR],
    #[n(5)]
    tails: [Tail; 2],
}

impl Reach {
    /// Begins at a value.
    pub(super) fn at(value: f64) -> Self {
        Self { level: value as f32, ..Self::default() }
    }

    /// Judges a value, then learns from it. `profiled`: what the hour of the day usually brings, where that is
    /// known. `seen`: values before this one; `share`: the share of this one among them.
    pub(super) fn update(
        &mut self,
        value: f64,
        profiled: Option<f64>,
        seen: u32,
        share: f64,
        tuning: &ReachTuning,
    ) -> f64 {
        let young = seen < WARM_UP;
        let scale = self.scale_now(value, share, tuning);
        let residual = self.residual(value, profiled, scale, young);
        let reach = self.far(residual, scale, seen, tuning);
        let taught = if young { residual.abs() } else { residual.abs().min(3.0 * scale) };
        step(&mut self.scale, taught, share.max(tuning.rate));
        if young { 0.0 } else { reach }
    }

    /// The scale that a value is held against; its size is then learnt.
    #[inline]
    pub(super) fn scale_now(&mut self, value: f64, share: f64, tuning: &ReachTuning) -> f64 {
        let size = step(&mut self.size, value, share.max(0.005)).abs();
        f64::from(self.scale).max(tuning.floor * size).max(1e-9)
    }

    /// What neither level nor profile explains; both are then learnt.
    #[inline]
    pub(super) fn residual(
        &mut self,
        value: f64,
        profiled: Option<f64>,
        scale: f64,
        young: bool,
    ) -> f64 {
        let wide = 4.0 * scale;
        let of_level = value - f64::from(self.level);
        let of_profile = value - profiled.unwrap_or(f64::from(self.level)) - f64::from(self.offset);
        self.offset += (0.1 * of_profile.clamp(-wide, wide)) as f32;
        let clipped = if young { of_level } else { of_level.clamp(-wide, wide) };
        self.level += (0.1 * clipped) as f32;
        if of_level * of_profile <= 0.0 {
            0.0
        } else if of_profile.abs() < of_level.abs() {
            of_profile
        } else {
            of_level
        }
    }

    /// How far out the residual and the last few are; its tails are then learnt.
    #[inline]
    pub(super) fn far(
        &mut self,
        residual: f64,
        scale: f64,
        seen: u32,
        tuning: &ReachTuning,
    ) -> f64 {
        let at = seen as usize % NEAR;
        self.near[at] = residual as f32;
        self.reach_of(scale, medians(&self.near, at), tuning)
    }

    fn reach_of(&mut self, scale: f64, sizes: [f64; 3], tuning: &ReachTuning) -> f64 {
        let sided = |size: f64| tuning.sided(size);
        let [first, second, third] = sizes;
        let mut reach = sided(second) / scale;
        for (k, (tail, size)) in self.tails.iter_mut().zip([first, third]).enumerate() {
            let (quantile, peak) = (f64::from(tail.quantile), f64::from(tail.peak));
            let unit = scale.max(tuning.tail[k] * quantile).max(PEAK[k] * peak);
            // Seldom further out than the one before: no division then.
            let far = sided(size);
            if far > reach * unit {
                reach = far / unit;
            }
            let size = size.abs();
            track(&mut tail.quantile, size, 0.1 * quantile.max(f64::from(self.scale)));
            tail.peak = (peak * 0.998).max(size) as f32;
        }
        tuning.weight * reach
    }
}

/// Moves a running [`TAIL`] quantile on.
pub(super) fn track(quantile: &mut f32, size: f64, stride: f64) {
    let before = f64::from(*quantile);
    let moved = before + if size > before { TAIL * stride } else { (TAIL - 1.0) * stride };
    *quantile = moved.max(0.0) as f32;
}

/// Medians of the last one, three and five residuals, the newest at `at`: the `k`-th is as far out as `k + 1`
/// of the last `2k + 1` rows at least.
fn medians(near: &[f32; NEAR], at: usize) -> [f64; 3] {
    let back = |rows: usize| near[(at + NEAR - rows) % NEAR];
    let (a, b, c) = (back(0), back(1), back(2));
    let three = a.min(b).max(a.max(b).min(c));
    let (d, e) = (back(3), back(4));
    // The median of five is that of: the larger of the smaller ones, the smaller of the larger, the fifth.
    let low = a.min(b).max(c.min(d));
    let high = a.max(b).min(c.max(d));
    let five = low.min(high).max(low.max(high).min(e));
    [f64::from(a), f64::from(three), f64::from(five)]
}
