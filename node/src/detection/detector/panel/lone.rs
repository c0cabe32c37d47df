//! Tier 2, of an entity with one metric: there no crowd has a say, so what tier 0 has is looked at again.
//!
//! The residuals are those of [`Reach`]. They are held against what the core loop has neither room nor time for:
//!
//! * **scale by phase**: the scale is at least a share of what residuals of this hour of the day usually are. Ramps
//!   and nightly jobs are rough every day.
//! * **median**: the running scale follows the median of the residuals, not their clipped mean, so that bursts in a
//!   fifth of the rows do not pass for noise. The median moves by steps of a fixed share, up or down (Ma,
//!   Muthukrishnan & Sandler, "Frugal streaming for estimating quantiles", 2013).
//! * **lasting**: an exponentially weighted mean of the residuals in units of that scale and of its own tail
//!   (the EWMA chart: Roberts, Technometrics 1 (1959)). A small shift that lasts is as odd as a large one that does
//!   not.
//!
//! Deliberately absent: spectral residual (Ren et al., KDD 2019), the left matrix profile, a profile by hour of the
//! week, and a fitted tail (SPOT: Siffer et al., KDD 2017). Each was tried on what tier 0 suspects of public series,
//! and told events from blips no better.

use minicbor::{Decode, Encode};

use super::{
    pulse::{HOURS, VALUE_MAX, cube_root, step},
    reach::{Reach, ReachTuning, WARM_UP, track},
};

/// Share of an hour's usual residual that the scale is at least.
const PHASE_SHARE: f64 = 0.7;
/// Weight of a new row in an hour's usual residual.
const PHASE_RATE: f64 = 0.1;
/// Mean of the absolute values of a normal, in medians of them.
const MEAN_IN_MEDIANS: f64 = 1.183;
/// Step of the median, as a share of it, where a mean would take the whole residual.
const MEDIAN_STEP: f64 = 0.4;
/// Weight of a new row in the lasting residual: a memory of some ten rows.
const LASTING_RATE: f64 = 0.1;
/// Weight of the lasting residual beside single ones: the standard deviation of such a mean of independent rows
/// is a fourth of theirs, and they seldom are independent.
const LASTING_WEIGHT: f64 = 3.0;
/// Share of its tail that the unit of the lasting residual is at least.
const LASTING_TAIL: f64 = 0.3;
/// Single residuals count at most so many scales towards the lasting one.
const LASTING_MAX: f64 = 8.0;

/// The state: the value, and its cube root.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Lone {
    #[n(0)]
    seen: u32,
    #[n(1)]
    lanes: [Lane; 2],
}

/// One of the two.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct Lane {
    #[n(0)]
    reach: Reach,
    /// Usual residual by hour of the day; 0 where unknown.
    #[n(1)]
    phases: [f32; HOURS],
    #[n(2)]
    lasting: f32,
    /// Its running 98 % quantile.
    #[n(3)]
    lasting_tail: f32,
}

impl Lone {
    /// Judges a finite value, then learns from it: distance in robust scales. `profiled`: what the hour usually
    /// brings, where that is known.
    pub(super) fn update(
        &mut self,
        value: f64,
        profiled: Option<f64>,
        hour: Option<u8>,
        tunings: &[ReachTuning; 2],
    ) -> f64 {
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        let values = [value, cube_root(value)];
        let profiled = [profiled, profiled.map(cube_root)];
        if self.seen == 0 {
            self.lanes = values.map(|x| Lane { reach: Reach::at(x), ..Lane::default() });
        }
        let hour = hour.map(usize::from).filter(|&hour| hour < HOURS);
        let mut reach = 0.0_f64;
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            reach = reach.max(lane.update(values[at], profiled[at], hour, self.seen, &tunings[at]));
        }
        self.seen = self.seen.saturating_add(1);
        reach
    }
}

impl Lane {
    fn update(
        &mut self,
        value: f64,
        profiled: Option<f64>,
        hour: Option<usize>,
        seen: u32,
        tuning: &ReachTuning,
    ) -> f64 {
        let young = seen < WARM_UP;
        let share = 1.0 / (f64::from(seen) + 1.0);
        let running = self.reach.scale_now(value, share, tuning);
        let rough = hour.map_or(0.0, |hour| f64::from(self.phases[hour]));
        let scale = running.max(PHASE_SHARE * rough);
        let residual = self.reach.residual(value, profiled, scale, young);
        let single = self.reach.far(residual, scale, seen, tuning);
        let lasting = self.lasting(residual, scale, tuning);
        if let Some(hour) = hour {
            let known = rough > 0.0 && !young;
            let most = if known { 3.0 * rough.max(running) } else { f64::MAX };
            step(&mut self.phases[hour], residual.abs().min(most), PHASE_RATE);
        }
        self.learn_scale(residual.abs(), running, share.max(tuning.rate), young);
        if young { 0.0 } else { single.max(lasting) }
    }

    fn lasting(&mut self, residual: f64, scale: f64, tuning: &ReachTuning) -> f64 {
        let most = LASTING_MAX * scale;
        let mean = step(&mut self.lasting, residual.clamp(-most, most), LASTING_RATE);
        let tail = f64::from(self.lasting_tail);
        let unit = scale.max(LASTING_TAIL * tail);
        track(&mut self.lasting_tail, mean.abs(), 0.1 * tail.max(f64::from(self.reach.scale)));
        LASTING_WEIGHT * tuning.weight * tuning.sided(mean) / unit
    }

    fn learn_scale(&mut self, size: f64, running: f64, weight: f64, young: bool) {
        let above = MEAN_IN_MEDIANS * size > running;
        let target = match (young, above) {
            (true, _) => size,
            (false, true) => running * (1.0 + MEDIAN_STEP),
            (false, false) => running * (1.0 - MEDIAN_STEP),
        };
        step(&mut self.reach.scale, target, weight);
    }
}
