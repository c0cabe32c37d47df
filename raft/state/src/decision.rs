//! Decisions: what judgement concluded, committed as data, and what the law made of it.

use minicbor::{Decode, Encode};

use crate::{
    ids::{Ppm, Timestamp},
    plan::Plan,
    symptom::Target,
};

/// What judgement proposes about one incident.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// The class of fault, `category/class`: `application/crash`, `configuration/bad-rollout`.
    #[n(0)]
    pub class: String,
    /// Confidence in the class.
    #[n(1)]
    pub class_confidence: Ppm,
    /// Why this class, strongest first.
    #[n(2)]
    pub class_reasons: Vec<String>,
    /// The suspected cause, when it is not the incident's present target.
    #[n(3)]
    pub root_cause: Option<Target>,
    /// Candidates that were weighed, best first.
    #[n(4)]
    pub recommendations: Vec<Recommendation>,
    /// The five risks.
    #[n(5)]
    pub risks: Vec<RiskScore>,
    /// Their combination.
    #[n(6)]
    pub risk: Ppm,
    /// Confidence that the plan will resolve the incident.
    #[n(7)]
    pub confidence: Ppm,
    /// What the confidence is made of.
    #[n(8)]
    pub confidence_reasons: Vec<String>,
    /// The plan; `None`: nothing fits, a human is needed.
    #[n(9)]
    pub plan: Option<Plan>,
    /// Thresholds overridden from the environment of the deciding node.
    #[n(10)]
    pub overrides: ThresholdOverrides,
}

/// A playbook that was weighed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recommendation {
    /// The playbook.
    #[n(0)]
    pub playbook: String,
    /// Its score.
    #[n(1)]
    pub score: Ppm,
    /// Who recommended it: `rules`, `outcomes`.
    #[n(2)]
    pub by: String,
    /// Why, or why not.
    #[n(3)]
    pub reason: String,
    /// Fit to be used; otherwise `reason` says why not.
    #[n(4)]
    pub eligible: bool,
}

/// One of the five risks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RiskScore {
    /// Which.
    #[n(0)]
    pub kind: RiskKind,
    /// From none to certain.
    #[n(1)]
    pub score: Ppm,
    /// Why; an error in the calculator is named here and counts as 1.0.
    #[n(2)]
    pub reasons: Vec<String>,
}

/// The five risks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum RiskKind {
    /// How much of the topology the plan can reach.
    #[n(0)]
    BlastRadius,
    /// What an outage of the touched services costs.
    #[n(1)]
    BusinessImpact,
    /// How dangerous the actions are in themselves.
    #[n(2)]
    Technical,
    /// Regimes that the touched services fall under.
    #[n(3)]
    Compliance,
    /// How well it can be undone.
    #[n(4)]
    Rollback,
}

impl std::fmt::Display for RiskKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BlastRadius => "blast radius",
            Self::BusinessImpact => "business impact",
            Self::Technical => "technical",
            Self::Compliance => "compliance",
            Self::Rollback => "rollback",
        })
    }
}

/// `CONFIDENCE_THRESHOLD` and `RISK_THRESHOLD` of the deciding node: they replace the policy's
/// auto-execute bounds, and are committed with the decision so that replicas agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ThresholdOverrides {
    /// `CONFIDENCE_THRESHOLD`.
    #[n(0)]
    pub confidence: Option<Ppm>,
    /// `RISK_THRESHOLD`.
    #[n(1)]
    pub risk: Option<Ppm>,
}

/// What the law made of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Decision {
    /// Log index of its adoption; the plan's id is the same number.
    #[n(0)]
    pub index: u64,
    /// When.
    #[n(1)]
    pub at: Timestamp,
    /// Which node decided.
    #[n(2)]
    pub by: String,
    /// The proposal without its plan (that lives in the saga).
    #[n(3)]
    pub proposal: Proposal,
    /// Where it went.
    #[n(4)]
    pub route: Route,
    /// Why there: thresholds, mode, freeze, budget, …, each in words.
    #[n(5)]
    pub route_reasons: Vec<String>,
}

/// Where a decision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Route {
    /// Act alone.
    #[n(0)]
    AutoExecute,
    /// Ask first.
    #[n(1)]
    RecommendWithApproval,
    /// A human decides.
    #[n(2)]
    EscalateToHuman,
    /// The playbook is in shadow mode: recorded, not executed; a human decides.
    #[n(3)]
    Shadow,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AutoExecute => "auto_execute",
            Self::RecommendWithApproval => "recommend_with_approval",
            Self::EscalateToHuman => "escalate_to_human",
            Self::Shadow => "shadow",
        })
    }
}
