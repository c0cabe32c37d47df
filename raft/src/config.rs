//! What a node needs to start, and everything that can keep it from starting.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use medic_state::NodeId;

use crate::wire::WireError;

/// Largest encoded entry. A plan with its evidence is some ten KiB; this leaves room and keeps one
/// replication message small.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;
/// Largest message between peers: a batch of entries plus one of [`MAX_ENTRY_BYTES`], or the records
/// of a few entries, which are not split.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Bytes of entries read into one replication message (at least one entry is).
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// How one node takes part in consensus.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node. Never reused for another data directory.
    pub node_id: NodeId,
    /// Identity of the cluster; nodes of another one are refused.
    pub cluster_id: String,
    /// Where log, records and snapshots live.
    pub data_dir: PathBuf,
    /// `host:port` under which the peers reach this node's peer port.
    pub peer_addr: String,
    /// The first members, with their peer addresses; used once, when the cluster is bootstrapped.
    pub members: BTreeMap<NodeId, String>,
    /// Whether an empty data directory begins a new cluster of `members`. Otherwise the node waits
    /// to be added.
    pub bootstrap: bool,
    /// Clocks of the protocol.
    pub timing: Timing,
    /// A snapshot is taken after this many entries, and as many are kept behind it.
    pub snapshot_every: u64,
}

impl Config {
    /// A configuration with the default timing.
    #[must_use]
    pub fn new(
        node_id: NodeId,
        cluster_id: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        members: BTreeMap<NodeId, String>,
    ) -> Self {
        Self {
            node_id,
            cluster_id: cluster_id.into(),
            data_dir: data_dir.into(),
            peer_addr: members.get(&node_id).cloned().unwrap_or_default(),
            bootstrap: members.contains_key(&node_id),
            members,
            timing: Timing::default(),
            snapshot_every: 5_000,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let bad = |what: &str| Err(StartError::Config(what.to_owned()));
        let t = &self.timing;
        if self.node_id.0 == 0 {
            return bad("node id 0 is not allowed; number nodes from 1");
        }
        if self.cluster_id.is_empty() {
            return bad("the cluster id is empty");
        }
        if self.peer_addr.is_empty() {
            return bad("the peer address is empty; give `host:port` as the peers reach it");
        }
        if self.bootstrap && !self.members.contains_key(&self.node_id) {
            return bad("a node that bootstraps the cluster must be among its members");
        }
        if t.heartbeat * 2 > t.election_min || t.election_min >= t.election_max {
            return bad("timing must satisfy 2 × heartbeat ≤ election_min < election_max");
        }
        if t.lease_margin >= t.election_max {
            return bad("the lease margin must be shorter than election_max");
        }
        if self.snapshot_every == 0 {
            return bad("snapshot_every must be at least 1");
        }
        Ok(())
    }
}

/// Clocks of the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A leader is heard this often.
    pub heartbeat: Duration,
    /// A follower campaigns between `election_max + election_min` …
    pub election_min: Duration,
    /// … and twice this after it last heard the leader; also the leader's lease.
    pub election_max: Duration,
    /// Taken off the lease for clocks that run at different rates and for scheduling.
    pub lease_margin: Duration,
    /// A write that takes longer takes the node out.
    pub fsync_deadline: Duration,
    /// How long a proposal or linearizable read looks for a leader and waits for its answer.
    pub propose_deadline: Duration,
    /// Connecting to a peer.
    pub connect_deadline: Duration,
    /// A peer that does not answer a replication message within this is unreachable.
    pub append_deadline: Duration,
    /// Sending a whole snapshot.
    pub snapshot_deadline: Duration,
    /// A learner that was added has all that was committed until then within this.
    pub catch_up_deadline: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            lease_margin: Duration::from_millis(100),
            fsync_deadline: Duration::from_secs(10),
            propose_deadline: Duration::from_secs(10),
            connect_deadline: Duration::from_secs(1),
            append_deadline: Duration::from_secs(2),
            snapshot_deadline: Duration::from_secs(300),
            catch_up_deadline: Duration::from_secs(60),
        }
    }
}

/// Why a node refuses to start. Each message says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("bad consensus configuration: {0}")]
    Config(String),
    /// The directory cannot be used.
    #[error("cannot use the data directory {dir}: {source}")]
    DataDir {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error(
        "the data directory {dir} is in use by another process; stop that one, or give this node its own directory"
    )]
    Locked {
        /// Which.
        dir: PathBuf,
    },
    /// The directory belongs to another node.
    #[error(
        "the data directory belongs to {stored}, but this node is configured as {configured}; correct the node id or the directory"
    )]
    WrongNode {
        /// Whose it is.
        stored: NodeId,
        /// Who wants it.
        configured: NodeId,
    },
    /// The directory belongs to another cluster.
    #[error(
        "the data directory belongs to cluster `{stored}`, but this node is configured for `{configured}`; correct the cluster id or the directory"
    )]
    OtherCluster {
        /// Whose it is.
        stored: String,
        /// Who wants it.
        configured: String,
    },
    /// A newer build wrote it.
    #[error(
        "the data directory has format {stored}, this build knows up to {known}; start a build at least as new as the one that wrote it"
    )]
    NewerFormat {
        /// As stored.
        stored: u32,
        /// Known here.
        known: u32,
    },
    /// A log entry is damaged or missing.
    #[error(
        "the log is damaged at index {index}: {reason}. Nothing was changed. If a quorum of the other nodes is healthy, remove this node from the cluster, and add it again under a new id with an empty data directory; otherwise restore the directory from a backup"
    )]
    CorruptLog {
        /// Where.
        index: u64,
        /// How.
        reason: String,
    },
    /// A log entry of a kind that only newer builds know. It is never skipped.
    #[error("this build cannot read its own log: {0}")]
    UnknownEntry(WireError),
    /// A stored value other than a log entry is damaged.
    #[error(
        "the stored {what} is damaged: {reason}. Nothing was changed. Remove this node from the cluster and add it again under a new id with an empty data directory, or restore the directory from a backup"
    )]
    CorruptMeta {
        /// Which.
        what: String,
        /// How.
        reason: String,
    },
    /// No snapshot can be used, and the log does not reach back far enough without one.
    #[error(
        "the snapshot {file} is damaged ({reason}), and the log begins only at index {log_begins}: the state cannot be rebuilt here. Nothing was changed. Remove this node from the cluster and add it again under a new id with an empty data directory, or restore the directory from a backup"
    )]
    CorruptSnapshot {
        /// Which.
        file: String,
        /// How.
        reason: String,
        /// First index in the log.
        log_begins: u64,
    },
    /// A newer build wrote the newest snapshot.
    #[error("the snapshot {file} cannot be read: {reason}. Nothing was changed")]
    NewerSnapshot {
        /// Which.
        file: String,
        /// What it is, and what to do.
        reason: String,
    },
    /// The database cannot be opened or read.
    #[error("cannot open the store in the data directory: {0}")]
    Store(#[from] std::io::Error),
    /// openraft refused to start.
    #[error("consensus cannot start: {0}")]
    Raft(String),
}
