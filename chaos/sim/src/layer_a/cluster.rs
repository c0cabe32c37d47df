//! The cluster as whoever breaks it, or works with it, has it in hand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use medic_raft::LedgerExt as _;
use medic_state::{NodeId, manifest::Manifest};
use tokio::time::Instant;

use super::{consensus::Consensus, ledger::SimLedger, node::Node};
use crate::{
    clock::SkewedClock,
    faults::Who,
    history::{What, lock},
    world::Fleet,
};

/// All nodes, their consensus, the world.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    nodes: Arc<Mutex<BTreeMap<NodeId, Node>>>,
    pub(super) consensus: Arc<Consensus>,
    pub(super) fleet: Arc<Fleet>,
}

impl Cluster {
    pub(super) fn new(size: u64, seed: u64, consensus: Arc<Consensus>, fleet: Arc<Fleet>) -> Self {
        let begun = Instant::now();
        let nodes = (1..=size).map(NodeId).map(|id| (id, Node::new(id, seed, begun)));
        let cluster = Self { nodes: Arc::new(Mutex::new(nodes.collect())), consensus, fleet };
        cluster.ids().into_iter().for_each(|id| cluster.start(id));
        cluster
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        lock(&self.nodes).keys().copied().collect()
    }

    pub(super) fn ledgers(&self) -> Vec<Arc<SimLedger>> {
        lock(&self.nodes).values().filter_map(Node::ledger).collect()
    }

    pub(super) fn ledger(&self, node: NodeId) -> Option<Arc<SimLedger>> {
        lock(&self.nodes).get(&node).and_then(Node::ledger)
    }

    pub(super) fn clock(&self, node: NodeId) -> Option<Arc<SkewedClock>> {
        lock(&self.nodes).get(&node).map(|node| node.clock.clone())
    }

    pub(super) fn start(&self, node: NodeId) {
        if let Some(node) = lock(&self.nodes).get_mut(&node) {
            node.start(&self.consensus, &self.fleet);
        }
    }

    pub(super) fn kill(&self, node: NodeId) {
        if let Some(node) = lock(&self.nodes).get_mut(&node) {
            node.kill(&self.consensus);
        }
    }

    pub(super) fn who(&self, who: Who) -> Option<NodeId> {
        match who {
            Who::Leader => self.consensus.leader(),
            Who::Node(node) => Some(node),
        }
    }

    /// The stored playbook of that name, by the replica that never fails.
    pub(super) fn playbook(&self, name: &str) -> Option<Manifest> {
        use medic_state::manifest::{DEFAULT_TENANT, Kind, ManifestKey};
        let key = ManifestKey {
            kind: Kind::Playbook,
            tenant: DEFAULT_TENANT.to_owned(),
            name: name.to_owned(),
        };
        self.consensus
            .look(|state| state.manifests.get(&key).map(|stored| stored.manifest.as_ref().clone()))
    }

    /// Writes down the state of every node, all in one moment.
    pub(super) fn note_final(&self, serves: &BTreeMap<NodeId, bool>) {
        self.consensus.beat();
        for ledger in self.ledgers() {
            use medic_raft::Ledger as _;
            let node = ledger.node();
            let (index, state) = ledger.read(|state| (state.applied, state.hash()));
            let leads = ledger.leadership().borrow().me;
            let serves = serves.get(&node).copied().unwrap_or_default();
            self.consensus.recorder.happened(What::Final { node, index, state, leads, serves });
        }
    }
}
