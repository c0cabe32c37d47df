//! Incidents and their symptoms.

use std::collections::BTreeSet;

use medic_proto::v1 as pb;
use medic_state::{
    incident::{Attempt, Incident, IncidentStatus, Resolution, SymptomState},
    notice::{Delivery, NoticeState},
    symptom::{Fingerprint, Signal},
};

use super::{decision, fraction, opinion, severity, target, text, time, timeline_item};

/// Where an incident stands.
#[must_use]
pub const fn incident_status(status: IncidentStatus) -> pb::IncidentStatus {
    match status {
        IncidentStatus::Open => pb::IncidentStatus::Open,
        IncidentStatus::AwaitingApproval => pb::IncidentStatus::AwaitingApproval,
        IncidentStatus::Remediating => pb::IncidentStatus::Remediating,
        IncidentStatus::Verifying => pb::IncidentStatus::Verifying,
        IncidentStatus::RollingBack => pb::IncidentStatus::RollingBack,
        IncidentStatus::Escalated => pb::IncidentStatus::Escalated,
        IncidentStatus::Resolved => pb::IncidentStatus::Resolved,
    }
}

const fn resolution(resolution: Option<Resolution>) -> pb::Resolution {
    match resolution {
        None => pb::Resolution::Unspecified,
        Some(Resolution::Remediated) => pb::Resolution::Remediated,
        Some(Resolution::SelfCleared) => pb::Resolution::SelfCleared,
        Some(Resolution::ByHand) => pb::Resolution::ByHand,
        Some(Resolution::Merged) => pb::Resolution::Merged,
    }
}

/// An incident in full.
#[must_use]
pub fn incident(incident: &Incident) -> pb::Incident {
    pb::Incident {
        id: incident.id.to_string(),
        tenant: incident.tenant.clone(),
        target: Some(target(&incident.target)),
        status: incident_status(incident.status).into(),
        revision: incident.revision.0,
        severity: severity(incident.severity).into(),
        symptoms: incident.symptoms.iter().map(|(id, state)| symptom(*id, state)).collect(),
        decision: incident.decision.as_ref().map(|one| decision(incident, one)),
        plan: text(incident.plan.as_ref()),
        attempts: incident.attempts.iter().map(attempt).collect(),
        acknowledged_by: incident.acknowledged_by.clone().unwrap_or_default(),
        escalation: incident.escalation.clone().unwrap_or_default(),
        manual: incident.manual,
        opened_at: Some(time(incident.opened_at)),
        updated_at: Some(time(incident.updated_at)),
        decided_at: incident.decided_at.map(time),
        remediated_at: incident.remediated_at.map(time),
        resolved_at: incident.resolved_at.map(time),
        resolution: resolution(incident.resolution).into(),
        timeline: incident.timeline.iter().map(timeline_item).collect(),
        trace_id: incident.trace.to_string(),
        predicted: incident.predicted,
        held_by: incident.held_by.clone().unwrap_or_default(),
        merged_into: text(incident.merged_into.as_ref()),
        notices: incident.notices.iter().map(|(channel, state)| notice(channel, state)).collect(),
        opinion: incident
            .judged
            .as_ref()
            .map_or(pb::Opinion::Unspecified, |judged| opinion(judged.opinion))
            .into(),
        recurs_of: text(incident.recurs.map(|recurs| recurs.of).as_ref()),
        recurrences: incident.recurs.map_or(0, |recurs| recurs.times),
        followed_by: text(incident.followed_by.as_ref()),
        judged_by: incident.judged.as_ref().map(|judged| judged.by.clone()).unwrap_or_default(),
    }
}

fn notice(channel: &str, state: &NoticeState) -> pb::Notice {
    let (outcome, reason) = match &state.delivery {
        Delivery::Sending(_) => ("sending", ""),
        Delivery::Delivered => ("delivered", ""),
        Delivery::Failed(reason) => ("failed", reason.as_str()),
        Delivery::Refused(reason) => ("refused", reason.as_str()),
        Delivery::Unknown(reason) => ("unknown", reason.as_str()),
    };
    pb::Notice {
        channel: channel.to_owned(),
        kind: state.kind.to_string(),
        outcome: outcome.to_owned(),
        reason: reason.to_owned(),
        at: Some(time(state.at)),
        tries: state.tries,
        delivered: state.delivered,
    }
}

/// An incident as a line of a list.
#[must_use]
pub fn incident_summary(incident: &Incident) -> pb::IncidentSummary {
    let active = incident.symptoms.values().filter(|s| s.cleared_at.is_none());
    let strongest = incident
        .symptoms
        .values()
        .max_by_key(|s| (s.cleared_at.is_none(), !s.grouped, s.symptom.severity));
    let kinds: BTreeSet<&str> =
        incident.symptoms.values().map(|s| s.symptom.kind.as_str()).collect();
    pb::IncidentSummary {
        id: incident.id.to_string(),
        tenant: incident.tenant.clone(),
        target: Some(target(&incident.target)),
        status: incident_status(incident.status).into(),
        severity: severity(incident.severity).into(),
        class: incident.decision.as_ref().map(|d| d.proposal.class.clone()).unwrap_or_default(),
        summary: strongest.map(|s| s.symptom.summary.clone()).unwrap_or_default(),
        symptom_kinds: kinds.into_iter().map(str::to_owned).collect(),
        active_symptoms: u32::try_from(active.count()).unwrap_or(u32::MAX),
        opened_at: Some(time(incident.opened_at)),
        updated_at: Some(time(incident.updated_at)),
        resolved_at: incident.resolved_at.map(time),
        resolution: resolution(incident.resolution).into(),
        plan: text(incident.plan.as_ref()),
        acknowledged_by: incident.acknowledged_by.clone().unwrap_or_default(),
        escalation: incident.escalation.clone().unwrap_or_default(),
        manual: incident.manual,
        predicted: incident.predicted,
        held_by: incident.held_by.clone().unwrap_or_default(),
    }
}

fn symptom(fingerprint: Fingerprint, state: &SymptomState) -> pb::Symptom {
    let symptom = &state.symptom;
    pb::Symptom {
        target: Some(target(&symptom.target)),
        kind: symptom.kind.clone(),
        severity: severity(symptom.severity).into(),
        summary: symptom.summary.clone(),
        p_value: fraction(symptom.p_value),
        signals: symptom.signals.iter().map(signal).collect(),
        since: Some(time(symptom.since)),
        time_to_event_ms: symptom.time_to_event.map(|span| span.0),
        labels: symptom.labels.clone(),
        source: symptom.source.clone(),
        fingerprint: fingerprint.to_string(),
        first_at: Some(time(state.first_at)),
        last_at: Some(time(state.last_at)),
        count: state.count,
        cleared_at: state.cleared_at.map(time),
        grouped: state.grouped,
    }
}

fn signal(signal: &Signal) -> pb::Signal {
    pb::Signal {
        name: signal.name.clone(),
        value: signal.value.clone(),
        expected: signal.expected.clone(),
        detector: signal.detector.clone(),
        p_value: fraction(signal.p_value),
    }
}

fn attempt(attempt: &Attempt) -> pb::Attempt {
    pb::Attempt {
        plan: attempt.plan.to_string(),
        playbook: attempt.playbook.clone(),
        reason: attempt.reason.clone(),
        at: Some(time(attempt.at)),
    }
}
