//! What indicators over their limits are taken for, and what is done.

use medic_state::{
    Ppm,
    decision::Route,
    symptom::{Severity, Signal, Symptom},
};

use super::{Look, proposal, route};
use crate::fixture::{fleet, open, symptom};

/// A symptom that rests on these indicators being over their limits.
fn over(instance: &str, kind: &str, indicators: &[&str]) -> Symptom {
    let label = indicators.first().copied().unwrap_or_default();
    let mut symptom = symptom(instance, kind, &[("process", "running"), ("indicator", label)]);
    symptom.signals = indicators
        .iter()
        .map(|name| Signal {
            name: format!("metric.{name}"),
            value: "1".to_owned(),
            expected: "<= 0.5".to_owned(),
            detector: "limit".to_owned(),
            p_value: Ppm(0),
        })
        .collect();
    symptom
}

const WELL: &[Look<'static>] = &[
    ("orders-1", true, &[("error_rate", 1.0)]),
    ("orders-2", true, &[("error_rate", 0.0)]),
    ("orders-3", true, &[("error_rate", 0.0)]),
    ("datastore-1", true, &[("error_rate", 0.0)]),
];

#[test]
fn a_bystander_is_neither_evidence_nor_treated() {
    let slow = Symptom {
        severity: Severity::Warning,
        ..symptom("orders-2", "latency", &[("process", "running")])
    };
    for (symptoms, class, playbook) in [
        (
            vec![over("orders-1", "saturation", &["unexpected_listeners"]), slow.clone()],
            "security/unexpected-listener",
            "redeploy-tampered-instance",
        ),
        (
            vec![symptom("orders-1", "errors", &[("process", "running")]), slow.clone()],
            "application/errors",
            "restart-faulty-instance",
        ),
    ] {
        let mut state = fleet();
        let id = open(&mut state, 7, symptoms);
        let found = proposal(&state, id, WELL);
        assert_eq!(found.class, class, "{:#?}", found.class_reasons);
        let plan = found.plan.as_ref().unwrap();
        assert_eq!(plan.playbook, playbook);
        assert_eq!(plan.steps.len(), 1, "orders-2 is left alone: {plan:#?}");
        assert_eq!(route(&found), Route::AutoExecute, "{:#?}", found.confidence_reasons);
    }
}

#[test]
fn what_was_seen_is_not_made_doubtful_by_trouble_elsewhere() {
    let mut state = fleet();
    open(&mut state, 8, vec![symptom("datastore-1", "unresponsive", &[])]);
    let listener = over("orders-1", "saturation", &["unexpected_listeners"]);
    let errors = symptom("orders-1", "errors", &[("process", "running")]);
    let id = open(&mut state, 7, vec![listener, errors]);
    let found = proposal(&state, id, WELL);
    assert_eq!(found.class, "security/unexpected-listener", "{:#?}", found.class_reasons);
    assert_eq!(route(&found), Route::AutoExecute, "{:#?}", found.confidence_reasons);
}

#[test]
fn failing_calls_of_all_are_the_fault_of_who_is_called() {
    let mut state = fleet();
    open(&mut state, 8, vec![symptom("datastore-1", "unresponsive", &[])]);
    let failing = |instance| over(instance, "saturation", &["upstream_timeouts"]);
    let id =
        open(&mut state, 7, vec![failing("orders-1"), failing("orders-2"), failing("orders-3")]);
    let found = super::conclude(&state, id, &[]);
    assert!(format!("{found:?}").contains("datastore-1 is in trouble"), "{found:?}");
}

#[test]
fn what_is_over_its_limit_says_what_it_is() {
    for (kind, indicators, class, playbook) in [
        ("saturation", &["cpu"][..], "infrastructure/saturation", "relieve-saturated-instance"),
        ("saturation", &["disk_used"], "infrastructure/disk-full", "relieve-saturated-instance"),
        ("depleted", &["disk_free"], "infrastructure/disk-full", "relieve-saturated-instance"),
        (
            "certificate-expired",
            &["cert_expiry"],
            "security/certificate-expiry",
            "renew-certificate",
        ),
        (
            "errors",
            &["error_rate", "disk_used"],
            "infrastructure/disk-full",
            "relieve-saturated-instance",
        ),
        ("saturation", &["open_fds"], "application/descriptor-leak", "relieve-saturated-instance"),
        ("saturation", &["memory"], "application/memory-leak", "restart-faulty-instance"),
        (
            "errors",
            &["error_rate", "upstream_timeouts"],
            "network/partition",
            "reconnect-isolated-instance",
        ),
        (
            "errors",
            &["error_rate", "upstream_refused"],
            "network/name-resolution",
            "reconnect-isolated-instance",
        ),
        (
            "errors",
            &["error_rate", "certificate_expired"],
            "security/certificate-expiry",
            "renew-certificate",
        ),
        (
            "saturation",
            &["unexpected_listeners"],
            "security/unexpected-listener",
            "redeploy-tampered-instance",
        ),
        ("saturation", &["artefact_modified"], "security/tampering", "redeploy-tampered-instance"),
    ] {
        let mut state = fleet();
        let id = open(&mut state, 7, vec![over("orders-1", kind, indicators)]);
        let found = proposal(&state, id, WELL);
        assert_eq!(found.class, class, "{indicators:?}: {:#?}", found.class_reasons);
        let plan = found.plan.as_ref().map(|plan| plan.playbook.as_str());
        assert_eq!(plan, Some(playbook), "{indicators:?}: {found:#?}");
        assert_eq!(route(&found), Route::AutoExecute, "{indicators:?}: {:#?}", found.risks);
        let steps = &found.plan.as_ref().unwrap().steps;
        assert!(steps.iter().all(|step| step.target.instance == "orders-1"), "{steps:?}");
    }
}

#[test]
fn descriptors_that_run_out_are_given_back_before_they_do() {
    let mut state = fleet();
    let leak = symptom("users-1", "saturation-predicted", &[("indicator", "open_fds")]);
    let id = open(&mut state, 7, vec![leak]);
    let found = proposal(&state, id, &[("users-1", true, &[]), ("users-2", true, &[])]);
    assert_eq!(found.class, "application/descriptor-leak");
    assert_eq!(found.plan.unwrap().playbook, "recycle-leaking-instances");
}

#[test]
fn calls_that_fail_everywhere_are_no_partition() {
    let mut state = fleet();
    let all = ["orders-1", "orders-2", "orders-3"];
    let symptoms =
        all.iter().map(|name| over(name, "errors", &["error_rate", "upstream_timeouts"])).collect();
    let id = open(&mut state, 7, symptoms);
    let found = proposal(&state, id, &WELL[3..]);
    assert_eq!(found.class, "application/errors", "{:#?}", found.class_reasons);
    // Nor are those of one instance when what it calls does badly.
    let mut state = fleet();
    let one = over("orders-1", "errors", &["error_rate", "upstream_timeouts"]);
    let id = open(&mut state, 7, vec![one]);
    let looks = [("orders-2", true, &[][..]), ("orders-3", true, &[]), ("datastore-1", false, &[])];
    let conclusion = super::conclude(&state, id, &looks);
    assert!(matches!(conclusion, super::Conclusion::Wait { .. }), "{conclusion:?}");
}

#[test]
fn a_roll_out_explains_calls_that_find_nobody() {
    let mut state = fleet();
    let mut bad = over("orders-1", "errors", &["error_rate", "upstream_refused"]);
    bad.labels.insert("config_changed_ms".to_owned(), "4000".to_owned());
    bad.labels.insert("previous_config".to_owned(), "0a".to_owned());
    let id = open(&mut state, 7, vec![bad]);
    let found = proposal(&state, id, WELL);
    assert_eq!(found.class, "configuration/bad-rollout", "{:#?}", found.class_reasons);
    assert_eq!(route(&found), Route::AutoExecute);
}

#[test]
fn a_port_that_is_refused_waits_for_the_agents_look_at_the_configuration() {
    let mut state = fleet();
    let id = open(&mut state, 7, vec![symptom("orders-1", "down", &[("process", "running")])]);
    let looks = std::collections::BTreeMap::new();
    let mut input = super::DecisionInput {
        state: &state,
        incident: id,
        observations: &looks,
        overrides: medic_state::decision::ThresholdOverrides::default(),
        now: medic_state::Timestamp(super::T0.0 + 200),
    };
    let super::Conclusion::Wait { until, .. } = super::decide(&input).unwrap() else {
        panic!("decides at once")
    };
    assert_eq!(until, medic_state::Timestamp(super::T0.0 + 1_500));
    input.now = until;
    assert!(matches!(super::decide(&input).unwrap(), super::Conclusion::Propose(_)));
}

#[test]
fn a_flawed_certificate_is_named_and_nothing_hung_is_restarted() {
    for (flaw, class, playbook) in [
        ("expired", "security/certificate-expiry", Some("renew-certificate")),
        ("not-yet-valid", "security/certificate-expiry", Some("renew-certificate")),
        ("wrong-name", "security/certificate-invalid", None),
        ("unknown-issuer", "security/certificate-invalid", None),
    ] {
        let mut shown = symptom("orders-1", "errors", &[("process", "running")]);
        shown.signals = vec![Signal {
            name: "probe.tls".to_owned(),
            value: flaw.to_owned(),
            expected: "1".to_owned(),
            detector: "certificate".to_owned(),
            p_value: Ppm(0),
        }];
        let mut state = fleet();
        let id = open(&mut state, 7, vec![shown]);
        let found = proposal(&state, id, WELL);
        assert_eq!(found.class, class, "{:#?}", found.class_reasons);
        let plan = found.plan.as_ref().map(|plan| plan.playbook.as_str());
        assert_eq!(plan, playbook, "{flaw}");
    }
}

#[test]
fn what_an_agent_says_of_a_process_is_named() {
    for (indicator, class) in [
        ("unexpected_listeners", "security/unexpected-listener"),
        ("executable_modified", "security/tampering"),
        ("privilege_changes", "security/tampering"),
        ("auth_failures", "security/login-storm"),
    ] {
        let mut state = fleet();
        let id = open(&mut state, 7, vec![over("orders-1", "saturation", &[indicator])]);
        assert_eq!(proposal(&state, id, WELL).class, class);
    }
}
