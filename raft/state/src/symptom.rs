//! Symptoms: what detection concluded about one entity, with its evidence.

use std::{collections::BTreeMap, fmt};

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Millis, Ppm, Timestamp};

/// One instance of a service, or the service as a whole when `instance` is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Target {
    /// Tenant.
    #[n(0)]
    pub tenant: String,
    /// Service.
    #[n(1)]
    pub service: String,
    /// Instance; empty: the service as a whole.
    #[n(2)]
    pub instance: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        if !self.instance.is_empty() {
            write!(f, "/{}", self.instance)?;
        }
        Ok(())
    }
}

/// How bad.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    #[n(0)]
    Info,
    /// Degraded.
    #[default]
    #[n(1)]
    Warning,
    /// Users are hurt.
    #[n(2)]
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// One observation that a symptom rests on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signal {
    /// `probe.http_ok`, `metric.error_rate`, `alert.HighLatency`.
    #[n(0)]
    pub name: String,
    /// The observed value, as text (the law has no floats).
    #[n(1)]
    pub value: String,
    /// What was expected, as text: `<= 0.02`, `1`, `trend flat`.
    #[n(2)]
    pub expected: String,
    /// Which detector spoke.
    #[n(3)]
    pub detector: String,
    /// Probability of a value this extreme when all is well.
    #[n(4)]
    pub p_value: Ppm,
}

/// What detection concluded about one entity.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Symptom {
    /// About whom.
    #[n(0)]
    pub target: Target,
    /// The kind of finding, for example `down`, `unresponsive`, `errors`, `latency`,
    /// `saturation-predicted`; part of the fingerprint.
    #[n(1)]
    pub kind: String,
    /// How bad.
    #[n(2)]
    pub severity: Severity,
    /// One sentence for people.
    #[n(3)]
    pub summary: String,
    /// Combined p-value of the ensemble.
    #[n(4)]
    pub p_value: Ppm,
    /// The observations, strongest first; at most [`MAX_SIGNALS`].
    #[n(5)]
    pub signals: Vec<Signal>,
    /// When the fault is thought to have begun, by the observer's clock.
    #[n(6)]
    pub since: Timestamp,
    /// For predictions: expected time from the report to the event.
    #[n(7)]
    pub time_to_event: Option<Millis>,
    /// Labels, beside those of the service: matchers see both.
    #[n(8)]
    pub labels: BTreeMap<String, String>,
    /// What saw it: `shard-12`, `alertmanager`.
    #[n(9)]
    pub source: String,
}

/// Signals kept per symptom: enough for any ensemble we run, small enough for the log.
pub const MAX_SIGNALS: usize = 16;

/// `Signal::detector` of a limit that is crossed.
pub const LIMIT: &str = "limit";
/// How `Signal::expected` of a [`LIMIT`] ends when the detectors of that indicator have learnt enough to
/// judge, and find the value usual: they were silent, not hidden behind the limit.
pub const ALTHOUGH_USUAL: &str = " although usual";

/// `Symptom::kind` of alerts that an Alertmanager sent.
pub const ALERT_KIND: &str = "alert";
/// How the sources of such alerts begin.
pub const ALERT_SOURCE: &str = "alertmanager";

impl Symptom {
    /// Same target and kind, same fingerprint, whoever reports it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let target = &self.target;
        let digest = Digest::of(&[
            target.tenant.as_bytes(),
            &[0],
            target.service.as_bytes(),
            &[0],
            target.instance.as_bytes(),
            &[0],
            self.kind.as_bytes(),
        ]);
        let mut first = [0; 8];
        first.copy_from_slice(&digest.0[..8]);
        Fingerprint(u64::from_be_bytes(first))
    }

    /// Whether it is an alert of an Alertmanager, passed on by whichever node received it.
    #[must_use]
    pub fn relayed(&self) -> bool {
        self.kind == ALERT_KIND && self.source.starts_with(ALERT_SOURCE)
    }

    /// Whether those who depend on the instance feel it: a port that should not be open, a disk that
    /// fills or an odd figure are trouble of its own alone.
    #[must_use]
    pub fn felt_by_others(&self) -> bool {
        !self.predicted()
            && self.severity > Severity::Info
            && !matches!(self.kind.as_str(), "saturation" | "anomaly")
    }

    /// Whether it speaks of the future.
    #[must_use]
    pub const fn predicted(&self) -> bool {
        self.time_to_event.is_some()
    }
}

/// Identity of a symptom over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Fingerprint(#[n(0)] pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
