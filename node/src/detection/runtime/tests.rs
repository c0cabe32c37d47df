//! The watch over the real law, with a real (small) service on loopback.

#![allow(clippy::unwrap_used)]

mod beside;
mod closer;
mod handing;
mod observers;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use medic_raft::{LocalLedger, env::Env};
use medic_state::{
    BootId, Entry, NodeId, TraceId,
    command::{ApplyManifest, AssignShards, RegisterNode},
    incident::Incident,
    manifest::{Kind as ManifestKind, Manifest, ManifestKey, ProbeKind},
    rbac::Principal,
    state::SHARDS,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    detection::{probe::Outcome, scrape::ScrapeError},
    world::Seen,
};

/// Within this everything must have happened; a busy machine gets some slack in `until`.
const FIVE_SECONDS: Duration = Duration::from_secs(5);
const ME: NodeId = NodeId(9);
const OTHER: NodeId = NodeId(1);

struct NoAgents;

impl FleetView for NoAgents {
    fn seen(&self, _: &Target) -> Option<Seen> {
        None
    }

    fn connected(&self, _: &str) -> bool {
        false
    }
}

/// A service that can be killed and started again.
struct Service {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Service {
    async fn start(address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nmem 5\n";
                if stream.read(&mut request).await.is_ok() {
                    stream.write_all(answer).await.unwrap_or_default();
                }
            }
        });
        Self { address, accepting }
    }

    async fn kill(self) -> SocketAddr {
        self.accepting.abort();
        assert!(self.accepting.await.unwrap_err().is_cancelled());
        self.address
    }
}

struct Lab {
    law: Arc<LocalLedger>,
    stop: CancellationToken,
}

impl Lab {
    async fn new() -> Self {
        let law = LocalLedger::new(ME, BootId(1), Env::system());
        let lab = Self { law, stop: CancellationToken::new() };
        for node in [ME, OTHER] {
            let register = RegisterNode {
                node,
                region: String::new(),
                api_addr: "127.0.0.1:1".to_owned(),
                boot: BootId(node.0),
                version: "test".to_owned(),
                understands: Some(medic_state::CLUSTER_VERSION),
                weight: None,
            };
            let entry = Entry {
                principal: Principal::node(node),
                ..lab.law.entry(TraceId::default(), Command::RegisterNode(register))
            };
            lab.must(entry).await;
        }
        lab.assign(ME).await;
        lab.declare(
            Principal::node(ME),
            serde_json::json!({"name": "admins", "tenant": "*"}),
            serde_json::json!({"kind": "RoleBinding",
                "spec": {"role": "admin", "subjects": [{"user": "root"}]}}),
        )
        .await;
        lab
    }

    async fn must(&self, entry: Entry) {
        let name = entry.command.name();
        if let Err(refusal) = self.law.propose(entry).await.unwrap().answer {
            panic!("{name} was refused: {refusal}");
        }
    }

    async fn assign(&self, node: NodeId) {
        let moves = (0..SHARDS).map(|shard| (ShardId(shard), node)).collect();
        let assign = Command::AssignShards(AssignShards { moves });
        self.must(self.law.entry(TraceId::default(), assign)).await;
    }

    async fn declare(&self, by: Principal, metadata: serde_json::Value, spec: serde_json::Value) {
        let metadata = serde_json::from_value(metadata).unwrap();
        let manifest = Manifest { metadata, spec: serde_json::from_value(spec).unwrap() };
        let apply = Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: None }));
        self.must(self.law.entry_for(by, None, apply)).await;
    }

    async fn declare_web(&self, port: u16) {
        self.declare(
            Principal::user("root"),
            serde_json::json!({"name": "web"}),
            serde_json::json!({"kind": "Service", "spec": {
                "instances": [{"name": "web-1", "port": port}],
                "probes": [{"name": "http", "http": "http://${host}:${port}/",
                            "interval": "500ms", "timeout": "500ms"}],
                "scrape": {"url": "http://${host}:${port}/metrics", "interval": "500ms"},
                "indicators": [{"name": "memory", "source": {"gauge": "mem"}, "limit": "64MiB"}],
            }}),
        )
        .await;
    }

    fn watch(&self, senses: Arc<dyn Senses>) -> Runtime {
        let timings = Timings {
            scrape: Millis(500),
            process: Millis(200),
            lead: Millis::from_secs(600),
            opens: Opens::default(),
            horizons: Horizons::default(),
        };
        Runtime::spawn_with(self.law.clone(), senses, timings, self.stop.clone())
    }

    /// Waits until some incident is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Incident) -> bool) -> Incident {
        let mut applied = self.law.applied();
        let found = async {
            loop {
                applied.borrow_and_update();
                let hit = self.law.read(|s| s.incidents.values().find(|i| wanted(i)).cloned());
                if let Some(incident) = hit {
                    return incident;
                }
                applied.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(4 * FIVE_SECONDS, found).await;
        found.unwrap_or_else(|_| panic!("{what}: {:#?}", self.law.read(|s| s.incidents.clone())))
    }
}

fn down_and(cleared: bool) -> impl Fn(&Incident) -> bool {
    move |incident| {
        let mut symptoms = incident.symptoms.values();
        symptoms.any(|s| s.symptom.kind == "down" && s.cleared_at.is_some() == cleared)
    }
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn a_killed_service_is_reported_and_cleared_when_it_is_back() {
    let lab = Lab::new().await;
    let service = Service::start(ANY).await;
    lab.declare_web(service.address.port()).await;
    let runtime = lab.watch(NetSenses::new(Arc::new(NoAgents)));
    let address = service.kill().await;
    let killed = Instant::now();
    let incident = lab.until("it is down", down_and(false)).await;
    assert!(killed.elapsed() <= FIVE_SECONDS, "after {:?}", killed.elapsed());
    let symptom = &incident.symptoms.values().next().unwrap().symptom;
    assert_eq!(symptom.target.instance, "web-1");
    assert_eq!(symptom.labels["process"], "unknown");
    assert!(symptom.summary.contains("connection refused"), "{}", symptom.summary);
    let _service = Service::start(address).await;
    lab.until("it is back", down_and(true)).await;
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}

#[tokio::test]
async fn a_shard_that_moves_takes_its_watch_along_and_its_next_owner_clears() {
    let lab = Lab::new().await;
    let service = Service::start(ANY).await;
    lab.declare_web(service.address.port()).await;
    let runtime = lab.watch(NetSenses::new(Arc::new(NoAgents)));
    let address = service.kill().await;
    lab.until("it is down", down_and(false)).await;
    lab.assign(OTHER).await;
    let watched = || lock(&runtime.shared.entities).len();
    let quiet = async {
        while watched() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FIVE_SECONDS, quiet).await.unwrap();
    let _service = Service::start(address).await;
    lab.assign(ME).await;
    lab.until("the new owner clears", down_and(true)).await;
    assert_eq!(watched(), 1);
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}

#[tokio::test]
async fn what_is_declared_no_longer_is_cleared() {
    let lab = Lab::new().await;
    let service = Service::start(ANY).await;
    lab.declare_web(service.address.port()).await;
    let runtime = lab.watch(NetSenses::new(Arc::new(NoAgents)));
    service.kill().await;
    lab.until("it is down", down_and(false)).await;
    let key = ManifestKey {
        kind: ManifestKind::Service,
        tenant: "default".to_owned(),
        name: "web".to_owned(),
    };
    let delete = Command::DeleteManifest(key);
    lab.must(lab.law.entry_for(Principal::user("root"), None, delete)).await;
    lab.until("nobody else would clear it", |incident| {
        incident.closed() || down_and(true)(incident)
    })
    .await;
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}

/// Panics over the first looks, then refuses.
struct Panics(AtomicU32);

#[async_trait]
impl Senses for Panics {
    async fn probe(&self, _: &Target, _: &ProbeKind, _: Duration) -> Outcome {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "a bug, for the test");
        Outcome::Bad(crate::detection::probe::Failure::Refused)
    }

    async fn scrape(&self, _: &str, timeout: Duration) -> Result<String, ScrapeError> {
        Err(ScrapeError::Timeout(timeout))
    }

    fn seen(&self, _: &Target) -> Option<Seen> {
        None
    }

    fn connected(&self, _: &str) -> bool {
        false
    }
}

/// Of a node that watches nothing.
pub(super) fn shared() -> Shared {
    Shared::new(Arc::new(Panics(AtomicU32::new(1))), lord::LEVEL)
}

#[tokio::test]
async fn a_task_that_panics_is_started_again() {
    let lab = Lab::new().await;
    lab.declare_web(1).await;
    let runtime = lab.watch(Arc::new(Panics(AtomicU32::new(0))));
    lab.until("it is down", down_and(false)).await;
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}

#[tokio::test]
async fn checkpoints_are_bytes_that_another_node_takes() {
    let lab = Lab::new().await;
    lab.declare_web(1).await;
    let runtime = lab.watch(Arc::new(Panics(AtomicU32::new(1))));
    lab.until("it is watched", down_and(false)).await;
    let target = Target {
        tenant: "default".to_owned(),
        service: "web".to_owned(),
        instance: "web-1".to_owned(),
    };
    let shard = State::shard_of(&target);
    let bytes = runtime.learnt().checkpoints(shard, 1 << 20).remove(0);
    assert!(runtime.learnt().checkpoints(ShardId(shard.0 ^ 1), 1 << 20).is_empty());
    let other = Lab::new().await;
    let cold = other.watch(Arc::new(Panics(AtomicU32::new(1))));
    assert_eq!(cold.learnt().restore(&bytes).unwrap().taken, 1);
    assert_eq!(lock(&cold.shared.restored).len(), 1);
    assert_eq!(runtime.learnt().restore(&bytes).unwrap().stale, 1, "nobody knows better");
    assert!(cold.learnt().restore(b"nonsense").is_err());
    for (lab, runtime) in [(lab, runtime), (other, cold)] {
        lab.stop.cancel();
        runtime.ended().await.unwrap();
    }
}
