//! Nodes that are drained, and nodes that are told to stop: others watch what they watched and lead where
//! they led, and what breaks meanwhile is reported and healed all the same.

use std::{future::Future, time::Duration};

use medic_chaos::harness::processes_with;
use medic_proto::v1 as pb;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    moved::{MANIFESTS, shard_of, told},
    support::{World, metric, status},
    typed::medic,
};

const PEOPLE: &str = r#"---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: viewer, tenant: "*"}
spec: {role: viewer, subjects: [{user: viewer}]}
"#;

/// All nodes of the cluster's own account, by their numbers.
async fn nodes(world: &World) -> Vec<Value> {
    let said = medic(world, "admin", &["cluster", "status", "-o", "json"]).await;
    if said.code != 0 {
        return Vec::new();
    }
    said.json()["nodes"].as_array().cloned().unwrap_or_default()
}

async fn node(world: &World, id: u64) -> Option<Value> {
    nodes(world).await.into_iter().find(|node| node["id"] == id)
}

fn has_shards(node: &Value) -> bool {
    node["shards"].as_u64().unwrap_or(0) > 0
}

/// The cluster as it is in quiet times: one leader, its followers own the shards, the newest commands.
async fn settled(world: &World) {
    world
        .until("followers own all shards, and the newest command set is in force", || async {
            let said = medic(world, "admin", &["cluster", "status", "-o", "json"]).await;
            if said.code != 0 || said.json()["clusterVersion"] != medic_state::CLUSTER_VERSION {
                return false;
            }
            let nodes = nodes(world).await;
            nodes.len() == 3
                && nodes.iter().all(|node| node["live"] == true)
                && nodes.iter().all(|node| has_shards(node) != (node["leader"] == true))
        })
        .await;
}

/// Ends the process of a service's only instance while something is done; gives the incident once it is
/// healed, which is the service's only one.
async fn healed_through(
    world: &World,
    service: &str,
    done: impl Future<Output = ()>,
) -> pb::Incident {
    let place = world.dir.path().join(service).display().to_string();
    let victims = processes_with(&format!("{place}/{service}-1.toml"));
    assert_eq!(victims.len(), 1, "{victims:?}");
    kill(Pid::from_raw(victims[0]), Signal::SIGKILL).unwrap();
    done.await;
    let healed = world
        .incident_when(service, "healed", |seen| status(seen) == pb::IncidentStatus::Resolved)
        .await;
    let of_service = |incident: &&pb::IncidentSummary| {
        incident.target.as_ref().is_some_and(|target| target.service == service)
    };
    let incidents = world.incidents().await;
    assert_eq!(incidents.iter().filter(of_service).count(), 1, "{incidents:#?}");
    healed.incident.unwrap()
}

async fn with_services(world: &World, services: &[&str]) {
    world.apply(MANIFESTS).await;
    world.apply(PEOPLE).await;
    for service in services {
        let sample = world.sample(service, 1);
        world.apply(&sample.manifest).await;
        world.up(&sample).await;
    }
    settled(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_watches_nothing_and_leads_nothing_and_no_fault_is_missed() {
    let mut world = World::start().await;
    with_services(&world, &["first", "second"]).await;

    // A follower, which watches the service that dies at that moment.
    let before = shard_of(&world, "first").await;
    let owner = before.owner.expect("it has an owner");
    told(&world, "first").await;
    let number = owner.to_string();
    medic(&world, "viewer", &["cluster", "drain", &number]).await.refused("viewer");
    medic(&world, "admin", &["cluster", "drain", "9"]).await.failed(1, "node-9");
    let drained = async {
        let said = medic(&world, "admin", &["cluster", "drain", &number]).await.ok();
        assert!(said.out.contains("is drained"), "{said:#?}");
    };
    let incident = healed_through(&world, "first", drained).await;
    assert!(incident.symptoms.iter().all(|symptom| symptom.kind == "down"), "{incident:#?}");
    let after = shard_of(&world, "first").await;
    assert!(after.owner != Some(owner) && after.epoch > before.epoch, "{after:?}");
    let warm = metric(&world, after.owner.unwrap(), "medic_warm_starts_total").await;
    assert!(warm > 0, "the new owner begins with what the drained one had learnt");
    let known = node(&world, owner).await.unwrap();
    assert!(known["drained"] == true && known["voter"] == true && !has_shards(&known), "{known}");
    let again = medic(&world, "admin", &["cluster", "drain", &number]).await.ok();
    assert!(again.out.contains("already so"), "{again:#?}");
    assert!(medic(&world, "admin", &["cluster", "status"]).await.ok().out.contains("drained"));
    let audit =
        medic(&world, "admin", &["audit", "list", "--tenant", "*", "-o", "json"]).await.ok().out;
    assert!(audit.contains(&format!("node-{owner} drained")), "{audit}");
    medic(&world, "admin", &["cluster", "drain", &number, "--undo"]).await.ok();
    settled(&world).await;

    // The leader.
    let leader = world.cluster.leader().await.unwrap();
    let number = leader.to_string();
    let drained = async {
        medic(&world, "admin", &["cluster", "drain", &number]).await.ok();
    };
    healed_through(&world, "second", drained).await;
    let known = node(&world, leader).await.unwrap();
    assert!(known["drained"] == true && !has_shards(&known), "{known}");
    assert_ne!(world.cluster.leader().await.unwrap(), leader);

    // One more may be drained, the last one not.
    let rest: Vec<String> = (1..=3).filter(|id| *id != leader).map(|id| id.to_string()).collect();
    medic(&world, "admin", &["cluster", "drain", &rest[0]]).await.ok();
    let last = medic(&world, "admin", &["cluster", "drain", &rest[1]]).await;
    last.refused(&format!("no live node but node-{}", rest[1]));
    medic(&world, "admin", &["cluster", "drain", &rest[0], "--undo"]).await.ok();

    // A restart takes nothing back.
    world.cluster.node_mut(leader).unwrap().kill().await.unwrap();
    assert_eq!(world.revive(), [leader]);
    world.agree().await;
    let known = node(&world, leader).await.unwrap();
    assert!(known["drained"] == true && !has_shards(&known), "{known}");
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_hands_its_shards_on_first() {
    let mut world = World::start().await;
    with_services(&world, &["first"]).await;
    let before = shard_of(&world, "first").await;
    let owner = before.owner.expect("it has an owner");
    world.cluster.node_mut(owner).unwrap().stop().await.unwrap();
    // At once: its silence has not been noticed yet.
    let after = shard_of(&world, "first").await;
    assert!(after.owner != Some(owner) && after.epoch > before.epoch, "{after:?}");
    let log = world.log(&format!("node-{owner}"));
    assert!(log.contains("others watch what this node watched"), "{log}");
    let known = node(&world, owner).await.unwrap();
    assert!(known["leaving"] == true && !has_shards(&known), "{known}");
    healed_through(&world, "first", async {}).await;
    assert_eq!(world.revive(), [owner]);
    settled(&world).await;
    assert_eq!(node(&world, owner).await.unwrap()["leaving"], false);
    let asked = std::time::Instant::now();
    world.cluster.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(20), "stopping all took {:?}", asked.elapsed());
}
