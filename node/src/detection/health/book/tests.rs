//! Two nodes that tell each other, over the real law.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use medic_proto::v1 as pb;
use medic_raft::{LocalLedger, env::Env};
use medic_state::{
    BootId, Command, Entry, TraceId,
    command::{ApplyManifest, AssignShards, RegisterNode},
    manifest::Manifest,
    rbac::Principal,
    symptom::Severity,
};

use super::*;
use crate::detection::health::{Monitor, Sign, Word, of_instance};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

struct Node {
    ledger: Arc<LocalLedger>,
    book: HealthBook,
}

impl Node {
    /// Watches these services of two instances each, of which the second fails.
    async fn new(me: NodeId, watched: &'static [&'static str]) -> Self {
        let ledger = LocalLedger::new(me, BootId(me.0), Env::system());
        let own = move || Health { services: of_services(watched.iter().flat_map(two).collect()) };
        let node = Self { book: HealthBook::new(ledger.clone(), Arc::new(own)), ledger };
        for other in [A, B] {
            let register = RegisterNode {
                node: other,
                region: String::new(),
                api_addr: "127.0.0.1:1".to_owned(),
                boot: BootId(other.0),
                version: "test".to_owned(),
                understands: Some(medic_state::CLUSTER_VERSION),
                weight: None,
            };
            node.must(Principal::node(other), Command::RegisterNode(register)).await;
        }
        let root = r#"{"kind":"RoleBinding","spec":{"role":"admin","subjects":[{"user":"root"}]}}"#;
        node.declare(Principal::node(me), ("admins", "*"), root).await;
        for name in ["web", "store"] {
            let spec = format!(
                r#"{{"kind":"Service","spec":{{"instances":[
                    {{"name":"{name}-1","host":"h"}},{{"name":"{name}-2","host":"h"}}]}}}}"#
            );
            node.declare(Principal::user("root"), (name, "default"), &spec).await;
        }
        node.assign("web", A).await;
        node.assign("store", B).await;
        node
    }

    async fn must(&self, principal: Principal, command: Command) {
        let entry = self.ledger.entry(TraceId::default(), command);
        self.ledger.propose(Entry { principal, ..entry }).await.unwrap().answer.unwrap();
    }

    async fn declare(&self, by: Principal, (name, tenant): (&str, &str), spec: &str) {
        let metadata =
            serde_json::from_value(serde_json::json!({"name": name, "tenant": tenant})).unwrap();
        let manifest = Manifest { metadata, spec: serde_json::from_str(spec).unwrap() };
        let apply = ApplyManifest { manifest, expected: None };
        self.must(by, Command::ApplyManifest(Box::new(apply))).await;
    }

    async fn assign(&self, service: &str, to: NodeId) {
        let shard = State::shard_of(&target(service, 1));
        let moves = [(shard, to)].into();
        let by = self.ledger.node();
        self.must(Principal::node(by), Command::AssignShards(AssignShards { moves })).await;
    }

    fn hears(&self, other: &Self) {
        for body in other.book.to_tell(0) {
            self.book.take(other.ledger.node(), &body).unwrap();
        }
    }

    /// Instance, status, whether its monitors are told, and why not.
    fn sees(&self) -> Vec<(String, pb::HealthStatus, usize, String)> {
        let all = self.book.healths().instances.into_iter();
        let mut all: Vec<_> = all
            .map(|one| {
                let status = one.status();
                (one.target.unwrap().instance, status, one.monitors.len(), one.unknown)
            })
            .collect();
        all.sort();
        all
    }
}

fn target(service: &str, number: u32) -> Target {
    Target {
        tenant: "default".to_owned(),
        service: service.to_owned(),
        instance: format!("{service}-{number}"),
    }
}

fn two(service: &&'static str) -> [(String, String, InstanceHealth); 2] {
    let sign = |word| Sign { monitor: Monitor::Application, source: "probe.http".to_owned(), word };
    let bad = |n: usize| sign(Word::Bad(Severity::Critical, 2, format!("{n} {}", "ä".repeat(400))));
    let failing: Vec<Sign> = (0..20).map(bad).collect();
    let named = |n: u32, signs: &[Sign]| {
        let health = of_instance(&target(service, n).instance, signs, false);
        ("default".to_owned(), (*service).to_owned(), health)
    };
    [named(1, &[sign(Word::Good)]), named(2, &failing)]
}

const NOT_TOLD: &str = "it has not told yet how they do";

#[tokio::test(start_paused = true)]
async fn any_node_answers_for_all_and_what_is_not_known_is_never_healthy() {
    let (a, b) = (Node::new(A, &["web"]).await, Node::new(B, &["store"]).await);
    let of_a = |n: u32, status, monitors, why: &str| {
        (target("store", n).instance, status, monitors, why.to_owned())
    };
    // A has just begun: it waits for B's word.
    let waiting = |why| [1, 2].map(|n| of_a(n, pb::HealthStatus::Waiting, 0, why));
    assert_eq!(a.sees()[..2], waiting(NOT_TOLD));
    tokio::time::advance(STALE + Duration::from_secs(1)).await;
    let unknown = |why| [1, 2].map(|n| of_a(n, pb::HealthStatus::Error, 0, why));
    assert_eq!(a.sees()[..2], unknown(NOT_TOLD));
    a.hears(&b);
    let told = a.sees();
    assert_eq!(told[0], of_a(1, pb::HealthStatus::Healthy, 5, ""));
    assert_eq!(told[1], of_a(2, pb::HealthStatus::Unhealthy, 5, ""));
    assert_eq!((told.len(), told[2].1), (4, pb::HealthStatus::Healthy), "its own as well");
    let all = a.book.healths();
    let scores: Vec<_> = all.services.iter().map(|one| (one.status(), one.score)).collect();
    assert_eq!(scores, [(pb::HealthStatus::Degraded, Some(50)); 2]);
    let of_shard = State::shard_of(&target("store", 1)).0;
    assert!(!all.gaps.iter().any(|gap| gap.shards.contains(&of_shard)), "{:?}", all.gaps);
    // B falls silent: what it said is no longer so.
    tokio::time::advance(STALE + Duration::from_secs(1)).await;
    assert_eq!(a.sees()[..2], unknown("it was last heard from 16 s ago"));
    assert!(a.book.healths().gaps.iter().any(|gap| gap.node == "node-2"));
}

#[tokio::test]
async fn a_shard_that_moves_waits_for_its_new_owner() {
    let (a, b) = (Node::new(A, &["web"]).await, Node::new(B, &["store"]).await);
    a.hears(&b);
    for to in [A, B] {
        a.assign("store", to).await;
        let expected = match to {
            A => "its watch has just begun, or finds no room in what is told",
            _ => "it has just begun to watch them",
        };
        let store = &a.sees()[1];
        assert_eq!((store.1, store.3.as_str()), (pb::HealthStatus::Waiting, expected));
    }
    for to in [A, B] {
        b.assign("store", to).await;
    }
    a.hears(&b);
    assert_eq!(a.sees()[1].1, pb::HealthStatus::Unhealthy);
}

#[tokio::test]
async fn what_is_told_is_bounded_and_what_cannot_be_read_changes_nothing() {
    let b = Node::new(B, &["store"]).await;
    let body = b.book.to_tell(0).remove(0);
    let Message { shards, .. } = codec::decode(&body).unwrap();
    let (_, failing) = &shards[&State::shard_of(&target("store", 1))].instances[1];
    let causes = &failing.monitors[1].causes;
    assert_eq!((causes.len(), causes[CAUSES_MAX].as_str()), (CAUSES_MAX + 1, "and 12 more"));
    assert!(causes[0].len() <= CAUSE_BYTES_MAX + '…'.len_utf8() && causes[0].ends_with('…'));
    // All shards in parcels of any size; one that is too large says less.
    let one = codec::encode(&shards[&State::shard_of(&target("store", 1))]).len() + 64;
    for bytes_max in [one - 1, one, 1 << 20] {
        let bodies = pieces(Timestamp(5), shards.clone(), bytes_max);
        assert!(bodies.iter().all(|body| body.len() <= bytes_max));
        let back = bodies.iter().flat_map(|body| codec::decode::<Message>(body).unwrap().shards);
        let count: usize = back.map(|(_, told)| told.instances.len()).sum();
        assert_eq!(count, if bytes_max < one { 1 } else { 2 });
    }
    assert!(b.book.take(A, &body[..body.len() - 1]).is_err());
    assert!(b.book.take(A, b"").is_err());
    assert_eq!(b.sees()[1].1, pb::HealthStatus::Unhealthy);
}

#[tokio::test]
async fn a_score_above_a_hundred_is_refused() {
    let a = Node::new(A, &["web"]).await;
    let told = |score| {
        let health = InstanceHealth {
            score: Some(score),
            ..nothing_known(&target("store", 1), Status::Healthy)
        };
        let told = Told { epoch: Epoch(1), instances: vec![(target("store", 1), health)] };
        let shards = [(State::shard_of(&target("store", 1)), told)].into();
        let body = codec::encode(&Message { at: Timestamp(1), shards });
        a.book.take(B, &body).map_err(|refused| refused.reason)
    };
    assert_eq!(told(101), Err("the score of store/store-1 is above 100".to_owned()));
    assert_eq!(told(100), Ok(()));
}
