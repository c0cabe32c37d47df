//! Nodes in this process, over real TCP on loopback.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use medic_raft::{
    Committed, Config, Consensus, Env, Ledger, LedgerError, LedgerExt, PlainConnector, StartError,
    trust_metadata,
};
use medic_state::{BootId, Command, Digest, Entry, NodeId, command::RegisterNode, rbac::Principal};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) raft: Arc<Consensus>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, |config| async {
            Consensus::start(config, Env::system(), connector()).await
        })
        .await
    }

    pub(crate) async fn start_with<F: Future<Output = Result<Arc<Consensus>, StartError>>>(
        config: Config,
        start: impl FnOnce(Config) -> F,
    ) -> Result<Self, StartError> {
        let listener = TcpListener::bind(&config.peer_addr).await.unwrap();
        let raft = start(config).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = raft.peer_routes(trust_metadata());
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_routes(routes)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                    drop(stopped.await);
                })
                .await
                .unwrap();
        });
        Ok(Self { raft, stop: Some(stop), server })
    }

    pub(crate) async fn stop(mut self) {
        self.server.abort();
        drop(self.stop.take());
        drop(self.server.await);
        self.raft.shutdown().await;
    }

    pub(crate) async fn register(&self, node: u64, addr: &str) -> Result<Committed, LedgerError> {
        self.raft.propose(registration(&self.raft, node, addr)).await
    }

    pub(crate) fn hash(&self) -> Digest {
        self.raft.read(medic_state::State::hash)
    }

    pub(crate) async fn applied(&self, index: u64) {
        let mut applied = self.raft.applied();
        timeout(PATIENCE, applied.wait_for(|now| *now >= index)).await.unwrap().unwrap();
    }

    pub(crate) async fn leader(&self) -> NodeId {
        let mut leadership = self.raft.leadership();
        let found = timeout(PATIENCE, leadership.wait_for(|now| now.leader.is_some()));
        found.await.unwrap().unwrap().leader.unwrap()
    }

    pub(crate) async fn leader_other_than(&self, not: NodeId) -> NodeId {
        let mut leadership = self.raft.leadership();
        let found =
            timeout(PATIENCE, leadership.wait_for(|now| now.leader.is_some_and(|l| l != not)));
        found.await.unwrap().unwrap().leader.unwrap()
    }
}

pub(crate) fn connector() -> Arc<PlainConnector> {
    Arc::new(PlainConnector::default())
}

/// An entry with which a node says who it is: it changes the state and is audited.
pub(crate) fn registration(raft: &Consensus, node: u64, addr: &str) -> Entry {
    let node = NodeId(node);
    let command = Command::RegisterNode(RegisterNode {
        node,
        region: "eu-1".to_owned(),
        api_addr: addr.to_owned(),
        boot: BootId(7),
        version: "0.1.0".to_owned(),
        understands: Some(medic_state::CLUSTER_VERSION),
        weight: None,
    });
    raft.entry_for(Principal::node(node), None, command)
}

pub(crate) async fn free_addr() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A cluster and its directories.
pub(crate) struct Cluster {
    pub(crate) members: BTreeMap<NodeId, String>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) snapshot_every: u64,
    dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start(size: u64) -> Self {
        let mut cluster = Self::empty(size).await;
        for node in 1..=size {
            cluster.up(NodeId(node)).await;
        }
        cluster
    }

    pub(crate) async fn empty(size: u64) -> Self {
        let mut members = BTreeMap::new();
        for node in 1..=size {
            members.insert(NodeId(node), free_addr().await);
        }
        let dir = tempfile::tempdir().unwrap();
        Self { members, nodes: BTreeMap::new(), snapshot_every: 5_000, dir }
    }

    pub(crate) fn dir(&self, node: NodeId) -> PathBuf {
        Path::new(self.dir.path()).join(node.to_string())
    }

    pub(crate) fn config(&self, node: NodeId) -> Config {
        let mut config = Config::new(node, "test", self.dir(node), self.members.clone());
        config.snapshot_every = self.snapshot_every;
        config
    }

    pub(crate) async fn up(&mut self, node: NodeId) {
        let started = Node::start(self.config(node)).await.unwrap();
        self.nodes.insert(node, started);
    }

    pub(crate) async fn down(&mut self, node: NodeId) {
        self.nodes.remove(&node).unwrap().stop().await;
    }

    pub(crate) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[&node]
    }

    pub(crate) async fn leader(&self) -> NodeId {
        self.nodes.values().next().unwrap().leader().await
    }

    pub(crate) fn followers(&self, leader: NodeId) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|node| *node != leader).collect()
    }

    pub(crate) async fn all_applied(&self, index: u64) {
        for node in self.nodes.values() {
            node.applied(index).await;
        }
        let hashes: Vec<_> = self.nodes.values().map(Node::hash).collect();
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "states differ: {hashes:?}");
    }

    pub(crate) async fn stop(mut self) {
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.stop().await;
        }
    }
}
