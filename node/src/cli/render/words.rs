//! The API's enums, times and targets in people's words.

use medic_proto::v1 as pb;
use medic_state::{Timestamp, time::format_rfc3339};

use super::Style;

/// Milliseconds since 1970, when the time is given.
#[must_use]
pub fn ms(at: Option<&prost_types::Timestamp>) -> Option<u64> {
    let at = at?;
    let seconds = u64::try_from(at.seconds).ok()?;
    Some(seconds.saturating_mul(1000) + u64::try_from(at.nanos).unwrap_or(0) / 1_000_000)
}

/// The time for the API.
#[must_use]
pub fn timestamp(ms: u64) -> prost_types::Timestamp {
    #[allow(clippy::cast_possible_truncation, reason = "below a billion")]
    let nanos = (ms % 1000 * 1_000_000) as i32;
    prost_types::Timestamp { seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX), nanos }
}

/// Time of day in UTC to a tenth of a second: `14:02:11.4`.
#[must_use]
pub fn clock(ms: u64) -> String {
    let day = ms % 86_400_000;
    let (h, m, s) = (day / 3_600_000, day / 60_000 % 60, day / 1000 % 60);
    format!("{h:02}:{m:02}:{s:02}.{}", day % 1000 / 100)
}

/// Day and time in UTC to a second: `2026-11-23 14:02:11`.
#[must_use]
pub fn date(ms: u64) -> String {
    format_rfc3339(Timestamp(ms / 1000 * 1000)).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Day in UTC: `2026-11-23`.
#[must_use]
pub fn day(ms: u64) -> String {
    date(ms).split(' ').next().unwrap_or_default().to_owned()
}

/// `web/web-1`, or `web` for the service as a whole.
#[must_use]
pub fn target(target: Option<&pb::Target>) -> String {
    match target {
        None => "-".to_owned(),
        Some(target) if target.instance.is_empty() => target.service.clone(),
        Some(target) => format!("{}/{}", target.service, target.instance),
    }
}

/// The last part of an enum's name as the API spells it: `INCIDENT_STATUS_AWAITING_APPROVAL` to
/// `awaiting-approval`.
fn tail(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', "-")
}

/// What turned out about a detection.
#[must_use]
pub fn opinion(opinion: pb::Opinion) -> String {
    tail(opinion.as_str_name(), "OPINION_")
}

/// What is foreseen.
#[must_use]
pub fn prediction_kind(kind: pb::PredictionKind) -> String {
    tail(kind.as_str_name(), "PREDICTION_KIND_")
}

/// How something does.
#[must_use]
pub fn health_status(status: pb::HealthStatus) -> String {
    tail(status.as_str_name(), "HEALTH_STATUS_")
}

/// A monitor.
#[must_use]
pub fn monitor(monitor: pb::Monitor) -> String {
    tail(monitor.as_str_name(), "MONITOR_")
}

/// An incident's status.
#[must_use]
pub fn incident_status(status: pb::IncidentStatus) -> String {
    tail(status.as_str_name(), "INCIDENT_STATUS_")
}

/// A remediation's status.
#[must_use]
pub fn remediation_status(status: pb::RemediationStatus) -> String {
    tail(status.as_str_name(), "REMEDIATION_STATUS_")
}

/// A step's status.
#[must_use]
pub fn step_status(status: pb::StepStatus) -> String {
    tail(status.as_str_name(), "STEP_STATUS_")
}

/// A severity.
#[must_use]
pub fn severity(severity: pb::Severity) -> String {
    tail(severity.as_str_name(), "SEVERITY_")
}

/// A verdict's value.
#[must_use]
pub fn verdict(value: pb::VerdictValue) -> String {
    tail(value.as_str_name(), "VERDICT_VALUE_")
}

/// A safety class.
#[must_use]
pub fn safety(class: pb::SafetyClass) -> String {
    tail(class.as_str_name(), "SAFETY_CLASS_")
}

/// One of the five risks, as people say it.
#[must_use]
pub fn risk(kind: pb::RiskKind) -> String {
    tail(kind.as_str_name(), "RISK_KIND_").replace('-', " ")
}

/// A route, as in the documents: `auto_execute`.
#[must_use]
pub fn route(route: pb::Route) -> String {
    tail(route.as_str_name(), "ROUTE_").replace('-', "_")
}

/// An incident's status, coloured by how much it asks for.
#[must_use]
pub fn paint_incident(style: Style, status: pb::IncidentStatus) -> String {
    use pb::IncidentStatus as S;
    let text = incident_status(status);
    match status {
        S::Escalated => style.bad(&text),
        S::AwaitingApproval | S::RollingBack => style.warn(&text),
        S::Resolved => style.good(&text),
        S::Unspecified | S::Open | S::Remediating | S::Verifying => text,
    }
}

/// A remediation's status, coloured.
#[must_use]
pub fn paint_remediation(style: Style, status: pb::RemediationStatus) -> String {
    use pb::RemediationStatus as S;
    let text = remediation_status(status);
    match status {
        S::Succeeded => style.good(&text),
        S::Failed | S::Unknown => style.bad(&text),
        S::AwaitingApproval | S::Unwinding | S::RolledBack => style.warn(&text),
        S::Unspecified | S::Running | S::Verifying | S::Dropped => text,
    }
}

/// A severity, coloured.
#[must_use]
pub fn paint_severity(style: Style, value: pb::Severity) -> String {
    let text = severity(value);
    match value {
        pb::Severity::Critical => style.bad(&text),
        pb::Severity::Warning => style.warn(&text),
        pb::Severity::Unspecified | pb::Severity::Info => text,
    }
}

/// A verdict, coloured.
#[must_use]
pub fn paint_verdict(style: Style, value: pb::VerdictValue) -> String {
    let text = verdict(value);
    match value {
        pb::VerdictValue::Passed => style.good(&text),
        pb::VerdictValue::Failed => style.bad(&text),
        pb::VerdictValue::Inconclusive => style.warn(&text),
        pb::VerdictValue::Unspecified => text,
    }
}

/// `1 node`, `2 nodes`.
#[must_use]
pub fn plural(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_ones_of_the_documents() {
        assert_eq!(incident_status(pb::IncidentStatus::AwaitingApproval), "awaiting-approval");
        assert_eq!(route(pb::Route::RecommendWithApproval), "recommend_with_approval");
        assert_eq!(risk(pb::RiskKind::BlastRadius), "blast radius");
        assert_eq!(verdict(pb::VerdictValue::Inconclusive), "inconclusive");
    }

    #[test]
    fn times_are_utc() {
        let at = timestamp(1_795_000_000_450);
        assert_eq!(ms(Some(&at)), Some(1_795_000_000_450));
        assert_eq!(clock(1_795_000_000_450), "11:06:40.4");
        assert_eq!(date(1_795_000_000_450), "2026-11-18 11:06:40");
    }
}
