//! `Policy`: decision thresholds, tenant-wide limits, and what people need not be told. One per tenant is in force: the one named
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
    /// What people need not be told while something else is the case.
    #[cbor(n(8), skip_if = "Vec::is_empty")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inhibit: Vec<InhibitSpec>,
    /// A symptom that is back within this time of its incident's end goes on with that story: the
    /// page for it still stands. Default 5 m; 0 s: each return is a story of its own.
    #[n(9)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refractory: Option<Millis>,
    /// So many returns in a row, each within `refractory`, are escalated, healed or not. Absent: what
    /// bounds treatment is the playbooks' `perTarget`.
    #[n(10)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_recurrences: Option<u32>,
}

/// While a symptom that matches `source` is active, nobody is paged for one that matches `target`:
/// Prometheus Alertmanager's inhibition rule.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InhibitSpec {
    /// By which `medic explain` names it.
    #[n(0)]
    pub name: String,
    /// Prometheus matchers over the labels of what inhibits; all must match.
    #[n(1)]
    pub source: Vec<String>,
    /// Prometheus matchers over the labels of what is inhibited; all must match.
    #[n(2)]
    pub target: Vec<String>,
    /// Labels that both must have with equal values; missing and empty are equal.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub equal: Vec<String>,
}

/// What `refractory` is when nothing is said.
const REFRACTORY: Millis = Millis::from_secs(300);

impl PolicySpec {
    /// How long after its incident's end a symptom that is back goes on with the same story.
    #[must_use]
    pub fn refractory(&self) -> Millis {
        self.refractory.unwrap_or(REFRACTORY)
    }

    /// Whether it says what command sets before 8 do not know.
    pub(crate) const fn beyond_thresholds(&self) -> bool {
        !self.inhibit.is_empty() || self.refractory.is_some() || self.max_recurrences.is_some()
    }
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
            inhibit: Vec::new(),
            refractory: None,
            max_recurrences: None,
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
