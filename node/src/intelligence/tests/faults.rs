//! One table: what is seen, what it is called, what is done, where it goes.

use medic_state::{decision::Route, symptom::Symptom};

use super::{proposal, route};
use crate::fixture::{fleet, open, symptom};

type Looks = &'static [super::Look<'static>];

struct Case {
    name: &'static str,
    symptoms: Vec<Symptom>,
    looks: Looks,
    class: &'static str,
    playbook: Option<&'static str>,
    steps: &'static [&'static str],
    route: Route,
}

const ORDERS_WELL: Looks = &[
    ("orders-1", true, &[("error_rate", 0.6)]),
    ("orders-2", true, &[("error_rate", 0.0)]),
    ("orders-3", true, &[("error_rate", 0.0)]),
];

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let changed =
        [("process", "running"), ("config_changed_ms", "6000"), ("previous_config", "0a")];
    vec![
        Case {
            name: "one of three replicas crashed",
            symptoms: vec![symptom("orders-1", "down", &[("process", "dead")])],
            looks: &[("orders-1", false, &[]), ("orders-2", true, &[]), ("orders-3", true, &[])],
            class: "application/crash",
            playbook: Some("restart-crashed-service"),
            steps: &["orders-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "the only datastore crashed, dependents suffer",
            symptoms: vec![
                symptom("datastore-1", "down", &[("process", "dead")]),
                symptom("orders-1", "errors", &[("process", "running")]),
                symptom("gateway-1", "errors", &[("process", "running")]),
            ],
            looks: &[("datastore-1", false, &[])],
            class: "application/crash",
            playbook: Some("restart-crashed-service"),
            steps: &["datastore-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "a crash that nobody could look at",
            symptoms: vec![symptom("users-1", "down", &[("process", "dead")])],
            looks: &[],
            class: "application/crash",
            playbook: Some("restart-crashed-service"),
            steps: &["users-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "hung, paused by a signal",
            symptoms: vec![symptom("users-1", "unresponsive", &[("process", "paused")])],
            looks: &[("users-1", false, &[]), ("users-2", true, &[])],
            class: "application/hang",
            playbook: Some("restart-hung-service"),
            steps: &["users-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "hung, seen by timeouts alone",
            symptoms: vec![symptom("orders-2", "unresponsive", &[("process", "running")])],
            looks: &[("orders-2", false, &[]), ("datastore-1", true, &[])],
            class: "application/hang",
            playbook: Some("restart-hung-service"),
            steps: &["orders-2"],
            route: Route::AutoExecute,
        },
        Case {
            name: "a leak in both replicas, before the limit",
            symptoms: vec![
                symptom("users-1", "saturation-predicted", &[("indicator", "memory")]),
                symptom("users-2", "saturation-predicted", &[("indicator", "memory")]),
            ],
            looks: &[("users-1", true, &[("memory", 9e7)]), ("users-2", true, &[("memory", 8e7)])],
            class: "application/memory-leak",
            playbook: Some("recycle-leaking-instances"),
            steps: &["users-1", "users-2"],
            route: Route::AutoExecute,
        },
        Case {
            name: "a bad roll-out on a single gateway",
            symptoms: vec![symptom("gateway-1", "errors", &changed)],
            looks: &[("gateway-1", true, &[("error_rate", 0.7)]), ("orders-1", true, &[])],
            class: "configuration/bad-rollout",
            playbook: Some("revert-configuration"),
            steps: &["gateway-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "a bad roll-out that killed the process",
            symptoms: vec![symptom(
                "orders-1",
                "down",
                &[("process", "dead"), ("config_changed_ms", "4000"), ("previous_config", "0a")],
            )],
            looks: &[("orders-1", false, &[])],
            class: "configuration/bad-rollout",
            playbook: Some("revert-configuration"),
            steps: &["orders-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "errors at one instance whose siblings do well",
            symptoms: vec![symptom("orders-1", "errors", &[("process", "running")])],
            looks: ORDERS_WELL,
            class: "application/errors",
            playbook: Some("restart-faulty-instance"),
            steps: &["orders-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "errors everywhere, no cause in sight",
            symptoms: vec![
                symptom("users-1", "errors", &[("process", "running")]),
                symptom("users-2", "errors", &[("process", "running")]),
            ],
            looks: &[
                ("users-1", true, &[("error_rate", 0.4)]),
                ("users-2", true, &[("error_rate", 0.4)]),
            ],
            class: "application/errors",
            playbook: Some("recycle-service"),
            steps: &["users-1", "users-2"],
            route: Route::RecommendWithApproval,
        },
        Case {
            name: "a crash soon after the very first configuration was written",
            symptoms: vec![symptom(
                "orders-1",
                "down",
                &[("process", "dead"), ("config_changed_ms", "4000")],
            )],
            looks: &[("orders-1", false, &[])],
            class: "application/crash",
            playbook: Some("restart-crashed-service"),
            steps: &["orders-1"],
            route: Route::AutoExecute,
        },
        Case {
            name: "errors everywhere, and all that is called does well",
            symptoms: vec![
                symptom("orders-1", "errors", &[("process", "running")]),
                symptom("orders-2", "errors", &[("process", "running")]),
                symptom("orders-3", "errors", &[("process", "running")]),
            ],
            looks: &[
                ("orders-1", true, &[("error_rate", 0.5)]),
                ("orders-2", true, &[("error_rate", 0.5)]),
                ("orders-3", true, &[("error_rate", 0.5)]),
                ("datastore-1", true, &[("error_rate", 0.0)]),
            ],
            class: "application/errors",
            playbook: Some("recycle-service"),
            steps: &["orders-1", "orders-2", "orders-3"],
            route: Route::AutoExecute,
        },
        Case {
            name: "errors of a critical single instance under a regime",
            symptoms: vec![symptom("ledger-1", "errors", &[("process", "running")])],
            looks: &[("ledger-1", true, &[("error_rate", 0.3)])],
            class: "application/errors",
            playbook: Some("restart-with-approval"),
            steps: &["ledger-1"],
            route: Route::RecommendWithApproval,
        },
        Case {
            name: "the host is gone",
            symptoms: vec![symptom("orders-3", "agent-lost", &[])],
            looks: &[("orders-1", true, &[]), ("orders-2", true, &[])],
            class: "infrastructure/host-down",
            playbook: Some("fail-over-to-standby"),
            steps: &["orders-4"],
            route: Route::AutoExecute,
        },
        Case {
            name: "the host of a service without a standby is gone",
            symptoms: vec![symptom("datastore-1", "agent-lost", &[])],
            looks: &[],
            class: "infrastructure/host-down",
            playbook: None,
            steps: &[],
            route: Route::EscalateToHuman,
        },
        Case {
            name: "something nobody knows",
            symptoms: vec![symptom("ledger-1", "weird", &[])],
            looks: &[],
            class: "unknown",
            playbook: None,
            steps: &[],
            route: Route::EscalateToHuman,
        },
    ]
}

#[test]
fn each_fault_is_known_planned_and_routed() {
    for case in cases() {
        let mut state = fleet();
        let id = open(&mut state, 7, case.symptoms.clone());
        let found = proposal(&state, id, case.looks);
        let name = case.name;
        assert_eq!(found.class, case.class, "{name}: {:#?}", found.class_reasons);
        let plan = found.plan.as_ref();
        assert_eq!(plan.map(|p| p.playbook.as_str()), case.playbook, "{name}: {found:#?}");
        let steps: Vec<&str> = plan
            .map(|p| p.steps.iter().map(|s| s.target.instance.as_str()).collect())
            .unwrap_or_default();
        assert_eq!(steps, case.steps, "{name}");
        assert_eq!(
            route(&found),
            case.route,
            "{name}: confidence {} risk {}\n{:#?}\n{:#?}",
            found.confidence,
            found.risk,
            found.risks,
            found.confidence_reasons
        );
        if let Some(plan) = plan {
            assert_eq!(found.risks.len(), 5, "{name}");
            assert!(plan.steps.iter().all(|s| s.undo.is_some()), "{name}");
            assert!(!found.risks.iter().any(|r| r.reasons.is_empty()), "{name}");
        }
    }
}
