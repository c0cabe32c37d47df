//! `Policy`: decision thresholds and tenant-wide limits. One per tenant is in force: the one named
//! `default`, or the built-in defaults.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Ppm};

/// Thresholds and limits of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicySpec {
    /// Act alone when confidence is above and risk below. Default 0.8 / 0.3.
    #[n(0)]
    pub auto_execute: Thresholds,
    /// Else ask for approval when confidence is above and risk below. Default 0.6 / 0.5.
    #[n(1)]
    pub recommend: Thresholds,
    /// Plans with a step begun and not finished (unknown ones included), at once.
    #[n(2)]
    pub max_in_flight: u32,
    /// Share of the tenant's instances that may be touched by plans in flight.
    #[n(3)]
    pub max_blast_radius: Ppm,
    /// Failed plans of one playbook in a row that open its breaker.
    #[n(4)]
    pub breaker_failures: u32,
    /// How long an open breaker stays open.
    #[n(5)]
    pub breaker_open: Millis,
    /// How long after its last symptom cleared an untreated incident is closed by itself.
    #[n(6)]
    pub auto_resolve_after: Millis,
    /// Regimes under which nothing is executed without approval.
    #[n(7)]
    pub approval_for_compliance: Vec<String>,
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self {
            auto_execute: Thresholds { confidence: Ppm(800_000), risk: Ppm(300_000) },
            recommend: Thresholds { confidence: Ppm(600_000), risk: Ppm(500_000) },
            max_in_flight: 5,
            max_blast_radius: Ppm(500_000),
            breaker_failures: 3,
            breaker_open: Millis::from_secs(600),
            auto_resolve_after: Millis::from_secs(20),
            approval_for_compliance: Vec::new(),
        }
    }
}

/// Confidence must be above, risk must be below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Thresholds {
    /// Least confidence, exclusive.
    #[n(0)]
    pub confidence: Ppm,
    /// Greatest risk, exclusive.
    #[n(1)]
    pub risk: Ppm,
}

impl Thresholds {
    /// Whether both bounds hold.
    #[must_use]
    pub fn admit(&self, confidence: Ppm, risk: Ppm) -> bool {
        confidence > self.confidence && risk < self.risk
    }
}
