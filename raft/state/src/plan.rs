//! Plans: the concrete steps of one remediation, each with its undo, fixed before the first act.

use std::{collections::BTreeMap, fmt};

use minicbor::{Decode, Encode};

use crate::{
    ids::{Digest, Millis, PlanId},
    manifest::{ApprovalSpec, PlaybookScope, SafetyClass, VerifySpec},
    symptom::Target,
};

/// A remediation, ready to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Plan {
    /// The playbook it was made from.
    #[n(0)]
    pub playbook: String,
    /// Hash of that playbook's manifest: refused when the playbook has changed meanwhile.
    #[n(1)]
    pub playbook_digest: Digest,
    /// Steps in order; at least one, at most [`MAX_STEPS`].
    #[n(2)]
    pub steps: Vec<PlannedStep>,
    /// How success will be told.
    #[n(3)]
    pub verify: VerifySpec,
    /// Observations before the first act, for `before` and `delta`: name to number as text.
    #[n(4)]
    pub baseline: BTreeMap<String, String>,
    /// Approval rules, copied from the playbook.
    #[n(5)]
    pub approval: ApprovalSpec,
    /// Budgets, copied from the playbook.
    #[n(6)]
    pub scope: PlaybookScope,
    /// Instances whose health decides the verdict.
    #[n(7)]
    pub verify_targets: Vec<Target>,
}

/// Steps a plan may have; 256 instances in a rolling step are the most one plan should touch.
pub const MAX_STEPS: usize = 256;

impl Plan {
    /// SHA-256 of the canonical encoding; approvals are bound to it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&[&crate::codec::encode(self)])
    }

    /// The instances its steps touch, each once.
    #[must_use]
    pub fn targets(&self) -> std::collections::BTreeSet<&Target> {
        self.steps.iter().map(|step| &step.target).collect()
    }
}

/// One concrete step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PlannedStep {
    /// Name of the playbook's step.
    #[n(0)]
    pub name: String,
    /// What is done.
    #[n(1)]
    pub action: Action,
    /// To which instance.
    #[n(2)]
    pub target: Target,
    /// Through which agent.
    #[n(3)]
    pub agent: String,
    /// What a new leader may do when its outcome is unknown.
    #[n(4)]
    pub safety: SafetyClass,
    /// Time one attempt may take.
    #[n(5)]
    pub timeout: Millis,
    /// Attempts after the first, for outcomes that provably failed.
    #[n(6)]
    pub retries: u32,
    /// How it is undone; `None`: nothing to undo.
    #[n(7)]
    pub undo: Option<Action>,
    /// Pause before this step starts.
    #[n(8)]
    pub pause_before: Millis,
}

/// An action and its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Action {
    /// For example `process.restart`.
    #[n(0)]
    pub name: String,
    /// Its parameters.
    #[n(1)]
    pub params: BTreeMap<String, String>,
}

/// Which way a step is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Direction {
    /// Do.
    #[n(0)]
    Forward,
    /// Undo.
    #[n(1)]
    Undo,
}

/// The idempotency key of one act: the same for every attempt and every leader, so that whoever
/// remembers it applies it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct StepKey {
    /// The plan.
    #[n(0)]
    pub plan: PlanId,
    /// The step's position, from 0.
    #[n(1)]
    pub step: u32,
    /// Which way.
    #[n(2)]
    pub direction: Direction,
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Forward => "do",
            Direction::Undo => "undo",
        };
        write!(f, "{}/{}/{way}", self.plan, self.step)
    }
}
