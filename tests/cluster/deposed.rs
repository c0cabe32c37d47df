//! A leader is paused past its lease while an act of its is about to be sent, and continued after
//! another has taken over: its order is refused by the agent, and nothing is applied twice.

use medic_proto::v1 as pb;
use nix::sys::signal::Signal;

use super::support::{World, plan};

const MANIFESTS: &str = r#"---
apiVersion: medic/v1
kind: Source
metadata: {name: alertmanager}
spec: {type: alertmanager}
---
apiVersion: medic/v1
kind: Policy
metadata: {name: default}
spec: {autoExecute: {confidence: 0.0, risk: 1.0}, maxBlastRadius: 100%, autoResolveAfter: 1h}
---
apiVersion: medic/v1
kind: Playbook
metadata: {name: restart-paused}
spec:
  mode: auto
  match: ['alertname="Trouble"']
  scope: {maxUnavailable: 100%, maxAttempts: 1}
  steps: [{name: restart, action: process.restart, timeout: 20s, undo: {action: process.restore}}]
  verify: {expect: 'probe.process_alive == 1.0', hold: 0s, timeout: 5s}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_of_a_deposed_leader_is_refused_by_the_agent() {
    let mut world = World::start().await;
    let sample = world.sample("paused", 1);
    world.apply(MANIFESTS).await;
    world.apply(&sample.manifest).await;
    world.up(&sample).await;
    // A leader stands still for a while between the lease check and the order, which is when it is
    // paused: exactly the moment a lease alone cannot cover. Long enough to be caught there on a busy
    // machine; its successor does not stand still, so that the pause stays short and the agent's
    // connection to the paused leader still stands when it goes on.
    std::fs::write(&world.failpoints, "driver_before_send=sleep(3000)\n").unwrap();
    let first = world.cluster.leader().await.unwrap();
    world.alert("Trouble", "paused", &sample.instances[0]).await;
    world
        .incident_when("paused", "a step with an intent", |seen| {
            seen.remediations.last().is_some_and(|plan| plan.steps[0].intent.is_some())
        })
        .await;
    world.cluster.node_mut(first).unwrap().signal(Signal::SIGSTOP).unwrap();
    std::fs::write(&world.failpoints, "driver_before_send=off\n").unwrap();
    // Seen at the instance itself: a question put to the paused node would hang for as long as its
    // agent's connection may be silent.
    world
        .until("acted on by another leader", || async { world.starts(&sample)["paused-1"] == 2 })
        .await;
    world.cluster.node_mut(first).unwrap().signal(Signal::SIGCONT).unwrap();
    let healed = world
        .incident_when("paused", "recorded by another leader", |seen| {
            seen.remediations.last().is_some_and(|p| p.steps[0].status() == pb::StepStatus::Done)
        })
        .await;
    let fences: Vec<u64> = plan(&healed).steps[0].history.iter().map(|event| event.fence).collect();
    assert!(
        fences.windows(2).any(|pair| pair[0] < pair[1]),
        "a second leader resumed it: {fences:?}"
    );
    assert_eq!(world.starts(&sample)["paused-1"], 2, "the first start, and one restart");

    let log = world.cluster.dir().join("logs/agent-host-a.log");
    world
        .until("the agent refuses the old fence", || async {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("refused an order"))
        })
        .await;
    world
        .incident_when("paused", "verified", |seen| {
            seen.remediations.last().is_some_and(|p| p.status() == pb::RemediationStatus::Succeeded)
        })
        .await;
    world.agree().await;
    assert_eq!(world.starts(&sample)["paused-1"], 2, "the old order was not applied");
    world.cluster.stop().await.unwrap();
}
