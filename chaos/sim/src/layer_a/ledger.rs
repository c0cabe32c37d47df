//! One node's door to the simulated log: the same trait that the real consensus implements.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use medic_raft::{
    ClusterAdmin, ClusterStatus, Committed, Env, Leadership, Ledger, LedgerError, RecordQuery,
    StoredRecord,
};
use medic_state::{BootId, Entry, NodeId, State};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::consensus::Consensus;

/// As in production: how long a proposal looks for a leader and waits for its answer.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One incarnation of one node.
#[derive(Debug)]
pub struct SimLedger {
    consensus: Arc<Consensus>,
    node: NodeId,
    boot: BootId,
    env: Env,
    state: RwLock<State>,
    pub(super) applied: watch::Sender<u64>,
    pub(super) leadership: watch::Sender<Leadership>,
    /// SIGSTOP: nothing goes in or out.
    pub(super) paused: watch::Sender<bool>,
    dead: AtomicBool,
}

impl SimLedger {
    pub(super) fn new(
        consensus: Arc<Consensus>,
        node: NodeId,
        boot: BootId,
        env: Env,
        state: State,
    ) -> Arc<Self> {
        let applied = watch::Sender::new(state.applied);
        Arc::new(Self {
            consensus,
            node,
            boot,
            env,
            state: RwLock::new(state),
            applied,
            leadership: watch::Sender::new(Leadership::default()),
            paused: watch::Sender::new(false),
            dead: AtomicBool::new(false),
        })
    }

    /// Its process has ended.
    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Whether its process has ended.
    #[must_use]
    pub fn dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Waits while the process is stopped.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn awake(&self) -> Result<(), LedgerError> {
        let mut paused = self.paused.subscribe();
        let woken = paused.wait_for(|paused| !paused).await.map(|_| ());
        if self.dead() || woken.is_err() {
            return Err(LedgerError::Stopped("the process has ended".to_owned()));
        }
        Ok(())
    }

    /// The leader to turn to, as this node believes.
    fn leader(&self) -> Option<NodeId> {
        self.leadership.borrow().leader
    }

    /// One try: here, or at the leader this node knows of.
    async fn once(&self, entry: &Entry) -> Result<Committed, LedgerError> {
        self.awake().await?;
        if self.leadership.borrow().me {
            return self.consensus.propose_at(self.node, entry.clone()).await;
        }
        let Some(leader) = self.leader() else {
            return Err(LedgerError::Unavailable("no leader is known".to_owned()));
        };
        let (there, back) = self.consensus.hop(self.node, leader);
        let Some(there) = there else {
            return Err(LedgerError::Unavailable(format!("{leader} cannot be reached")));
        };
        sleep(there).await;
        // As in production: one clock at a time makes the law's time, the leader's.
        let at = self.consensus.clock_of(leader).unwrap_or(entry.at);
        let answer = self.consensus.propose_at(leader, Entry { at, ..entry.clone() }).await;
        sleep(back).await;
        self.awake().await?;
        if self.consensus.linked(leader, self.node) {
            answer
        } else {
            Err(LedgerError::Ambiguous(format!("no answer from {leader}")))
        }
    }
}

#[async_trait]
impl Ledger for SimLedger {
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
        let until = Instant::now() + PROPOSE_DEADLINE;
        let mut worst = None;
        loop {
            let error = match self.once(&entry).await {
                Err(LedgerError::NotLeader) => {
                    LedgerError::Unavailable("the leader is changing".to_owned())
                }
                Err(error @ (LedgerError::Unavailable(_) | LedgerError::Ambiguous(_))) => error,
                other => return other,
            };
            let ambiguous = matches!(error, LedgerError::Ambiguous(_));
            if ambiguous && entry.request.is_none() {
                return Err(error);
            }
            if ambiguous || worst.is_none() {
                worst = Some(error.clone());
            }
            if Instant::now() >= until {
                return Err(worst.unwrap_or(error));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn propose_as_leader(&self, entry: Entry) -> Result<Committed, LedgerError> {
        self.awake().await?;
        if !self.leadership.borrow().me {
            return Err(LedgerError::NotLeader);
        }
        self.consensus.propose_at(self.node, entry).await
    }

    async fn linearize(&self) -> Result<u64, LedgerError> {
        let until = Instant::now() + PROPOSE_DEADLINE;
        loop {
            self.awake().await?;
            if let Some(index) = self.consensus.read_index(self.node) {
                let mut applied = self.applied.subscribe();
                let reached = applied.wait_for(|now| *now >= index);
                if let Ok(Ok(now)) = tokio::time::timeout_at(until, reached).await {
                    return Ok(*now);
                }
            }
            if Instant::now() >= until {
                return Err(LedgerError::Unavailable("no quorum was heard".to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
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
        let applied = *self.applied.borrow();
        Ok(self.consensus.records(query, applied))
    }

    fn lease_remaining(&self) -> Duration {
        if self.dead() { Duration::ZERO } else { self.consensus.lease_remaining(self.node) }
    }
}

#[async_trait]
impl ClusterAdmin for SimLedger {
    fn status(&self) -> ClusterStatus {
        self.consensus.status(self.node, *self.leadership.borrow())
    }

    async fn add_learner(&self, _: NodeId, _: String) -> Result<(), LedgerError> {
        Err(fixed())
    }

    async fn promote(&self, _: NodeId) -> Result<(), LedgerError> {
        Err(fixed())
    }

    async fn remove(&self, _: NodeId) -> Result<(), LedgerError> {
        Err(fixed())
    }

    async fn transfer(&self, _: NodeId) -> Result<(), LedgerError> {
        Err(fixed())
    }
}

fn fixed() -> LedgerError {
    LedgerError::Refused("membership is fixed in this simulation".to_owned())
}
