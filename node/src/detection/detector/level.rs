//! Is this value usual? A robust running level and scale.
//!
//! The level is an EWMA whose updates are clipped (Huber's psi at 2 sigma, as in Gelper, Fried &
//! Croux, "Robust forecasting with exponential and Holt–Winters smoothing", J. Forecasting 29
//! (2010)); the scale an EWMA of clipped absolute residuals. Values beyond 3 sigma teach nothing.
//! Oddness is a streak of values beyond 4 sigma, or a CUSUM for small lasting shifts (Page,
//! Biometrika 41 (1954)); both begin sooner where something was missed before ([`Eager`]).
//!
//! A shift that lasts [`ACCEPT_AFTER`] points is the new normal: it is learned afresh.
//!
//! What Student's t and the CUSUM's theory say of a value holds for noise that they were made for. So no
//! p-value is below the share of this very series' past that was as odd: see [`super::calibrated`].

use minicbor::{Decode, Encode};

use super::{
    calibrated::{Calibrated, Example},
    stats::{median, scaled_mad, student_t4_tail},
};
use crate::detection::counted::Measured;

/// Points before the first judgement: at a 5 s interval one minute.
const WARM_UP: usize = 12;
/// Weight of a new point: a memory of some 20 points.
const ALPHA: f64 = 0.05;
/// Weight for the scale: slower, so that a burst does not widen it at once.
const ALPHA_SCALE: f64 = 0.02;
/// Beyond this many sigma a value teaches nothing.
const TEACHES_MAX: f64 = 3.0;
/// Beyond this many sigma a value is odd, and so much sooner at full eagerness.
const ODD_SIGMA: f64 = 4.0;
const ODD_SIGMA_EAGER: f64 = 1.0;
/// CUSUM allowance and threshold in sigma. In control and without autocorrelation, a false alarm
/// every 1e7 points (Siegmund, "Sequential Analysis" (1985), eq. 2.57).
const CUSUM_K: f64 = 0.75;
const CUSUM_H: f64 = 10.0;
/// At full eagerness the threshold is so much lower: in control, a false alarm every 1e5 points.
const CUSUM_H_EAGER: f64 = 3.0;
/// Reported p-value of a CUSUM alarm; soft evidence, because real noise is autocorrelated.
const CUSUM_P: f64 = 1e-3;
/// p-values multiplied at most over a streak: further points of a streak are hardly independent.
const STREAK_FACTORS: u16 = 4;
/// Half an hour at 5 s.
const ACCEPT_AFTER: u16 = 360;

/// What is known about a series beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// The scale is at least this, in the series' unit.
    pub scale_min: f64,
    /// The scale is at least this share of the level.
    pub scale_min_share: f64,
    /// Only upward deviations are odd.
    pub upward_only: bool,
    /// How much sooner than usual a value is odd.
    pub eager: Eager,
}

/// How much sooner than usual a detector speaks, because it was told that it had missed something:
/// 0 as usual to 1 at the greatest weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Eager {
    /// About single values.
    pub level: f64,
    /// About shifts that last.
    pub cusum: f64,
}

/// The judgement of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Deviation in robust sigma; positive: upward. Zero while learning.
    pub z: f64,
    /// What was expected.
    pub expected: f64,
    /// Odd values in a row, this one included.
    pub streak: u16,
    /// Probability of such a streak or shift when all is well, and no less than the share of the series' past
    /// that was as odd; 1 when the value is not odd.
    pub p_value: f64,
    /// A small shift has lasted.
    pub shifted: bool,
    /// Enough points were seen to judge at all.
    pub warm: bool,
}

impl Judged {
    /// Neither odd nor shifted, and enough was seen to say so.
    #[must_use]
    pub const fn usual(&self) -> bool {
        self.warm && self.streak == 0 && !self.shifted
    }
}

/// The state: fixed size once warm.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Level {
    #[n(0)]
    warm_up: Vec<f64>,
    #[n(1)]
    level: f64,
    #[n(2)]
    scale: f64,
    #[n(3)]
    cusum_up: f64,
    #[n(4)]
    cusum_down: f64,
    #[n(5)]
    streak: u16,
    #[n(6)]
    streak_p: f64,
    #[n(7)]
    warm: bool,
    #[n(8)]
    #[cbor(default)]
    calibrated: Calibrated,
}

impl Level {
    /// Whether it can judge.
    #[must_use]
    pub const fn warm(&self) -> bool {
        self.warm
    }

    /// Judges a (finite) value by what it proves, then learns from it unless it is odd, or no example.
    pub fn update(&mut self, measured: Measured, tuning: &Tuning, example: Example) -> Judged {
        let (value, learn) = (measured.value, example != Example::Suspect);
        if !self.warm {
            if learn {
                self.warm_up(value);
            }
            return self.judged(0.0, 1.0, tuning);
        }
        let scale = self.scale_now(tuning);
        let z = (measured.above(self.level) - self.level) / scale;
        let bad_z = if tuning.upward_only { z } else { z.abs() };
        self.count(bad_z, z, tuning);
        if self.streak >= ACCEPT_AFTER {
            self.calibrated.over();
            let calibrated = std::mem::take(&mut self.calibrated);
            *self = Self { calibrated, ..Self::default() };
            return self.judged(0.0, 1.0, tuning);
        }
        let p_value = self.calibrate(bad_z, tuning, example);
        if learn && self.streak == 0 && z.abs() <= TEACHES_MAX {
            self.learn(value - self.level, scale);
        } else if learn && tuning.upward_only && z < -TEACHES_MAX {
            // Harmlessly low: follow it down, in clipped steps, or the next normal value looks low.
            self.learn(-2.0 * scale, scale);
        }
        self.judged(z, p_value, tuning)
    }

    /// The p-value of what was just counted, held against the past of the series; 1 where nothing is odd.
    fn calibrate(&mut self, bad_z: f64, tuning: &Tuning, example: Example) -> f64 {
        let shifted = self.shifted(tuning);
        let sum = self.cusum() / cusum_threshold(tuning);
        let own = if bad_z < 1.0 { 0.0 } else { -student_t4_tail(bad_z).ln() };
        let (was_out, out) = (self.calibrated.out(), self.streak > 0 || shifted);
        // A sum is what came before already: it counts where an excursion begins, and outside.
        let evidence = if was_out && out { own } else { own.max(-CUSUM_P.ln() * sum) };
        let share = self.calibrated.update(evidence, out, example);
        let by_model = match (self.streak > 0, shifted) {
            (true, true) => self.streak_p.min(CUSUM_P),
            (true, false) => self.streak_p,
            (false, true) => CUSUM_P,
            (false, false) => 1.0,
        };
        by_model.max(share)
    }

    fn warm_up(&mut self, value: f64) {
        self.warm_up.push(value);
        if self.warm_up.len() >= WARM_UP {
            let mut values = std::mem::take(&mut self.warm_up);
            self.level = median(&mut values);
            self.scale = scaled_mad(&values, self.level);
            self.warm = true;
        }
    }

    fn scale_now(&self, tuning: &Tuning) -> f64 {
        let least = tuning.scale_min.max(tuning.scale_min_share * self.level.abs());
        self.scale.max(least).max(f64::MIN_POSITIVE * 1e10)
    }

    fn count(&mut self, bad_z: f64, z: f64, tuning: &Tuning) {
        if bad_z > ODD_SIGMA - ODD_SIGMA_EAGER * tuning.eager.level {
            let p = student_t4_tail(bad_z);
            self.streak_p = match self.streak {
                0 => p,
                n if n < STREAK_FACTORS => self.streak_p * p,
                _ => self.streak_p,
            };
            self.streak = self.streak.saturating_add(1);
        } else {
            self.streak = 0;
        }
        let clipped = z.clamp(-TEACHES_MAX, TEACHES_MAX);
        let up = self.cusum_up + clipped - CUSUM_K;
        let down = self.cusum_down - clipped - CUSUM_K;
        // Capped, so that an alarm ends soon after its cause.
        self.cusum_up = up.clamp(0.0, 1.5 * CUSUM_H);
        self.cusum_down = if tuning.upward_only { 0.0 } else { down.clamp(0.0, 1.5 * CUSUM_H) };
    }

    fn learn(&mut self, residual: f64, scale: f64) {
        let clipped = residual.clamp(-2.0 * scale, 2.0 * scale);
        self.level += ALPHA * clipped;
        // E|r| of a normal is 0.798 sigma.
        self.scale += ALPHA_SCALE * (clipped.abs() * 1.2533 - self.scale);
    }

    /// The greater of the two sums, in sigma.
    const fn cusum(&self) -> f64 {
        self.cusum_up.max(self.cusum_down)
    }

    fn shifted(&self, tuning: &Tuning) -> bool {
        self.cusum() > cusum_threshold(tuning)
    }

    fn judged(&self, z: f64, p_value: f64, tuning: &Tuning) -> Judged {
        Judged {
            z,
            expected: self.level,
            streak: self.streak,
            p_value,
            shifted: self.shifted(tuning),
            warm: self.warm,
        }
    }
}

/// In sigma.
fn cusum_threshold(tuning: &Tuning) -> f64 {
    CUSUM_H - CUSUM_H_EAGER * tuning.eager.cusum
}
