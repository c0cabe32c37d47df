//! Peers that are not what they seem.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use medic_proto::peer::v1::{self as pb, peer_client::PeerClient};
use medic_raft::{
    Clock, Config, Consensus, Courier, Env, Ledger, LedgerError, LedgerExt, MAX_ENTRY_BYTES,
    MAX_PARCEL_BYTES, Parcel, ParcelKind, env::SystemClock,
};
use medic_state::{Millis, NodeId, Timestamp};
use tonic::{Code, Request, Status, transport::Endpoint};

use crate::harness::{Cluster, Node, PATIENCE, connector, free_addr, registration};

struct Call<'a> {
    cluster: &'a str,
    from: u64,
    to: u64,
    boot: u64,
}

impl Call<'_> {
    async fn ask_vote(&self, addr: &str, term: u64) -> Result<pb::VoteResponse, Status> {
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy();
        let vote = pb::Vote { term, node: self.from, committed: false };
        let mut request =
            Request::new(pb::VoteRequest { vote: Some(vote), ..pb::VoteRequest::default() });
        let metadata = request.metadata_mut();
        metadata.insert("medic-cluster", self.cluster.parse().unwrap());
        for (key, value) in
            [("medic-from", self.from), ("medic-to", self.to), ("medic-boot", self.boot)]
        {
            metadata.insert(key, value.into());
        }
        PeerClient::new(channel).vote(request).await.map(tonic::Response::into_inner)
    }

    async fn forward(&self, addr: &str, entry: Vec<u8>) -> Result<pb::ForwardResponse, Status> {
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy();
        let mut request = Request::new(pb::ForwardRequest { entry: entry.into() });
        let metadata = request.metadata_mut();
        metadata.insert("medic-cluster", self.cluster.parse().unwrap());
        for (key, value) in
            [("medic-from", self.from), ("medic-to", self.to), ("medic-boot", self.boot)]
        {
            metadata.insert(key, value.into());
        }
        PeerClient::new(channel).forward(request).await.map(tonic::Response::into_inner)
    }
}

/// A clock that is wrong by this many milliseconds.
struct Wrong(Arc<AtomicU64>);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(Millis(self.0.load(Ordering::SeqCst)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_member_forwards_nothing() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let before = cluster.node(leader).register(10, "a:1").await.unwrap().index;
    let entry = registration(&cluster.node(leader).raft, 11, "a:1");
    let bytes = medic_state::codec::encode(&entry);
    let call = Call { cluster: "test", from: 2, to: 1, boot: 5 };
    let status = call.forward(&cluster.members[&leader], bytes).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("node-2 is not a member"), "{status}");
    assert_eq!(cluster.node(leader).raft.linearize().await.unwrap(), before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parcels_reach_the_inbox_that_is_open_and_members_only() {
    let cluster = Cluster::start(3).await;
    let from = cluster.leader().await;
    let to = cluster.followers(from)[0];
    // Whoever has heard from the leader knows who the members are.
    let heard = cluster.node(from).register(10, "a:1").await.unwrap().index;
    cluster.all_applied(heard).await;
    let courier = &cluster.node(from).raft;
    let body = bytes::Bytes::from_static(b"what was learnt");
    let kind = ParcelKind::DetectorState;
    let closed = courier.pass(to, kind, body.clone()).await.unwrap_err();
    assert!(closed.to_string().contains("nobody takes"), "{closed}");
    let mut inbox = cluster.node(to).raft.open_inbox(kind);
    courier.pass(to, kind, body.clone()).await.unwrap();
    assert_eq!(inbox.recv().await, Some(Parcel { from, body: body.clone() }));
    // Nobody opens them: the sender is told, and memory stays bounded.
    let mut passed = 0;
    let full = loop {
        match courier.pass(to, kind, body.clone()).await {
            Ok(()) => passed += 1,
            Err(error) => break error.to_string(),
        }
        assert!(passed < 1_000);
    };
    assert!(full.contains("wait already"), "{full}");
    let stranger = courier.pass(NodeId(99), kind, body).await.unwrap_err();
    assert!(stranger.to_string().contains("not a member"), "{stranger}");
    let large = vec![0; MAX_PARCEL_BYTES + 1].into();
    assert!(matches!(courier.pass(to, kind, large).await, Err(LedgerError::TooLarge(_))));
    cluster.stop().await;
}

const DAY: u64 = 86_400_000;

/// Three nodes, and by how much the clock of each is wrong.
async fn with_wrong_clocks() -> (Cluster, BTreeMap<NodeId, Arc<AtomicU64>>) {
    let mut cluster = Cluster::empty(3).await;
    let mut wrong = BTreeMap::new();
    for node in cluster.members.keys().copied().collect::<Vec<_>>() {
        let by = Arc::new(AtomicU64::new(0));
        wrong.insert(node, by.clone());
        let started = Node::start_with(cluster.config(node), |config| async {
            let env = Env { clock: Arc::new(Wrong(by)), ..Env::system() };
            Consensus::start(config, env, connector()).await
        });
        cluster.nodes.insert(node, started.await.unwrap());
    }
    (cluster, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_wrong_clock_moves_nobodys_time() {
    let (cluster, wrong) = with_wrong_clocks().await;
    let leader = cluster.leader().await;
    let follower = cluster.followers(leader)[0];
    wrong[&follower].store(DAY, Ordering::SeqCst);
    let committed = cluster.node(follower).register(10, "a:1").await.unwrap();
    cluster.all_applied(committed.index).await;
    let now = cluster.node(follower).raft.read(|state| state.now);
    assert!(now < SystemClock.now().plus(Millis(DAY / 2)), "time is a day ahead");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaders_clock_that_was_ahead_stops_time_for_nobody() {
    let (cluster, wrong) = with_wrong_clocks().await;
    let leader = cluster.leader().await;
    wrong[&leader].store(DAY, Ordering::SeqCst);
    cluster.node(leader).register(10, "a:1").await.unwrap();
    wrong[&leader].store(0, Ordering::SeqCst);
    let time = || cluster.node(leader).raft.read(|state| state.now);
    let ahead = time();
    assert!(ahead > SystemClock.now().plus(Millis(DAY / 2)));
    // Whoever proposes, what the leader commits carries the law's time on.
    for proposer in [cluster.followers(leader)[0], leader] {
        let (before, since) = (time(), Instant::now());
        let mut tries = 0_u64;
        while time() == before {
            assert!(since.elapsed() < PATIENCE, "time stands still after {tries} entries");
            tries += 1;
            cluster.node(proposer).register(10 + tries, "a:1").await.unwrap();
        }
    }
    assert!(time() > ahead && time() < ahead.plus(Millis(DAY / 2)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_a_reason() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let addr = &cluster.members[&leader];
    let good = || Call { cluster: "test", from: 2, to: 1, boot: 5 };
    assert!(good().ask_vote(addr, 0).await.is_ok());

    let status = Call { cluster: "prod", ..good() }.ask_vote(addr, 99).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("belongs to cluster `prod`"), "{status}");
    let status = Call { to: 3, ..good() }.ask_vote(addr, 99).await.unwrap_err();
    assert!(status.message().contains("wants to reach node-3, but this is node-1"), "{status}");
    let status = Call { from: 1, ..good() }.ask_vote(addr, 99).await.unwrap_err();
    assert!(status.message().contains("a second process runs as node-1"), "{status}");
    // It restarts, and then the one before it speaks again: there are two of them.
    assert!(Call { boot: 6, ..good() }.ask_vote(addr, 0).await.is_ok());
    let status = good().ask_vote(addr, 99).await.unwrap_err();
    assert!(status.message().contains("two processes run as node-2"), "{status}");
    assert_eq!(cluster.node(leader).leader().await, leader);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_changes_nothing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let committed = cluster.node(leader).register(10, "a:1").await.unwrap();
    let addr = free_addr().await;
    let mut members: BTreeMap<NodeId, String> = cluster.members.clone();
    members.insert(NodeId(4), addr.clone());
    let mut config = Config::new(NodeId(4), "another", cluster.dir(NodeId(4)), members);
    config.timing.propose_deadline = Duration::from_secs(3);
    let stranger = Node::start(config).await.unwrap();
    let entry = registration(&stranger.raft, 11, "a:1");
    let error = stranger.raft.propose(entry).await.unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
    stranger.stop().await;
    cluster.all_applied(committed.index).await;
    assert_eq!(cluster.node(leader).leader().await, leader);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_have_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let members = BTreeMap::from([(NodeId(1), free_addr().await)]);
    let config = Config::new(NodeId(1), "test", dir.path(), members);
    let raft = Consensus::start(config, Env::system(), connector()).await.unwrap();
    crate::start::leads(&raft).await;
    let large = "a".repeat(MAX_ENTRY_BYTES);
    let entry = registration(&raft, 10, &large);
    let error = raft.propose(entry.clone()).await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    assert!(matches!(raft.propose_as_leader(entry).await, Err(LedgerError::TooLarge(_))));
    // A single node is its own quorum, and keeps its lease.
    raft.linearize().await.unwrap();
    assert!(raft.lease_remaining() > Duration::ZERO);
    raft.shutdown().await;
}
