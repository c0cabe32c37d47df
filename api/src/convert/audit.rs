//! Audit records, both ways: whoever fetched a chain can verify it with the law's own functions.

use medic_proto::v1 as pb;
use medic_state::{
    AuditRecord, Digest, TraceId,
    rbac::{Principal, PrincipalKind},
};

use super::{text, time, time_from};

/// A message that is no audit record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit record {seq} has a bad {field}")]
pub struct BadAuditRecord {
    /// Its position.
    pub seq: u64,
    /// Which field.
    pub field: &'static str,
}

/// Who.
#[must_use]
pub fn principal(principal: &Principal) -> pb::Principal {
    let kind = match principal.kind {
        PrincipalKind::User => pb::PrincipalKind::User,
        PrincipalKind::Node => pb::PrincipalKind::Node,
        PrincipalKind::Agent => pb::PrincipalKind::Agent,
    };
    pb::Principal { kind: kind.into(), name: principal.name.clone() }
}

/// One link of the chain.
#[must_use]
pub fn audit_record(record: &AuditRecord) -> pb::AuditRecord {
    pb::AuditRecord {
        seq: record.seq,
        index: record.index,
        at: Some(time(record.at)),
        principal: Some(principal(&record.principal)),
        command: record.command.clone(),
        subject: record.subject.clone(),
        outcome: record.outcome.clone(),
        entry: record.entry.to_string(),
        trace_id: record.trace.to_string(),
        previous: record.previous.to_string(),
        hash: record.hash.to_string(),
        tenant: record.tenant.clone(),
        incident: text(record.incident.as_ref()),
    }
}

/// Back, exactly.
///
/// # Errors
/// Names the field that is malformed.
pub fn audit_record_from(record: &pb::AuditRecord) -> Result<AuditRecord, BadAuditRecord> {
    let bad = |field| BadAuditRecord { seq: record.seq, field };
    let digest = |value: &str, field| value.parse::<Digest>().map_err(|_| bad(field));
    let who = record.principal.as_ref().ok_or_else(|| bad("principal"))?;
    let kind = match who.kind() {
        pb::PrincipalKind::User => PrincipalKind::User,
        pb::PrincipalKind::Node => PrincipalKind::Node,
        pb::PrincipalKind::Agent => PrincipalKind::Agent,
        pb::PrincipalKind::Unspecified => return Err(bad("principal")),
    };
    let incident = match record.incident.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|_| bad("incident"))?),
    };
    Ok(AuditRecord {
        seq: record.seq,
        index: record.index,
        at: record.at.as_ref().and_then(time_from).ok_or_else(|| bad("at"))?,
        principal: Principal { kind, name: who.name.clone() },
        command: record.command.clone(),
        subject: record.subject.clone(),
        outcome: record.outcome.clone(),
        entry: digest(&record.entry, "entry")?,
        trace: trace(&record.trace_id).ok_or_else(|| bad("trace_id"))?,
        previous: digest(&record.previous, "previous")?,
        hash: digest(&record.hash, "hash")?,
        tenant: record.tenant.clone(),
        incident,
    })
}

fn trace(text: &str) -> Option<TraceId> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|number| TraceId(number.to_be_bytes()))
}
