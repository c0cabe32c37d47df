//! What one node can do by itself: as leader, or for its peers. Nothing here calls another node.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use medic_state::{BootId, NodeId, Refusal, Timestamp};
use openraft::{
    Instant as _, ReadPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use crate::{
    clock::LawClock,
    config::{Config, MAX_ENTRY_BYTES},
    env::Env,
    ledger::{Committed, LedgerError},
    metrics::Metric,
    parcel::Inboxes,
    store::{Births, FatalFlag, RecordStore, Shared},
    types::{Outcome, PeerNode, Proposal, Raft, TypeConfig},
};

/// One node's consensus, without its peers.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) boot: BootId,
    pub(crate) env: Env,
    /// The clock by which this node, where it leads, stamps what it and others propose.
    pub(crate) clock: LawClock,
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) records: RecordStore,
    pub(crate) fatal: FatalFlag,
    pub(crate) stopping: AtomicBool,
    /// Until then this node grants no vote: it may have promised a lease before it restarted.
    pub(crate) quiet_until: Option<Instant>,
    /// Set while nobody has confirmed that this directory is the node's first.
    pub(crate) births: Option<Births>,
    /// The term whose lease was given up for a transfer; zero: none.
    pub(crate) lease_void: AtomicU64,
    /// One change of membership or leadership at a time.
    pub(crate) admin: tokio::sync::Mutex<()>,
    /// What other nodes have passed here.
    pub(crate) inboxes: Inboxes,
}

impl Core {
    pub(crate) const fn me(&self) -> NodeId {
        self.config.node_id
    }

    /// The time of an entry that this node proposes as leader.
    pub(crate) fn stamp(&self) -> Timestamp {
        let law = self.shared.state.read().unwrap_or_else(PoisonError::into_inner).now;
        self.clock.heed(law);
        self.clock.now()
    }

    /// Whether this node still serves.
    pub(crate) fn alive(&self) -> Result<(), LedgerError> {
        if let Some(reason) = self.fatal.get() {
            return Err(LedgerError::Stopped(reason));
        }
        if self.stopping.load(Ordering::Acquire) {
            return Err(LedgerError::Stopped("it was asked to".to_owned()));
        }
        Ok(())
    }

    /// A node that restarted may have acknowledged the leader just before: the leader counts on its
    /// refusing votes for a whole lease.
    pub(crate) fn may_vote(&self) -> Result<(), Status> {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return Err(Status::unavailable("just restarted: a lease may still be running"));
        }
        Ok(())
    }

    /// Hears which incarnation of this node somebody knows to have registered. One that never ran on
    /// this directory, which began empty, takes the node out: it has forgotten what it promised, and
    /// its votes and acknowledgements could lose what was committed.
    pub(crate) fn recognise(&self, registered: BootId) -> Result<(), LedgerError> {
        if self.births.as_ref().is_some_and(|births| !births.include(registered)) {
            self.fatal.set(format!(
                "{} has run in this cluster before, and this data directory began empty: remove it from the cluster and add it again under a new id, or restore its directory",
                self.me()
            ));
        }
        self.alive()
    }

    /// Commits an entry if this node leads.
    pub(crate) async fn propose_here(&self, proposal: Proposal) -> Result<Committed, LedgerError> {
        self.alive()?;
        let bytes = proposal.bytes().len();
        if bytes > MAX_ENTRY_BYTES {
            return Err(LedgerError::TooLarge(format!(
                "{} encodes to {bytes} bytes, at most {MAX_ENTRY_BYTES} are allowed",
                proposal.entry().command.name()
            )));
        }
        self.switched_on(proposal.entry().command.since(), proposal.entry().command.name())?;
        let deadline = self.config.timing.propose_deadline;
        crate::crash_point!("ledger_before_commit");
        let began = Instant::now();
        let written = timeout(deadline, self.raft.client_write(proposal)).await.map_err(|_| {
            LedgerError::Ambiguous(format!("not committed within {} s", deadline.as_secs_f32()))
        })?;
        let response = written.map_err(|error| self.write_error(error))?;
        Metric::CommitSeconds.observe(began.elapsed().as_secs_f64());
        crate::crash_point!("ledger_after_commit");
        let Outcome(committed) = response.data;
        Ok(committed.unwrap_or_else(|| Committed {
            index: response.log_id.index,
            answer: Err(Refusal::Invalid("the entry is not a command".to_owned())),
        }))
    }

    /// A kind of entry that a member may not know never gets into the log: that member would halt.
    fn switched_on(&self, since: u32, name: &str) -> Result<(), LedgerError> {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        if since <= state.cluster_version {
            return Ok(());
        }
        Err(LedgerError::Refused(format!(
            "{name} needs cluster version {since}, and {} is in force: upgrade all members first",
            state.cluster_version
        )))
    }

    /// Whether a node is in the cluster, as far as this one knows: a leader always knows.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.member(node.0).is_some()
    }

    pub(super) fn write_error(
        &self,
        error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    ) -> LedgerError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => LedgerError::NotLeader,
            RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => {
                LedgerError::Ambiguous(format!("the leader changed: {error}"))
            }
            RaftError::APIError(
                error @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            ) => LedgerError::Refused(error.to_string()),
            RaftError::Fatal(fatal) => {
                let reason = self.fatal.get().unwrap_or_else(|| fatal.to_string());
                LedgerError::Ambiguous(format!("this node stopped meanwhile: {reason}"))
            }
        }
    }

    /// The read index, if this node leads and a quorum confirms it.
    pub(crate) async fn read_index_here(&self) -> Result<u64, LedgerError> {
        self.alive()?;
        let deadline = self.config.timing.election_max * 2;
        let read = timeout(deadline, self.raft.get_read_log_id(ReadPolicy::ReadIndex)).await;
        match read.map_err(|_| LedgerError::Unavailable("no quorum answers".to_owned()))? {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(LedgerError::NotLeader)
            }
            Err(RaftError::APIError(error @ LinearizableReadError::QuorumNotEnough(_))) => {
                Err(LedgerError::Unavailable(error.to_string()))
            }
            Err(RaftError::Fatal(fatal)) => Err(LedgerError::Stopped(fatal.to_string())),
        }
    }

    /// Waits until this node has applied an index.
    pub(crate) async fn wait_applied(
        &self,
        index: u64,
        deadline: Instant,
    ) -> Result<u64, LedgerError> {
        let mut applied = self.shared.applied.subscribe();
        let mut fatal = self.fatal.watch();
        tokio::select! {
            reached = timeout_at(deadline, applied.wait_for(|now| *now >= index)) => match reached {
                Ok(Ok(now)) => Ok(*now),
                Ok(Err(_)) => Err(LedgerError::Stopped("consensus has ended".to_owned())),
                Err(_) => Err(LedgerError::Unavailable(format!(
                    "this node has not caught up with index {index} in time"
                ))),
            },
            _ = fatal.wait_for(Option::is_some) => {
                Err(LedgerError::Stopped(self.fatal.get().unwrap_or_default()))
            }
        }
    }

    /// How long this node may act as leader without hearing a quorum again.
    pub(crate) fn lease_remaining(&self) -> Duration {
        if self.alive().is_err() {
            return Duration::ZERO;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let me = self.me().0;
        let leads = metrics.current_leader == Some(me)
            && metrics.state.is_leader()
            && metrics.membership_config.voter_ids().any(|voter| voter == me);
        if !leads || self.lease_void.load(Ordering::Acquire) == metrics.current_term {
            return Duration::ZERO;
        }
        let timing = &self.config.timing;
        let lease = timing.election_max.saturating_sub(timing.lease_margin);
        metrics
            .last_quorum_acked
            .map_or(Duration::ZERO, |acked| lease.saturating_sub(acked.elapsed()))
    }

    /// A member, and whether it votes.
    pub(crate) fn member(&self, node: u64) -> Option<(PeerNode, bool)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let found = membership.get_node(&node)?.clone();
        Some((found, membership.voter_ids().any(|voter| voter == node)))
    }

    pub(super) fn ever_registered(&self, node: u64) -> bool {
        self.shared.registered_boot(NodeId(node)).is_some()
    }
}
