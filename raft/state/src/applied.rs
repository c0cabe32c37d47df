//! What `apply` gives back: an answer, effects, records.

use minicbor::{Decode, Encode};

use crate::{
    command::Command,
    ids::{Digest, Epoch, Fence, IncidentId, PlanId, Timestamp, TraceId},
    notice::Telling,
    plan::Direction,
    rbac::{Permission, Principal},
};

/// The result of applying one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its log index.
    pub index: u64,
    /// The index at which its request took effect: an earlier one when this entry repeats it.
    pub effective: u64,
    /// What the proposer is told.
    pub answer: Answer,
    /// What the leader could do now. Only saves latency: `State::pending_effects` is the truth.
    pub effects: Vec<Effect>,
    /// What is appended to the record store, in order.
    pub records: Vec<Record>,
}

/// What the proposer is told; travels between nodes.
pub type Answer = Result<Reply, Refusal>;

/// A command was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Done; nothing to say.
    #[n(0)]
    Done,
    /// This incident was opened or extended.
    #[n(1)]
    Incident(#[n(0)] IncidentId),
    /// Adopted: the plan's id, when there is a plan, and the route.
    #[n(2)]
    Decided {
        /// The plan, when one was kept.
        #[n(0)]
        plan: Option<PlanId>,
        /// Where it went.
        #[n(1)]
        route: crate::decision::Route,
    },
    /// The fence that is now in force.
    #[n(3)]
    Fenced(#[n(0)] Fence),
    /// Admitted but without effect, and why (silenced, outcome under an old fence, already so).
    #[n(4)]
    Noted(#[n(0)] String),
    /// A manifest was stored: what changed.
    #[n(5)]
    Stored {
        /// Its digest now.
        #[n(0)]
        digest: Digest,
        /// Whether it differs from what was there.
        #[n(1)]
        changed: bool,
    },
}

/// A command was refused. Every variant says what was wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// The fence is not the one in force.
    #[n(0)]
    #[error("{given} is not in force ({current} is): another leader has taken over")]
    StaleFence {
        /// As given.
        #[n(0)]
        given: Fence,
        /// In force.
        #[n(1)]
        current: Fence,
    },
    /// The reporter no longer owns the shard.
    #[n(1)]
    #[error("{given} of the shard has passed ({current} is in force): the shard has another owner")]
    StaleEpoch {
        /// As given.
        #[n(0)]
        given: Epoch,
        /// In force.
        #[n(1)]
        current: Epoch,
    },
    /// The incident changed since judgement looked at it.
    #[n(2)]
    #[error("the incident has changed since ({given} given, {current} in force): decide again")]
    StaleRevision {
        /// As given.
        #[n(0)]
        given: crate::ids::Revision,
        /// In force.
        #[n(1)]
        current: crate::ids::Revision,
    },
    /// The thing named does not exist.
    #[n(3)]
    #[error("there is no {0}")]
    NotFound(#[n(0)] String),
    /// The thing is in a state in which this is not possible.
    #[n(4)]
    #[error("not possible now: {0}")]
    IllegalState(#[n(0)] String),
    /// A safety control holds it back for the time being: freeze, budget, lock, cooldown, blast radius, lease.
    #[n(5)]
    #[error("held back: {0}")]
    HeldBack(#[n(0)] String),
    /// The principal may not do this.
    #[n(6)]
    #[error(
        "{principal} lacks `{permission}` in tenant `{tenant}`; ask an admin for a role that has it"
    )]
    Denied {
        /// Who.
        #[n(0)]
        principal: String,
        /// What is missing.
        #[n(1)]
        permission: String,
        /// Where.
        #[n(2)]
        tenant: String,
    },
    /// The command itself is wrong.
    #[n(7)]
    #[error("bad command: {0}")]
    Invalid(#[n(0)] String),
    /// A bound is reached.
    #[n(8)]
    #[error("limit reached: {0}")]
    Limit(#[n(0)] String),
    /// Optimistic concurrency: the stored manifest is another.
    #[n(9)]
    #[error("conflict: {0}")]
    Conflict(#[n(0)] String),
}

impl Refusal {
    /// Shorthand for [`Refusal::Denied`].
    #[must_use]
    pub fn denied(principal: &Principal, permission: Permission, tenant: &str) -> Self {
        Self::Denied {
            principal: principal.to_string(),
            permission: format!("{permission:?}").to_lowercase(),
            tenant: tenant.to_owned(),
        }
    }
}

/// Something the leader owes. An order; carried out by hands after the law admitted it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Decide about this incident.
    Decide(IncidentId),
    /// Start (or resume) this step: propose `StartStep`, then act. Not before `not_before`.
    RunStep {
        /// The plan.
        plan: PlanId,
        /// The step.
        step: u32,
        /// Which way.
        direction: Direction,
        /// The intent of an earlier fence that has no outcome, if that is what is resumed.
        resume: Option<Fence>,
        /// A rollout pause or retry back-off ends here.
        not_before: Timestamp,
    },
    /// Hold the expectations of this plan against the world.
    Verify(PlanId),
    /// Tell people.
    Notify(Telling),
}

/// What only grows: appended to disk by log index, never held in memory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(clippy::large_enum_variant, reason = "nearly all records are audit records")]
pub enum Record {
    /// One link of the audit chain.
    #[n(0)]
    Audit(#[n(0)] AuditRecord),
    /// An incident as it was when it closed, with its sagas.
    #[n(1)]
    Closed(#[n(0)] Box<ClosedIncident>),
}

/// A closed incident with everything that was done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClosedIncident {
    /// The incident.
    #[n(0)]
    pub incident: crate::incident::Incident,
    /// Its sagas, oldest first.
    #[n(1)]
    pub sagas: Vec<crate::saga::Saga>,
}

/// One link of the audit chain. `hash = SHA-256(previous hash ‖ encoding of the other fields)`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AuditRecord {
    /// Position in the chain, from 1, without gaps.
    #[n(0)]
    pub seq: u64,
    /// Log index of the entry.
    #[n(1)]
    pub index: u64,
    /// The law's time.
    #[n(2)]
    pub at: Timestamp,
    /// Who.
    #[n(3)]
    pub principal: Principal,
    /// Command name.
    #[n(4)]
    pub command: String,
    /// About what: an incident, plan, manifest, scope, in words.
    #[n(5)]
    pub subject: String,
    /// `ok`, `noted: …` or `refused: …`.
    #[n(6)]
    pub outcome: String,
    /// SHA-256 of the entry's encoding.
    #[n(7)]
    pub entry: Digest,
    /// Trace.
    #[n(8)]
    pub trace: TraceId,
    /// Hash of the previous link; zero for the first.
    #[n(9)]
    pub previous: Digest,
    /// Hash of this link.
    #[n(10)]
    pub hash: Digest,
    /// The tenant it concerns; empty: the cluster.
    #[n(11)]
    pub tenant: String,
    /// The incident it concerns.
    #[n(12)]
    pub incident: Option<IncidentId>,
}

impl AuditRecord {
    /// The hash this link should have: over all other fields, the previous link's hash among them.
    #[must_use]
    pub fn link(&self) -> Digest {
        let bare = Self { hash: Digest::default(), ..self.clone() };
        Digest::of(&[&self.previous.0, &crate::codec::encode(&bare)])
    }
}

/// A chain that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenChain {
    /// A link is missing, doubled or out of order.
    #[error("link {found} stands where link {expected} should")]
    Gap {
        /// The position that was due.
        expected: u64,
        /// The position that was found.
        found: u64,
    },
    /// A link does not name its predecessor.
    #[error("link {seq} does not follow from the one before it: one of the two was changed")]
    Unlinked {
        /// Its position.
        seq: u64,
    },
    /// A link's hash is not that of its content.
    #[error("link {seq} was changed: its hash is not that of its content")]
    Changed {
        /// Its position.
        seq: u64,
    },
}

/// Checks links in order: no gap, each naming its predecessor, each unchanged. Gives the head.
/// A chain that does not begin at its first link is checked from where it begins.
///
/// # Errors
/// At the first link that does not hold.
pub fn verify_chain<'a>(
    records: impl IntoIterator<Item = &'a AuditRecord>,
) -> Result<crate::state::AuditHead, BrokenChain> {
    let mut head: Option<crate::state::AuditHead> = None;
    for record in records {
        let seq = record.seq;
        let expected = head.map_or(seq.max(1), |head| head.seq.saturating_add(1));
        if seq != expected {
            return Err(BrokenChain::Gap { expected, found: seq });
        }
        let first_of_all = seq == 1 && record.previous != Digest::default();
        if first_of_all || head.is_some_and(|head| head.hash != record.previous) {
            return Err(BrokenChain::Unlinked { seq });
        }
        if record.hash != record.link() {
            return Err(BrokenChain::Changed { seq });
        }
        head = Some(crate::state::AuditHead { seq, hash: record.hash });
    }
    Ok(head.unwrap_or_default())
}

/// Commands that are not audited one by one, having no effect worth a line: none are left out today
/// except ticks that changed nothing.
#[must_use]
pub const fn audited(command: &Command, changed: bool) -> bool {
    changed || !matches!(command, Command::Tick)
}
