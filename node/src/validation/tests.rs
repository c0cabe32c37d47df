//! Tests of verdicts.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use medic_state::{
    Digest, IncidentId, Millis, PlanId, Ppm, State, Timestamp,
    manifest::{NoData, SafetyClass, VerifySpec},
    plan::{Action, Plan, PlannedStep},
    saga::{Saga, SagaStatus, StepState, StepStatus, Verdict, VerdictValue},
};
use proptest::prelude::*;

use super::{AssessError, AssessInput, Assessment, Sample, assess, targets_to_sample};
use crate::{
    fixture::{T0, at, fleet, look, open, symptom},
    world::Observation,
};

/// A saga whose steps are done at [`T0`].
pub(crate) fn saga(plan: Plan) -> Saga {
    let done = StepState {
        status: StepStatus::Done,
        started_at: Some(T0),
        ended_at: Some(T0),
        ..StepState::default()
    };
    Saga {
        id: PlanId(57),
        incident: IncidentId(7),
        tenant: "default".to_owned(),
        digest: plan.digest(),
        status: SagaStatus::Verifying,
        steps: vec![done; plan.steps.len()],
        plan,
        approvals: BTreeMap::new(),
        approval_until: None,
        requested_by: None,
        created_at: T0,
        started_at: Some(T0),
        verifying_since: Some(T0),
        ended_at: None,
        reason: None,
        verdict: None,
    }
}

pub(crate) fn restart(instances: &[&str], expect: &str, baseline: &[(&str, &str)]) -> Saga {
    let steps = instances
        .iter()
        .map(|instance| PlannedStep {
            name: "restart".to_owned(),
            action: Action { name: "process.restart".to_owned(), params: BTreeMap::new() },
            target: at(instance),
            agent: "a1".to_owned(),
            safety: SafetyClass::Fenced,
            timeout: Millis(1_000),
            retries: 0,
            undo: None,
            pause_before: Millis(0),
        })
        .collect();
    saga(Plan {
        playbook: "restart".to_owned(),
        playbook_digest: Digest::default(),
        steps,
        verify: VerifySpec {
            expect: expect.to_owned(),
            hold: Millis(3_000),
            timeout: Millis(20_000),
            no_data: NoData::Inconclusive,
        },
        baseline: baseline.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        approval: medic_state::manifest::ApprovalSpec::default(),
        scope: medic_state::manifest::PlaybookScope::default(),
        verify_targets: instances.iter().map(|instance| at(instance)).collect(),
    })
}

fn second(n: u64) -> Timestamp {
    Timestamp(T0.0 + n * 1_000)
}

/// One look a second at one instance, from second 1 on.
fn looks(instance: &str, seen: &[Observation]) -> Vec<Sample> {
    seen.iter()
        .zip(1..)
        .map(|(observation, n)| Sample {
            target: at(instance),
            observation: Observation { at: second(n), ..observation.clone() },
        })
        .collect()
}

fn at_the_end(state: &State, saga: &Saga, history: &[Sample]) -> Assessment {
    let now = history.last().map_or(second(1), |sample| sample.observation.at);
    assess(&AssessInput { state, saga, history, now }).unwrap()
}

fn verdict(found: Assessment) -> Verdict {
    match found {
        Assessment::Verdict(verdict) => verdict,
        Assessment::Wait => panic!("waits"),
    }
}

fn good(metrics: &[(&str, f64)]) -> Observation {
    look(T0, true, metrics)
}

fn bad() -> Observation {
    look(T0, false, &[])
}

fn nothing() -> Observation {
    Observation::default()
}

#[test]
fn an_expectation_that_holds_long_enough_passes() {
    let state = fleet();
    let saga = restart(&["orders-1"], "probe.http_ok == 1.0", &[]);
    let mut seen = vec![bad(), bad()];
    for _ in 0..3 {
        seen.push(good(&[]));
        assert_eq!(at_the_end(&state, &saga, &looks("orders-1", &seen)), Assessment::Wait);
    }
    seen.push(good(&[]));
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &seen)));
    assert_eq!(found.value, VerdictValue::Passed, "{found:#?}");
    assert!(found.score > Ppm(800_000));
    assert_eq!(found.checks.len(), 6);
    assert_eq!(found.checks[0].kind, "functional");
}

#[test]
fn a_break_starts_the_hold_anew() {
    let state = fleet();
    let saga = restart(&["orders-1"], "probe.http_ok == 1.0", &[]);
    for gap in [bad(), nothing()] {
        let seen = [good(&[]), good(&[]), good(&[]), gap, good(&[]), good(&[]), good(&[])];
        assert_eq!(at_the_end(&state, &saga, &looks("orders-1", &seen)), Assessment::Wait);
    }
}

#[test]
fn all_targets_must_hold() {
    let state = fleet();
    let saga = restart(&["orders-1", "orders-2"], "probe.http_ok == 1.0", &[]);
    let mut history = looks("orders-1", &vec![good(&[]); 8]);
    assert_eq!(at_the_end(&state, &saga, &history), Assessment::Wait);
    history.extend(looks("orders-2", &vec![good(&[]); 8]));
    assert_eq!(verdict(at_the_end(&state, &saga, &history)).value, VerdictValue::Passed);
}

#[test]
fn false_until_the_time_is_up_fails() {
    let state = fleet();
    let expect = "probe.http_ok == 1.0 && metric.error_rate <= 0.05";
    let saga = restart(&["orders-1"], expect, &[("metric.error_rate@orders/orders-1", "0.5")]);
    let mut seen = vec![good(&[("error_rate", 0.5)]); 19];
    assert_eq!(at_the_end(&state, &saga, &looks("orders-1", &seen)), Assessment::Wait);
    seen.push(good(&[("error_rate", 0.5)]));
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &seen)));
    assert_eq!(found.value, VerdictValue::Failed);
    assert!(found.checks[0].detail.contains("false at orders/orders-1"), "{found:#?}");
    assert!(found.score < Ppm(800_000));
    let slo = found.checks.iter().find(|check| check.kind == "slo").unwrap();
    assert_eq!(slo.value, VerdictValue::Failed);
}

#[test]
fn a_target_is_not_judged_by_the_trouble_of_what_it_calls() {
    let mut state = fleet();
    let expect = "probe.http_ok == 1.0 && metric.error_rate <= 0.05";
    let saga = restart(&["orders-1"], expect, &[("metric.error_rate@orders/orders-1", "0.5")]);
    let failing = |count| vec![good(&[("error_rate", 0.5)]); count];
    open(&mut state, 8, vec![symptom("datastore-1", "unresponsive", &[])]);
    let mut seen = failing(30);
    assert_eq!(at_the_end(&state, &saga, &looks("orders-1", &seen)), Assessment::Wait);
    seen.extend(vec![good(&[("error_rate", 0.0)]); 15]);
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &seen)));
    assert_eq!(found.value, VerdictValue::Passed, "{found:#?}");
    // It has an end, and trouble of its callers is no excuse.
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &failing(60))));
    assert_eq!(found.value, VerdictValue::Failed);
    let mut state = fleet();
    open(&mut state, 8, vec![symptom("gateway-1", "errors", &[])]);
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &failing(20))));
    assert_eq!(found.value, VerdictValue::Failed);
}

#[test]
fn what_its_neighbours_had_before_is_not_its_fault() {
    let integration = |state: &State| {
        let saga = restart(&["orders-1"], "probe.http_ok == 1.0", &[]);
        let seen = looks("orders-1", &vec![good(&[("error_rate", 0.5)]); 20]);
        let found = verdict(at_the_end(state, &saga, &seen));
        let of = |kind: &str| found.checks.iter().find(|check| check.kind == kind).unwrap().value;
        (of("integration"), of("slo"), found.value)
    };
    let before = |instance: &str, kind: &str, at: u64| {
        let mut state = fleet();
        let id = open(&mut state, 8, vec![symptom(instance, kind, &[])]);
        for known in state.incidents.get_mut(&id).unwrap().symptoms.values_mut() {
            known.first_at = Timestamp(T0.0 + at - 10_000);
        }
        state
    };
    // Another incident's, from before the plan; and a callee's, which accounts for the errors too.
    let (of_others, slo, value) = integration(&before("datastore-1", "unresponsive", 0));
    assert_eq!((of_others, slo), (VerdictValue::Inconclusive, VerdictValue::Inconclusive));
    assert_eq!(value, VerdictValue::Passed);
    let (of_others, slo, _) = integration(&before("gateway-1", "errors", 0));
    assert_eq!((of_others, slo), (VerdictValue::Inconclusive, VerdictValue::Failed));
    // A caller's that came with the plan.
    let (of_others, ..) = integration(&before("gateway-1", "errors", 12_000));
    assert_eq!(of_others, VerdictValue::Failed);
    // What came meanwhile, and nobody else can have brought.
    let of_its_own = |indicator: &str| {
        let mut state = before("gateway-1", "saturation", 12_000);
        for incident in state.incidents.values_mut() {
            for known in incident.symptoms.values_mut() {
                known.symptom.labels.insert("indicator".to_owned(), indicator.to_owned());
            }
        }
        integration(&state).0
    };
    assert_eq!(of_its_own("unexpected_listeners"), VerdictValue::Inconclusive);
    assert_eq!(of_its_own("cpu"), VerdictValue::Failed);
}

#[test]
fn no_data_is_inconclusive_or_failed_but_never_passed() {
    let state = fleet();
    let mut saga = restart(&["orders-1"], "metric.error_rate <= 0.05", &[]);
    for seen in
        [vec![nothing(); 20], vec![good(&[]); 20], vec![good(&[("error_rate", f64::NAN)]); 20]]
    {
        let history = looks("orders-1", &seen);
        saga.plan.verify.no_data = NoData::Inconclusive;
        let found = verdict(at_the_end(&state, &saga, &history));
        assert_eq!(found.value, VerdictValue::Inconclusive, "{found:#?}");
        saga.plan.verify.no_data = NoData::Failed;
        let found = verdict(at_the_end(&state, &saga, &history));
        assert_eq!(found.value, VerdictValue::Failed);
    }
    let input = AssessInput { state: &state, saga: &saga, history: &[], now: second(60) };
    assert_eq!(assess(&input).unwrap(), Assessment::Wait, "a new leader looks first");
}

#[test]
fn a_new_leader_has_a_fair_chance_to_see_before_the_time_is_up() {
    let state = fleet();
    let mut saga = restart(&["orders-1"], "probe.http_ok == 1.0", &[]);
    (saga.plan.verify.timeout, saga.plan.verify.hold) = (Millis(4_000), Millis(2_000));
    // Agents have yet to dial it; the plan's own time was up before it took office.
    saga.verifying_since = Some(Timestamp(T0.0 - 60_000));
    let mut seen = vec![nothing(); 10];
    assert_eq!(at_the_end(&state, &saga, &looks("orders-1", &seen)), Assessment::Wait);
    seen.extend([good(&[]), good(&[])]);
    assert_eq!(at_the_end(&state, &saga, &looks("orders-1", &seen)), Assessment::Wait);
    seen.push(good(&[]));
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &seen)));
    assert_eq!(found.value, VerdictValue::Passed, "{found:#?}");
    // One that never sees anything comes to an end all the same.
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &vec![nothing(); 15])));
    assert_eq!(found.value, VerdictValue::Inconclusive, "{found:#?}");
}

#[test]
fn baseline_and_delta_are_of_each_target() {
    let state = fleet();
    let baseline = [("metric.memory@users/users-1", "90"), ("metric.memory@users/users-2", "50")];
    let saga = restart(&["users-1", "users-2"], "delta.memory < 0.0", &baseline);
    let with = |second_memory| {
        let mut history = looks("users-1", &vec![good(&[("memory", 60.0)]); 20]);
        history.extend(looks("users-2", &vec![good(&[("memory", second_memory)]); 20]));
        verdict(at_the_end(&state, &saga, &history)).value
    };
    assert_eq!(with(40.0), VerdictValue::Passed);
    assert_eq!(with(60.0), VerdictValue::Failed);
}

#[test]
fn neighbours_and_new_symptoms_are_heard() {
    let mut state = fleet();
    let saga = restart(&["orders-1"], "probe.http_ok == 1.0", &[]);
    let came = open(&mut state, 8, vec![symptom("gateway-1", "errors", &[])]);
    let incident = state.incidents.get_mut(&came).unwrap();
    incident.symptoms.values_mut().for_each(|s| s.first_at = second(1));
    let seen = vec![good(&[]); 6];
    let early = at_the_end(&state, &saga, &looks("orders-1", &seen));
    assert_eq!(early, Assessment::Wait, "symptoms clear some seconds later");
    let seen = vec![good(&[]); 15];
    let mut history = looks("datastore-1", &seen);
    history.extend(looks("orders-1", &seen));
    let found = verdict(at_the_end(&state, &saga, &history));
    let check = found.checks.iter().find(|check| check.kind == "integration").unwrap();
    assert_eq!(check.value, VerdictValue::Failed);
    assert!(check.detail.contains("gateway/gateway-1 still has `errors`"), "{}", check.detail);
    assert_eq!(found.value, VerdictValue::Passed, "one neighbour of three alone does not fail it");

    let fresh = open(&mut state, 9, vec![symptom("orders-2", "latency", &[])]);
    let incident = state.incidents.get_mut(&fresh).unwrap();
    incident.symptoms.values_mut().for_each(|s| s.first_at = second(2));
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &seen)));
    let check = found.checks.iter().find(|check| check.kind == "regression").unwrap();
    assert_eq!(check.value, VerdictValue::Failed, "{found:#?}");
}

#[test]
fn a_neighbour_that_nobody_could_look_at_is_not_called_well() {
    let state = fleet();
    let saga = restart(&["orders-1"], "probe.http_ok == 1.0", &[]);
    let of = |neighbour: &[Observation]| {
        let mut history = looks("datastore-1", neighbour);
        history.extend(looks("orders-1", &vec![good(&[]); 15]));
        let found = verdict(at_the_end(&state, &saga, &history));
        found.checks.into_iter().find(|check| check.kind == "integration").unwrap()
    };
    assert_eq!(of(&[]).value, VerdictValue::Inconclusive);
    assert_eq!(of(&[nothing()]).value, VerdictValue::Inconclusive);
    assert_eq!(of(&[good(&[])]).value, VerdictValue::Passed);
    assert_eq!(of(&[bad()]).value, VerdictValue::Failed);
}

#[test]
fn worse_than_before_is_a_regression_even_when_the_expectation_holds() {
    let state = fleet();
    let baseline = [
        ("metric.error_rate@orders/orders-1", "0.0"),
        ("metric.latency_p99@orders/orders-1", "0.1"),
    ];
    let saga = restart(&["orders-1"], "probe.http_ok == 1.0", &baseline);
    let seen = vec![good(&[("error_rate", 0.15), ("latency_p99", 0.9)]); 20];
    let found = verdict(at_the_end(&state, &saga, &looks("orders-1", &seen)));
    let failed: Vec<&str> = found
        .checks
        .iter()
        .filter(|check| check.value == VerdictValue::Failed)
        .map(|check| check.kind.as_str())
        .collect();
    assert_eq!(failed, ["performance", "slo", "regression"]);
    assert_eq!(found.value, VerdictValue::Failed, "{}", found.score);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let state = fleet();
    for expect in ["probe.http_ok ==", "probe.http_ok", "nowhere.x == 1.0"] {
        let saga = restart(&["orders-1"], expect, &[]);
        let history = looks("orders-1", &[good(&[])]);
        let input = AssessInput { state: &state, saga: &saga, history: &history, now: second(1) };
        assert!(matches!(assess(&input), Err(AssessError::BadExpectation { .. })), "{expect}");
    }
    let mut saga = restart(&["orders-1"], "probe.http_ok == 1.0", &[]);
    saga.verifying_since = None;
    let input = AssessInput { state: &state, saga: &saga, history: &[], now: second(1) };
    assert_eq!(assess(&input), Err(AssessError::NotVerifying(PlanId(57))));
}

#[test]
fn those_whose_health_decides_are_sampled_first() {
    let state = fleet();
    let saga = restart(&["orders-2"], "probe.http_ok == 1.0", &[]);
    let names: Vec<String> =
        targets_to_sample(&state, &saga).into_iter().map(|t| t.instance).collect();
    assert_eq!(names, ["orders-2", "datastore-1", "gateway-1"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// An expectation that needs data never passes without it, whatever else was seen and however
    /// it is combined.
    #[test]
    fn no_data_never_passes(
        expect in prop::sample::select(vec![
            "metric.absent <= 1.0",
            "probe.http_ok == 1.0 && metric.absent <= 1.0",
            "metric.absent <= 1.0 && probe.http_ok == 1.0",
            "metric.absent <= 1.0 || probe.http_ok == 0.0",
            "delta.memory <= 0.0 && probe.http_ok == 1.0",
            "!(metric.absent > 1.0)",
        ]),
        rate in -1.0..2.0_f64,
        samples in 0_usize..30,
        until in 0_u64..60,
    ) {
        let state = fleet();
        let saga = restart(&["orders-1"], expect, &[("metric.error_rate@orders/orders-1", "0.1")]);
        let history = looks("orders-1", &vec![good(&[("error_rate", rate)]); samples]);
        let input = AssessInput { state: &state, saga: &saga, history: &history, now: second(until) };
        if let Assessment::Verdict(found) = assess(&input).unwrap() {
            prop_assert_ne!(found.value, VerdictValue::Passed);
            prop_assert!(found.score <= Ppm::ONE);
            prop_assert!(found.checks.iter().all(|check| check.score <= Ppm::ONE));
        }
    }

    /// With nothing seen at all, not even a tautology passes.
    #[test]
    fn a_tautology_over_nothing_does_not_pass(samples in 0_usize..30, until in 0_u64..60) {
        let state = fleet();
        let saga = restart(&["orders-1"], "true || probe.x == 1.0", &[]);
        let history = looks("orders-1", &vec![nothing(); samples]);
        let input = AssessInput { state: &state, saga: &saga, history: &history, now: second(until) };
        if let Assessment::Verdict(found) = assess(&input).unwrap() {
            prop_assert_ne!(found.value, VerdictValue::Passed);
        }
    }
}
