//! The door through which everything above consensus sees the law: propose, read, watch.
//!
//! [`Ledger`] is implemented by the replicated [`crate::Consensus`] and by [`LocalLedger`], the same
//! law without replication, for tests and for simulations of what is above consensus.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use medic_state::{
    Answer, BootId, Command, Entry, NodeId, Record, RequestId, State, TraceId, rbac::Principal,
};
use tokio::sync::watch;

use crate::{
    env::Env,
    store::{About, MAX_RECORDS},
};

/// Who leads, as this node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, when one is known.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// Whether it is this node.
    pub me: bool,
}

/// A command that was committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The log index at which it took effect; a repeated request's is the first one's.
    pub index: u64,
    /// What the law answered.
    pub answer: Answer,
}

/// A proposal or a linearizable read that got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// No leader is known, or it cannot be reached. Nothing was proposed.
    #[error("no leader can be reached: {0}; try again, or look at `medic cluster status`")]
    Unavailable(String),
    /// It may have been committed or not: retry under the same request id.
    #[error("the outcome is unknown: {0}; retry under the same request id")]
    Ambiguous(String),
    /// This node is shutting down or has failed.
    #[error("this node is stopping: {0}")]
    Stopped(String),
    /// Proposed to a node that is not the leader, where forwarding was not wanted.
    #[error("this node is not the leader")]
    NotLeader,
    /// The entry is larger than the log takes.
    #[error("the command is too large: {0}")]
    TooLarge(String),
    /// A change of membership or leadership that cannot be made, or not be ended. Nothing was done but
    /// what the text says.
    #[error("refused: {0}")]
    Refused(String),
}

/// Consensus as the layers above it see it.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;
    /// This incarnation of it.
    fn boot(&self) -> BootId;
    /// Clock and chance.
    fn env(&self) -> &Env;
    /// Commits an entry, through the leader wherever that is, and waits until it is applied there.
    async fn propose(&self, entry: Entry) -> Result<Committed, LedgerError>;
    /// Like `propose`, but only if this node is leader: the loop's own commands never travel.
    /// When it answers, the entry is applied *here*.
    async fn propose_as_leader(&self, entry: Entry) -> Result<Committed, LedgerError>;
    /// Waits until this node has applied everything that was committed anywhere before the call
    /// (ReadIndex). Gives the applied index.
    async fn linearize(&self) -> Result<u64, LedgerError>;
    /// The applied state, shared for reading. Never hold it across an await.
    fn state(&self) -> &RwLock<State>;
    /// Changes whenever the state does: the applied index.
    fn applied(&self) -> watch::Receiver<u64>;
    /// Changes whenever leadership does.
    fn leadership(&self) -> watch::Receiver<Leadership>;
    /// Records from the store of this node, by log index.
    fn records(&self, query: RecordQuery) -> Result<Vec<StoredRecord>, LedgerError>;
    /// Those about one incident or plan. This looks through all; a store with an index need not.
    fn records_about(
        &self,
        about: About,
        query: RecordQuery,
    ) -> Result<Vec<StoredRecord>, LedgerError> {
        let mut found: Vec<StoredRecord> = Vec::new();
        let mut after = query.after;
        loop {
            let page = self.records(RecordQuery { after, limit: MAX_RECORDS })?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.index;
            for stored in page.into_iter().filter(|stored| about.holds(&stored.record)) {
                let full = found.len() >= query.limit.min(MAX_RECORDS);
                if full && found.last().is_none_or(|last| last.index != stored.index) {
                    return Ok(found);
                }
                found.push(stored);
            }
        }
    }
    /// How long this node may still act as leader without hearing a quorum again; zero: it may not.
    fn lease_remaining(&self) -> Duration;
}

/// A record with the log index of the entry that emitted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Log index.
    pub index: u64,
    /// What was emitted.
    pub record: Record,
}

/// Which records are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordQuery {
    /// Only records of entries after this index.
    pub after: u64,
    /// At most this many; the store caps it at 1,000. Records of one entry are never split.
    pub limit: usize,
}

/// A member of the consensus cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// `host:port` of its peer port.
    pub peer_addr: String,
    /// Votes, or only learns.
    pub voter: bool,
    /// Last log index known to be replicated to it; only the leader knows.
    pub matched: Option<u64>,
    /// Milliseconds since the leader last heard it; only the leader knows.
    pub silent_ms: Option<u64>,
}

/// Consensus as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Identity of the cluster.
    pub cluster_id: String,
    /// Leadership.
    pub leadership: Leadership,
    /// Last log index here.
    pub last_log: u64,
    /// Applied here.
    pub applied: u64,
    /// Log index of the newest snapshot here.
    pub snapshot: Option<u64>,
    /// Members.
    pub members: Vec<Member>,
    /// Why this node can no longer serve, if so.
    pub fatal: Option<String>,
}

/// Membership and leadership, for operators.
#[async_trait]
pub trait ClusterAdmin: Send + Sync + 'static {
    /// As this node sees it.
    fn status(&self) -> ClusterStatus;
    /// Adds a learner and waits until it has all that was committed before. On any node. When it does
    /// not come that far in time it stays a learner: it can be added again, or removed.
    async fn add_learner(&self, node: NodeId, peer_addr: String) -> Result<(), LedgerError>;
    /// Makes a learner a voter, if it answers and has all that is committed. On any node.
    async fn promote(&self, node: NodeId) -> Result<(), LedgerError>;
    /// Removes a member. On any node. Its id is never used again.
    async fn remove(&self, node: NodeId) -> Result<(), LedgerError>;
    /// Hands leadership to a voter. On any node.
    async fn transfer(&self, to: NodeId) -> Result<(), LedgerError>;
}

/// Conveniences over any ledger.
pub trait LedgerExt: Ledger {
    /// Looks at the state. Keep `look` short: it holds a read lock.
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let guard = self.state().read().unwrap_or_else(PoisonError::into_inner);
        look(&guard)
    }

    /// An entry of this node's own, stamped now. It carries no request id: proposing it again is
    /// harmless, or its proposer looks first.
    fn entry(&self, trace: TraceId, command: Command) -> Entry {
        Entry {
            at: self.env().clock.now(),
            principal: Principal::node(self.node()),
            request: None,
            trace,
            command,
        }
    }

    /// An operator's entry.
    fn entry_for(
        &self,
        principal: Principal,
        request: Option<RequestId>,
        command: Command,
    ) -> Entry {
        let trace = self.env().entropy.trace_id();
        Entry { at: self.env().clock.now(), principal, request, trace, command }
    }
}

impl<L: Ledger + ?Sized> LedgerExt for L {}

/// The law on one node, without replication or disk.
#[derive(Debug)]
pub struct LocalLedger {
    node: NodeId,
    boot: BootId,
    env: Env,
    state: RwLock<State>,
    records: RwLock<Vec<StoredRecord>>,
    applied: watch::Sender<u64>,
    leadership: watch::Sender<Leadership>,
}

impl LocalLedger {
    /// An empty state; this node leads.
    #[must_use]
    pub fn new(node: NodeId, boot: BootId, env: Env) -> Arc<Self> {
        let leadership = Leadership { leader: Some(node), term: 1, me: true };
        Arc::new(Self {
            node,
            boot,
            env,
            state: RwLock::new(State::new()),
            records: RwLock::default(),
            applied: watch::Sender::new(0),
            leadership: watch::Sender::new(leadership),
        })
    }

    /// Gives up or takes leadership.
    pub fn set_leader(&self, me: bool) {
        self.leadership.send_modify(|now| {
            now.me = me;
            now.leader = me.then_some(self.node);
            now.term += 1;
        });
    }
}

#[async_trait]
impl Ledger for LocalLedger {
    fn node(&self) -> NodeId {
        self.node
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn env(&self) -> &Env {
        &self.env
    }

    async fn propose(&self, entry: Entry) -> Result<Committed, LedgerError> {
        let (index, committed) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let index = state.applied + 1;
            let applied = state.apply(index, &entry);
            let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
            records
                .extend(applied.records.into_iter().map(|record| StoredRecord { index, record }));
            let committed = Committed { index: applied.effective, answer: applied.answer };
            (index, committed)
        };
        self.applied.send_replace(index);
        Ok(committed)
    }

    async fn propose_as_leader(&self, entry: Entry) -> Result<Committed, LedgerError> {
        if self.leadership.borrow().me {
            self.propose(entry).await
        } else {
            Err(LedgerError::NotLeader)
        }
    }

    async fn linearize(&self) -> Result<u64, LedgerError> {
        Ok(*self.applied.borrow())
    }

    fn state(&self) -> &RwLock<State> {
        &self.state
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn records(&self, query: RecordQuery) -> Result<Vec<StoredRecord>, LedgerError> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<StoredRecord> = Vec::new();
        for stored in records.iter().filter(|stored| stored.index > query.after) {
            let same_entry = found.last().is_some_and(|last| last.index == stored.index);
            if found.len() >= query.limit && !same_entry {
                break;
            }
            found.push(stored.clone());
        }
        Ok(found)
    }

    fn lease_remaining(&self) -> Duration {
        if self.leadership.borrow().me { Duration::from_secs(60) } else { Duration::ZERO }
    }
}
