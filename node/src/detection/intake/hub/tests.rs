//! Tests of the intake of two nodes.
#![allow(clippy::unwrap_used)]

mod bad;
mod grpc;
mod logs;

use medic_api::http::{
    Sender,
    push::{Encoding, Push, PushForm, PushSink as _, PushTaken},
};
use medic_raft::{LocalLedger, env::Env};
use medic_state::{
    BootId, Epoch, State,
    manifest::{Kind as ManifestKind, ManifestKey, Metadata, Spec, Stored},
    state::ShardState,
};

use super::*;
use crate::detection::intake::{
    mapper::tests::state,
    sample::{NAME, Sample},
};

/// Hands over within the process, or not at all.
struct Direct(Option<Arc<Hub>>);

#[async_trait]
impl Forward for Direct {
    async fn forward(&self, _: NodeId, handed: Handed) -> Result<Counts, String> {
        match &self.0 {
            Some(hub) => hub.take_forwarded(handed).await,
            None => Err("connection refused".to_owned()),
        }
    }
}

fn shard_of(service: &str) -> ShardId {
    let target = Target {
        tenant: "default".to_owned(),
        service: service.to_owned(),
        instance: String::new(),
    };
    State::shard_of(&target)
}

/// Node 1 watches `solo`, node 2 watches `web`; quotas as given.
fn hub(node: u64, tenant: TenantSpec) -> Arc<Hub> {
    let law = LocalLedger::new(NodeId(node), BootId(1), Env::system());
    let mut state = state();
    for (service, owner) in [("solo", 1), ("web", 2)] {
        let owned =
            ShardState { owner: Some(NodeId(owner)), epoch: Epoch(1), ..ShardState::default() };
        state.shards.insert(shard_of(service), owned);
    }
    let metadata = Metadata {
        name: "default".to_owned(),
        tenant: "default".to_owned(),
        labels: BTreeMap::new(),
    };
    let manifest = medic_state::manifest::Manifest { metadata, spec: Spec::Tenant(tenant) };
    let stored = Stored {
        digest: manifest.digest(),
        manifest: Arc::new(manifest),
        index: 99,
        by: "user:test".to_owned(),
        at: crate::fixture::T0,
    };
    state.manifests.insert(stored.manifest.key(), stored);
    *law.state().write().unwrap() = state;
    Hub::new(law)
}

fn two(tenant: &TenantSpec) -> (Arc<Hub>, Arc<Hub>) {
    let (one, other) = (hub(1, tenant.clone()), hub(2, tenant.clone()));
    one.reach(Arc::new(Direct(Some(other.clone()))));
    (one, other)
}

type Series<'a> = (&'a [(&'a str, &'a str)], f64);

fn message(hub: &Hub, series: &[Series<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, value) in series {
        let sample = Sample { at_ms: hub.moment().wall_ms, value: *value };
        write::put_series(&mut out, labels.iter().copied(), &[sample]);
    }
    out
}

fn push(message: &[u8]) -> Push {
    Push {
        form: PushForm::RemoteWriteV1,
        encoding: Encoding::default(),
        tenant: "default".to_owned(),
        token: None,
        vouched: true,
        body: snap::raw::Encoder::new().compress_vec(message).unwrap(),
    }
}

const SOLO: &[(&str, &str)] = &[(NAME, "load"), ("job", "solo")];
const WEB: &[(&str, &str)] =
    &[(NAME, "mem"), ("instance", "b:82"), ("job", "web"), ("kind", "rss")];

fn target(service: &str, instance: &str) -> Target {
    crate::topology::target("default", service, instance)
}

#[tokio::test(start_paused = true)]
async fn samples_reach_the_node_that_watches_their_instance() {
    let (one, other) = two(&TenantSpec::default());
    let body = message(&one, &[(SOLO, 0.5), (WEB, 64.0), (&[(NAME, "up"), ("job", "web")], 1.0)]);
    let taken = one.push(push(&body)).await.unwrap();
    assert_eq!(taken, PushTaken { samples: 2, ..PushTaken::default() });
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(one.values(&target("web", "web-2")), None);
    assert_eq!(one.values(&target("solo", "solo-1")).unwrap().values["load"], 0.5);
    assert_eq!(other.values(&target("web", "web-2")).unwrap().values["memory"], 64.0);
    // Sent again, it is known.
    assert_eq!(one.push(push(&body)).await.unwrap().samples, 2);
    assert_eq!(other.values(&target("web", "web-2")), None);
    // It is never passed on twice: node 2 does not watch `solo`.
    let handed = Handed {
        tenant: "default".to_owned(),
        sources: vec!["prom".to_owned()],
        message: message(&one, &[(SOLO, 1.0)]),
        logs: Vec::new(),
    };
    let counts = other.take_forwarded(handed).await.unwrap();
    assert_eq!(counts.of(Became::NoOwner), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_is_told_why() {
    let (one, _) = two(&TenantSpec::default());
    let good = push(&message(&one, &[(SOLO, 1.0)]));
    let refused = async |push: Push| one.push(push).await.unwrap_err();
    let mut torn = message(&one, &[(SOLO, 1.0), (WEB, 1.0)]);
    torn.truncate(torn.len() - 3);
    for (push, says) in [
        (Push { body: b"no snappy".to_vec(), ..good.clone() }, "snappy"),
        (push(&torn), "cut off"),
        (Push { tenant: "moon".to_owned(), ..good.clone() }, "no Source of type remote-write"),
    ] {
        match refused(push).await {
            PushRefusal::Wrong(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(one.series(), 0, "a torn message leaves nothing behind");
    let bomb = push(&vec![0; write::MESSAGE_BYTES_MAX + 1]);
    assert!(matches!(refused(bomb).await, PushRefusal::TooLarge(_)));
    let stranger = Push { vouched: false, token: Some("x".to_owned()), ..good.clone() };
    assert!(matches!(refused(stranger).await, PushRefusal::Denied(_)));
    // With the team's token, only what is the team's is taken.
    let token = medic_state::Digest::of(&[b"secret"]).to_string();
    let team = Push { vouched: false, token: Some(token), ..good.clone() };
    let taken = one.push(team).await.unwrap();
    assert_eq!(taken.samples, 0);
    let why = taken.refused.unwrap();
    assert!(why.contains("match no Source that this sender may speak for"), "{why}");
    assert!(why.contains("`load` is among them"), "{why}");
    assert_eq!(one.push(good).await.unwrap().samples, 1);
}

/// The good are taken, and what is none is named: Prometheus drops what is answered 400, and repeats
/// nothing of it.
#[tokio::test(start_paused = true)]
async fn what_is_no_measurement_is_named_and_the_rest_is_taken() {
    let hub = hub(1, TenantSpec::default());
    let total: &[(&str, &str)] = &[(NAME, "total"), ("job", "solo")];
    let body = message(&hub, &[(SOLO, f64::NAN), (total, -1.0), (SOLO, 0.5)]);
    let taken = hub.push(push(&body)).await.unwrap();
    assert_eq!((taken.samples, taken.rejected), (1, 2));
    let why = taken.refused.unwrap();
    for part in ["1 samples are infinite or no numbers", "1 samples of counters are below zero"] {
        assert!(why.contains(part), "{why}");
    }
    // A quota that is spent is told by the head alone.
    let sender = |tenant: &str| Sender { tenant: tenant.to_owned(), token: None, vouched: true };
    let form = PushForm::RemoteWriteV1;
    assert_eq!(hub.admit(form, &sender("default")), Ok(()));
    lock(&hub.tenant("default").unwrap()).bucket.take(2_000_000, 200_000, 0).unwrap();
    assert!(matches!(hub.admit(form, &sender("default")), Err(PushRefusal::Slow(_, 5..))));
    assert!(matches!(hub.admit(form, &sender("moon")), Err(PushRefusal::Wrong(_))));
    let stranger = Sender { vouched: false, ..sender("default") };
    assert!(matches!(hub.admit(form, &stranger), Err(PushRefusal::Denied(_))));
}

#[tokio::test(start_paused = true)]
async fn an_owner_out_of_reach_makes_the_sender_wait_and_repeat() {
    let (one, other) = (hub(1, TenantSpec::default()), hub(2, TenantSpec::default()));
    let body = message(&one, &[(SOLO, 1.0), (WEB, 1.0)]);
    let later = |refusal| matches!(refusal, Err(PushRefusal::Later(_)));
    assert!(later(one.push(push(&body)).await), "no way to others is known yet");
    one.reach(Arc::new(Direct(None)));
    assert!(later(one.push(push(&body)).await));
    let reached = hub(1, TenantSpec::default());
    reached.reach(Arc::new(Direct(Some(other))));
    assert_eq!(reached.push(push(&body)).await.unwrap().samples, 2);
    // A shard without an owner.
    let ledger = reached.ledger.clone();
    ledger.state().write().unwrap().shards.clear();
    assert!(later(reached.push(push(&body)).await));
}

#[tokio::test(start_paused = true)]
async fn quotas_of_a_tenant_hold() {
    let quota = TenantSpec {
        max_series: Some(2),
        max_samples_per_second: Some(1),
        ..TenantSpec::default()
    };
    let (one, _) = two(&quota);
    let names: Vec<String> = (0..5).map(|n| n.to_string()).collect();
    let labels: Vec<[(&str, &str); 3]> =
        names.iter().map(|n| [(NAME, "load"), ("job", "solo"), ("pod", n.as_str())]).collect();
    let many: Vec<Series<'_>> = labels.iter().map(|labels| (labels.as_slice(), 1.0)).collect();
    let taken = one.push(push(&message(&one, &many))).await.unwrap();
    assert_eq!(taken.samples, 2);
    let why = taken.refused.unwrap();
    assert!(
        why.contains("3 samples are of new series beyond the 2 that tenant `default`"),
        "{why}"
    );
    // Five samples were five seconds' worth.
    let again = one.push(push(&message(&one, &many[..1]))).await;
    assert!(matches!(again, Err(PushRefusal::Slow(_, 1))), "{again:?}");
    // What its sources fetch is paid for by the tenant too.
    let own = one.take_own("default", "prometheus", message(&one, &many[..1])).await;
    assert!(matches!(own, Err(PushRefusal::Slow(_, 1))), "{own:?}");
    tokio::time::advance(Duration::from_millis(1_100)).await;
    assert!(one.push(push(&message(&one, &many[..1]))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn other_manifests_are_heeded_at_once() {
    let (one, _) = two(&TenantSpec::default());
    let body = message(&one, &[(SOLO, 1.0)]);
    assert_eq!(one.push(push(&body)).await.unwrap().samples, 1);
    let key = ManifestKey {
        kind: ManifestKind::Service,
        tenant: "default".to_owned(),
        name: "solo".to_owned(),
    };
    one.ledger.state().write().unwrap().manifests.remove(&key);
    assert_eq!(one.push(push(&body)).await.unwrap().samples, 0);
    assert_eq!(one.series(), 0);
}
