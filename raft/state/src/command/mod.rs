//! Commands: everything that can be written in the log. Imperatives; one file each for what
//! `apply` does with them.
//!
//! Variant numbers are wire and disk format: they are never reused, and a new one is proposed only
//! once `State::cluster_version` says that every member knows it.

mod fleet;
mod judge;
mod told;

use minicbor::{Decode, Encode};

pub use self::{
    fleet::{
        AssignShards, Drain, DrainNode, FenceCommand, MarkAgent, MarkNode, NODE_WEIGHT_DEFAULT,
        NODE_WEIGHT_MAX, RegisterNode,
    },
    judge::JudgeIncident,
    told::{NoteTold, ToldOn},
};
use crate::{
    decision::Proposal,
    ids::{
        Digest, Epoch, Fence, IncidentId, PlanId, RequestId, Revision, ShardId, Timestamp, TraceId,
    },
    manifest::{Manifest, ManifestKey},
    plan::Direction,
    rbac::Principal,
    saga::{Outcome, Verdict},
    state::FreezeScope,
    symptom::{Fingerprint, Symptom},
};

/// One log entry: who wants what, when, and under which request id.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Stamped by the proposer; the law makes it monotone.
    #[n(0)]
    pub at: Timestamp,
    /// From a verified certificate.
    #[n(1)]
    pub principal: Principal,
    /// Makes a retry safe.
    #[n(2)]
    pub request: Option<RequestId>,
    /// Follows the incident.
    #[n(3)]
    pub trace: TraceId,
    /// What is wanted.
    #[n(4)]
    pub command: Command,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    // ---- the cluster itself ----
    /// A new leader takes office: its log index becomes the fence.
    #[n(0)]
    Fence(#[n(0)] FenceCommand),
    /// Time passes: expire approvals, freezes, breakers; close incidents that cleared.
    #[n(1)]
    Tick,
    /// A node says who it is (at start and when it changes).
    #[n(2)]
    RegisterNode(#[n(0)] RegisterNode),
    /// The leader sees a node come or go.
    #[n(3)]
    MarkNode(#[n(0)] MarkNode),
    /// An agent's connection came or went.
    #[n(4)]
    MarkAgent(#[n(0)] MarkAgent),
    /// Shards get new owners, each under its next epoch.
    #[n(5)]
    AssignShards(#[n(0)] AssignShards),
    /// All members understand this command set.
    #[n(6)]
    SetClusterVersion(#[n(0)] u32),
    // ---- the loop ----
    /// A shard owner saw something.
    #[n(10)]
    ReportSymptom(#[n(0)] ReportSymptom),
    /// A shard owner sees it no longer.
    #[n(11)]
    ClearSymptom(#[n(0)] ClearSymptom),
    /// Judgement has concluded.
    #[n(12)]
    AdoptDecision(#[n(0)] Box<AdoptDecision>),
    /// Something inside Medic failed while it handled this incident: a human gets it, with the error.
    #[n(13)]
    EscalateIncident(#[n(0)] EscalateIncident),
    /// The driver is about to act.
    #[n(14)]
    StartStep(#[n(0)] StartStep),
    /// The act has an outcome.
    #[n(15)]
    FinishStep(#[n(0)] FinishStep),
    /// Verification has an answer.
    #[n(16)]
    RecordVerdict(#[n(0)] RecordVerdict),
    // ---- operators ----
    /// Agree to a plan.
    #[n(30)]
    Approve(#[n(0)] Approve),
    /// Refuse a plan: it is dropped and the incident escalated.
    #[n(31)]
    Reject(#[n(0)] Reject),
    /// "I am on it."
    #[n(32)]
    Acknowledge(#[n(0)] IncidentNote),
    /// Hold back all remediation in a scope. Running acts finish; nothing new starts.
    #[n(33)]
    Freeze(#[n(0)] Freeze),
    /// Lift a freeze.
    #[n(34)]
    Unfreeze(#[n(0)] FreezeScope),
    /// Stop a plan: unwind what was started.
    #[n(35)]
    CancelRemediation(#[n(0)] IncidentNote),
    /// Close by hand.
    #[n(36)]
    ResolveIncident(#[n(0)] IncidentNote),
    /// Open again by hand; attempts start anew.
    #[n(37)]
    ReopenIncident(#[n(0)] IncidentNote),
    /// Write on the timeline.
    #[n(38)]
    AddNote(#[n(0)] IncidentNote),
    /// Declare or change.
    #[n(39)]
    ApplyManifest(#[n(0)] Box<ApplyManifest>),
    /// Take back.
    #[n(40)]
    DeleteManifest(#[n(0)] ManifestKey),
    /// A membership or leadership change that an operator asked for, for the audit log.
    #[n(41)]
    NoteClusterChange(#[n(0)] String),
    // ---- since version 2 ----
    /// How telling people what `Effect::Notify` says went: the next leader need not tell them again.
    #[n(17)]
    NoteTold(#[n(0)] NoteTold),
    // ---- since version 7 ----
    /// What turned out about the detection of an incident: a false alarm, missed, genuine.
    #[n(42)]
    JudgeIncident(#[n(0)] JudgeIncident),
    // ---- since version 8 ----
    /// A node watches nothing more, or may again.
    #[n(7)]
    DrainNode(#[n(0)] DrainNode),
}

/// The cluster version from which tenants run on the agents they were given alone.
pub(crate) const AGENTS_OF_TENANTS_SINCE: u32 = 3;

/// The cluster version from which sources push, are asked and are scraped, within quotas of tenants.
pub(crate) const INTAKE_SINCE: u32 = 4;

/// The cluster version from which on each channel is told by itself, and may be more than a webhook;
/// and from which on silences and windows have schedules.
pub const CHANNELS_SINCE: u32 = 5;

/// The cluster version from which on a plan that waits for approval is taken back when worse comes to
/// light; and from which on an incident explains others' trouble only by trouble of its own.
pub(crate) const JUDGED_AGAIN_SINCE: u32 = 6;

/// The cluster version from which on outcomes move how far detectors are believed.
pub(crate) const WEIGHTS_SINCE: u32 = 7;

/// The cluster version from which on nodes have weights and can be drained.
pub const DRAIN_SINCE: u32 = 8;

/// The cluster version from which on probes may ask for several observers.
pub(crate) const OBSERVERS_SINCE: u32 = 8;

/// The cluster version from which on policies inhibit pages, what comes back soon goes on with the
/// story it had, and no tenant's lessons make room for those of one that holds more.
pub(crate) const ALERTS_SINCE: u32 = 8;

/// The cluster version from which on outcomes say by themselves that an alarm was false, or that
/// something was missed: until then voices are not kept, and no such opinion is formed.
pub(crate) const OUTCOMES_SINCE: u32 = 9;

/// The cluster version from which on what is foretold of an instance's own disk, certificate or process is
/// no effect of what it depends on.
pub(crate) const FORETOLD_AT_HOME_SINCE: u32 = 10;

/// The cluster version from which on members hand each other increases of counters, and how many values lay in one
/// bucket: an older one would take both for counters and cumulative buckets.
pub const INCREASES_SINCE: u32 = 10;

/// The newest command set this build understands; see [`Command::since`].
pub const CLUSTER_VERSION: u32 = 10;

/// See [`Command::ReportSymptom`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReportSymptom {
    /// The shard of the target (`State::shard_of`).
    #[n(0)]
    pub shard: ShardId,
    /// The epoch under which the reporter owns it.
    #[n(1)]
    pub epoch: Epoch,
    /// What was seen.
    #[n(2)]
    pub symptom: Symptom,
}

/// See [`Command::ClearSymptom`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClearSymptom {
    /// The shard of the target.
    #[n(0)]
    pub shard: ShardId,
    /// The epoch under which the reporter owns it.
    #[n(1)]
    pub epoch: Epoch,
    /// Which symptom.
    #[n(2)]
    pub fingerprint: Fingerprint,
}

/// See [`Command::AdoptDecision`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AdoptDecision {
    /// The incident.
    #[n(0)]
    pub incident: IncidentId,
    /// The revision that judgement looked at.
    #[n(1)]
    pub based_on: Revision,
    /// The fence of the deciding leader.
    #[n(2)]
    pub fence: Fence,
    /// What was concluded.
    #[n(3)]
    pub proposal: Proposal,
}

/// See [`Command::EscalateIncident`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EscalateIncident {
    /// The incident.
    #[n(0)]
    pub incident: IncidentId,
    /// What failed, where.
    #[n(1)]
    pub reason: String,
}

/// See [`Command::StartStep`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StartStep {
    /// The plan.
    #[n(0)]
    pub plan: PlanId,
    /// The step.
    #[n(1)]
    pub step: u32,
    /// Which way.
    #[n(2)]
    pub direction: Direction,
    /// The fence of the acting leader; must be the current one.
    #[n(3)]
    pub fence: Fence,
    /// Takes over an intent without outcome from an earlier fence (allowed by its safety class).
    #[n(4)]
    pub resume: bool,
}

/// See [`Command::FinishStep`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FinishStep {
    /// The plan.
    #[n(0)]
    pub plan: PlanId,
    /// The step.
    #[n(1)]
    pub step: u32,
    /// Which way.
    #[n(2)]
    pub direction: Direction,
    /// The fence of its intent; under an old one it is kept as evidence and moves nothing.
    #[n(3)]
    pub fence: Fence,
    /// What came of it.
    #[n(4)]
    pub outcome: Outcome,
}

/// See [`Command::RecordVerdict`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RecordVerdict {
    /// The plan.
    #[n(0)]
    pub plan: PlanId,
    /// The fence of the verifying leader.
    #[n(1)]
    pub fence: Fence,
    /// What was found.
    #[n(2)]
    pub verdict: Verdict,
}

/// See [`Command::Approve`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Approve {
    /// The incident.
    #[n(0)]
    pub incident: IncidentId,
    /// Digest of the plan that the approver saw.
    #[n(1)]
    pub plan_digest: Digest,
}

/// See [`Command::Reject`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reject {
    /// The incident.
    #[n(0)]
    pub incident: IncidentId,
    /// Digest of the plan that was seen.
    #[n(1)]
    pub plan_digest: Digest,
    /// Why.
    #[n(2)]
    pub reason: String,
}

/// An operator's word about an incident.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IncidentNote {
    /// The incident.
    #[n(0)]
    pub incident: IncidentId,
    /// What they say; may be empty.
    #[n(1)]
    pub note: String,
}

/// See [`Command::Freeze`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Freeze {
    /// What is frozen.
    #[n(0)]
    pub scope: FreezeScope,
    /// Why.
    #[n(1)]
    pub reason: String,
    /// Until when; `None`: until lifted.
    #[n(2)]
    pub until: Option<Timestamp>,
}

/// See [`Command::ApplyManifest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ApplyManifest {
    /// The manifest, already validated at the door.
    #[n(0)]
    pub manifest: Manifest,
    /// Refuse unless the stored one has this digest (all zero: unless there is none).
    #[n(1)]
    pub expected: Option<Digest>,
}

impl Command {
    /// The cluster version from which on it may be proposed: below it a member may run a build that
    /// does not know it, and would halt.
    #[must_use]
    pub fn since(&self) -> u32 {
        match self {
            Self::NoteTold(told) if told.on.is_some() => CHANNELS_SINCE,
            Self::NoteTold(_) => 2,
            Self::JudgeIncident(_) => WEIGHTS_SINCE,
            Self::DrainNode(_) => DRAIN_SINCE,
            Self::RegisterNode(register) if register.weight.is_some() => DRAIN_SINCE,
            Self::ApplyManifest(apply) => apply.manifest.spec.since(),
            Self::Fence(_)
            | Self::Tick
            | Self::RegisterNode(_)
            | Self::MarkNode(_)
            | Self::MarkAgent(_)
            | Self::AssignShards(_)
            | Self::SetClusterVersion(_)
            | Self::ReportSymptom(_)
            | Self::ClearSymptom(_)
            | Self::AdoptDecision(_)
            | Self::EscalateIncident(_)
            | Self::StartStep(_)
            | Self::FinishStep(_)
            | Self::RecordVerdict(_)
            | Self::Approve(_)
            | Self::Reject(_)
            | Self::Acknowledge(_)
            | Self::Freeze(_)
            | Self::Unfreeze(_)
            | Self::CancelRemediation(_)
            | Self::ResolveIncident(_)
            | Self::ReopenIncident(_)
            | Self::AddNote(_)
            | Self::DeleteManifest(_)
            | Self::NoteClusterChange(_) => 1,
        }
    }

    /// Its name, as in the audit log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fence(_) => "Fence",
            Self::Tick => "Tick",
            Self::RegisterNode(_) => "RegisterNode",
            Self::MarkNode(_) => "MarkNode",
            Self::MarkAgent(_) => "MarkAgent",
            Self::AssignShards(_) => "AssignShards",
            Self::SetClusterVersion(_) => "SetClusterVersion",
            Self::ReportSymptom(_) => "ReportSymptom",
            Self::ClearSymptom(_) => "ClearSymptom",
            Self::AdoptDecision(_) => "AdoptDecision",
            Self::EscalateIncident(_) => "EscalateIncident",
            Self::StartStep(_) => "StartStep",
            Self::FinishStep(_) => "FinishStep",
            Self::RecordVerdict(_) => "RecordVerdict",
            Self::Approve(_) => "Approve",
            Self::Reject(_) => "Reject",
            Self::Acknowledge(_) => "Acknowledge",
            Self::Freeze(_) => "Freeze",
            Self::Unfreeze(_) => "Unfreeze",
            Self::CancelRemediation(_) => "CancelRemediation",
            Self::ResolveIncident(_) => "ResolveIncident",
            Self::ReopenIncident(_) => "ReopenIncident",
            Self::AddNote(_) => "AddNote",
            Self::ApplyManifest(_) => "ApplyManifest",
            Self::DeleteManifest(_) => "DeleteManifest",
            Self::NoteClusterChange(_) => "NoteClusterChange",
            Self::NoteTold(_) => "NoteTold",
            Self::JudgeIncident(_) => "JudgeIncident",
            Self::DrainNode(_) => "DrainNode",
        }
    }
}
