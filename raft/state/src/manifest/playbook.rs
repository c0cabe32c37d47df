//! `Playbook`: what to do about a class of incidents, how to undo it, how to tell that it worked.

use std::{collections::BTreeMap, fmt, str::FromStr};

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{BadQuantity, Millis, Ppm, string_serde};

/// A playbook.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaybookSpec {
    /// Whether it may act. Starts as `shadow`.
    #[n(0)]
    #[serde(default)]
    pub mode: Mode,
    /// Prometheus matchers over the incident's labels; all must match.
    #[n(1)]
    #[serde(rename = "match")]
    pub matchers: Vec<String>,
    /// CEL condition over `incident`, `symptom`, `target`.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// How much it may touch at once and over time.
    #[n(3)]
    #[serde(default)]
    pub scope: PlaybookScope,
    /// Who must agree, and when.
    #[n(4)]
    #[serde(default)]
    pub approval: ApprovalSpec,
    /// What is done, in order.
    #[n(5)]
    pub steps: Vec<StepSpec>,
    /// How success is told.
    #[n(6)]
    pub verify: VerifySpec,
    /// What follows when it did not help.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalate: Vec<Escalation>,
    /// For predicted incidents, before anything broke.
    #[n(8)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preventive: bool,
}

/// Whether a playbook may act.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Decides and records what it would have done; never acts.
    #[default]
    #[n(0)]
    Shadow,
    /// Acts only after approval.
    #[n(1)]
    Approve,
    /// Acts by itself where confidence and risk allow.
    #[n(2)]
    Auto,
}

/// Limits of one playbook. All are replicated: an election resets none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlaybookScope {
    /// Instances of the service that may be out at once, those already unhealthy included.
    #[n(0)]
    pub max_unavailable: MaxUnavailable,
    /// Plans per target over time.
    #[n(1)]
    pub per_target: Rate,
    /// Plans over time.
    #[n(2)]
    pub per_playbook: Rate,
    /// Time to leave a target alone after a plan on it ended.
    #[n(3)]
    pub cooldown: Millis,
    /// Plans for one incident before a human is asked.
    #[n(4)]
    pub max_attempts: u32,
}

impl Default for PlaybookScope {
    fn default() -> Self {
        Self {
            max_unavailable: MaxUnavailable::Share(Ppm(340_000)),
            per_target: Rate { count: 3, per: Millis::from_secs(3600) },
            per_playbook: Rate { count: 20, per: Millis::from_secs(3600) },
            cooldown: Millis::from_secs(5),
            max_attempts: 2,
        }
    }
}

/// A count or a share of instances. A share always allows at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MaxUnavailable {
    /// This many.
    #[n(0)]
    Count(#[n(0)] u32),
    /// This share, rounded down, at least one.
    #[n(1)]
    Share(#[n(0)] Ppm),
}

impl MaxUnavailable {
    /// How many of `total` instances.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Count(count) => u64::from(count),
            Self::Share(share) => share.of(total).max(1),
        }
    }
}

impl fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => {
                let text = format!("{}.{:04}", share.0 / 10_000, share.0 % 10_000);
                write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }
}

impl FromStr for MaxUnavailable {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new(text, "a count such as 1 or a share such as 34%");
        if text.ends_with('%') {
            text.parse().map(Self::Share).map_err(|_| bad())
        } else {
            text.parse().map(Self::Count).map_err(|_| bad())
        }
    }
}

string_serde!(MaxUnavailable, "CountOrShare", r"^[0-9]+(\.[0-9]+)?%?$");

/// So many per so long: `2/1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rate {
    /// How many.
    #[n(0)]
    pub count: u32,
    /// Per how long.
    #[n(1)]
    pub per: Millis,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per)
    }
}

impl FromStr for Rate {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new(text, "a rate such as 2/1h");
        let (count, per) = text.split_once('/').ok_or_else(bad)?;
        let count = count.parse().map_err(|_| bad())?;
        Ok(Self { count, per: per.parse().map_err(|_| bad())? })
    }
}

string_serde!(Rate, "Rate", r"^[0-9]+/[0-9]+(ms|s|m|h|d)$");

/// Who must agree before the playbook acts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ApprovalSpec {
    /// Ask whenever the risk reaches this, for example `>= 0.3`. Absent: the policy's thresholds alone.
    #[n(0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_risk: Option<RiskAtLeast>,
    /// Roles that may approve.
    #[n(1)]
    pub roles: Vec<String>,
    /// How many different people.
    #[n(2)]
    pub min_approvers: u32,
    /// Who caused the plan (applied the playbook, reopened the incident) may not approve it.
    #[n(3)]
    pub forbid_self: bool,
    /// How long the question stands.
    #[n(4)]
    pub ttl: Millis,
    /// What follows then.
    #[n(5)]
    pub on_timeout: OnTimeout,
}

impl Default for ApprovalSpec {
    fn default() -> Self {
        Self {
            when_risk: None,
            roles: vec!["approver".to_owned(), "admin".to_owned()],
            min_approvers: 1,
            forbid_self: true,
            ttl: Millis::from_secs(900),
            on_timeout: OnTimeout::Escalate,
        }
    }
}

/// `>= 0.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct RiskAtLeast(#[n(0)] pub Ppm);

impl fmt::Display for RiskAtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ">= {}", self.0)
    }
}

impl FromStr for RiskAtLeast {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let number = text.strip_prefix(">=").unwrap_or(text).trim();
        number.parse().map(Self).map_err(|_| BadQuantity::new(text, "a bound such as >= 0.3"))
    }
}

string_serde!(RiskAtLeast, "RiskAtLeast", r"^(>= *)?[0-9.]+%?$");

/// What follows when nobody answered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// A human is paged.
    #[default]
    #[n(0)]
    Escalate,
    /// The plan is dropped and the incident stays open.
    #[n(1)]
    Reject,
}

/// One step. `targets` decides how many concrete steps of the plan it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepSpec {
    /// Unique within the playbook.
    #[n(0)]
    pub name: String,
    /// The action, for example `process.restart`.
    #[n(1)]
    pub action: String,
    /// Its parameters.
    #[n(2)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Which instances.
    #[n(3)]
    #[serde(default)]
    pub targets: StepTargets,
    /// What a new leader may do when the outcome is unknown. Default: the action's own class.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<SafetyClass>,
    /// Time one attempt may take.
    #[n(5)]
    #[serde(default = "step_timeout")]
    pub timeout: Millis,
    /// Further attempts after one that provably failed.
    #[n(6)]
    #[serde(default)]
    pub retry: RetrySpec,
    /// How it is undone. Absent: the action's own undo, if it has one.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSpec>,
    /// One at a time with a pause and a health check between, when it hits several instances.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
}

const fn step_timeout() -> Millis {
    Millis::from_secs(30)
}

/// Which instances a step acts on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum StepTargets {
    /// Those whose symptoms are in the incident.
    #[default]
    #[n(0)]
    Affected,
    /// All running instances of the service, one step each, in order.
    #[n(1)]
    AllInstances,
    /// The service's first standby instance.
    #[n(2)]
    Standby,
}

/// What is safe to do about a step with an intent and no outcome (DESIGN section 4).
#[derive(
    Clone,
    Copy,
    Debug,
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
pub enum SafetyClass {
    /// The target refuses old fences and remembers keys: send again with the same key.
    #[n(0)]
    Fenced,
    /// Doing it twice is doing it once: send again.
    #[n(1)]
    Idempotent,
    /// The world tells whether it happened: look, then record or retry.
    #[n(2)]
    Probeable,
    /// None of these: wait, look, and if still unknown freeze and ask a human.
    #[n(3)]
    Opaque,
}

/// Retries of a step.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// Attempts after the first; at most 10.
    #[n(0)]
    pub max: u32,
}

/// How a step is undone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UndoSpec {
    /// The action.
    #[n(0)]
    pub action: String,
    /// Its parameters.
    #[n(1)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// Pauses of a rolling step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutSpec {
    /// Pause after each instance.
    #[n(0)]
    pub pause: Millis,
}

/// How success is told.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifySpec {
    /// CEL over `probe`, `metric` (latest), `before`, `delta`; must hold for all affected instances.
    #[n(0)]
    pub expect: String,
    /// How long it must hold without a break.
    #[n(1)]
    #[serde(default = "verify_hold")]
    pub hold: Millis,
    /// How long to wait for that.
    #[n(2)]
    #[serde(default = "verify_timeout")]
    pub timeout: Millis,
    /// What missing observations mean. Never "passed".
    #[n(3)]
    #[serde(default)]
    pub no_data: NoData,
}

const fn verify_hold() -> Millis {
    Millis::from_secs(5)
}

const fn verify_timeout() -> Millis {
    Millis::from_secs(60)
}

/// What missing observations mean.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum NoData {
    /// Not known: a human decides.
    #[default]
    #[n(0)]
    Inconclusive,
    /// As bad as a failed expectation.
    #[n(1)]
    Failed,
}

/// What follows when a playbook did not help.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Escalation {
    /// Try this playbook next.
    #[n(0)]
    Playbook(#[n(0)] String),
    /// Tell this channel.
    #[n(1)]
    Notify(#[n(0)] String),
}
