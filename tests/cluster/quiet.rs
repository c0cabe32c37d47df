//! What people arranged beforehand, at real processes: two must agree, a silence keeps quiet, a
//! maintenance window holds back.

use medic_proto::v1 as pb;

use super::{
    support::{OPEN_GROUND, World, plan, status},
    typed::medic,
};

const ARRANGED: &str = r#"---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: four-eyes}
spec: {role: approver, subjects: [{user: oncall}, {user: viewer}]}
---
apiVersion: medic/v1
kind: Silence
metadata: {name: hush}
spec: {match: ['service="hushed"'], startsAt: "2020-01-01T00:00:00Z", endsAt: "2099-01-01T00:00:00Z", comment: known}
---
apiVersion: medic/v1
kind: MaintenanceWindow
metadata: {name: works}
spec: {match: ['service="worked"'], startsAt: "2020-01-01T00:00:00Z", duration: 36500d, comment: new cables}
"#;

fn playbook(service: &str, mode: &str) -> String {
    format!(
        r#"---
apiVersion: medic/v1
kind: Playbook
metadata: {{name: restart-{service}}}
spec:
  mode: {mode}
  match: ['alertname="Trouble"', 'service="{service}"']
  scope: {{maxUnavailable: 100%}}
  approval: {{roles: [approver], minApprovers: 2, ttl: 15m}}
  steps: [{{name: restart, action: process.restart, timeout: 10s, undo: {{action: process.restart}}}}]
  verify: {{expect: 'probe.process_alive == 1.0', hold: 0s, timeout: 30s}}
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agree_a_silence_keeps_quiet_and_a_window_holds_back() {
    let mut world = World::start().await;
    world.apply(OPEN_GROUND).await;
    world.apply(ARRANGED).await;
    for (service, mode) in [("paired", "approve"), ("hushed", "auto"), ("worked", "auto")] {
        let sample = world.sample(service, 1);
        world.apply(&sample.manifest).await;
        world.apply(&playbook(service, mode)).await;
        world.up(&sample).await;
    }
    for service in ["hushed", "worked", "paired"] {
        world.alert("Trouble", service, &format!("{service}-1")).await;
    }
    let held = world
        .incident_when("worked", "held back", |seen| {
            seen.incident.as_ref().is_some_and(|i| i.held_by.contains("new cables"))
        })
        .await;
    assert!(held.remediations.is_empty(), "{held:#?}");

    let waits =
        |seen: &pb::ExplainIncidentResponse| status(seen) == pb::IncidentStatus::AwaitingApproval;
    let id = world.incident_when("paired", "waiting", waits).await.incident.unwrap().id;
    // The same person twice is one person.
    for _ in 0..2 {
        medic(&world, "oncall", &["approve", &id, "--yes"]).await.ok();
        let seen = world.explain(&id).await.unwrap();
        assert!(waits(&seen) && plan(&seen).approvals.len() == 1, "{seen:#?}");
    }
    assert_eq!(world.started("paired-1"), 1, "nothing was done yet");
    medic(&world, "viewer", &["approve", &id, "--yes"]).await.ok();
    let healed = |seen: &pb::ExplainIncidentResponse| status(seen) == pb::IncidentStatus::Resolved;
    let done = world.incident_when("paired", "healed", healed).await;
    assert_eq!(plan(&done).approvals.len(), 2);

    medic(&world, "admin", &["delete", "maintenancewindow", "works"]).await.ok();
    world.incident_when("worked", "healed", healed).await;
    assert_eq!((world.started("paired-1"), world.started("worked-1")), (2, 2));
    // All that was alerted after it has been dealt with, and of the silenced one nobody heard.
    let incidents = world.incidents().await;
    let services = incidents.iter().filter_map(|i| i.target.as_ref()).map(|t| t.service.as_str());
    assert!(!services.clone().any(|service| service == "hushed"), "{incidents:#?}");
    assert_eq!(services.count(), 2);
    assert_eq!(world.started("hushed-1"), 1);
    world.cluster.stop().await.unwrap();
}
