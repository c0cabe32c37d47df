//! The types with which openraft is instantiated.
//!
//! openraft's serde forms are not used anywhere: [`crate::wire`] holds the conversions to our own.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use medic_state::{
    Entry, Timestamp,
    codec::{self, CodecError},
};
use openraft::alias;

use crate::ledger::Committed;

openraft::declare_raft_types!(
    /// openraft, instantiated for the law.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = PeerNode,
        AsyncRuntime = crate::runtime::Runtime,
);

/// Where a member is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// `host:port` of its peer port.
    pub peer_addr: String,
}

/// An entry of the law together with its encoding: encoded once, it is hashed, stored and sent from
/// the same bytes.
#[derive(Clone)]
pub struct Proposal {
    entry: Arc<Entry>,
    bytes: Bytes,
}

impl Proposal {
    /// Encodes an entry.
    #[must_use]
    pub fn new(entry: Entry) -> Self {
        let bytes = Bytes::from(codec::encode(&entry));
        Self { entry: Arc::new(entry), bytes }
    }

    /// Decodes an entry.
    ///
    /// # Errors
    /// When the bytes are not an entry this build knows.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let entry = Arc::new(codec::decode(&bytes)?);
        Ok(Self { entry, bytes })
    }

    /// The same, proposed at another time.
    #[must_use]
    pub fn stamped(self, at: Timestamp) -> Self {
        Self::new(Entry { at, ..Arc::unwrap_or_clone(self.entry) })
    }

    /// The entry.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its encoding.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.entry.command.name(), self.bytes.len())
    }
}

/// What applying an entry gave: the law's answer and where it took effect, or nothing for entries of consensus itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome(pub Option<Committed>);

/// openraft's handle.
pub type Raft = openraft::Raft<TypeConfig, crate::store::Machine>;
/// Position in the log.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// A vote for a leader.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A leader's term and node.
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
/// A log entry.
pub type LogEntry = alias::EntryOf<TypeConfig>;
/// Members and voters.
pub type Membership = openraft::Membership<u64, PeerNode>;
/// A membership with the position of the entry that made it.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: the bytes of its file.
pub type Snapshot = alias::SnapshotOf<TypeConfig, Bytes>;
