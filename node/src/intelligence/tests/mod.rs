//! Tests of judgement about incidents.
#![allow(clippy::unwrap_used, reason = "tests")]

mod faults;
mod foretold;
mod named;
mod scale;

use std::collections::BTreeMap;

use medic_state::{
    Digest, IncidentId, Ppm, State, Timestamp,
    decision::{Proposal, RiskKind, Route, ThresholdOverrides},
    incident::IncidentStatus,
    manifest::PolicySpec,
    state::{Lesson, LessonKey},
    symptom::{Severity, Target},
};

use super::{Conclusion, DecideError, DecisionInput, decide, targets_to_observe};
use crate::{
    fixture::{T0, at, attempt, fleet, look, open, playbook, symptom},
    world::Observation,
};

const LATER: Timestamp = Timestamp(T0.0 + 9_000);

/// Instance, whether its probes are good, its indicators.
type Look<'a> = (&'a str, bool, &'a [(&'a str, f64)]);

fn conclude(state: &State, id: IncidentId, looks: &[Look<'_>]) -> Conclusion {
    let observations: BTreeMap<Target, Observation> =
        looks.iter().map(|(name, good, metrics)| (at(name), look(LATER, *good, metrics))).collect();
    let overrides = ThresholdOverrides::default();
    let input =
        DecisionInput { state, incident: id, observations: &observations, overrides, now: LATER };
    decide(&input).unwrap()
}

fn proposal(state: &State, id: IncidentId, looks: &[Look<'_>]) -> Proposal {
    match conclude(state, id, looks) {
        Conclusion::Propose(proposal) => *proposal,
        Conclusion::Wait { reason, .. } => panic!("waits: {reason}"),
    }
}

/// Where the default policy would send it (the law does this; thresholds alone here).
fn route(proposal: &Proposal) -> Route {
    let policy = PolicySpec::default();
    if proposal.plan.is_none() {
        return Route::EscalateToHuman;
    }
    if policy.auto_execute.admit(proposal.confidence, proposal.risk) {
        Route::AutoExecute
    } else if policy.recommend.admit(proposal.confidence, proposal.risk) {
        Route::RecommendWithApproval
    } else {
        Route::EscalateToHuman
    }
}

fn risk_of(service: &str, action: &str, serving: bool) -> Proposal {
    let mut state = fleet();
    let spec = format!(
        "{{mode: auto, match: ['kind=\"weird\"'], steps: [{{name: s, action: {action}, \
         params: {{url: 'http://127.0.0.1:1/x'}}}}], verify: {{expect: 'probe.http_ok == 1.0'}}}}"
    );
    playbook(&mut state, "mine", &spec);
    let id = open(&mut state, 7, vec![symptom(&format!("{service}-1"), "weird", &[])]);
    let name = format!("{service}-1");
    proposal(&state, id, &[(name.as_str(), serving, &[])])
}

#[test]
fn risks_are_where_an_operator_would_put_them() {
    for (service, action, serving, least, most) in [
        ("orders", "process.restart", false, 0.12, 0.25),
        ("orders", "process.restart", true, 0.12, 0.30),
        ("datastore", "process.restart", false, 0.12, 0.25),
        ("datastore", "process.restart", true, 0.35, 0.50),
        ("ledger", "process.restart", false, 0.15, 0.30),
        ("ledger", "process.restart", true, 0.35, 0.50),
        ("ledger", "process.stop", true, 0.35, 0.50),
        ("ledger", "webhook.call", true, 0.50, 1.00),
        ("users", "webhook.call", true, 0.30, 0.50),
    ] {
        let found = risk_of(service, action, serving);
        let risk = f64::from(found.risk.0) / 1e6;
        assert!(
            (least..most).contains(&risk),
            "{action} of {service}, serving {serving}: {risk}\n{:#?}",
            found.risks
        );
    }
}

#[test]
fn a_risk_that_cannot_be_told_counts_as_certain() {
    let found = risk_of("orders", "process.fly", true);
    assert_eq!(found.plan, None);
    assert!(found.recommendations[0].reason.contains("process.fly"));

    let mut state = fleet();
    let id = open(&mut state, 7, vec![symptom("orders-1", "down", &[("process", "dead")])]);
    let plan = proposal(&state, id, &[]).plan.unwrap();
    state.manifests.retain(|key, _| key.name != "orders");
    let incident = &state.incidents[&id];
    let looks = BTreeMap::new();
    let scene = super::scene::Scene {
        state: &state,
        incident,
        service: None,
        observations: &looks,
        now: LATER,
    };
    let (risks, risk) = super::risk::assess(&super::risk::RiskInput { scene: &scene, plan: &plan });
    let blast = risks.iter().find(|r| r.kind == RiskKind::BlastRadius).unwrap();
    assert_eq!(blast.score, Ppm::ONE);
    assert!(blast.reasons[0].contains("orders is not declared"), "{:?}", blast.reasons);
    assert!(risk > Ppm(600_000));
}

#[test]
fn errors_of_a_service_that_calls_others_wait_for_the_cause() {
    let mut state = fleet();
    let id = open(&mut state, 7, vec![symptom("gateway-1", "errors", &[("process", "running")])]);
    let looks = BTreeMap::new();
    let overrides = ThresholdOverrides::default();
    let mut input = DecisionInput {
        state: &state,
        incident: id,
        observations: &looks,
        overrides,
        now: Timestamp(T0.0 + 500),
    };
    let Conclusion::Wait { until, .. } = decide(&input).unwrap() else { panic!("decides") };
    assert_eq!(until, Timestamp(T0.0 + 4_000));
    input.now = until;
    assert!(matches!(decide(&input).unwrap(), Conclusion::Propose(_)));
    // A clock that is far behind does not make it wait for ever.
    input.now = Timestamp(1);
    let Conclusion::Wait { until, .. } = decide(&input).unwrap() else { panic!("decides") };
    assert_eq!(until, Timestamp(T0.0 + 4_000));
}

#[test]
fn a_service_that_calls_nobody_waits_a_moment_for_its_siblings() {
    let mut state = fleet();
    let id = open(&mut state, 7, vec![symptom("users-1", "latency", &[("process", "running")])]);
    for (key, stored) in &mut state.manifests {
        if key.name == "users"
            && let medic_state::manifest::Spec::Service(service) =
                &mut std::sync::Arc::make_mut(&mut stored.manifest).spec
        {
            service.depends_on.clear();
        }
    }
    let looks = BTreeMap::new();
    let overrides = ThresholdOverrides::default();
    let at =
        |now| DecisionInput { state: &state, incident: id, observations: &looks, overrides, now };
    let early = decide(&at(Timestamp(T0.0 + 500))).unwrap();
    let Conclusion::Wait { until, reason } = early else { panic!("{early:?}") };
    assert!(reason.contains("more instances"), "{reason}");
    assert!(matches!(decide(&at(until)), Ok(Conclusion::Propose(_))));
}

#[test]
fn nothing_is_escalated_for_want_of_a_playbook_while_a_sibling_is_treated() {
    let mut state = fleet();
    let beside = open(&mut state, 5, vec![symptom("users-1", "down", &[("process", "dead")])]);
    state.incidents.get_mut(&beside).unwrap().status = IncidentStatus::Remediating;
    let id = open(&mut state, 7, vec![symptom("users-2", "errors", &[("process", "running")])]);
    let looks = [("users-1", false, &[][..]), ("users-2", true, &[("error_rate", 0.5)])];
    let found = conclude(&state, id, &looks);
    let Conclusion::Wait { reason, .. } = found else { panic!("{found:?}") };
    assert!(reason.contains("users/users-1 is treated now"), "{reason}");
    state.incidents.get_mut(&beside).unwrap().status = IncidentStatus::Resolved;
    assert!(matches!(conclude(&state, id, &looks), Conclusion::Propose(_)));
}

#[test]
fn an_effect_waits_while_its_cause_is_in_trouble_and_names_it() {
    let mut state = fleet();
    open(&mut state, 5, vec![symptom("datastore-1", "down", &[("process", "dead")])]);
    let id = open(&mut state, 7, vec![symptom("orders-1", "errors", &[("process", "running")])]);
    let looks = [("orders-1", true, &[("error_rate", 0.5)][..])];
    let Conclusion::Wait { reason, .. } = conclude(&state, id, &looks) else { panic!("decides") };
    assert!(reason.contains("datastore/datastore-1"), "{reason}");

    state.now = Timestamp(T0.0 + 70_000);
    let found = proposal(&state, id, &looks);
    assert_eq!(found.class, "dependency/failure");
    assert_eq!(found.root_cause, Some(at("datastore-1")));
    assert_eq!(route(&found), Route::EscalateToHuman);

    // The same from a failing probe alone, before anybody reported the datastore.
    state.incidents.remove(&IncidentId(5));
    state.now = T0;
    let looks = [("orders-1", true, &[][..]), ("datastore-1", false, &[][..])];
    assert!(matches!(conclude(&state, id, &looks), Conclusion::Wait { .. }));
}

#[test]
fn what_has_cleared_is_left_to_close_by_itself() {
    let mut state = fleet();
    let id = open(&mut state, 7, vec![symptom("orders-1", "down", &[("process", "dead")])]);
    let incident = state.incidents.get_mut(&id).unwrap();
    incident.symptoms.values_mut().for_each(|s| s.cleared_at = Some(T0));
    assert!(matches!(conclude(&state, id, &[]), Conclusion::Wait { .. }));
    state.incidents.get_mut(&id).unwrap().status = IncidentStatus::Resolved;
    let looks = BTreeMap::new();
    let overrides = ThresholdOverrides::default();
    let mut input =
        DecisionInput { state: &state, incident: id, observations: &looks, overrides, now: LATER };
    assert_eq!(decide(&input), Err(DecideError::Closed(id)));
    input.incident = IncidentId(99);
    assert_eq!(decide(&input), Err(DecideError::NoIncident(IncidentId(99))));
}

#[test]
fn a_failed_playbook_gives_way_to_the_one_it_names() {
    let mut state = fleet();
    let id = open(&mut state, 7, vec![symptom("orders-1", "down", &[("process", "dead")])]);
    attempt(&mut state, id, "restart-crashed-service");
    let found = proposal(&state, id, &[("orders-1", false, &[])]);
    let plan = found.plan.unwrap();
    assert_eq!(plan.playbook, "fail-over-to-standby");
    assert_eq!(plan.verify_targets, [at("orders-4")]);
    let first = &found.recommendations[1];
    assert_eq!((first.playbook.as_str(), first.eligible), ("restart-crashed-service", false));
    assert!(first.reason.contains("already tried (PLAN-90)"), "{}", first.reason);

    attempt(&mut state, id, "fail-over-to-standby");
    let found = proposal(&state, id, &[]);
    assert_eq!(found.plan, None);
    assert!(found.confidence_reasons[0].contains("no further playbook fits"));
}

#[test]
fn outcomes_move_the_ranking_and_the_confidence() {
    let mut state = fleet();
    let spec = "{mode: auto, match: ['class=\"application/crash\"'], steps: [{name: s, action: process.start}], verify: {expect: 'probe.http_ok == 1.0'}}";
    playbook(&mut state, "another", spec);
    let id = open(&mut state, 7, vec![symptom("orders-1", "down", &[("process", "dead")])]);
    let down = [("orders-1", false, &[][..])];
    assert_eq!(proposal(&state, id, &down).plan.unwrap().playbook, "another", "by name");
    let mut learn = |playbook: &str, succeeded, failed| {
        let key = LessonKey {
            tenant: "default".to_owned(),
            class: "application/crash".to_owned(),
            playbook: playbook.to_owned(),
        };
        let lesson = Lesson { succeeded, failed, inconclusive: 0, heal_ms_sum: succeeded * 4_000 };
        state.lessons.insert(key, lesson);
    };
    learn("another", 0, 6);
    learn("restart-crashed-service", 7, 1);
    let found = proposal(&state, id, &down);
    assert_eq!(found.plan.as_ref().unwrap().playbook, "restart-crashed-service");
    assert_eq!(found.recommendations[0].by, "outcomes");
    assert!(found.recommendations[0].reason.contains("helped 7 of 8 times, in 4.0 s"));

    state.manifests.retain(|key, _| key.name != "restart-crashed-service");
    let found = proposal(&state, id, &down);
    assert_eq!(route(&found), Route::RecommendWithApproval, "{}", found.confidence);
}

#[test]
fn conditions_that_cannot_be_told_make_a_playbook_unfit_and_say_so() {
    let mut state = fleet();
    for (name, when) in [
        ("absent", "symptom.colour == 'red'"),
        ("broken", "symptom.p_value +"),
        ("false", "target.replicas > 9"),
        ("typed", "target.replicas"),
    ] {
        let spec = format!(
            "{{mode: auto, match: ['kind=\"weird\"'], when: \"{when}\", steps: [{{name: s, action: process.restart}}], verify: {{expect: 'probe.http_ok == 1.0'}}}}"
        );
        playbook(&mut state, name, &spec);
    }
    let id = open(&mut state, 7, vec![symptom("ledger-1", "weird", &[])]);
    let found = proposal(&state, id, &[]);
    assert_eq!(found.plan, None);
    let reasons: BTreeMap<&str, &str> =
        found.recommendations.iter().map(|r| (r.playbook.as_str(), r.reason.as_str())).collect();
    assert!(reasons["absent"].contains("no data for colour"), "{reasons:#?}");
    assert!(reasons["broken"].contains("is not CEL"), "{reasons:#?}");
    assert!(reasons["false"].contains("does not hold"), "{reasons:#?}");
    assert!(reasons["typed"].contains("not a boolean"), "{reasons:#?}");
    assert!(found.recommendations.iter().all(|r| !r.eligible));
}

#[test]
fn a_prediction_uses_preventive_playbooks_alone() {
    let mut state = fleet();
    let leak = symptom("users-1", "saturation-predicted", &[("indicator", "memory")]);
    let id = open(&mut state, 7, vec![leak]);
    let found = proposal(&state, id, &[]);
    for weighed in &found.recommendations {
        assert_eq!(weighed.eligible, weighed.playbook == "recycle-leaking-instances");
    }
}

#[test]
fn a_restored_configuration_is_the_one_the_agent_keeps_and_no_change_of_ours() {
    let mut state = fleet();
    let hash = Digest::of(&[b"good"]).to_string();
    let labels = [("config_changed_ms", "3000"), ("previous_config", hash.as_str())];
    let sick = symptom("orders-1", "errors", &labels);
    let other = symptom("orders-2", "errors", &[]);
    let id = open(&mut state, 7, vec![sick, other]);
    let plan = proposal(&state, id, &[]).plan.unwrap();
    assert_eq!(plan.steps.len(), 1, "only the instance that was changed");
    assert_eq!(plan.steps[0].action.params["hash"], hash);
    assert_eq!(plan.verify_targets, [at("orders-1"), at("orders-2")]);

    // Medic itself restored it at that time: then it is no bad roll-out.
    let mut saga = crate::validation::tests::saga(plan);
    saga.steps[0].started_at = Some(Timestamp(T0.0 - 3_500));
    saga.steps[0].ended_at = Some(Timestamp(T0.0 - 2_500));
    state.sagas.insert(saga.id, saga);
    assert_ne!(proposal(&state, id, &[]).class, "configuration/bad-rollout");
}

#[test]
fn the_sick_are_looked_at_first_then_siblings_then_callees() {
    let mut state = fleet();
    let id = open(&mut state, 7, vec![symptom("orders-2", "errors", &[])]);
    let names: Vec<String> =
        targets_to_observe(&state, id).into_iter().map(|t| t.instance).collect();
    assert_eq!(names, ["orders-2", "orders-1", "orders-3", "orders-4", "datastore-1"]);
}

#[test]
fn a_playbook_for_one_alert_needs_no_class() {
    let mut state = fleet();
    for (name, matcher) in [("mine", "alertname=\"Trouble\""), ("vague", "team=\"\"")] {
        let spec = format!(
            "{{mode: auto, match: ['{matcher}'], steps: [{{name: s, action: process.restart}}], verify: {{expect: 'probe.http_ok == 1.0'}}}}"
        );
        playbook(&mut state, name, &spec);
    }
    let id = open(&mut state, 7, vec![symptom("users-1", "alert", &[("alertname", "Trouble")])]);
    let down = [("users-1", false, &[][..]), ("datastore-1", true, &[][..])];
    let found = proposal(&state, id, &down);
    assert_eq!(found.class, "unknown");
    assert_eq!(found.plan.as_ref().unwrap().playbook, "mine");
    assert_eq!(route(&found), Route::AutoExecute, "{:#?}", found.confidence_reasons);

    state.manifests.retain(|key, _| key.name != "mine");
    let found = proposal(&state, id, &down);
    assert_eq!(found.plan.as_ref().unwrap().playbook, "vague");
    assert_eq!(found.confidence, Ppm::ZERO, "neither the class nor the playbook knows the fault");
}

#[test]
fn what_hurts_nobody_is_watched_not_escalated() {
    let mut state = fleet();
    let mut odd = symptom("users-1", "anomaly", &[("indicator", "memory")]);
    odd.severity = Severity::Info;
    let id = open(&mut state, 7, vec![odd.clone()]);
    let well = [("users-1", true, &[][..]), ("datastore-1", true, &[][..])];
    assert!(matches!(conclude(&state, id, &well), Conclusion::Wait { .. }));
    // Nor is anything restarted because nobody sees what it does.
    let mut silent = symptom("users-1", "monitor-silent", &[("process", "running")]);
    silent.severity = Severity::Info;
    let id = open(&mut state, 9, vec![silent]);
    assert!(matches!(conclude(&state, id, &well), Conclusion::Wait { .. }));
    // It does not turn a prediction into a fault either.
    let leak = symptom("users-1", "saturation-predicted", &[("indicator", "memory")]);
    let id = open(&mut state, 8, vec![odd, leak]);
    state.incidents.get_mut(&id).unwrap().predicted = false;
    let plan = proposal(&state, id, &well).plan.unwrap();
    assert_eq!(plan.playbook, "recycle-leaking-instances");
}
