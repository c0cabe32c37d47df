//! Whoever watches a service dies together with it: its shard moves to a node that lives, under the
//! next epoch, and the fault is seen and healed all the same.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use medic_chaos::harness::processes_with;
use medic_proto::v1 as pb;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::support::{World, metric, status};

/// Invariant 10: a lasting fault is reported within two intervals of detection and one failover.
const DETECTED_WITHIN: Duration = INTERVAL.saturating_mul(2).saturating_add(FAILOVER);
/// An interval, as long as the default has it; the samples' probes are more frequent.
const INTERVAL: Duration = Duration::from_secs(5);
/// An election, what its winner believes of the others' silence, and the shards' way to who lives.
const FAILOVER: Duration = Duration::from_secs(5);

pub(crate) const MANIFESTS: &str = r#"---
apiVersion: medic/v1
kind: Policy
metadata: {name: default}
spec: {autoExecute: {confidence: 0.0, risk: 1.0}, maxBlastRadius: 100%}
---
apiVersion: medic/v1
kind: Playbook
metadata: {name: restart-crashed}
spec:
  mode: auto
  match: ['class="application/crash"']
  scope: {maxUnavailable: 100%}
  steps: [{name: restart, action: process.restart, timeout: 10s, undo: {action: process.restore}}]
  verify: {expect: 'probe.process_alive == 1.0', hold: 0s, timeout: 30s}
"#;

/// The shard that a service falls into.
pub(crate) async fn shard_of(world: &World, service: &str) -> pb::Shard {
    let mut client = world.cluster.client("admin").await.unwrap();
    let request = pb::ListShardsRequest { page_size: 1_000, ..Default::default() };
    let shards = client.cluster().list_shards(request).await.unwrap().into_inner().shards;
    let named = format!("default/{service}");
    shards.into_iter().find(|shard| shard.services.contains(&named)).expect("a shard has it")
}

/// Waits until somebody has been told again what the owner of a service's shard has learnt about it.
pub(crate) async fn told(world: &World, service: &str) {
    let owner = shard_of(world, service).await.owner.expect("it has an owner");
    let name = "medic_detector_checkpoints_total{result=\"sent\"}";
    let before = metric(world, owner, name).await;
    // Twice as often as there are services: this one was among them.
    world
        .until("its heir is told", || async { metric(world, owner, name).await >= before + 2 })
        .await;
}

/// Loses the owner of a service's shard and the service itself in one moment.
async fn lose_both(world: &mut World, service: &str) {
    let before = shard_of(world, service).await;
    let owner = before.owner.expect("it has an owner");
    let place = world.dir.path().join(service).display().to_string();
    let victims = processes_with(&format!("{place}/{service}-1.toml"));
    assert_eq!(victims.len(), 1, "{victims:?}");
    // The nodes have the clock of this machine, and it is the law's while no leader's was ahead.
    let fault = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    world.cluster.node_mut(owner).unwrap().kill().await.unwrap();
    kill(Pid::from_raw(victims[0]), Signal::SIGKILL).unwrap();
    let lost = Instant::now();
    let healed = world
        .incident_when(service, "healed", |seen| status(seen) == pb::IncidentStatus::Resolved)
        .await;
    let took = lost.elapsed();
    let incident = healed.incident.unwrap();
    let after = shard_of(world, service).await;
    assert!(after.epoch > before.epoch, "{after:?}");
    assert_ne!(after.owner, Some(owner));
    let warm = metric(world, after.owner.unwrap(), "medic_warm_starts_total").await;
    assert!(warm > 0, "the new owner begins with what the dead one had learnt");
    assert!(incident.symptoms.iter().all(|symptom| symptom.kind == "down"), "{incident:#?}");
    // `since` is no measure: whoever sees it first says that it began then.
    let first = incident.symptoms.iter().filter_map(|symptom| symptom.first_at.as_ref());
    let first = first.map(|at| {
        u128::try_from(at.seconds).unwrap() * 1_000 + u128::try_from(at.nanos).unwrap() / 1_000_000
    });
    let detected_ms = first.min().expect("it has a symptom").checked_sub(fault.as_millis());
    let detected_ms = detected_ms.expect("nothing was wrong before the fault");
    assert!(
        detected_ms <= DETECTED_WITHIN.as_millis(),
        "detected {detected_ms} ms after the fault, not within {DETECTED_WITHIN:?}"
    );
    std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("node-{owner} and {service}-1 lost; detected {detected_ms} ms and healed {took:?} later\n"),
    )
    .unwrap();
    assert_eq!(world.revive(), [owner]);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_watched_is_watched_by_another() {
    let mut world = World::start().await;
    world.apply(MANIFESTS).await;
    let services = ["first", "second"];
    for service in services {
        let sample = world.sample(service, 1);
        world.apply(&sample.manifest).await;
        world.up(&sample).await;
    }
    for service in services {
        let world = &world;
        world
            .until("somebody watches it", || async {
                shard_of(world, service).await.owner.is_some()
            })
            .await;
    }
    for service in services {
        told(&world, service).await;
        lose_both(&mut world, service).await;
    }
    world.cluster.stop().await.unwrap();
}
