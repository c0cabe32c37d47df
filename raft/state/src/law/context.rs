//! What every command's file is handed beside the state: who, when, at which index; and where it
//! puts what it emits.

use std::collections::BTreeSet;

pub(super) use crate::text::clip_to;
use crate::{
    applied::{Answer, Record, Refusal, Reply},
    command::Entry,
    ids::{IncidentId, Timestamp, TraceId},
    rbac::{Principal, PrincipalKind},
};

/// Who acts where the law does by itself.
pub(super) const LAW: &str = "medic";

/// Longest free text (notes, reasons, summaries) kept, in bytes: a screen of it.
pub(super) const MAX_TEXT_BYTES: usize = 2_048;
/// Longest name (tenant, service, instance, agent) accepted, in bytes: that of a DNS name.
pub(super) const MAX_NAME_BYTES: usize = 253;

/// One application under way.
pub(super) struct Context<'a> {
    /// The entry's log index.
    pub index: u64,
    /// The law's time.
    pub now: Timestamp,
    /// Who speaks.
    pub principal: &'a Principal,
    /// Follows the incident.
    pub trace: TraceId,
    /// Emitted so far, the audit record excepted.
    pub records: Vec<Record>,
    /// Incidents for which the leader may owe something new.
    pub touched: BTreeSet<IncidentId>,
}

impl<'a> Context<'a> {
    pub(super) fn new(index: u64, now: Timestamp, entry: &'a Entry) -> Self {
        Self {
            index,
            now,
            principal: &entry.principal,
            trace: entry.trace,
            records: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The principal as it is written on timelines and beside manifests.
    pub(super) fn actor(&self) -> String {
        actor(self.principal)
    }
}

/// A user by bare name, unless that could be taken for a node's, an agent's or the law's.
pub(super) fn actor(principal: &Principal) -> String {
    match principal.kind {
        PrincipalKind::User
            if principal.name.starts_with("node-")
                || principal.name.contains(':')
                || principal.name == LAW =>
        {
            principal.to_string()
        }
        PrincipalKind::User | PrincipalKind::Node => principal.name.clone(),
        PrincipalKind::Agent => principal.to_string(),
    }
}

/// Whether an [`actor`] is a node, and no human.
pub(super) fn is_node(actor: &str) -> bool {
    actor.starts_with("node-")
}

/// [`clip_to`] the length of free text.
pub(super) fn clip(text: &str) -> String {
    clip_to(text, MAX_TEXT_BYTES)
}

/// An answer with every text bounded: it is remembered, and a command may name things of any length.
pub(super) fn bounded(answer: Answer) -> Answer {
    match answer {
        Ok(Reply::Noted(text)) => Ok(Reply::Noted(clip(&text))),
        Ok(
            reply @ (Reply::Done
            | Reply::Incident(_)
            | Reply::Decided { .. }
            | Reply::Fenced(_)
            | Reply::Stored { .. }),
        ) => Ok(reply),
        Err(refusal) => Err(match refusal {
            Refusal::NotFound(text) => Refusal::NotFound(clip(&text)),
            Refusal::IllegalState(text) => Refusal::IllegalState(clip(&text)),
            Refusal::HeldBack(text) => Refusal::HeldBack(clip(&text)),
            Refusal::Invalid(text) => Refusal::Invalid(clip(&text)),
            Refusal::Limit(text) => Refusal::Limit(clip(&text)),
            Refusal::Conflict(text) => Refusal::Conflict(clip(&text)),
            Refusal::Denied { principal, permission, tenant } => Refusal::Denied {
                principal: clip(&principal),
                permission: clip(&permission),
                tenant: clip_to(&tenant, MAX_NAME_BYTES),
            },
            Refusal::StaleFence { .. }
            | Refusal::StaleEpoch { .. }
            | Refusal::StaleRevision { .. } => refusal,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_never_splits_a_character() {
        assert_eq!(clip_to("äöü", 3), "ä…");
        assert_eq!(clip_to("abc", 3), "abc");
    }

    #[test]
    fn a_user_cannot_pass_for_a_node() {
        assert_eq!(actor(&Principal::user("alice")), "alice");
        assert_eq!(actor(&Principal::user("node-1")), "user:node-1");
        assert_eq!(actor(&Principal::node(crate::NodeId(1))), "node-1");
        assert!(is_node("node-1") && !is_node("user:node-1") && !is_node("alice"));
        assert_eq!(actor(&Principal::user("medic")), "user:medic");
    }
}
