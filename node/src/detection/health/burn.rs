//! How fast an error budget burns, over several windows: Google, "The Site Reliability Workbook" (2018),
//! chapter 5, table 5-6. A window counts only while a short one says that it goes on.
//!
//! Windows are exponential ones: a constant amount of state. Time nobody watched counts as time without
//! failures, so that a few bad minutes after the start are no month of them.

use medic_state::symptom::Severity;
use minicbor::{Decode, Encode};

use crate::detection::predict::budget::GAP_MAX_S;

/// Long window and short one (seconds), burn rate, how bad: 2 % of a 30-day budget within an hour, 5 %
/// within six, 10 % within three days.
const ALERTS: [(f64, f64, f64, Severity); 3] = [
    (3_600.0, 300.0, 14.4, Severity::Critical),
    (21_600.0, 1_800.0, 6.0, Severity::Warning),
    (259_200.0, 21_600.0, 1.0, Severity::Warning),
];

/// Shares of failures, over each window.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Burn {
    #[n(0)]
    long: [f64; 3],
    #[n(1)]
    short: [f64; 3],
}

/// A budget that burns too fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burning {
    /// As a multiple of what is sustainable.
    pub rate: f64,
    /// Over this time, seconds.
    pub window: f64,
    /// From which rate on it is too fast.
    pub most: f64,
    /// The short window that says that it goes on, seconds.
    pub short: f64,
    /// How bad that is.
    pub severity: Severity,
}

impl Burning {
    /// For how long after the last failures it counts as going on, seconds: a thirtieth of the short
    /// window (10 s, a minute, 12 minutes). The window itself falls slowly, and what is over is nothing
    /// to act on.
    #[must_use]
    pub fn lasts(&self) -> f64 {
        self.short / 30.0
    }
}

impl Burn {
    /// Takes a share of failures, `elapsed` seconds after the one before.
    pub fn note(&mut self, failures: f64, elapsed: f64) {
        let failures = if failures.is_finite() { failures.clamp(0.0, 1.0) } else { return };
        let elapsed = elapsed.clamp(0.0, GAP_MAX_S);
        for (at, (long, short, ..)) in ALERTS.iter().enumerate() {
            self.long[at] += (failures - self.long[at]) * -(-elapsed / long).exp_m1();
            self.short[at] += (failures - self.short[at]) * -(-elapsed / short).exp_m1();
        }
    }

    /// The fastest burn that is too fast. `allowed`: the share of failures of the objective.
    #[must_use]
    pub fn burning(&self, allowed: f64) -> Option<Burning> {
        let allowed = if allowed > 0.0 { allowed } else { return None };
        ALERTS.iter().enumerate().find_map(|(at, (window, short, most, severity))| {
            let (rate, lately) = (self.long[at] / allowed, self.short[at] / allowed);
            let severity = *severity;
            (rate >= *most && lately >= *most).then_some(Burning {
                rate,
                window: *window,
                most: *most,
                short: *short,
                severity,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ALLOWED: f64 = 0.001;

    fn after(burn: &mut Burn, seconds: u32, failures: f64) -> Option<Burning> {
        for _ in 0..seconds / 10 {
            burn.note(failures, 10.0);
        }
        burn.burning(ALLOWED)
    }

    #[test]
    fn fast_burns_are_told_soon_and_slow_ones_later() {
        let mut fast = Burn::default();
        assert_eq!(after(&mut fast, 20, 1.0), None, "twenty seconds are not 2 % of a month");
        let burning = after(&mut fast, 60, 1.0).unwrap();
        assert_eq!((burning.severity, burning.window), (Severity::Critical, 3_600.0));
        let mut slow = Burn::default();
        assert_eq!(after(&mut slow, 3_600, 0.008), None);
        let burning = after(&mut slow, 40_000, 0.008).unwrap();
        assert_eq!((burning.severity, burning.window), (Severity::Warning, 21_600.0));
        assert_eq!(after(&mut Burn::default(), 400_000, 0.0009), None, "within the objective");
    }

    #[test]
    fn what_is_over_is_told_no_longer() {
        let mut burn = Burn::default();
        assert!(after(&mut burn, 120, 1.0).is_some());
        assert_eq!(after(&mut burn, 1_800, 0.0), None);
        burn.note(f64::NAN, 10.0);
        assert_eq!(Burn::default().burning(0.0), None);
    }
}
