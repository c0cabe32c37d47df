//! `ReportSymptom`: a shard owner saw something.
//!
//! ```text
//!  owner under this epoch (an alert: any node)? ─► silenced? ─► known fingerprint ─► extend it
//!                                             │ no
//!                    same instance ill already, or same service and undecided ─► join
//!                                             │ no
//!              an effect of a dependency that is ill right now ─► join there, `grouped`
//!                                             │ no
//!                              quota ─► open; take in its dependents' undecided incidents;
//!                                       go on with the story of one that ended lately (`recurring`)
//! ```
//!
//! A mere repeat bumps no revision: a decision under way stays valid. A plan that waits for approval is
//! taken back when something as bad as what it is for joins, or when that grows worse: people would
//! agree to a plan for another picture, and the new trouble would wait with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    applied::{Answer, Refusal, Reply},
    command::{JUDGED_AGAIN_SINCE, OUTCOMES_SINCE, ReportSymptom},
    ids::{IncidentId, Revision},
    incident::{Incident, IncidentStatus, MAX_SYMPTOMS, SymptomState},
    law::{
        context::{Context, MAX_NAME_BYTES, clip, clip_to},
        grouping::{cause_of, merge_effects, own_home},
        holds,
        incidents::{bump, obscure, tell},
        recurring, saga,
    },
    saga::{Saga, SagaStatus},
    state::State,
    symptom::{Fingerprint, MAX_SIGNALS, Symptom, Target},
    voice,
};

/// Labels kept per symptom: those of a generous alert.
const MAX_LABELS: usize = 64;
/// Open incidents of all tenants: alerts may name tenants that nobody declared, each with a quota.
const MAX_OPEN: usize = 5_000;

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &ReportSymptom,
) -> Answer {
    if command.symptom.relayed() {
        state.check_relay(context, command.shard, command.epoch)?;
    } else {
        state.check_owner(context, command.shard, command.epoch)?;
    }
    let symptom = bounded(&command.symptom)?;
    let target = &symptom.target;
    if State::shard_of(target) != command.shard {
        let text =
            format!("{target} belongs to {}, not {}", State::shard_of(target), command.shard);
        return Err(Refusal::Invalid(text));
    }
    let fingerprint = symptom.fingerprint();
    if let Some(silence) = state.silenced(&symptom) {
        let known = state.fingerprints.get(&fingerprint).copied();
        if let Some(id) = known.or_else(|| own_home(state, target)) {
            obscure(state, id);
        }
        if let Some(id) = known.filter(|_| symptom.relayed()) {
            relay_on(state, context, id, fingerprint, symptom);
        }
        return Ok(Reply::Noted(silence));
    }
    if let Some(id) = state.fingerprints.get(&fingerprint).copied() {
        return repeat(state, context, id, fingerprint, symptom);
    }
    if let Some(id) = own_home(state, target) {
        return join(state, context, id, fingerprint, symptom, false);
    }
    if let Some(id) = cause_of(state, &symptom) {
        return join(state, context, id, fingerprint, symptom, true);
    }
    open(state, context, fingerprint, symptom)
}

/// What others say of a symptom that stands, though a silence covers it: which of its alerts still fire. Nobody would say
/// again that one is over. Counts as no report.
fn relay_on(
    state: &mut State,
    context: &mut Context<'_>,
    id: IncidentId,
    fingerprint: Fingerprint,
    symptom: Symptom,
) {
    if state.cluster_version < OUTCOMES_SINCE {
        return;
    }
    if let Ok(incident) = state.incident_mut(id)
        && let Some(known) = incident.symptoms.get_mut(&fingerprint)
    {
        known.symptom = symptom;
        context.touched.insert(id);
    }
}

/// The symptom with every part bounded.
fn bounded(symptom: &Symptom) -> Result<Symptom, Refusal> {
    let Target { tenant, service, instance } = &symptom.target;
    let names = [tenant, service, instance, &symptom.kind];
    if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        return Err(Refusal::Invalid(format!("a name has more than {MAX_NAME_BYTES} bytes")));
    }
    if tenant.is_empty() || service.is_empty() || symptom.kind.is_empty() {
        return Err(Refusal::Invalid("tenant, service or kind is empty".to_owned()));
    }
    let mut symptom = symptom.clone();
    symptom.summary = clip(&symptom.summary);
    symptom.source = clip_to(&symptom.source, MAX_NAME_BYTES);
    symptom.signals.truncate(MAX_SIGNALS);
    for signal in &mut symptom.signals {
        for text in
            [&mut signal.name, &mut signal.value, &mut signal.expected, &mut signal.detector]
        {
            *text = clip_to(text, MAX_NAME_BYTES);
        }
    }
    symptom.labels = std::mem::take(&mut symptom.labels)
        .into_iter()
        .take(MAX_LABELS)
        .map(|(name, value)| (clip_to(&name, MAX_NAME_BYTES), clip(&value)))
        .collect();
    Ok(symptom)
}

/// Seen before, and its incident is open.
fn repeat(
    state: &mut State,
    context: &mut Context<'_>,
    id: IncidentId,
    fingerprint: Fingerprint,
    symptom: Symptom,
) -> Answer {
    let voices_kept = state.cluster_version >= OUTCOMES_SINCE;
    let incident = state.incident_mut(id)?;
    let Some(known) = incident.symptoms.get_mut(&fingerprint) else {
        return Err(Refusal::NotFound(format!("symptom {fingerprint} in {id}")));
    };
    if voices_kept {
        voice::further(&mut known.voices, &symptom);
    }
    let worse = symptom.severity > known.symptom.severity;
    let back = known.cleared_at.take().is_some();
    known.symptom = symptom;
    known.last_at = context.now;
    known.count = known.count.saturating_add(1);
    let (severity, own) = (known.symptom.severity, !known.grouped);
    let text = format!("{} of {}", known.symptom.kind, known.symptom.target);
    let before = incident.severity;
    incident.updated_at = context.now;
    incident.severity = incident.severity.max(severity);
    if worse || back {
        bump(incident);
        let what = if back { "is back" } else { "grew worse" };
        tell(incident, context, format!("{text} {what}"));
        context.touched.insert(id);
    }
    if worse && own && severity >= before {
        judge_again(state, context, id, &format!("{text} grew worse"));
    }
    Ok(Reply::Incident(id))
}

/// Takes a plan back that waits for approval: the leader owes a decision about the new picture.
fn judge_again(state: &mut State, context: &mut Context<'_>, id: IncidentId, what: &str) {
    let waits =
        |saga: &&Saga| saga.status == SagaStatus::AwaitingApproval && saga.started_at.is_none();
    let Some(plan) = state.saga_of(id).filter(waits).map(|saga| saga.id) else { return };
    if state.cluster_version < JUDGED_AGAIN_SINCE {
        return;
    }
    saga::drop_plan(state, context, plan, &format!("it was for another picture: {what}"));
    if let Ok(incident) = state.incident_mut(id) {
        incident.plan = None;
    }
    state.back_to_open(context, id, "judged again");
}

/// Adds a symptom to an open incident.
fn join(
    state: &mut State,
    context: &mut Context<'_>,
    id: IncidentId,
    fingerprint: Fingerprint,
    symptom: Symptom,
    grouped: bool,
) -> Answer {
    let fresh = fresh(state, context, &symptom, grouped);
    let incident = state.incident_mut(id)?;
    if incident.symptoms.len() >= MAX_SYMPTOMS {
        return Ok(Reply::Noted(format!("{id} holds {MAX_SYMPTOMS} symptoms already")));
    }
    let how = if grouped { "grouped here, being an effect" } else { "joined" };
    tell(incident, context, format!("{how}: {}: {}", symptom.target, symptom.summary));
    let as_bad = !grouped && symptom.severity >= incident.severity;
    let what = format!("{} has `{}`", symptom.target, symptom.kind);
    incident.severity = incident.severity.max(symptom.severity);
    incident.predicted &= symptom.predicted() || grouped;
    bump(incident);
    incident.symptoms.insert(fingerprint, fresh);
    state.fingerprints.insert(fingerprint, id);
    holds::refresh_one(state, context, id);
    context.touched.insert(id);
    if as_bad {
        judge_again(state, context, id, &what);
    }
    Ok(Reply::Incident(id))
}

fn fresh(state: &State, context: &Context<'_>, symptom: &Symptom, grouped: bool) -> SymptomState {
    // Older builds keep no voices: they would come to another state.
    let voices_kept = state.cluster_version >= OUTCOMES_SINCE;
    SymptomState {
        symptom: symptom.clone(),
        voices: if voices_kept { voice::first(symptom) } else { BTreeSet::new() },
        first_at: context.now,
        last_at: context.now,
        count: 1,
        cleared_at: None,
        grouped,
    }
}

/// Opens an incident.
fn open(
    state: &mut State,
    context: &mut Context<'_>,
    fingerprint: Fingerprint,
    symptom: Symptom,
) -> Answer {
    let tenant = symptom.target.tenant.clone();
    let quota = state.quotas(&tenant).max_open_incidents;
    if state.open_incidents(&tenant) >= u64::from(quota) {
        state.totals.refused_symptoms = state.totals.refused_symptoms.saturating_add(1);
        return Err(Refusal::Limit(format!("tenant {tenant} has {quota} open incidents")));
    }
    if state.all_open_incidents() >= MAX_OPEN {
        state.totals.refused_symptoms = state.totals.refused_symptoms.saturating_add(1);
        return Err(Refusal::Limit(format!("{MAX_OPEN} incidents are open, over all tenants")));
    }
    let id = IncidentId(context.index);
    let summary = format!("opened: {}: {}", symptom.target, symptom.summary);
    let mut incident = Incident {
        id,
        tenant,
        target: symptom.target.clone(),
        status: IncidentStatus::Open,
        revision: Revision(1),
        severity: symptom.severity,
        predicted: symptom.predicted(),
        symptoms: BTreeMap::new(),
        decision: None,
        plan: None,
        attempts: Vec::new(),
        acknowledged_by: None,
        notices: BTreeMap::new(),
        escalation: None,
        manual: false,
        opened_at: context.now,
        updated_at: context.now,
        decided_at: None,
        remediated_at: None,
        resolved_at: None,
        resolution: None,
        timeline: Vec::new(),
        trace: context.trace,
        held_by: None,
        merged_into: None,
        judged: None,
        recurs: None,
        followed_by: None,
    };
    tell(&mut incident, context, summary);
    let (takes_in, earlier) = (!symptom.predicted(), recurring::earlier(state, &symptom));
    incident.symptoms.insert(fingerprint, fresh(state, context, &symptom, false));
    state.incidents.insert(id, incident);
    state.fingerprints.insert(fingerprint, id);
    state.totals.incidents = state.totals.incidents.saturating_add(1);
    state.totals.detected = state.totals.detected.saturating_add(1);
    if takes_in {
        merge_effects(state, context, id);
    }
    holds::refresh_one(state, context, id);
    if let Some(earlier) = earlier {
        recurring::go_on(state, context, earlier, id);
    }
    context.touched.insert(id);
    Ok(Reply::Incident(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::Command,
        ids::{Millis, Timestamp},
        law::tests::lab::*,
        manifest::*,
        symptom::Severity,
    };

    #[test]
    fn a_repeat_extends_and_bumps_no_revision() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "errors");
        let before = lab.incident(id).revision;
        assert_eq!(lab.report("api", "a", "errors"), id);
        assert_eq!(lab.incident(id).revision, before);
        let known = lab.incident(id).symptoms.values().next().unwrap();
        assert_eq!(known.count, 2);
        let worse = Symptom { severity: Severity::Critical, ..symptom("api", "a", "errors") };
        lab.report_symptom(worse).unwrap();
        assert!(lab.incident(id).revision > before);
        assert_eq!(lab.incident(id).severity, Severity::Critical);
        assert_eq!(lab.state.totals.incidents, 1);
    }

    #[test]
    fn an_alert_is_taken_from_any_registered_node() {
        let mut lab = Lab::new();
        let mut symptom = symptom("api", "a", crate::symptom::ALERT_KIND);
        symptom.source = crate::symptom::ALERT_SOURCE.into();
        let shard = State::shard_of(&symptom.target);
        let epoch = lab.state.shards[&shard].epoch;
        let report = ReportSymptom { shard, epoch, symptom };
        let answer = lab.node(9, Command::ReportSymptom(report.clone()));
        assert!(matches!(answer, Err(Refusal::NotFound(_))));
        lab.node(1, Command::ReportSymptom(report)).unwrap();
    }

    #[test]
    fn a_silence_keeps_quiet_and_a_window_holds_back() {
        let mut lab = Lab::new();
        let silence = SilenceSpec {
            matchers: vec![r#"service="api""#.into(), r#"kind=~"err.*""#.into()],
            starts_at: Timestamp(0),
            ends_at: Timestamp(lab.now + 1000),
            comment: "known".into(),
            schedule: None,
            duration: None,
        };
        lab.apply("hush", Spec::Silence(silence));
        let answer = lab.report_symptom(symptom("api", "a", "errors"));
        assert_eq!(answer, Ok(Reply::Noted("silenced by hush: known".into())));
        lab.now += 1000;
        lab.report("api", "a", "errors");

        let window = MaintenanceWindowSpec {
            matchers: vec![r#"service="db""#.into()],
            starts_at: Timestamp(lab.now),
            duration: Millis(60_000),
            every: None,
            comment: "upgrade".into(),
            schedule: None,
            ends_at: None,
        };
        lab.apply("upgrade", Spec::MaintenanceWindow(window));
        let id = lab.report("db", "d", "down");
        let held = lab.incident(id).held_by.clone().unwrap();
        assert_eq!(held, "maintenance window upgrade: upgrade");
        assert!(!lab.owed().contains(&crate::Effect::Decide(id)));
        assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 60_000)));
        lab.wait(60);
        assert!(lab.owed().contains(&crate::Effect::Decide(id)));
        assert_eq!(lab.incident(id).held_by, None);
    }

    #[test]
    fn a_tenant_has_a_quota() {
        let mut lab = Lab::new();
        let quota =
            TenantSpec { max_open_incidents: 1, max_manifests: 100, ..TenantSpec::default() };
        lab.apply(TENANT, Spec::Tenant(quota));
        lab.report("api", "a", "down");
        let answer = lab.report_symptom(symptom("db", "d", "down"));
        assert!(matches!(answer, Err(Refusal::Limit(_))));
        assert_eq!(lab.state.totals.refused_symptoms, 1);
    }

    #[test]
    fn tenants_that_nobody_declared_do_not_fill_the_memory() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let one = lab.incident(id).clone();
        for n in 1..MAX_OPEN {
            let id = IncidentId(1_000_000 + n as u64);
            let incident = Incident { id, tenant: format!("t{n}"), ..one.clone() };
            lab.state.incidents.insert(id, Incident { symptoms: BTreeMap::new(), ..incident });
        }
        let answer = lab.report_symptom(symptom("db", "d", "down"));
        assert!(matches!(&answer, Err(Refusal::Limit(why)) if why.contains("all tenants")));
    }

    #[test]
    fn after_the_end_a_symptom_opens_a_new_incident() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        assert_ne!(lab.report("api", "a", "down"), id);
    }
}
