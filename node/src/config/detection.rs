//! How a node looks at what it watches.

use medic_state::{Millis, Ppm};
use serde::Deserialize;

use crate::detection::predict::forecast::{Horizons, Opens};

/// Trends are looked at over hours at the most: no prediction reaches further than a day.
const LEAD_MAX: Millis = Millis::from_secs(86_400);
/// A limit is reached this far ahead at the least: what is nearer, `detection.lead` opens.
const HORIZON_MIN: Millis = Millis::from_secs(3_600);
/// Farther than this no trend is seen: the slowest looks back over nine hours, and reaches ten times that.
const HORIZON_MAX: Millis = Millis::from_secs(30 * 86_400);
/// Certificates of the longest kind that is still issued are renewed this long before their end.
const CERTIFICATE_MAX: Millis = Millis::from_secs(90 * 86_400);

/// Timings of detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionConfig {
    /// Time between scrapes where a service does not say. `DETECTION_INTERVAL`, in seconds.
    pub interval: Millis,
    /// A limit that will be reached within this time is reported before it is.
    pub lead: Millis,
    /// How far ahead predictions look, beside the ends of certificates.
    pub horizon: Millis,
    /// How far ahead the end of a certificate is foreseen.
    pub certificate_horizon: Millis,
    /// Which predictions open an incident, beside those of limits.
    pub opens: Opens,
    /// Share of false ones kept to among the findings that rest on detectors alone; 1: all are told.
    pub false_discovery_rate: Ppm,
}

impl Default for DetectionConfig {
    fn default() -> Self {
        let (interval, lead) = (Millis::from_secs(5), Millis::from_secs(600));
        let Horizons { general: horizon, certificate: certificate_horizon } = Horizons::default();
        let false_discovery_rate = crate::detection::lord::LEVEL;
        let opens = Opens::default();
        Self { interval, lead, horizon, certificate_horizon, opens, false_discovery_rate }
    }
}

impl DetectionConfig {
    /// The key that makes no sense, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let bad = |key, problem: &str| Err((key, problem.to_owned()));
        if self.interval < Millis(100) {
            return bad("detection.interval", "is at least 100ms");
        }
        if !(Millis::from_secs(10)..=LEAD_MAX).contains(&self.lead) {
            return bad("detection.lead", "is from 10s to 24h");
        }
        let lead = self.lead;
        if !(HORIZON_MIN.max(lead)..=HORIZON_MAX).contains(&self.horizon) {
            return bad("detection.horizon", "is from 1h (and `detection.lead`) to 30d");
        }
        if !(HORIZON_MIN..=CERTIFICATE_MAX).contains(&self.certificate_horizon) {
            return bad("detection.certificate_horizon", "is from 1h to 90d");
        }
        if self.false_discovery_rate == Ppm::ZERO {
            return bad(
                "detection.false_discovery_rate",
                "is above 0, up to 1; 0.1 is the default",
            );
        }
        Ok(())
    }
}
