//! What predictions lead to, and how it is told that something was prevented.

use std::{collections::BTreeMap, sync::Arc};

use medic_state::{
    Millis, State, Timestamp,
    decision::{Proposal, Route},
    manifest::{IndicatorSpec, Mode, Spec},
    saga::VerdictValue,
    symptom::Symptom,
};

use super::{Look, proposal, route};
use crate::{
    fixture::{T0, at, fleet, look, open, symptom},
    topology,
    validation::{AssessInput, Assessment, Sample, assess},
};

/// What detection tells of a prediction about this.
fn told(instance: &str, kind: &str, indicator: &str) -> Symptom {
    let mut told = symptom(instance, kind, &[("indicator", indicator)]);
    told.time_to_event = Some(Millis(3_600_000));
    told
}

/// What is decided about it, all being well.
fn decided(state: &mut State, kind: &str, indicator: &str) -> Proposal {
    let id = open(state, 7, vec![told("users-1", kind, indicator)]);
    let value = [(indicator, 100.0)];
    let looks: [Look<'_>; 3] =
        [("users-1", true, &value), ("users-2", true, &[]), ("datastore-1", true, &[])];
    proposal(state, id, &looks)
}

fn mode(state: &State, playbook: &str) -> Option<Mode> {
    topology::playbooks(state, "default").find_map(|(name, stored)| match &stored.manifest.spec {
        Spec::Playbook(spec) if name == playbook => Some(spec.mode),
        _ => None,
    })
}

#[test]
fn each_prediction_is_named_and_leads_to_its_plan_or_to_people() {
    const RECYCLE: Option<(&str, Mode)> = Some(("recycle-leaking-instances", Mode::Auto));
    const RELIEVE: Option<(&str, Mode)> = Some(("relieve-filling-disk", Mode::Auto));
    const RENEW: Option<(&str, Mode)> = Some(("renew-ending-certificate", Mode::Auto));
    const BEFORE_FAILURE: Option<(&str, Mode)> = Some(("restart-before-failure", Mode::Approve));
    const SLOWING: Option<(&str, Mode)> = Some(("restart-slowing-instance", Mode::Approve));
    for (kind, indicator, class, leads_to) in [
        ("failure-predicted", "process", "application/crash", BEFORE_FAILURE),
        ("budget-predicted", "error_rate", "application/errors", None),
        ("latency-predicted", "latency_p99", "application/latency", SLOWING),
        ("security-predicted", "cert_expiry", "security/certificate-expiry", RENEW),
        ("security-predicted", "tls", "security/certificate-expiry", None),
        ("saturation-predicted", "memory", "application/memory-leak", RECYCLE),
        ("capacity-predicted", "memory", "application/memory-leak", RECYCLE),
        ("saturation-predicted", "open_fds", "application/descriptor-leak", RECYCLE),
        ("saturation-predicted", "disk_used", "infrastructure/disk-full", RELIEVE),
        ("capacity-predicted", "disk_free", "infrastructure/disk-full", RELIEVE),
        ("saturation-predicted", "cpu", "infrastructure/saturation", None),
    ] {
        let mut state = fleet();
        let found = decided(&mut state, kind, indicator);
        assert_eq!(found.class, class, "{kind} of {indicator}: {:#?}", found.class_reasons);
        let plan = found.plan.as_ref().map(|plan| plan.playbook.as_str());
        assert_eq!(plan, leads_to.map(|(name, _)| name), "{kind} of {indicator}: {found:#?}");
        // What is not preventive never is.
        let eligible: Vec<&str> = (found.recommendations.iter())
            .filter(|weighed| weighed.eligible)
            .map(|weighed| weighed.playbook.as_str())
            .collect();
        assert_eq!(eligible, Vec::from_iter(plan), "{kind} of {indicator}");
        let Some((name, wanted)) = leads_to else {
            assert_eq!(route(&found), Route::EscalateToHuman);
            continue;
        };
        assert_eq!(mode(&state, name), Some(wanted));
        // The law asks people for what is `approve`; that alone must not keep it from being asked for.
        assert_eq!(route(&found), Route::AutoExecute, "{kind}: {:#?} {found:#?}", found.risks);
    }
}

#[test]
fn what_all_instances_are_about_to_have_is_not_restarted_away() {
    for (kind, indicator) in [
        ("saturation-predicted", "disk_used"),
        ("latency-predicted", "latency_p99"),
        ("failure-predicted", "process"),
    ] {
        let mut state = fleet();
        let all = ["users-1", "users-2"].map(|instance| told(instance, kind, indicator));
        let id = open(&mut state, 7, all.into());
        let found = proposal(&state, id, &[("users-1", true, &[]), ("users-2", true, &[])]);
        assert_eq!(found.plan, None, "{kind}");
    }
    // A certificate is mostly the same for all: they are restarted one at a time.
    let mut state = fleet();
    let all = ["users-1", "users-2"].map(|one| told(one, "security-predicted", "cert_expiry"));
    let id = open(&mut state, 7, all.into());
    let plan = proposal(&state, id, &[("users-1", true, &[]), ("users-2", true, &[])]).plan;
    let plan = plan.unwrap();
    assert_eq!((plan.steps.len(), plan.verify_targets.len()), (2, 2));
    assert_eq!(plan.scope.max_unavailable.of(2), 1);
    assert!(plan.steps[1].pause_before > Millis(0));
}

/// Declares an indicator of `users`.
fn watch(state: &mut State, indicator: &str, limit: Option<&str>) {
    let spec = serde_json::json!({"name": indicator, "source": {"gauge": "g"}, "limit": limit});
    let spec: IndicatorSpec = serde_json::from_value(spec).unwrap();
    let users =
        state.manifests.values_mut().find(|stored| stored.manifest.metadata.name == "users");
    if let Spec::Service(service) = &mut Arc::make_mut(&mut users.unwrap().manifest).spec {
        service.indicators.push(spec);
    }
}

#[test]
fn prevented_is_what_is_no_longer_about_to_be() {
    const LATER: f64 = 90.0 * 86_400.0;
    for (kind, indicator, limit, before, prevented, not) in [
        // As a time, and as what is left of it, which goes down by itself.
        ("security-predicted", "cert_expiry", None, 1.7e9, 1.7e9 + LATER, 1.7e9),
        ("security-predicted", "cert_expiry", None, 86_400.0, LATER, 86_380.0),
        ("saturation-predicted", "disk_used", Some("0.9"), 0.85, 0.3, 0.84),
        ("capacity-predicted", "disk_free", Some(">= 5GiB"), 6e9, 2e10, 6.1e9),
        ("latency-predicted", "latency_p99", Some("0.6"), 0.5, 0.1, 0.5),
    ] {
        let mut state = fleet();
        watch(&mut state, indicator, limit);
        let id = open(&mut state, 7, vec![told("users-1", kind, indicator)]);
        let value = [(indicator, before)];
        let looks: [Look<'_>; 3] =
            [("users-1", true, &value), ("users-2", true, &[]), ("datastore-1", true, &[])];
        let saga = crate::validation::tests::saga(proposal(&state, id, &looks).plan.unwrap());
        let verdict = |after: &[(&str, f64)]| {
            let second = |n: u64| Timestamp(T0.0 + n * 1_000);
            let looked = |n| look(second(n), true, after);
            let history: Vec<Sample> = (1..=80)
                .map(|n| Sample { target: at("users-1"), observation: looked(n) })
                .collect();
            // As early as there is one.
            let found = (1..=history.len()).find_map(|seen| {
                let history = &history[..seen];
                let input =
                    AssessInput { state: &state, saga: &saga, history, now: second(seen as u64) };
                match assess(&input).unwrap() {
                    Assessment::Verdict(verdict) => Some((verdict, seen)),
                    Assessment::Wait => None,
                }
            });
            found.unwrap()
        };
        let (found, seconds) = verdict(&[(indicator, prevented)]);
        assert_eq!(found.value, VerdictValue::Passed, "{indicator}: {found:#?}");
        assert!(found.score.0 > 990_000, "nothing speaks against it: {found:#?}");
        assert!(seconds <= 12, "{indicator}: not before {seconds} s, for want of other checks");
        let (found, _) = verdict(&[(indicator, not)]);
        assert_eq!(found.value, VerdictValue::Failed, "{indicator}: {found:#?}");
        // Not seen is not prevented.
        let (found, _) = verdict(&[("error_rate", 0.0)]);
        assert_eq!(found.value, VerdictValue::Inconclusive, "{indicator}: {found:#?}");
    }
}

#[test]
fn a_renewal_of_what_had_ended_is_held_to_the_same() {
    let mut state = fleet();
    watch(&mut state, "cert_expiry", None);
    let ended = symptom("users-1", "certificate-expired", &[("indicator", "cert_expiry")]);
    let id = open(&mut state, 7, vec![ended]);
    let value: &[(&str, f64)] = &[("cert_expiry", 1.7e9)];
    let looks = [("users-1", true, value), ("users-2", true, &[]), ("datastore-1", true, &[])];
    let plan = proposal(&state, id, &looks).plan.unwrap();
    assert_eq!(plan.playbook, "renew-certificate");
    let told: BTreeMap<_, _> = plan.baseline.clone();
    assert_eq!(told["metric.cert_expiry@users/users-1"], "1700000000");
    assert!(plan.verify.expect.contains("delta.cert_expiry > 0.0"));
}
