//! The leader dies at every commit/act boundary of a plan of three steps with undo, for fenced,
//! idempotent and probeable steps: each step is applied exactly once, the plan is finished (or, when
//! its verification fails, undone in reverse) as the same plan, and all nodes agree afterwards.

use std::collections::BTreeMap;

use medic_proto::v1 as pb;

use super::support::{Sample, World, plan, status};

/// Steps of the plan, one per instance.
const STEPS: usize = 3;

/// Where forward steps may be cut off.
const FORWARD: [&str; 5] = [
    "driver_before_start",
    "driver_after_start",
    "driver_before_send",
    "driver_after_act",
    "driver_after_finish",
];
/// Where undo steps may be.
const UNDO: [&str; 5] = [
    "driver_undo_before_start",
    "driver_undo_after_start",
    "driver_undo_before_send",
    "driver_undo_after_act",
    "driver_undo_after_finish",
];
/// Where the rest of the loop may be.
const LOOP: [&str; 4] =
    ["decide_before_adopt", "decide_after_adopt", "verify_before_record", "verify_after_record"];

/// A plan of three restarts, each undone by a restart, so that every application can be counted.
fn playbook(service: &str, safety: &str, verify: &str) -> String {
    format!(
        r#"---
apiVersion: medic/v1
kind: Playbook
metadata: {{name: restart-{service}}}
spec:
  mode: auto
  match: ['alertname=~"Trouble.*"', 'service="{service}"']
  scope: {{maxUnavailable: 100%, perTarget: 1000/1h, perPlaybook: 1000/1h, cooldown: 0s, maxAttempts: 1}}
  steps:
    - {{name: restart, action: process.restart, targets: all-instances, safety: {safety}, timeout: 10s, undo: {{action: process.restart}}}}
  verify: {verify}
"#
    )
}

/// No budget of the tenant stands in the way of a plan after plan after plan.
const POLICY: &str = r#"---
apiVersion: medic/v1
kind: Policy
metadata: {name: default}
spec:
  autoExecute: {confidence: 0.0, risk: 1.0}
  maxBlastRadius: 100%
  breakerFailures: 100000
  autoResolveAfter: 1h
---
apiVersion: medic/v1
kind: Source
metadata: {name: alertmanager}
spec: {type: alertmanager}
"#;

async fn walk(safety: &str) {
    let mut world = World::start().await;
    let healed = world.sample("healed", STEPS);
    let undone = world.sample("undone", STEPS);
    world.apply(POLICY).await;
    world.apply(&healed.manifest).await;
    world.apply(&undone.manifest).await;
    // A leader that has just taken office may have to wait for its agents before it sees anything.
    let holds = "{expect: 'probe.process_alive == 1.0', hold: 0s, timeout: 30s}";
    world.apply(&playbook("healed", safety, holds)).await;
    // Never true of a living process: the plan is done, found wanting, and undone.
    let never = "{expect: 'probe.process_alive == 0.0', hold: 0s, timeout: 1s, noData: failed}";
    world.apply(&playbook("undone", safety, never)).await;
    world.up(&healed).await;
    world.up(&undone).await;

    for boundary in FORWARD {
        for step in 0..STEPS {
            cut(&mut world, &healed, "healed", &format!("{boundary}_{step}")).await;
        }
    }
    for boundary in UNDO {
        for step in 0..STEPS {
            cut(&mut world, &undone, "undone", &format!("{boundary}_{step}")).await;
        }
    }
    for boundary in LOOP {
        cut(&mut world, &healed, "healed", boundary).await;
    }
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// One plan whose leader dies at `boundary`.
async fn cut(world: &mut World, sample: &Sample, service: &str, boundary: &str) {
    let before = world.starts(sample);
    std::fs::write(&world.failpoints, format!("{boundary}\n")).unwrap();
    world.alert(&format!("Trouble-{boundary}"), service, &sample.instances[0]).await;

    let adopted = world
        .incident_when(service, "decided", |seen| {
            !seen.remediations.is_empty() && is_of(seen, boundary)
        })
        .await;
    let digest = plan(&adopted).digest.clone();
    let expected = if service == "healed" {
        pb::RemediationStatus::Succeeded
    } else {
        pb::RemediationStatus::RolledBack
    };
    let ended = world
        .incident_when(service, &format!("{expected:?} after {boundary}"), |seen| {
            is_of(seen, boundary) && plan(seen).status() == expected
        })
        .await;
    assert!(!world.failpoints.exists(), "no leader came past {boundary}");
    assert_eq!(plan(&ended).digest, digest, "{boundary}: the plan is the same");
    assert_eq!(ended.remediations.len(), 1, "{boundary}: there is one plan");
    check_starts(&before, &world.starts(sample), service, boundary);
    check_order(plan(&ended), boundary);

    let id = ended.incident.clone().unwrap().id;
    if status(&ended) != pb::IncidentStatus::Resolved {
        world.resolve(&id).await;
    }
    world.until_one_has_ended().await;
    let revived = world.revive();
    assert_eq!(revived.len(), 1, "{boundary}: exactly one node died");
    world.agree().await;
}

/// The incident was opened by this boundary's alert.
fn is_of(seen: &pb::ExplainIncidentResponse, boundary: &str) -> bool {
    let wanted = format!("Trouble-{boundary}");
    seen.incident.as_ref().is_some_and(|incident| {
        incident.symptoms.iter().any(|s| s.labels.get("alertname") == Some(&wanted))
    })
}

/// One start for each effective application: one forward, and one more when it was undone.
fn check_starts(
    before: &BTreeMap<String, usize>,
    after: &BTreeMap<String, usize>,
    service: &str,
    boundary: &str,
) {
    let expected = if service == "healed" { 1 } else { 2 };
    for (name, count) in after {
        let applied = count - before[name];
        assert_eq!(applied, expected, "{boundary}: {name} was started {applied} times");
    }
}

/// Steps began in order, and undo in reverse, over started steps only.
fn check_order(plan: &pb::Remediation, boundary: &str) {
    let first = |step: &pb::Step, undo: bool| {
        step.history.iter().filter(|e| e.text.starts_with("undo") == undo).map(|e| e.index).min()
    };
    let forward: Vec<u64> = plan.steps.iter().filter_map(|s| first(s, false)).collect();
    assert_eq!(forward.len(), STEPS, "{boundary}: every step was started");
    assert!(forward.is_sorted(), "{boundary}: forward in order: {forward:?}");
    let back: Vec<u64> = plan.steps.iter().filter_map(|s| first(s, true)).collect();
    assert!(back.iter().rev().is_sorted(), "{boundary}: undone in reverse: {back:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fenced_steps_are_applied_once_wherever_the_leader_dies() {
    walk("fenced").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_steps_are_applied_once_wherever_the_leader_dies() {
    walk("idempotent").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probeable_steps_are_applied_once_wherever_the_leader_dies() {
    walk("probeable").await;
}
