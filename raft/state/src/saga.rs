//! Sagas: how far each plan has come. The types; transitions live in `crate::law::saga`.
//!
//! ```text
//!  Pending ─StartStep─► Running ─done──► Done ─StartStep(undo)─► Undoing ─done──► Undone
//!                         │ ▲ └─failed─► Failed                    │ └─failed─► UndoFailed
//!                         └─┘ retry                                └─unknown─► Unknown
//!                         └─unknown───► Unknown
//! ```

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::{
    ids::{Digest, Fence, IncidentId, PlanId, Ppm, Timestamp},
    plan::{Direction, Plan},
};

/// One plan and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Saga {
    /// Log index of its adoption.
    #[n(0)]
    pub id: PlanId,
    /// The incident it treats.
    #[n(1)]
    pub incident: IncidentId,
    /// Tenant.
    #[n(2)]
    pub tenant: String,
    /// What will be done.
    #[n(3)]
    pub plan: Plan,
    /// `plan.digest()` at adoption.
    #[n(4)]
    pub digest: Digest,
    /// Where it stands.
    #[n(5)]
    pub status: SagaStatus,
    /// One per step of the plan.
    #[n(6)]
    pub steps: Vec<StepState>,
    /// Who agreed, by user name, and when.
    #[n(7)]
    pub approvals: BTreeMap<String, Timestamp>,
    /// Until when approval may come.
    #[n(8)]
    pub approval_until: Option<Timestamp>,
    /// Who may not approve, being its cause.
    #[n(9)]
    pub requested_by: Option<String>,
    /// Adopted.
    #[n(10)]
    pub created_at: Timestamp,
    /// First step started.
    #[n(11)]
    pub started_at: Option<Timestamp>,
    /// Last forward step done; verification runs from here.
    #[n(12)]
    pub verifying_since: Option<Timestamp>,
    /// Over.
    #[n(13)]
    pub ended_at: Option<Timestamp>,
    /// Why it unwinds, failed or was cancelled.
    #[n(14)]
    pub reason: Option<String>,
    /// The verdict, once there is one.
    #[n(15)]
    pub verdict: Option<Verdict>,
}

/// Where a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum SagaStatus {
    /// People are asked.
    #[n(0)]
    AwaitingApproval,
    /// Forward steps run (or the first is about to).
    #[n(1)]
    Running,
    /// Steps done; the verdict is due.
    #[n(2)]
    Verifying,
    /// Undo steps run, in reverse.
    #[n(3)]
    Unwinding,
    /// Verified.
    #[n(4)]
    Succeeded,
    /// All started steps undone.
    #[n(5)]
    RolledBack,
    /// Could not be finished nor undone; a human has it.
    #[n(6)]
    Failed,
    /// A step's outcome is unknown; its target is frozen; a human has it.
    #[n(7)]
    Unknown,
    /// Rejected, expired or cancelled before its first step.
    #[n(8)]
    Dropped,
}

impl SagaStatus {
    /// Whether nothing more will happen by itself.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::RolledBack | Self::Failed | Self::Unknown | Self::Dropped
        )
    }
}

impl std::fmt::Display for SagaStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AwaitingApproval => "awaiting-approval",
            Self::Running => "running",
            Self::Verifying => "verifying",
            Self::Unwinding => "unwinding",
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled-back",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Dropped => "dropped",
        })
    }
}

/// One step and how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StepState {
    /// Where it stands.
    #[n(0)]
    pub status: StepStatus,
    /// The intent in force: set by `StartStep`, cleared by its outcome.
    #[n(1)]
    pub intent: Option<Intent>,
    /// Forward attempts that ended.
    #[n(2)]
    pub forward_attempts: u32,
    /// Undo attempts that ended.
    #[n(3)]
    pub undo_attempts: u32,
    /// What the last outcome said; for `Done` steps also what undo needs (for example the hash of
    /// the replaced configuration), by name.
    #[n(4)]
    pub evidence: BTreeMap<String, String>,
    /// Started.
    #[n(5)]
    pub started_at: Option<Timestamp>,
    /// Last outcome.
    #[n(6)]
    pub ended_at: Option<Timestamp>,
    /// Every intent so far as (fence, direction, node): by which leader under which fence.
    #[n(7)]
    pub history: Vec<StepEventRecord>,
}

/// An intent that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Intent {
    /// Which way.
    #[n(0)]
    pub direction: Direction,
    /// Under which fence.
    #[n(1)]
    pub fence: Fence,
    /// Log index of the `StartStep`.
    #[n(2)]
    pub index: u64,
    /// When.
    #[n(3)]
    pub at: Timestamp,
    /// From 1.
    #[n(4)]
    pub attempt: u32,
}

/// One start or outcome, kept for `explain`; bounded by attempts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StepEventRecord {
    /// Log index.
    #[n(0)]
    pub index: u64,
    /// When.
    #[n(1)]
    pub at: Timestamp,
    /// Under which fence.
    #[n(2)]
    pub fence: Fence,
    /// Which node proposed it.
    #[n(3)]
    pub node: String,
    /// What happened: `started`, `resumed`, `done`, `failed: …`, `unknown: …`, `undo started`, …
    #[n(4)]
    pub text: String,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum StepStatus {
    /// Not started.
    #[default]
    #[n(0)]
    Pending,
    /// Forward intent committed, no outcome.
    #[n(1)]
    Running,
    /// Done.
    #[n(2)]
    Done,
    /// Provably not done, attempts used up. (Treated as started by unwinding.)
    #[n(3)]
    Failed,
    /// Undo intent committed, no outcome.
    #[n(4)]
    Undoing,
    /// Undone.
    #[n(5)]
    Undone,
    /// Undo failed: a human has it.
    #[n(6)]
    UndoFailed,
    /// Nobody can tell whether it happened: a human has it.
    #[n(7)]
    Unknown,
}

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// It happened (perhaps earlier, under the same key). Evidence by name; what is named
    /// `undo.<parameter>` fills in that parameter of the step's undo where the plan left it open.
    #[n(0)]
    Done(#[n(0)] BTreeMap<String, String>),
    /// It provably did not happen.
    #[n(1)]
    Failed {
        /// Why.
        #[n(0)]
        reason: String,
        /// Whether another attempt could help.
        #[n(1)]
        retryable: bool,
    },
    /// Nobody can tell.
    #[n(2)]
    Unknown {
        /// What was tried to find out.
        #[n(0)]
        reason: String,
    },
}

/// Three-valued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum VerdictValue {
    /// Every expectation held; overall score > 0.8.
    #[n(0)]
    Passed,
    /// One did not.
    #[n(1)]
    Failed,
    /// Not enough was seen to tell.
    #[n(2)]
    Inconclusive,
}

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Verdict {
    /// The verdict.
    #[n(0)]
    pub value: VerdictValue,
    /// Overall score.
    #[n(1)]
    pub score: Ppm,
    /// The checks it is made of.
    #[n(2)]
    pub checks: Vec<Check>,
    /// When.
    #[n(3)]
    pub at: Timestamp,
}

/// One check of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Check {
    /// `functional`, `performance`, `security`, `integration`, `slo`, `regression`.
    #[n(0)]
    pub kind: String,
    /// Its verdict.
    #[n(1)]
    pub value: VerdictValue,
    /// Its score.
    #[n(2)]
    pub score: Ppm,
    /// What was seen, in words.
    #[n(3)]
    pub detail: String,
}
