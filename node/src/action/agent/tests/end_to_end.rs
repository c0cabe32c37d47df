//! An agent and hubs, over plain TCP on loopback, with the real law.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use medic_api::fleet::{FleetError, FleetHub};
use medic_proto::fleet::v1::{agent_message, fleet_client::FleetClient, node_message};
use medic_raft::{Ledger, LedgerExt as _, LocalLedger};
use medic_state::{
    BootId, Command, Millis, NodeId,
    command::ApplyManifest,
    manifest::{
        ConfigFile, InstanceSpec, Manifest, Metadata, ProcessSpec, RoleBindingSpec, ServiceSpec,
        Spec, StopSpec, Subject,
    },
    rbac::Principal,
    symptom::Target,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::*;
use crate::action::agent::{Options, serve};

const AGENT: &str = "host-1";
const CLUSTER: &str = "lab";

/// One node: the law, a hub, a door that takes everybody for the agent.
struct Node {
    ledger: Arc<LocalLedger>,
    hub: Arc<FleetHub>,
    address: SocketAddr,
    door: JoinHandle<()>,
    /// How often somebody has dialled.
    dialled: Arc<AtomicUsize>,
}

impl Node {
    async fn start(node: u64) -> Self {
        Self::start_for(node, Principal::agent(AGENT)).await
    }

    async fn start_for(node: u64, speaker: Principal) -> Self {
        let id = NodeId(node);
        let ledger = LocalLedger::new(id, BootId(1), Env::system());
        let made = Self::over(id, ledger, speaker).await;
        let binding = RoleBindingSpec {
            role: "admin".to_owned(),
            subjects: vec![Subject::User("root".to_owned())],
        };
        let by = Principal::node(id);
        made.apply(by, "*", "root", Spec::RoleBinding(binding)).await;
        made
    }

    /// A hub that has just begun, over what is in this ledger.
    async fn over(id: NodeId, ledger: Arc<LocalLedger>, speaker: Principal) -> Self {
        let dialled = Arc::new(AtomicUsize::new(0));
        let counted = dialled.clone();
        let hub = FleetHub::with_identify(id, CLUSTER.to_owned(), ledger.clone(), move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(speaker.clone())
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = hub.service();
        let door = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            served.await.unwrap();
        });
        Self { ledger, hub, address, door, dialled }
    }

    async fn apply(&self, by: Principal, tenant: &str, name: &str, spec: Spec) {
        let metadata =
            Metadata { name: name.to_owned(), tenant: tenant.to_owned(), labels: BTreeMap::new() };
        let manifest = Manifest { metadata, spec };
        let command = Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: None }));
        let entry = self.ledger.entry_for(by, None, command);
        self.ledger.propose(entry).await.unwrap().answer.unwrap();
    }

    /// Declares `web/a`, run by the agent, with a configuration file.
    async fn declare(&self, dir: &Path) {
        let path = |name: &str| dir.join(name).display().to_string();
        let process = ProcessSpec {
            command: "/bin/sh".to_owned(),
            args: vec![
                "-c".to_owned(),
                format!("echo ${{port}} ${{config}} >> {}; exec sleep 600", path("starts")),
            ],
            env: BTreeMap::new(),
            working_dir: None,
            stop: StopSpec { signal: "SIGTERM".to_owned(), timeout: Millis::from_secs(2) },
            config: Some(ConfigFile {
                path: path("${service}-${instance}.conf"),
                content: Some("port ${port}".to_owned()),
            }),
            reload_signal: None,
        };
        let instance = InstanceSpec {
            name: "a".to_owned(),
            agent: Some(AGENT.to_owned()),
            host: "127.0.0.1".to_owned(),
            port: Some(8099),
            region: None,
            standby: false,
            quorum_member: false,
        };
        let service = ServiceSpec {
            criticality: medic_state::manifest::Criticality::Low,
            compliance: Vec::new(),
            depends_on: Vec::new(),
            process: Some(process),
            instances: vec![instance],
            probes: Vec::new(),
            scrape: None,
            indicators: Vec::new(),
            slo: None,
        };
        self.apply(Principal::user("root"), "default", "web", Spec::Service(service)).await;
    }

    /// Waits until what this node was told satisfies `good`.
    async fn sees(&self, good: impl Fn(&InstanceStatus) -> bool) -> InstanceStatus {
        until(|| self.hub.status(&target()).map(|(status, _)| status).filter(&good)).await
    }

    async fn raw_agent(&self, name: &str) -> Result<RawAgent, Status> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = FleetClient::new(channel.connect().await.unwrap());
        let (up, queued) = mpsc::channel(16);
        let hello = wire::Hello { agent: name.to_owned(), ..wire::Hello::default() };
        let first = wire::AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) };
        up.send(first).await.unwrap();
        let mut down = client.connect(ReceiverStream::new(queued)).await?.into_inner();
        let welcome = down.message().await?.unwrap().kind.unwrap();
        assert!(matches!(welcome, node_message::Kind::Welcome(w) if w.cluster_id == CLUSTER));
        Ok(RawAgent { up, down })
    }
}

/// An agent's side of the wire, spoken by hand.
struct RawAgent {
    up: mpsc::Sender<wire::AgentMessage>,
    down: Streaming<wire::NodeMessage>,
}

impl RawAgent {
    async fn say(&self, kind: agent_message::Kind) {
        self.up.send(wire::AgentMessage { kind: Some(kind) }).await.unwrap();
    }

    async fn next_order(&mut self) -> wire::Order {
        loop {
            let message = self.down.message().await.unwrap().unwrap();
            if let Some(node_message::Kind::Order(order)) = message.kind {
                return order;
            }
        }
    }
}

#[tokio::test]
async fn an_agent_is_told_what_is_declared_as_of_the_index_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(1).await;
    node.declare(dir.path()).await;
    // This hub has seen no entry go by: what is declared was there before it.
    let other = Node::over(NodeId(1), node.ledger.clone(), Principal::agent(AGENT)).await;
    let mut agent = other.raw_agent(AGENT).await.unwrap();
    let Some(node_message::Kind::Declaration(told)) =
        agent.down.message().await.unwrap().unwrap().kind
    else {
        panic!("the first word after the welcome is a declaration");
    };
    let applied = node.ledger.read(|state| state.applied);
    assert_eq!((told.index, told.instances.len()), (applied, 1));
}

fn target() -> Target {
    Target { tenant: "default".to_owned(), service: "web".to_owned(), instance: "a".to_owned() }
}

/// Polls, since hubs tell nobody what they have received.
async fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let looked = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked).await.unwrap()
}

struct Agent(JoinHandle<anyhow::Result<()>>, mpsc::Sender<()>);

impl Agent {
    fn start(dir: &Path, nodes: &[&Node]) -> Self {
        let options = Options {
            name: AGENT.to_owned(),
            region: "eu".to_owned(),
            cluster: CLUSTER.to_owned(),
            nodes: nodes.iter().map(|node| node.address.to_string()).collect(),
            state_dir: dir.join("state"),
            tls: None,
        };
        let (stop, mut stopped) = mpsc::channel(1);
        let running = serve(options, Env::system(), async move {
            stopped.recv().await;
        });
        Self(tokio::spawn(running), stop)
    }

    async fn stop(self) {
        drop(self.1);
        self.0.await.unwrap().unwrap();
    }
}

/// Stops the service that an ended agent left running.
fn clean_up(dir: &Path) {
    let supervisor = Supervisor::open(&dir.join("state"), Env::system()).unwrap();
    let gone = wire::Declaration { index: u64::MAX, instances: Vec::new() };
    supervisor.declare(gone).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_sees_the_fleet_and_the_newest_fence_orders() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.declare(dir.path()).await;
    two.declare(dir.path()).await;
    let agent = Agent::start(dir.path(), &[&one, &two]);
    let running = |status: &InstanceStatus| status.state() == ProcessState::Running;
    let first = one.sees(running).await;
    assert_eq!(two.sees(running).await.pid, first.pid);
    assert_eq!(first.config_hash, hash("port 8099"));
    let starts = fs::read_to_string(dir.path().join("starts")).unwrap();
    assert_eq!(starts, format!("8099 {}\n", dir.path().join("web-a.conf").display()));

    // The new leader asks first; then the deposed one's order comes to nothing.
    let asked = two.hub.query(AGENT, "PLAN-1/0/do", 6).await.unwrap();
    assert_eq!(asked, query_answer::Kind::NeverBegun(true));
    let restart = |fence| order("PLAN-1/0/do", fence, 1, "process.restart", &[]);
    let refused = one.hub.order(AGENT, restart(5)).await.unwrap().kind.unwrap();
    assert!(matches!(refused, Kind::RefusedFence(wire::RefusedFence { highest: 6 })));
    let (_, already) = done(two.hub.order(AGENT, restart(6)).await.unwrap().kind.unwrap());
    assert!(!already);
    let restarted = one.sees(|status| running(status) && status.pid != first.pid).await;
    assert_eq!(restarted.restarts, 1);

    // A change is reported at once, not at the next interval.
    signal(restarted.pid, Signal::SIGSTOP);
    two.sees(|status| status.state() == ProcessState::Paused).await;
    agent.stop().await;
    until(|| (!one.hub.connected(AGENT)).then_some(())).await;
    let late = one.hub.order(AGENT, restart(7)).await.unwrap_err();
    assert_eq!(late, FleetError::NotConnected);
    clean_up(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_tells_the_law_who_is_connected_and_says_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(1).await;
    let agent = Agent::start(dir.path(), &[&node]);
    let known = || node.ledger.read(|state| state.agents.get(AGENT).cloned());
    let marked = until(|| known().filter(|agent| agent.node == Some(NodeId(1)))).await;
    assert_eq!((marked.region.as_str(), marked.version.is_empty()), ("eu", false));
    let applied = *node.ledger.applied().borrow();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(*node.ledger.applied().borrow(), applied, "nothing more to say");
    agent.stop().await;
    until(|| known().filter(|agent| agent.node.is_none())).await;
    assert_eq!(*node.ledger.applied().borrow(), applied + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(1).await;
    node.declare(dir.path()).await;
    let options = Options {
        name: AGENT.to_owned(),
        region: String::new(),
        cluster: "another".to_owned(),
        nodes: vec![node.address.to_string()],
        state_dir: dir.path().join("state"),
        tls: None,
    };
    // It dials again because it left: whatever the node told it the first time, it did not obey.
    let stop = until(|| (node.dialled.load(Ordering::SeqCst) >= 2).then_some(()));
    serve(options, Env::system(), stop).await.unwrap();
    assert!(!dir.path().join("starts").exists());
    assert!(node.hub.status(&target()).is_none());
}

#[tokio::test]
async fn only_agents_get_in_and_only_under_their_own_name() {
    let node = Node::start(1).await;
    let refused = node.raw_agent("host-2").await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("`host-1`"), "{refused}");
    for speaker in [Principal::user(AGENT), Principal::node(NodeId(2))] {
        let node = Node::start_for(1, speaker).await;
        let refused = node.raw_agent(AGENT).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older_one() {
    let node = Node::start(1).await;
    let mut first = node.raw_agent(AGENT).await.unwrap();
    let mut second = node.raw_agent(AGENT).await.unwrap();
    let ended = loop {
        match first.down.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Aborted);
    assert!(node.hub.connected(AGENT));
    let hub = Arc::clone(&node.hub);
    let asked =
        tokio::spawn(
            async move { hub.order(AGENT, order("k", 1, 1, "process.restart", &[])).await },
        );
    assert_eq!(second.next_order().await.key, "k");
    asked.abort();
}

#[tokio::test]
async fn a_silent_agent_is_gone_within_three_intervals() {
    let node = Node::start(1).await;
    let _silent = node.raw_agent(AGENT).await.unwrap();
    assert!(node.hub.connected(AGENT));
    let began = Instant::now();
    until(|| (!node.hub.connected(AGENT)).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_order_outlives_a_lost_connection_under_the_same_key() {
    let node = Node::start(1).await;
    let mut first = node.raw_agent(AGENT).await.unwrap();
    let hub = Arc::clone(&node.hub);
    let sent = order("k", 4, 2, "process.restart", &[]);
    let asked = tokio::spawn({
        let sent = sent.clone();
        async move { hub.order(AGENT, sent).await }
    });
    assert_eq!(first.next_order().await, sent);
    drop(first);
    let mut second = node.raw_agent(AGENT).await.unwrap();
    assert_eq!(second.next_order().await, sent);
    let result = wire::Result { kind: Some(Kind::Done(wire::Done::default())) };
    let outcome = |attempt| {
        agent_message::Kind::Outcome(wire::OrderOutcome {
            key: "k".to_owned(),
            fence: 4,
            attempt,
            result: Some(result.clone()),
        })
    };
    // An outcome of another attempt is not this one's.
    second.say(outcome(1)).await;
    second.say(outcome(2)).await;
    assert_eq!(asked.await.unwrap().unwrap(), result);
    assert_eq!(node.hub.late_outcome(AGENT, "k").unwrap().attempt, 1);
}

#[tokio::test]
async fn an_agent_speaks_only_of_its_own_instances() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(1).await;
    node.declare(dir.path()).await;
    let mut agent = node.raw_agent(AGENT).await.unwrap();
    // Once it has been told what it runs, the hub knows too.
    while !matches!(
        agent.down.message().await.unwrap().unwrap().kind,
        Some(node_message::Kind::Declaration(d)) if d.instances.len() == 1
    ) {}
    let status = |instance: &str| InstanceStatus {
        key: Some(wire::InstanceKey {
            tenant: "default".to_owned(),
            service: "web".to_owned(),
            instance: instance.to_owned(),
        }),
        ..InstanceStatus::default()
    };
    let instances = vec![status("someone-elses"), status("a"), InstanceStatus::default()];
    agent
        .say(agent_message::Kind::Report(wire::Report { at_unix_ms: 1, instances, host: None }))
        .await;
    node.sees(|_| true).await;
    let other = Target { instance: "someone-elses".to_owned(), ..target() };
    assert!(node.hub.status(&other).is_none());
    let said = |key: &str, reason: String| {
        let failed = wire::Failed { reason, retryable: false };
        agent_message::Kind::Outcome(wire::OrderOutcome {
            key: key.to_owned(),
            fence: 1,
            attempt: 1,
            result: Some(wire::Result { kind: Some(Kind::Failed(failed)) }),
        })
    };
    agent.say(said("huge", "x".repeat(1 << 20))).await;
    agent.say(said("k", "forged".to_owned())).await;
    until(|| node.hub.late_outcome(AGENT, "k")).await;
    assert_eq!(node.hub.late_outcome("host-2", "k"), None, "another's order is not its to end");
    assert_eq!(node.hub.late_outcome(AGENT, "huge"), None, "what agents say is bounded in memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_tells_how_its_host_does_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(1).await;
    assert!(node.hub.host(AGENT).is_none());
    let agent = Agent::start(dir.path(), &[&node]);
    let (first, age) = until(|| node.hub.host(AGENT)).await;
    assert!(age < Duration::from_secs(5));
    assert!(first.samples.iter().any(|sample| sample.name == "medic_host_memory_used_ratio"));
    agent.stop().await;
    until(|| node.hub.host(AGENT).is_none().then_some(())).await;

    let agent = node.raw_agent(AGENT).await.unwrap();
    let told = |samples: usize, read_unix_ms| {
        let sample = wire::HostSample { name: "node_load1".to_owned(), ..Default::default() };
        let host =
            wire::HostStatus { read_unix_ms, samples: vec![sample; samples], ..Default::default() };
        agent_message::Kind::Report(wire::Report { host: Some(host), ..Default::default() })
    };
    agent.say(told(1, 1)).await;
    agent.say(told(2_000, 2)).await;
    agent.say(told(2, 3)).await;
    let (host, _) = until(|| node.hub.host(AGENT).filter(|(host, _)| host.read_unix_ms > 1)).await;
    assert_eq!((host.read_unix_ms, host.samples.len()), (3, 2), "too much is not kept");
    clean_up(dir.path());
}

impl Drop for Node {
    fn drop(&mut self) {
        self.door.abort();
    }
}

#[tokio::test]
async fn a_panic_in_what_the_hub_does_by_itself_is_told() {
    let law = LocalLedger::new(NodeId(1), BootId(1), Env::system());
    let peer = crate::action::fixture::Peer::new(&law, 1);
    let hub = FleetHub::new(NodeId(1), CLUSTER.to_owned(), peer.clone());
    let watched = tokio::spawn(FleetHub::watch_over(hub.clone()));
    peer.break_down();
    let told = tokio::time::timeout(Duration::from_secs(10), watched).await.expect("it is told");
    assert!(told.unwrap().unwrap_err().is_panic());

    // A hub that nobody needs any more ends in peace.
    let hub = FleetHub::new(NodeId(1), CLUSTER.to_owned(), law.clone());
    let watched = tokio::spawn(FleetHub::watch_over(hub));
    law.propose(law.entry(medic_state::TraceId::default(), Command::Tick)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), watched).await.expect("it ends");
    ended.unwrap().unwrap();
}
