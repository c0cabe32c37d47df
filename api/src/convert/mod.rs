//! The law's types as messages of the control API. One direction, save where a request names a
//! thing of the law, and for audit records, which are verified elsewhere.
//!
//! Absent on purpose: decisions about who may see what; see `control`.

mod audit;
mod decision;
mod incident;
mod remediation;
mod scope;
mod weight;

use medic_proto::v1 as pb;
use medic_state::{
    Ppm, Timestamp,
    incident::TimelineItem,
    symptom::{Severity, Target},
};

pub use audit::{BadAuditRecord, audit_record, audit_record_from, principal};
pub use decision::{decision, route};
pub use incident::{incident, incident_status, incident_summary};
pub use remediation::{
    approval_rules, approvals, remediation, remediation_status, remediation_summary, verdict_value,
};
pub use scope::{freeze_info, freeze_scope, freeze_scope_from};
pub use weight::{detector_weight, opinion, opinion_from};

/// A point in time.
#[must_use]
pub fn time(at: Timestamp) -> medic_proto::Timestamp {
    let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(at.0 % 1_000 * 1_000_000).unwrap_or(0);
    medic_proto::Timestamp { seconds, nanos }
}

/// Back; `None`: before 1970.
#[must_use]
pub fn time_from(at: &medic_proto::Timestamp) -> Option<Timestamp> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let nanos = u64::try_from(at.nanos).ok()?;
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000).map(Timestamp)
}

/// A fraction.
#[must_use]
pub fn fraction(ppm: Ppm) -> f64 {
    f64::from(ppm.0) / 1e6
}

/// A target.
#[must_use]
pub fn target(target: &Target) -> pb::Target {
    pb::Target {
        tenant: target.tenant.clone(),
        service: target.service.clone(),
        instance: target.instance.clone(),
    }
}

/// How bad.
#[must_use]
pub const fn severity(severity: Severity) -> pb::Severity {
    match severity {
        Severity::Info => pb::Severity::Info,
        Severity::Warning => pb::Severity::Warning,
        Severity::Critical => pb::Severity::Critical,
    }
}

/// A line of a timeline.
#[must_use]
pub fn timeline_item(item: &TimelineItem) -> pb::TimelineItem {
    pb::TimelineItem {
        at: Some(time(item.at)),
        index: item.index,
        actor: item.actor.clone(),
        text: item.text.clone(),
    }
}

/// An optional id or text: empty where absent.
fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
