//! Commands about the cluster itself: nodes, agents, and who watches which shard.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::ids::{BootId, NodeId, ShardId};

/// The weight of a node that says none.
pub const NODE_WEIGHT_DEFAULT: u32 = 100;
/// The greatest weight: a hundredfold of the usual one; one more would be a mistake in units.
pub const NODE_WEIGHT_MAX: u32 = 10_000;

/// See [`super::Command::Fence`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FenceCommand {
    /// The leader.
    #[n(0)]
    pub node: NodeId,
    /// This incarnation of it.
    #[n(1)]
    pub boot: BootId,
}

/// See [`super::Command::RegisterNode`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RegisterNode {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its region.
    #[n(1)]
    pub region: String,
    /// `host:port` of its control API.
    #[n(2)]
    pub api_addr: String,
    /// This incarnation.
    #[n(3)]
    pub boot: BootId,
    /// Its build.
    #[n(4)]
    pub version: String,
    /// [`super::CLUSTER_VERSION`] of its build; absent: 1, from before it was said.
    #[n(5)]
    pub understands: Option<u32>,
    /// Its share of the shards relative to others', at most [`NODE_WEIGHT_MAX`]; zero: it watches only
    /// where nobody else can. Absent: as known, [`NODE_WEIGHT_DEFAULT`] for a node that is new. Said
    /// from [`super::DRAIN_SINCE`] on.
    #[n(6)]
    pub weight: Option<u32>,
}

/// See [`super::Command::MarkNode`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MarkNode {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Whether the leader hears it.
    #[n(1)]
    pub live: bool,
}

/// See [`super::Command::MarkAgent`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MarkAgent {
    /// The agent.
    #[n(0)]
    pub agent: String,
    /// Connected to this node; `None`: to none.
    #[n(1)]
    pub node: Option<NodeId>,
    /// Its region.
    #[n(2)]
    pub region: String,
    /// Its build.
    #[n(3)]
    pub version: String,
}

/// See [`super::Command::AssignShards`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AssignShards {
    /// New owner by shard; shards not named stay where they are.
    #[n(0)]
    pub moves: BTreeMap<ShardId, NodeId>,
}

/// See [`super::Command::DrainNode`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DrainNode {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// What becomes of it.
    #[n(1)]
    pub drain: Drain,
}

/// Whether a node watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Drain {
    /// No more, until that is taken back: an operator's. It goes on voting.
    #[n(0)]
    Begin,
    /// It may again.
    #[n(1)]
    End,
    /// This incarnation is about to stop: the node's own. Over when it registers again.
    #[n(2)]
    Leave(#[n(0)] BootId),
}
