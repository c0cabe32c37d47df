//! Consensus without sockets and disks: what Raft promises, and everything it does not.
//!
//! ```text
//!   propose ─► pending at the leader ─(disk, a majority linked)─► committed ─► applied: leader at once,
//!                  │ leader lost                                              followers a beat later
//!                  └─► gone, or committed by a successor that it had reached
//! ```
//!
//! Promised: one log; a majority for everything; a leader holds all that was committed; nobody is
//! elected while a majority may hold to a lease. Not promised, and therefore done: entries whose
//! proposer never learns what became of them, leaders that do not know of their successor,
//! followers far behind, snapshots in place of entries, restarts without memory.
//! Deliberately absent: Raft's own messages. Those are Layer B's.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use medic_raft::{
    ClusterStatus, Committed, Leadership, Ledger as _, LedgerError, Member as Voter, RecordQuery,
    StoredRecord, Timing,
};
use medic_state::{
    Entry, Fence, NodeId, PlanId, State, Timestamp, saga::SagaStatus, state::RequestKey,
};
use tokio::{sync::oneshot, time::Instant};

use super::ledger::SimLedger;
use crate::{
    history::{Commit, Recorder, What, lock},
    rng::Rng,
};

/// Hashes are compared at every index that this divides.
pub(super) const HASH_EVERY: u64 = 16;
/// A proposal that waits longer is given up by whoever waits.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);

/// The simulated consensus of one cluster.
#[derive(Debug)]
pub struct Consensus {
    pub(super) core: Mutex<Core>,
    pub(super) recorder: Recorder,
    pub(super) timing: Timing,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) rng: Rng,
    /// The highest term anybody was elected in.
    pub(super) term: u64,
    pub(super) log: Vec<Logged>,
    /// One more replica, which never fails.
    pub(super) reference: State,
    statuses: BTreeMap<PlanId, SagaStatus>,
    records: Vec<StoredRecord>,
    requests: BTreeSet<RequestKey>,
    pub(super) members: BTreeMap<NodeId, Member>,
    /// Uncommitted entries of dead leaders, and whom they had reached.
    pub(super) orphans: Vec<Pending>,
    /// One-way cuts between nodes.
    pub(super) cuts: BTreeSet<(NodeId, NodeId)>,
    /// Extra time on every link.
    pub(super) delay_ms: u64,
}

#[derive(Debug)]
pub(super) struct Logged {
    pub(super) entry: Arc<Entry>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) ledger: Arc<SimLedger>,
    pub(super) up: bool,
    pub(super) paused: bool,
    pub(super) leads: bool,
    pub(super) term: u64,
    /// Committed entries it holds durably.
    pub(super) stored: u64,
    pub(super) last_heard: Instant,
    pub(super) patience: Duration,
    pub(super) last_quorum: Option<Instant>,
    pub(super) heard: BTreeMap<NodeId, Instant>,
    pub(super) pending: VecDeque<Pending>,
    pub(super) snapshot: Option<(u64, Arc<Vec<u8>>)>,
    /// It takes nothing in until then.
    pub(super) lags_until: Instant,
    /// Its disk takes so much longer.
    pub(super) disk_ms: u64,
}

#[derive(Debug)]
pub(super) struct Pending {
    entry: Arc<Entry>,
    pub(super) reached: BTreeSet<NodeId>,
    ready: Instant,
    reply: Option<oneshot::Sender<Result<Committed, LedgerError>>>,
}

impl Consensus {
    /// An empty log.
    #[must_use]
    pub fn new(recorder: Recorder, rng: Rng) -> Arc<Self> {
        let core = Core {
            rng,
            term: 0,
            log: Vec::new(),
            reference: State::new(),
            statuses: BTreeMap::new(),
            records: Vec::new(),
            requests: BTreeSet::new(),
            members: BTreeMap::new(),
            orphans: Vec::new(),
            cuts: BTreeSet::new(),
            delay_ms: 0,
        };
        Arc::new(Self { core: Mutex::new(core), recorder, timing: Timing::default() })
    }

    /// Proposes to a node, if it leads.
    pub(super) async fn propose_at(
        self: &Arc<Self>,
        node: NodeId,
        entry: Entry,
    ) -> Result<Committed, LedgerError> {
        let queued = lock(&self.core).queued(node);
        if let Some(waits) = queued {
            // It stays in the queue of a node whose disk is slow, whatever becomes of who put it there.
            let this = self.clone();
            let queued = tokio::spawn(async move {
                tokio::time::sleep(waits).await;
                this.propose_now(node, entry).await
            });
            let ended = |_| Err(LedgerError::Ambiguous("the node has ended".to_owned()));
            return queued.await.unwrap_or_else(ended);
        }
        self.propose_now(node, entry).await
    }

    async fn propose_now(&self, node: NodeId, entry: Entry) -> Result<Committed, LedgerError> {
        let (ready, answer) = lock(&self.core).take_in(node, entry)?;
        tokio::time::sleep_until(ready).await;
        self.pump(node);
        match tokio::time::timeout(PROPOSE_DEADLINE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LedgerError::Ambiguous("the leader has ended".to_owned())),
            Err(_) => Err(LedgerError::Ambiguous("no quorum in time".to_owned())),
        }
    }

    /// Commits what a leader can commit now.
    fn pump(&self, node: NodeId) {
        let mut core = lock(&self.core);
        let now = Instant::now();
        while let Some((pending, committed)) = core.commit_next(node, now, &self.recorder) {
            if let Some(reply) = pending.reply {
                // Whoever asked may have gone.
                drop(reply.send(Ok(committed)));
            }
        }
    }

    /// Time to a node and back; `None` there: it cannot be reached.
    pub(super) fn hop(&self, from: NodeId, to: NodeId) -> (Option<Duration>, Duration) {
        let mut core = lock(&self.core);
        let extra = core.delay_ms;
        let mut one = || Duration::from_millis(core.rng.between(1, 4) + extra);
        let (there, back) = (one(), one());
        (core.linked(from, to).then_some(there), back)
    }

    /// What a node's wall clock says.
    pub(super) fn clock_of(&self, node: NodeId) -> Option<Timestamp> {
        let ledger = lock(&self.core).members.get(&node).map(|member| member.ledger.clone());
        ledger.map(|ledger| ledger.env().clock.now())
    }

    /// Whether `from` reaches `to`.
    pub(super) fn linked(&self, from: NodeId, to: NodeId) -> bool {
        lock(&self.core).linked(from, to)
    }

    /// The index up to which a node must have applied for a linearizable read now.
    pub(super) fn read_index(&self, node: NodeId) -> Option<u64> {
        let core = lock(&self.core);
        let leader = core.members.get(&node)?.ledger.leadership.borrow().leader?;
        let leads = core.members.get(&leader).is_some_and(|member| member.leads);
        let linked = leader == node || (core.linked(node, leader) && core.linked(leader, node));
        let current = core.members.get(&leader).is_some_and(|member| member.term == core.term);
        (leads && linked && current && core.quorum_of(leader)).then_some(core.log.len() as u64)
    }

    pub(super) fn records(&self, query: RecordQuery, applied: u64) -> Vec<StoredRecord> {
        let core = lock(&self.core);
        let wanted =
            core.records.iter().filter(|one| one.index > query.after && one.index <= applied);
        wanted.take(query.limit).cloned().collect()
    }

    pub(super) fn lease_remaining(&self, node: NodeId) -> Duration {
        let core = lock(&self.core);
        let lease = self.timing.election_max.saturating_sub(self.timing.lease_margin);
        core.members
            .get(&node)
            .filter(|member| member.leads && member.up)
            .and_then(|member| member.last_quorum)
            .map_or(Duration::ZERO, |at| lease.saturating_sub(at.elapsed()))
    }

    /// For the oracle: the newest fence, and how long ago the node heard a quorum.
    pub fn truth(&self, node: NodeId) -> (Fence, u64) {
        let core = lock(&self.core);
        let age = core.members.get(&node).and_then(|member| member.last_quorum);
        let age =
            age.map_or(u64::MAX, |at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
        (core.reference.fence.fence, age)
    }

    pub(super) fn status(&self, node: NodeId, leadership: Leadership) -> ClusterStatus {
        let core = lock(&self.core);
        let heard = core.members.get(&node).map(|member| &member.heard);
        let members = core.members.iter().map(|(id, member)| Voter {
            node: *id,
            peer_addr: id.to_string(),
            voter: true,
            matched: Some(member.stored),
            silent_ms: heard
                .and_then(|heard| heard.get(id))
                .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        });
        ClusterStatus {
            cluster_id: "simulated".to_owned(),
            leadership,
            last_log: core.log.len() as u64,
            applied: core.members.get(&node).map_or(0, |member| *member.ledger.applied.borrow()),
            snapshot: None,
            members: members.collect(),
            fatal: None,
        }
    }

    /// Looks at the replica that never fails.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&lock(&self.core).reference)
    }

    /// Entries committed so far.
    #[must_use]
    pub fn committed(&self) -> u64 {
        lock(&self.core).log.len() as u64
    }
}

impl Core {
    pub(super) fn linked(&self, from: NodeId, to: NodeId) -> bool {
        let well = |node| self.members.get(&node).is_some_and(|member| member.up && !member.paused);
        from == to || (well(from) && well(to) && !self.cuts.contains(&(from, to)))
    }

    /// Members that a node hears and is heard by, itself among them.
    pub(super) fn peers_of(&self, node: NodeId) -> Vec<NodeId> {
        let both = |other: NodeId| self.linked(node, other) && self.linked(other, node);
        self.members.keys().copied().filter(|other| both(*other)).collect()
    }

    pub(super) fn majority(&self, count: usize) -> bool {
        count * 2 > self.members.len()
    }

    fn quorum_of(&self, leader: NodeId) -> bool {
        self.majority(self.peers_of(leader).len())
    }

    /// How long a proposal waits before it is even looked at.
    fn queued(&mut self, node: NodeId) -> Option<Duration> {
        let slow = self.members.get(&node).is_some_and(|member| member.disk_ms > 0);
        (slow && self.rng.chance(1, 3)).then(|| Duration::from_millis(self.rng.between(500, 7_000)))
    }

    #[allow(clippy::type_complexity, reason = "the two ends of one proposal")]
    fn take_in(
        &mut self,
        node: NodeId,
        entry: Entry,
    ) -> Result<(Instant, oneshot::Receiver<Result<Committed, LedgerError>>), LedgerError> {
        if entry.command.since() > self.reference.cluster_version {
            let name = entry.command.name();
            return Err(LedgerError::Refused(format!("{name} is not switched on yet")));
        }
        let disk_ms = self.rng.between(2, 9);
        let mut reached: BTreeSet<NodeId> = self.peers_of(node).into_iter().collect();
        reached.retain(|_| self.rng.chance(3, 4));
        let Some(member) = self.members.get_mut(&node).filter(|member| member.up) else {
            return Err(LedgerError::Ambiguous("the leader has ended".to_owned()));
        };
        if !member.leads {
            return Err(LedgerError::NotLeader);
        }
        let (reply, answer) = oneshot::channel();
        let ready = Instant::now() + Duration::from_millis(disk_ms + member.disk_ms);
        member.pending.push_back(Pending {
            entry: Arc::new(entry),
            reached,
            ready,
            reply: Some(reply),
        });
        Ok((ready, answer))
    }

    /// Commits the oldest pending entry of a leader, if that is possible now.
    fn commit_next(
        &mut self,
        node: NodeId,
        now: Instant,
        recorder: &Recorder,
    ) -> Option<(Pending, Committed)> {
        if self.members.get(&node)?.pending.front()?.ready > now {
            return None;
        }
        let peers = self.peers_of(node);
        let (quorum, term) = (self.majority(peers.len()), self.term);
        let member = self.members.get_mut(&node)?;
        let able = member.up && !member.paused && member.leads && member.term == term && quorum;
        if !able {
            return None;
        }
        let pending = member.pending.pop_front()?;
        let committed = self.append(node, pending.entry.clone(), recorder);
        let end = self.log.len() as u64;
        for peer in peers {
            if let Some(member) = self.members.get_mut(&peer)
                && (peer == node || member.lags_until <= now)
            {
                member.stored = end;
            }
        }
        self.apply_at(node, end, recorder);
        Some((pending, committed))
    }

    /// The entry is in the log for good.
    fn append(&mut self, by: NodeId, entry: Arc<Entry>, recorder: &Recorder) -> Committed {
        let index = self.log.len() as u64 + 1;
        let applied = self.reference.apply(index, &entry);
        let mut moved = Vec::new();
        for (id, saga) in &self.reference.sagas {
            if self.statuses.insert(*id, saga.status) != Some(saga.status) {
                moved.push((*id, saga.status));
            }
        }
        let state = (index.is_multiple_of(HASH_EVERY)).then(|| self.reference.hash());
        let records = applied.records.iter().cloned();
        self.records.extend(records.map(|record| StoredRecord { index, record }));
        let (effective, answer) = (applied.effective, applied.answer);
        let request = entry.request.clone().map(|id| (entry.principal.clone(), id));
        let repeated = request.is_some_and(|key| !self.requests.insert(key));
        recorder.trace(format_args!(
            "commit {index} by {by} {} {}",
            entry.command.name(),
            crate::tell::answer(&answer)
        ));
        let commit = Commit {
            index,
            by,
            entry: entry.clone(),
            answer: answer.clone(),
            records: applied.records,
            moved,
            repeated,
            state,
        };
        crate::tell::cover(&commit, &self.reference, recorder);
        recorder.happened(What::Committed(Arc::new(commit)));
        self.log.push(Logged { entry });
        Committed { index: effective, answer }
    }
}

impl Pending {
    /// The same entry in the hands of a successor; nobody waits for it there.
    pub(super) fn inherited(&self, now: Instant) -> Self {
        let (entry, reached) = (self.entry.clone(), self.reached.clone());
        Self { entry, reached, ready: now, reply: None }
    }

    /// Tells whoever waits that nobody knows.
    pub(super) fn abandon(self, why: &str) {
        if let Some(reply) = self.reply {
            drop(reply.send(Err(LedgerError::Ambiguous(why.to_owned()))));
        }
    }
}

impl Consensus {
    /// One beat of every node: heartbeats, elections, commits, followers.
    pub(super) fn beat(&self) {
        let nodes: Vec<NodeId> = lock(&self.core).members.keys().copied().collect();
        for node in &nodes {
            lock(&self.core).lead(*node, &self.recorder);
            self.pump(*node);
        }
        let mut core = lock(&self.core);
        for node in &nodes {
            core.campaign(*node, &self.timing, &self.recorder);
        }
        for node in nodes {
            core.follow(node, &self.recorder);
        }
    }
}
