//! What operators do, typed: every command here is the real `medic` binary, against real processes.
//! Approving what waits, members that come and go, watching across nodes, freezing, and stopping a
//! leader without stopping the cluster.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use medic_chaos::harness::{Process, free_ports};
use medic_proto::v1 as pb;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};

use super::{
    support::{LOOK, OPEN_GROUND, PATIENCE, World, number, plan, read, status},
    typed::{command, medic},
};

/// Who may what.
const PEOPLE: &str = r#"---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: oncall}
spec: {role: approver, subjects: [{user: oncall}]}
---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: viewer}
spec: {role: viewer, subjects: [{user: viewer}]}
"#;

/// A playbook that restarts the instance an alert names.
fn playbook(service: &str, mode: &str) -> String {
    format!(
        r#"---
apiVersion: medic/v1
kind: Playbook
metadata: {{name: restart-{service}}}
spec:
  mode: {mode}
  match: ['alertname="Trouble"', 'service="{service}"']
  scope: {{maxUnavailable: 100%, maxAttempts: 1}}
  approval: {{roles: [approver, admin], minApprovers: 1, forbidSelf: true, ttl: 15m}}
  steps: [{{name: restart, action: process.restart, timeout: 10s, undo: {{action: process.restart}}}}]
  verify: {{expect: 'probe.process_alive == 1.0', hold: 0s, timeout: 30s}}
"#
    )
}

/// A world with one service per mode, each with a playbook; all up.
async fn world_with(services: &[(&str, &str)]) -> World {
    let world = World::start().await;
    world.apply(OPEN_GROUND).await;
    world.apply(PEOPLE).await;
    for (service, mode) in services {
        let sample = world.sample(service, 1);
        world.apply(&sample.manifest).await;
        world.apply(&playbook(service, mode)).await;
        world.up(&sample).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_waits_for_the_right_person_and_outlives_the_leader_that_was_told() {
    let mut world = world_with(&[("careful", "approve")]).await;
    world.alert("Trouble", "careful", "careful-1").await;
    let waiting = world
        .incident_when("careful", "waiting for approval", |seen| {
            status(seen) == pb::IncidentStatus::AwaitingApproval
        })
        .await;
    let (digest, id) = (plan(&waiting).digest.clone(), waiting.incident.clone().unwrap().id);
    let listed = medic(&world, "viewer", &["get", "approvals", "-o", "json"]).await.json();
    assert_eq!(listed[0]["planDigest"], digest.as_str());

    medic(&world, "viewer", &["approve", &id, "--yes"]).await.refused("viewer");
    // Whoever wrote the playbook is the cause of what it does.
    medic(&world, "admin", &["approve", &id, "--yes"]).await.refused("approve what they caused");
    let other = ["approve", &id, "--plan-digest", "0123456789abcdef"];
    medic(&world, "oncall", &other).await.refused("the plan that waits is");
    medic(&world, "oncall", &["approve", &id]).await.refused("--yes");
    assert_eq!(world.started("careful-1"), 1, "nothing was done yet");

    std::fs::write(&world.failpoints, "driver_before_start_0\n").unwrap();
    medic(&world, "oncall", &["approve", &id, "--plan-digest", &digest[..12]]).await.ok();
    let healed = world
        .incident_when("careful", "healed", |seen| status(seen) == pb::IncidentStatus::Resolved)
        .await;
    assert!(!world.failpoints.exists(), "the leader died between the approval and the act");
    assert_eq!((plan(&healed).digest.as_str(), healed.remediations.len()), (digest.as_str(), 1));
    assert_eq!(plan(&healed).approvals[0].user, "oncall");
    assert_eq!(world.started("careful-1"), 2, "it was restarted once");
    medic(&world, "oncall", &["approve", &id, "--yes"]).await.refused("waits for approval");
    let page = medic(&world, "viewer", &["explain", &id]).await.ok().out;
    assert!(page.contains("approved by oncall"), "{page}");
    world.until_one_has_ended().await;
    assert_eq!(world.revive().len(), 1);
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// One node of the cluster's own account.
async fn node(world: &World, id: u64) -> Option<Value> {
    let status = medic(world, "admin", &["cluster", "status", "-o", "json"]).await.json();
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["id"] == id && node["former"] == false).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_added_promoted_made_leader_and_removed() {
    let mut world = World::start().await;
    world.apply(OPEN_GROUND).await;
    world.apply(PEOPLE).await;
    let dir = world.cluster.dir().to_owned();
    let base = free_ports(3).unwrap()[0];
    let (base_text, peer) = (base.to_string(), format!("127.0.0.1:{}", base + 1));
    let folder = dir.display().to_string();
    let issue = ["certs", "issue", "--dir", &folder, "--node", "4", "--host", "127.0.0.1"];
    let issue = [&issue[..], &["--base-port", &base_text]].concat();
    let issued = medic(&world, "admin", &issue).await.ok().out;
    let add = ["cluster", "add", "4", &peer];
    assert!(issued.contains(&format!("medic {}", add.join(" "))), "it says what is next: {issued}");

    let binary = PathBuf::from(env!("CARGO_BIN_EXE_medic-under-test"));
    let config = dir.join("node-4.toml").display().to_string();
    let log = dir.join("logs/node-4.log");
    let mut fourth =
        Process::new("node-4", &binary, vec!["serve".into(), "-c".into(), config], log);
    fourth.start().unwrap();
    medic(&world, "viewer", &add).await.refused("viewer");
    medic(&world, "admin", &["cluster", "promote", "4"]).await.refused("not a member");
    medic(&world, "admin", &add).await.ok();
    assert_eq!(node(&world, 4).await.unwrap()["voter"], false);
    medic(&world, "admin", &add).await.ok();
    medic(&world, "admin", &["cluster", "transfer", "4"]).await.refused("learner");
    medic(&world, "admin", &["cluster", "promote", "4"]).await.ok();
    assert_eq!(node(&world, 4).await.unwrap()["voter"], true);
    medic(&world, "admin", &["cluster", "transfer", "4"]).await.ok();
    world
        .until("the fourth leads", || async {
            node(&world, 4).await.is_some_and(|node| node["leader"] == true)
        })
        .await;

    medic(&world, "viewer", &["cluster", "remove", "4"]).await.refused("viewer");
    // The leader itself: it commits its own removal, and another one leads.
    medic(&world, "admin", &["cluster", "remove", "4"]).await.ok();
    world
        .until("one of the first three leads", || async {
            world.cluster.leader().await.is_ok_and(|leader| leader <= 3)
        })
        .await;
    assert!(node(&world, 4).await.is_none());
    medic(&world, "admin", &add).await.refused("no node ever had");
    medic(&world, "admin", &["cluster", "remove", "9"]).await.refused("not a member");
    fourth.stop().await.unwrap();
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// `medic watch` at work.
struct Watching {
    child: tokio::process::Child,
    lines: Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Watching {
    /// Everything after an index, of all tenants, at one node (0: at whichever).
    fn start(world: &World, node: u64, after: u64) -> Self {
        let after = after.to_string();
        let args = ["watch", "--after", &after, "--tenant", "*", "-o", "jsonl"];
        let context = if node == 0 { "admin".to_owned() } else { format!("at-{node}") };
        let mut child = command(world, &context, &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn index(&mut self) -> u64 {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("an event in time").unwrap().expect("the watch goes on");
        serde_json::from_str::<Value>(&line).unwrap()["index"].as_u64().unwrap()
    }

    /// Indexes up to one.
    async fn until(&mut self, last: u64) -> Vec<u64> {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            seen.push(self.index().await);
            assert!(seen.last() <= Some(&last), "{last} was never seen: {seen:?}");
        }
        seen
    }
}

/// Contexts that know one node each: `at-1`, ...
fn contexts_per_node(world: &World) {
    let path = world.cluster.dir().join("medic.toml");
    let mut text = read(&path);
    for node in 1..=3 {
        let api = world.cluster.ports(node).unwrap().api;
        text += &format!(
            "\n[contexts.at-{node}]\ncluster = \"local\"\nnodes = [\"127.0.0.1:{api}\"]\n\
             ca = \"ca.crt\"\ncert = \"users/admin.crt\"\nkey = \"users/admin.key\"\n"
        );
    }
    std::fs::write(path, text).unwrap();
}

/// Commits something; gives its log index.
async fn mark(world: &World, text: &str) -> u64 {
    let freeze = ["freeze", "region", text, "--reason", "a mark", "--for", "1h", "-o", "json"];
    medic(world, "admin", &freeze).await.json()["index"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_elsewhere_without_a_gap_or_a_repetition() {
    let mut world = World::start().await;
    contexts_per_node(&world);
    let middle = mark(&world, "one").await;
    let mut at_one = Watching::start(&world, 1, 0);
    let mut roaming = Watching::start(&world, 0, 0);
    let mut resumed = at_one.until(middle).await;
    let mut through = roaming.until(middle).await;
    // Seen before its node was lost: the first of the context's list.
    at_one.child.kill().await.unwrap();
    world.cluster.node_mut(1).unwrap().kill().await.unwrap();
    for n in 0..5 {
        mark(&world, &format!("region-{n}")).await;
    }
    let last = mark(&world, "last").await;
    let mut at_two = Watching::start(&world, 2, middle);
    resumed.extend(at_two.until(last).await);
    through.extend(roaming.until(last).await);

    let all = Watching::start(&world, 3, 0).until(last).await;
    assert!(all.is_sorted_by(|a, b| a < b), "in log order, each once: {all:?}");
    assert_eq!(resumed, all, "resumed by hand at another node");
    assert_eq!(through, all, "one watch that lost its node");
    world.revive();
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_service_is_left_alone_until_it_is_unfrozen() {
    let mut world = world_with(&[("held", "auto"), ("free", "auto")]).await;
    let freeze = ["freeze", "service", "held", "--reason", "a migration"];
    medic(&world, "viewer", &freeze).await.refused("viewer");
    medic(&world, "admin", &freeze).await.ok();
    world.alert("Trouble", "held", "held-1").await;
    let held = world
        .incident_when("held", "held back", |seen| {
            seen.incident.as_ref().is_some_and(|i| i.held_by.contains("a migration"))
        })
        .await;
    // A whole remediation of the other service happens meanwhile.
    world.alert("Trouble", "free", "free-1").await;
    let resolved =
        |seen: &pb::ExplainIncidentResponse| status(seen) == pb::IncidentStatus::Resolved;
    world.incident_when("free", "healed", resolved).await;
    let id = held.incident.unwrap().id;
    let still = world.explain(&id).await.unwrap();
    assert!(still.remediations.is_empty(), "no plan while frozen: {still:#?}");
    assert_eq!((world.started("held-1"), world.started("free-1")), (1, 2));
    let page = medic(&world, "viewer", &["explain", &id]).await.ok().out;
    assert!(
        page.contains("service held (tenant default) is frozen by admin: a migration"),
        "{page}"
    );

    medic(&world, "admin", &["unfreeze", "service", "held"]).await.ok();
    let healed = world.incident_when("held", "healed", resolved).await;
    assert_eq!(number(&healed.incident.unwrap().id), number(&id));
    assert_eq!(world.started("held-1"), 2);
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// Writes through one node, one after the other; gives when each was acknowledged.
async fn writes(
    mut client: medic_chaos::harness::Client,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> Vec<Instant> {
    let mut acknowledged = Vec::new();
    for n in 0_u64.. {
        if *stop.borrow_and_update() {
            break;
        }
        let scope = pb::freeze_scope::Scope::Region(format!("r{}", n % 2));
        let request = pb::FreezeRequest {
            scope: Some(pb::FreezeScope { scope: Some(scope) }),
            reason: "a write".to_owned(),
            until: None,
            request_id: format!("write-{n}"),
        };
        // Refused for the moment, or acknowledged: what counts is when it was.
        while client.safety().freeze(request.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        acknowledged.push(Instant::now());
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_stopped_hands_over_first() {
    let mut world = World::start().await;
    let leader = world.cluster.leader().await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    let mut client = world.cluster.client_of(others[0], "admin").await.unwrap();
    let before = client.cluster().status(pb::StatusRequest {}).await.unwrap().into_inner();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writing = tokio::spawn(writes(client.clone(), stopped));

    let process = world.cluster.node_mut(leader).unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    let told = Instant::now();
    assert!(process.wait().await.unwrap().success());
    let left = Instant::now();
    // The node is gone, and another has taken over under a fence of its own.
    let after = loop {
        let status = client.cluster().status(pb::StatusRequest {}).await.unwrap().into_inner();
        if status.leader != 0 && status.fence > before.fence {
            break status;
        }
        assert!(told.elapsed() < PATIENCE, "nobody leads");
        tokio::time::sleep(LOOK).await;
    };
    stop.send(true).unwrap();
    let acknowledged = writing.await.unwrap();
    assert!(others.contains(&after.leader));
    assert_eq!(
        after.term,
        before.term + 1,
        "handed over by one vote: nobody had to campaign twice"
    );
    let log = read(world.cluster.node_mut(leader).unwrap().log());
    assert!(log.contains("leadership is handed over"), "{log}");
    let during = |pair: &&[Instant]| pair[1] > told && pair[0] < left;
    let pauses = acknowledged.windows(2).filter(during).map(|pair| pair[1] - pair[0]);
    let longest = pauses.max().expect("writes went on meanwhile");
    // Without it nobody campaigns before an election timeout has passed since the last heartbeat.
    let election = Duration::from_millis(600);
    assert!(longest < election, "writes paused for {longest:?}");
    std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("writes paused {longest:?}; the node left after {:?}\n", left - told),
    )
    .unwrap();
    world.revive();
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// A service that detectors look at, and that only an alert will speak of.
const WATCHED: &str = r#"---
apiVersion: medic/v1
kind: Service
metadata: {name: watched}
spec:
  instances: [{name: watched-1}]
  indicators: [{name: latency_p99, source: {gauge: slow}}, {name: heat, source: {gauge: heat}}]
"#;

/// The weights that each node tells, by family and detector.
async fn weights(world: &World) -> Vec<Vec<(String, i64, u64, String)>> {
    let mut all = Vec::new();
    for node in ["at-1", "at-2", "at-3"] {
        let listed = medic(world, node, &["get", "weights", "-o", "json"]).await.json();
        let told = listed.as_array().unwrap().iter().map(|one| {
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            let name = format!("{} {}", text("family"), text("detector"));
            let because = format!("{} {} {}", text("opinion"), text("incident"), text("by"));
            (name, one["millinats"].as_i64().unwrap(), one["version"].as_u64().unwrap(), because)
        });
        all.push(told.collect());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_say_of_detection_is_known_on_every_node() {
    let mut world = World::start().await;
    world.apply(OPEN_GROUND).await;
    world.apply(PEOPLE).await;
    world.apply(WATCHED).await;
    contexts_per_node(&world);
    world.alert("Trouble", "watched", "watched-1").await;
    let escalated =
        |seen: &pb::ExplainIncidentResponse| status(seen) == pb::IncidentStatus::Escalated;
    let seen = world.incident_when("watched", "escalated", escalated).await;
    let id = seen.incident.unwrap().id;
    // Opinions are of a command set that is switched on once every member is known to understand it.
    world
        .until("the newest command set is in force", || async {
            let status = medic(&world, "admin", &["cluster", "status", "-o", "json"]).await;
            status.json()["clusterVersion"] == medic_state::CLUSTER_VERSION
        })
        .await;
    medic(&world, "viewer", &["judge", &id, "missed"]).await.refused("viewer");
    let wrong = medic(&world, "oncall", &["judge", &id, "missed", "--indicator", "speed"]).await;
    assert!(wrong.code != 0 && wrong.err.contains("speed"), "{wrong:#?}");
    medic(&world, "oncall", &["judge", &id, "missed", "--indicator", "latency_p99"]).await.ok();
    let because = format!("missed {id} oncall");
    let of = |name: &str, millinats, version, because: &str| {
        (format!("latency_p99 {name}"), millinats, version, because.to_owned())
    };
    let raised = vec![of("level", 700, 1, &because), of("cusum", 700, 1, &because)];
    assert_eq!(weights(&world).await, [raised.clone(), raised.clone(), raised.clone()]);
    let again = medic(&world, "oncall", &["judge", &id, "missed", "-i", "latency_p99"]).await.ok();
    assert!(again.out.contains("already"), "{again:#?}");

    // It was nothing after all: what was moved for it is taken back, on every node.
    let resolve = ["resolve", &id, "--false-alarm", "-m", "a test of the pager"];
    medic(&world, "viewer", &resolve).await.refused("viewer");
    medic(&world, "admin", &resolve).await.ok();
    let because = format!("false-alarm {id} admin");
    let back = vec![of("level", 0, 2, &because), of("cusum", 0, 2, &because)];
    assert_eq!(weights(&world).await, [back.clone(), back.clone(), back.clone()]);
    let table = medic(&world, "viewer", &["get", "weights"]).await.ok().out;
    assert!(table.contains("latency_p99") && table.contains(&because[..11]), "{table}");
    let page = medic(&world, "viewer", &["explain", &id]).await.ok().out;
    assert!(page.contains("a false alarm"), "{page}");
    world.agree().await;
    world.cluster.stop().await.unwrap();
}
