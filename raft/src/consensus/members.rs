//! Changes of membership and leadership, by the leader.
//!
//! Invariants: one at a time; none after which those that answer would be no quorum; nobody votes who
//! has not got what is committed. A learner is waited for while other changes may be made.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering, time::Duration};

use medic_proto::peer::v1::{self as pb, admin_request::Operation};
use medic_state::NodeId;
use openraft::{ChangeMembers, Instant as _, async_runtime::watch::WatchReceiver as _};
use tokio::time::timeout;

use super::Core;
use crate::{ledger::LedgerError, types::PeerNode};

impl Core {
    /// Changes membership or leadership, if this node leads. What was begun comes to its end though
    /// whoever asked goes away meanwhile: a lease given up for a transfer would never come back.
    pub(crate) async fn administer(
        self: &Arc<Self>,
        operation: Operation,
    ) -> Result<(), LedgerError> {
        let core = Arc::clone(self);
        let task = tokio::spawn(async move { core.carry_out(operation).await });
        task.await.unwrap_or_else(|error| Err(LedgerError::Stopped(error.to_string())))
    }

    async fn carry_out(&self, operation: Operation) -> Result<(), LedgerError> {
        self.alive()?;
        let one = self.admin.try_lock().map_err(|_| {
            LedgerError::Unavailable("another change of the cluster is in progress".to_owned())
        })?;
        match operation {
            Operation::AddLearner(member) => {
                let (node, index) = (member.node, self.add_learner(member).await?);
                // It may take its time: meanwhile it can be taken out again, if its address is wrong.
                drop(one);
                self.until_caught_up(node, index).await
            }
            Operation::Promote(node) => self.promote(node).await,
            Operation::Remove(node) => self.remove(node).await,
            Operation::Transfer(to) => self.transfer(to).await,
        }
    }

    /// Makes it a learner. Gives the log index of that: all that was committed comes before it.
    async fn add_learner(&self, member: pb::Member) -> Result<u64, LedgerError> {
        let pb::Member { node, peer_addr } = member;
        let known = self.member(node);
        if let Some((known, _)) = &known {
            if known.peer_addr != peer_addr {
                return Err(LedgerError::Refused(format!(
                    "{} is already a member at {}; remove it first if that is wrong",
                    NodeId(node),
                    known.peer_addr
                )));
            }
        } else if node == 0 || self.ever_registered(node) {
            return Err(LedgerError::Refused(format!(
                "{} cannot be used (again): give the new node an id that no node ever had",
                NodeId(node)
            )));
        }
        // openraft would call it caught up whose log is short of no more entries than a snapshot takes,
        // and so in a young cluster whoever was never heard.
        let add = self.raft.add_learner(node, PeerNode { peer_addr }, false);
        match timeout(self.config.timing.propose_deadline, add).await {
            Ok(Ok(added)) => Ok(added.log_id.index),
            Ok(Err(error)) => Err(self.write_error(error)),
            Err(_) => Err(not_in_time()),
        }
    }

    /// Waits until a learner has all up to an index.
    async fn until_caught_up(&self, node: u64, index: u64) -> Result<(), LedgerError> {
        let deadline = self.config.timing.catch_up_deadline;
        match timeout(deadline, self.replicated(node, index)).await {
            Ok(caught_up) => caught_up,
            Err(_) => Err(LedgerError::Refused(format!(
                "{} is a learner now and stays one, but has not caught up within {} s ({}); see whether it runs and reaches its peers; then add it again to wait for it, or remove it",
                NodeId(node),
                deadline.as_secs_f32(),
                self.progress(node, index),
            ))),
        }
    }

    /// Ends when a member has all up to an index, or this node no longer leads it.
    async fn replicated(&self, node: u64, index: u64) -> Result<(), LedgerError> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_watched();
                if !now.state.is_leader() {
                    return Err(LedgerError::NotLeader);
                }
                // What is reported may lag behind the change that made it a member.
                let members = &now.membership_config;
                let reported = members.log_id().as_ref().is_some_and(|id| id.index >= index);
                if reported && members.membership().get_node(&node).is_none() {
                    let text = format!("{} was removed meanwhile", NodeId(node));
                    return Err(LedgerError::Refused(text));
                }
            }
            if node == self.me().0 || self.matched(node) >= Some(index) {
                return Ok(());
            }
            if metrics.changed().await.is_err() {
                return Err(LedgerError::Stopped("consensus has ended".to_owned()));
            }
        }
    }

    /// How far a member is known to have come, where this node leads.
    fn matched(&self, node: u64) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.replication.as_ref()?.get(&node)?.as_ref().map(|id| id.index)
    }

    fn progress(&self, node: u64, index: u64) -> String {
        self.matched(node).map_or_else(
            || "nothing was heard of it".to_owned(),
            |matched| format!("it is at index {matched} of {index}"),
        )
    }

    async fn promote(&self, node: u64) -> Result<(), LedgerError> {
        match self.member(node) {
            None => Err(not_a_member(node)),
            Some((_, true)) => Ok(()),
            Some((_, false)) => {
                self.fit_to_vote(node).await?;
                let mut then = self.voters();
                then.insert(node);
                self.will_have_quorum(&then).await?;
                self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await
            }
        }
    }

    /// Refuses a learner that does not answer or has not got what is committed: with it among them, the
    /// voters would be short of one from the start. What is under way is given a moment.
    async fn fit_to_vote(&self, node: u64) -> Result<(), LedgerError> {
        let patience = self.config.timing.election_max;
        let committed = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.cluster_committed.as_ref().map_or(0, |id| id.index)
        };
        let unfit = |why: String| {
            LedgerError::Refused(format!(
                "{} {why}: as a voter it could cost the quorum; see whether it runs and reaches its peers, and wait until MATCHED of `medic cluster status` is the others'; or remove it",
                NodeId(node)
            ))
        };
        let only = BTreeSet::from([node]);
        let mut metrics = self.raft.metrics();
        let heard = async {
            while !self.silent(&only, patience)?.is_empty() {
                if metrics.changed().await.is_err() {
                    return Err(LedgerError::Stopped("consensus has ended".to_owned()));
                }
            }
            Ok(())
        };
        match timeout(patience, heard).await {
            Ok(heard) => heard?,
            Err(_) => return Err(unfit("does not answer".to_owned())),
        }
        match timeout(patience, self.replicated(node, committed)).await {
            Ok(replicated) => replicated,
            Err(_) => {
                let progress = self.progress(node, committed);
                Err(unfit(format!("has not got all that is committed ({progress})")))
            }
        }
    }

    async fn remove(&self, node: u64) -> Result<(), LedgerError> {
        match self.member(node) {
            None => Err(not_a_member(node)),
            Some((_, false)) => {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await
            }
            Some((_, true)) => {
                let mut then = self.voters();
                then.remove(&node);
                self.will_have_quorum(&then).await?;
                self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await
            }
        }
    }

    /// Refuses a change after which those who answer would be no quorum: it could never be committed,
    /// nor anything after it. A leader that is new is given a moment to hear from the others.
    async fn will_have_quorum(&self, then: &BTreeSet<u64>) -> Result<(), LedgerError> {
        let patience = self.config.timing.election_max;
        let mut metrics = self.raft.metrics();
        let heard = async {
            loop {
                let silent = self.silent(then, patience)?;
                if silent.is_empty()
                    || silent.len() * 2 < then.len()
                    || metrics.changed().await.is_err()
                {
                    return Ok(());
                }
            }
        };
        if let Ok(heard) = timeout(patience, heard).await {
            return heard;
        }
        let silent: Vec<String> =
            self.silent(then, patience)?.into_iter().map(|node| NodeId(node).to_string()).collect();
        Err(LedgerError::Refused(format!(
            "{} of the {} voters there would be then do not answer ({}): without a quorum nothing could be committed any more; bring them back, or remove them first",
            silent.len(),
            then.len(),
            silent.join(", ")
        )))
    }

    /// Those of the nodes that this leader has not heard for so long.
    fn silent(&self, nodes: &BTreeSet<u64>, patience: Duration) -> Result<Vec<u64>, LedgerError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(heartbeats) = metrics.heartbeat.as_ref() else {
            return Err(LedgerError::NotLeader);
        };
        let heard = |node: &u64| {
            let last = heartbeats.get(node).and_then(Option::as_ref);
            *node == self.me().0 || last.is_some_and(|at| at.elapsed() < patience)
        };
        Ok(nodes.iter().filter(|node| !heard(node)).copied().collect())
    }

    fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, PeerNode>,
        retain: bool,
    ) -> Result<(), LedgerError> {
        let changed = self.raft.change_membership(change, retain);
        match timeout(self.config.timing.propose_deadline, changed).await {
            Ok(changed) => changed.map(|_| ()).map_err(|error| self.write_error(error)),
            Err(_) => Err(not_in_time()),
        }
    }

    /// Acts that were admitted under the lease are let end before another may lead.
    async fn transfer(&self, to: u64) -> Result<(), LedgerError> {
        match self.member(to) {
            None => return Err(not_a_member(to)),
            Some((_, false)) => {
                return Err(LedgerError::Refused(format!(
                    "{} is a learner; promote it first",
                    NodeId(to)
                )));
            }
            Some((_, true)) => {}
        }
        let mut metrics = self.raft.server_metrics();
        let term = {
            let now = metrics.borrow_watched();
            if now.current_leader != Some(self.me().0) {
                return Err(LedgerError::NotLeader);
            }
            now.vote.leader_id.term
        };
        if to == self.me().0 {
            return Ok(());
        }
        self.lease_void.store(term, Ordering::Release);
        tokio::time::sleep(self.config.timing.election_max).await;
        let triggered = self.raft.trigger().transfer_leader(to).await;
        triggered.map_err(|error| LedgerError::Stopped(error.to_string()))?;
        let moved = async {
            loop {
                {
                    let now = metrics.borrow_watched();
                    if now.current_leader.is_some_and(|leader| leader != self.me().0) {
                        return now.current_leader;
                    }
                }
                if metrics.changed().await.is_err() {
                    return None;
                }
            }
        };
        let deadline = self.config.timing.election_max * 5;
        let leader = timeout(deadline, moved).await.ok().flatten();
        if leader == Some(to) {
            return Ok(());
        }
        self.lease_void.store(0, Ordering::Release);
        Err(LedgerError::Unavailable(match leader {
            Some(other) => format!("{} has taken over instead", NodeId(other)),
            None => format!("{} did not take over; is it healthy and caught up?", NodeId(to)),
        }))
    }
}

fn not_a_member(node: u64) -> LedgerError {
    LedgerError::Refused(format!("{} is not a member of the cluster", NodeId(node)))
}

fn not_in_time() -> LedgerError {
    let text = "the change of membership was proposed, but not committed in time";
    LedgerError::Ambiguous(text.to_owned())
}
