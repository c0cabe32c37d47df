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
//! * **reach** ([`Reach`]) is the residual in units of the series' own robust scale, taken of the value and of
//!   its cube root; the larger one counts. It stays high as long as what is odd lasts.

use minicbor::{Decode, Encode};

use super::{
    reach::{Reach, ReachTuning},
    record::Record,
};

/// Statistics whose records are kept.
pub(super) const STATISTICS: usize = 9;
/// Spans of the running means, in rows.
const MEAN_SPANS: [f64; 4] = [3.0, 8.0, 24.0, 72.0];
/// Span of the running spread, in rows.
const SPREAD_SPAN: f64 = 96.0;
/// Values kept, for the difference to the oldest.
const RING: usize = 12;
/// Bins of the daily profile.
pub(super) const HOURS: usize = 24;
/// Days after which the profile of an hour is trusted, in values seen in it.
const PROFILE_TRUSTED: u8 = 6;
/// Larger values are taken as this: its square still fits the state's precision.
pub(super) const VALUE_MAX: f64 = 1e18;

/// Weights of the records above and below, per statistic.
pub(super) type Weights = [(f64, f64); STATISTICS];

/// What one value amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beat {
    /// Largest weighted record margin; 0 when nothing is new.
    pub novelty: f64,
    /// Distance in robust scales.
    pub reach: f64,
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
    /// Of the value, and of its cube root.
    #[n(7)]
    reaches: [Reach; 2],
    #[n(8)]
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
            reaches: [Reach::default(), Reach::default()],
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
        tunings: &[ReachTuning; 2],
    ) -> Beat {
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        if self.seen == 0 {
            self.begin(value);
        }
        let mut novelty = 0.0_f64;
        self.each_margin(value, hour, |at, (above, below)| {
            let (up, down) = weights[at];
            novelty = novelty.max(up * above).max(down * below);
        });
        let reach = self.reach(value, hour, tunings);
        self.learn_profile(value, hour);
        self.seen = self.seen.saturating_add(1);
        Beat { novelty, reach }
    }

    fn begin(&mut self, value: f64) {
        let v = value as f32;
        self.ring = [v; RING];
        self.means = [v; 4];
        self.slow = v;
        self.reaches = [Reach::at(value), Reach::at(cube_root(value))];
    }

    /// Moves the statistics on, and tells each one's record margins.
    pub(super) fn each_margin(
        &mut self,
        value: f64,
        hour: Option<u8>,
        mut tell: impl FnMut(usize, (f64, f64)),
    ) {
        let seen = self.seen as usize;
        let share = self.share();
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

    fn reach(&mut self, value: f64, hour: Option<u8>, tunings: &[ReachTuning; 2]) -> f64 {
        let profiled = self.profiled(hour);
        let (seen, share) = (self.seen, self.share());
        let [plain, root] = &mut self.reaches;
        let of_value = plain.update(value, profiled, seen, share, &tunings[0]);
        let profiled = profiled.map(cube_root);
        of_value.max(root.update(cube_root(value), profiled, seen, share, &tunings[1]))
    }

    /// What the hour of the day usually brings, where that is known.
    #[inline]
    pub(super) fn profiled(&self, hour: Option<u8>) -> Option<f64> {
        let known = hour.map(usize::from).filter(|&h| h < HOURS && self.profile_seen[h] >= 2);
        known.map(|h| f64::from(self.profile[h]))
    }

    /// Share of the next value among all.
    fn share(&self) -> f64 {
        1.0 / (f64::from(self.seen) + 1.0)
    }

    fn learn_profile(&mut self, value: f64, hour: Option<u8>) {
        let Some(hour) = hour.map(usize::from).filter(|&h| h < HOURS) else { return };
        let seen = self.profile_seen[hour];
        let weight = (1.0 / (f64::from(seen) + 1.0)).max(0.02);
        step(&mut self.profile[hour], value, weight);
        self.profile_seen[hour] = seen.saturating_add(1);
    }
}

/// In single precision, as the state is.
pub(super) fn cube_root(value: f64) -> f64 {
    f64::from((value as f32).cbrt())
}

/// Moves a running mean on.
pub(super) fn step(mean: &mut f32, value: f64, weight: f64) -> f64 {
    let moved = f64::from(*mean) + weight * (value - f64::from(*mean));
    *mean = moved as f32;
    moved
}
