//! Incidents: what is wrong, since when, and where its treatment stands.
//!
//! ```text
//!            AdoptDecision                    approvals            StartStep … last FinishStep
//!  Open ───────────────────► AwaitingApproval ─────────► Remediating ───────► Verifying
//!   │  ▲        └───────────────────(auto)───────────────────┘  │              │     │ passed
//!   │  │                                                        │ step failed  │     ▼
//!   │  └──────── replan (attempts left) ◄──── RollingBack ◄─────┴──────────────┘  Resolved
//!   └──────────────────────── escalate ────────► Escalated ─── by hand, or symptoms clear ──▲
//! ```

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::{
    decision::Decision,
    ids::{IncidentId, PlanId, Revision, Timestamp, TraceId},
    notice::NoticeState,
    symptom::{Fingerprint, Severity, Symptom, Target},
    voice::Voice,
    weight::Judged,
};

/// One incident.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Incident {
    /// Log index of the entry that opened it.
    #[n(0)]
    pub id: IncidentId,
    /// Tenant.
    #[n(1)]
    pub tenant: String,
    /// What is treated: the suspected cause.
    #[n(2)]
    pub target: Target,
    /// Where it stands.
    #[n(3)]
    pub status: IncidentStatus,
    /// Bumped by every change that a decision should know of.
    #[n(4)]
    pub revision: Revision,
    /// Worst symptom.
    #[n(5)]
    pub severity: Severity,
    /// Symptoms by fingerprint, those of grouped dependents included.
    #[n(6)]
    pub symptoms: BTreeMap<Fingerprint, SymptomState>,
    /// The decision in force.
    #[n(7)]
    pub decision: Option<Decision>,
    /// The plan in force, in `State::sagas`.
    #[n(8)]
    pub plan: Option<PlanId>,
    /// Plans that ended without success, oldest first, with the playbook each came from.
    #[n(9)]
    pub attempts: Vec<Attempt>,
    /// Who said "I am on it".
    #[n(10)]
    pub acknowledged_by: Option<String>,
    /// Why a human is needed, when one is.
    #[n(11)]
    pub escalation: Option<String>,
    /// Whether a human took part in its resolution (approved, resolved by hand, cancelled).
    #[n(12)]
    pub manual: bool,
    /// Opened.
    #[n(13)]
    pub opened_at: Timestamp,
    /// Last changed.
    #[n(14)]
    pub updated_at: Timestamp,
    /// Decided for the first time.
    #[n(15)]
    pub decided_at: Option<Timestamp>,
    /// Last plan ended its forward steps.
    #[n(16)]
    pub remediated_at: Option<Timestamp>,
    /// Resolved.
    #[n(17)]
    pub resolved_at: Option<Timestamp>,
    /// How it was resolved.
    #[n(18)]
    pub resolution: Option<Resolution>,
    /// What people wrote, and what happened, newest last; bounded.
    #[n(19)]
    pub timeline: Vec<TimelineItem>,
    /// Follows it through logs and traces.
    #[n(20)]
    pub trace: TraceId,
    /// Opened by a prediction: nothing is broken yet.
    #[n(21)]
    pub predicted: bool,
    /// Held back by this maintenance window or freeze when last looked at.
    #[n(22)]
    pub held_by: Option<String>,
    /// The incident it was merged into, being an effect of it.
    #[n(23)]
    pub merged_into: Option<IncidentId>,
    /// The last notice about it, by channel.
    #[cbor(n(24), skip_if = "BTreeMap::is_empty")]
    pub notices: BTreeMap<String, NoticeState>,
    /// What turned out about its detection, as last said.
    #[n(25)]
    pub judged: Option<Judged>,
    /// The story it goes on with: its symptom was back soon after another incident's end.
    #[n(26)]
    pub recurs: Option<Recurrence>,
    /// The incident that goes on with its story, and tells people how it ends.
    #[n(27)]
    pub followed_by: Option<IncidentId>,
}

/// A return of what was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recurrence {
    /// The incident before it.
    #[n(0)]
    pub of: IncidentId,
    /// The one that the story began with: what is told of all of them is filed under it.
    #[n(1)]
    pub first: IncidentId,
    /// Returns so far, this one included.
    #[n(2)]
    pub times: u32,
}

impl Incident {
    /// Whether it is over.
    #[must_use]
    pub const fn closed(&self) -> bool {
        matches!(self.status, IncidentStatus::Resolved)
    }

    /// The incident that what is told of it is filed under.
    #[must_use]
    pub fn thread(&self) -> IncidentId {
        self.recurs.map_or(self.id, |recurs| recurs.first)
    }

    /// Active symptoms of the treated target itself (not those of grouped dependents).
    pub fn own_symptoms(&self) -> impl Iterator<Item = &SymptomState> {
        self.symptoms.values().filter(|s| s.symptom.target.service == self.target.service)
    }
}

/// Items kept per timeline; the audit log keeps all.
pub const MAX_TIMELINE: usize = 100;
/// Symptoms kept per incident; further ones count in `TimelineItem`s only.
pub const MAX_SYMPTOMS: usize = 64;

/// A symptom within an incident.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SymptomState {
    /// As last reported.
    #[n(0)]
    pub symptom: Symptom,
    /// First report.
    #[n(1)]
    pub first_at: Timestamp,
    /// Last report.
    #[n(2)]
    pub last_at: Timestamp,
    /// Reports.
    #[n(3)]
    pub count: u64,
    /// Cleared by the shard owner; `None`: active.
    #[n(4)]
    pub cleared_at: Option<Timestamp>,
    /// Grouped here because its service depends on the incident's.
    #[n(5)]
    pub grouped: bool,
    /// Who has spoken in its reports so far; nothing in those kept before command set 9, whose bytes
    /// are the same.
    #[cbor(n(6), skip_if = "BTreeSet::is_empty")]
    pub voices: BTreeSet<Voice>,
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum IncidentStatus {
    /// No decision is in force: the leader owes one (unless held back).
    #[n(0)]
    Open,
    /// A plan waits for people.
    #[n(1)]
    AwaitingApproval,
    /// Forward steps run.
    #[n(2)]
    Remediating,
    /// Steps are done; expectations are being held against the world.
    #[n(3)]
    Verifying,
    /// Undo steps run.
    #[n(4)]
    RollingBack,
    /// A human is needed.
    #[n(5)]
    Escalated,
    /// Over.
    #[n(6)]
    Resolved,
}

impl std::fmt::Display for IncidentStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::AwaitingApproval => "awaiting-approval",
            Self::Remediating => "remediating",
            Self::Verifying => "verifying",
            Self::RollingBack => "rolling-back",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
        })
    }
}

/// How an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Resolution {
    /// A remediation was verified.
    #[n(0)]
    Remediated,
    /// The symptoms went away without one.
    #[n(1)]
    SelfCleared,
    /// A human closed it.
    #[n(2)]
    ByHand,
    /// It turned out to be an effect of another incident, which goes on.
    #[n(3)]
    Merged,
}

/// A plan that ended without success.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// The plan.
    #[n(0)]
    pub plan: PlanId,
    /// The playbook it came from.
    #[n(1)]
    pub playbook: String,
    /// Why it did not succeed.
    #[n(2)]
    pub reason: String,
    /// When it ended.
    #[n(3)]
    pub at: Timestamp,
}

/// One line of the story.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TimelineItem {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// Log index.
    #[n(1)]
    pub index: u64,
    /// Who.
    #[n(2)]
    pub actor: String,
    /// What.
    #[n(3)]
    pub text: String,
}
