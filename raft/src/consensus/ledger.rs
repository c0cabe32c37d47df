//! [`Ledger`] and [`ClusterAdmin`] over openraft, on any node: the leader is found and asked.

use std::{sync::RwLock, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use medic_proto::peer::v1::{self as pb, admin_request::Operation};
use medic_state::{
    BootId, Entry, NodeId, State, codec,
    planted::{Planted, planted},
};
use openraft::{Instant as _, async_runtime::watch::WatchReceiver as _};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Code, Status};

use super::Consensus;
use crate::{
    config::MAX_ENTRY_BYTES,
    env::Env,
    ledger::{
        ClusterAdmin, ClusterStatus, Committed, Leadership, Ledger, LedgerError, Member,
        RecordQuery, StoredRecord,
    },
    network::{Lane, PeerClient, describe, failure_in},
    parcel::{Courier, MAX_PARCEL_BYTES, ParcelKind},
    store::About,
    types::Proposal,
};

/// Between two looks for a leader when nothing changes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Membership changes and transfers take longer than proposals.
const ADMIN_DEADLINE: Duration = Duration::from_secs(75);

/// Where a request goes.
enum Leader {
    Here,
    There(NodeId, String),
}

impl Consensus {
    fn leader(&self) -> Option<Leader> {
        let metrics = self.core.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        if leader == self.core.me().0 {
            return Some(Leader::Here);
        }
        let addr = metrics.membership_config.get_node(&leader)?.peer_addr.clone();
        Some(Leader::There(NodeId(leader), addr))
    }

    /// Tries until it succeeds, fails for good, or the time is up. `again` says of which errors
    /// another try is harmless.
    async fn at_leader<'a, T>(
        &'a self,
        deadline: Duration,
        again: impl Fn(&LedgerError) -> bool + Send,
        ask: impl Fn(Leader) -> BoxFuture<'a, Result<T, LedgerError>> + Send,
    ) -> Result<T, LedgerError> {
        let until = Instant::now() + deadline;
        let mut leadership = self.leadership.subscribe();
        let mut last = LedgerError::Unavailable("no leader is known".to_owned());
        loop {
            // Whatever ends the trying, an earlier try may have been committed.
            self.core.alive().map_err(|error| stricter(last.clone(), error))?;
            if let Some(leader) = self.leader() {
                match timeout_at(until, ask(leader)).await {
                    Ok(Ok(done)) => return Ok(done),
                    Ok(Err(error)) if again(&error) => last = stricter(last, error),
                    Ok(Err(error)) => return Err(stricter(last, error)),
                    Err(_) => {
                        return Err(LedgerError::Ambiguous(format!(
                            "no answer within {} s",
                            deadline.as_secs_f32()
                        )));
                    }
                }
            }
            if Instant::now() + LOOK_AGAIN >= until {
                return Err(last);
            }
            if let Ok(Err(_)) = timeout(LOOK_AGAIN, leadership.changed()).await {
                let ended = LedgerError::Stopped("consensus has ended".to_owned());
                return Err(stricter(last, ended));
            }
        }
    }

    async fn client(&self, node: NodeId, addr: &str) -> Result<PeerClient, LedgerError> {
        let client = self.caller.client(node, addr, Lane::Bulk).await;
        client.map_err(|error| LedgerError::Unavailable(error.to_string()))
    }

    async fn forward(
        &self,
        node: NodeId,
        addr: &str,
        proposal: &Proposal,
    ) -> Result<Committed, LedgerError> {
        use pb::forward_response::Result as R;
        let request = pb::ForwardRequest { entry: proposal.bytes().clone() };
        crate::crash_point!("ledger_before_forward");
        let response = self.client(node, addr).await?.forward(request).await;
        crate::crash_point!("ledger_after_forward");
        let response = response.map_err(|status| call_error(node, &status))?.into_inner();
        match response.result {
            Some(R::Committed(committed)) => {
                let answer = codec::decode(&committed.answer).map_err(|error| {
                    LedgerError::Ambiguous(format!("{node} gave an answer that {error}"))
                })?;
                Ok(Committed { index: committed.index, answer })
            }
            Some(R::Failure(failure)) => Err(failure_in(failure)),
            None => Err(LedgerError::Ambiguous(format!("{node} gave no answer"))),
        }
    }

    async fn read_index_there(&self, node: NodeId, addr: &str) -> Result<u64, LedgerError> {
        use pb::read_index_response::Result as R;
        let mut client = self.client(node, addr).await?;
        let response = client.read_index(pb::ReadIndexRequest {}).await;
        match response.map_err(|status| call_error(node, &status))?.into_inner().result {
            Some(R::Index(index)) => Ok(index),
            Some(R::Failure(failure)) => Err(failure_in(failure)),
            None => Err(LedgerError::Unavailable(format!("{node} gave no answer"))),
        }
    }

    async fn admin_there(
        &self,
        node: NodeId,
        addr: &str,
        operation: Operation,
    ) -> Result<(), LedgerError> {
        let request = pb::AdminRequest { operation: Some(operation) };
        let response = self.client(node, addr).await?.admin(request).await;
        let response = response.map_err(|status| call_error(node, &status))?;
        response.into_inner().failure.map_or(Ok(()), |failure| Err(failure_in(failure)))
    }

    async fn administer(&self, operation: Operation) -> Result<(), LedgerError> {
        let again = |error: &LedgerError| matches!(error, LedgerError::NotLeader);
        let done = self.at_leader(ADMIN_DEADLINE, again, |leader| {
            let operation = operation.clone();
            Box::pin(async move {
                match leader {
                    Leader::Here => self.core.administer(operation).await,
                    Leader::There(node, addr) => self.admin_there(node, &addr, operation).await,
                }
            })
        });
        done.await.map_err(not_leader_is_unavailable)
    }
}

/// Keeps the error that says that something may have happened.
fn stricter(before: LedgerError, now: LedgerError) -> LedgerError {
    if matches!(before, LedgerError::Ambiguous(_)) { before } else { now }
}

/// Whether a failed call may have reached the peer.
fn call_error(node: NodeId, status: &Status) -> LedgerError {
    let text = format!("{node}: {}", describe(status));
    let refused_before = matches!(
        status.code(),
        Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::Unimplemented
            | Code::ResourceExhausted
    );
    if refused_before || never_connected(status) {
        LedgerError::Unavailable(text)
    } else {
        LedgerError::Ambiguous(text)
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

fn not_leader_is_unavailable(error: LedgerError) -> LedgerError {
    match error {
        LedgerError::NotLeader => LedgerError::Unavailable("the leader is changing".to_owned()),
        other => other,
    }
}

#[async_trait]
impl Ledger for Consensus {
    fn node(&self) -> NodeId {
        self.core.me()
    }

    fn boot(&self) -> BootId {
        self.core.boot
    }

    fn env(&self) -> &Env {
        &self.core.env
    }

    async fn propose(&self, entry: Entry) -> Result<Committed, LedgerError> {
        // Under a request id the law applies it once, however often it is committed.
        let repeatable = entry.request.is_some();
        let proposal = Proposal::new(entry);
        let bytes = proposal.bytes().len();
        if bytes > MAX_ENTRY_BYTES {
            return Err(LedgerError::TooLarge(format!(
                "{} encodes to {bytes} bytes, at most {MAX_ENTRY_BYTES} are allowed",
                proposal.entry().command.name()
            )));
        }
        let again = |error: &LedgerError| match error {
            LedgerError::NotLeader | LedgerError::Unavailable(_) => true,
            LedgerError::Ambiguous(_) => repeatable,
            LedgerError::Stopped(_) | LedgerError::TooLarge(_) | LedgerError::Refused(_) => false,
        };
        let deadline = self.core.config.timing.propose_deadline;
        let done = self.at_leader(deadline, again, |leader| {
            let proposal = proposal.clone();
            Box::pin(async move {
                match leader {
                    Leader::Here => {
                        self.core.propose_here(proposal.stamped(self.core.stamp())).await
                    }
                    Leader::There(node, addr) => self.forward(node, &addr, &proposal).await,
                }
            })
        });
        done.await.map_err(not_leader_is_unavailable)
    }

    async fn propose_as_leader(&self, entry: Entry) -> Result<Committed, LedgerError> {
        self.core.propose_here(Proposal::new(entry)).await
    }

    async fn linearize(&self) -> Result<u64, LedgerError> {
        if planted(Planted::StaleReadServed) {
            return Ok(*self.core.shared.applied.borrow());
        }
        let again = |error: &LedgerError| {
            matches!(
                error,
                LedgerError::NotLeader | LedgerError::Unavailable(_) | LedgerError::Ambiguous(_)
            )
        };
        let deadline = self.core.config.timing.propose_deadline;
        let until = Instant::now() + deadline;
        let index = self.at_leader(deadline, again, |leader| {
            Box::pin(async move {
                match leader {
                    Leader::Here => self.core.read_index_here().await,
                    Leader::There(node, addr) => self.read_index_there(node, &addr).await,
                }
            })
        });
        let index = index.await.map_err(|error| match not_leader_is_unavailable(error) {
            // A read changes nothing.
            LedgerError::Ambiguous(text) => LedgerError::Unavailable(text),
            other => other,
        })?;
        self.core.wait_applied(index, until).await
    }

    fn state(&self) -> &RwLock<State> {
        &self.core.shared.state
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.core.shared.applied.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn records(&self, query: RecordQuery) -> Result<Vec<StoredRecord>, LedgerError> {
        let applied = *self.core.shared.applied.borrow();
        let found = self.core.records.query(query, applied);
        found.map_err(|error| LedgerError::Stopped(format!("records cannot be read: {error}")))
    }

    fn records_about(
        &self,
        about: About,
        query: RecordQuery,
    ) -> Result<Vec<StoredRecord>, LedgerError> {
        let applied = *self.core.shared.applied.borrow();
        let found = self.core.records.query_about(about, query, applied);
        found.map_err(|error| LedgerError::Stopped(format!("records cannot be read: {error}")))
    }

    fn lease_remaining(&self) -> Duration {
        self.core.lease_remaining()
    }
}

#[async_trait]
impl Courier for Consensus {
    async fn pass(&self, to: NodeId, kind: ParcelKind, body: Bytes) -> Result<(), LedgerError> {
        self.core.alive()?;
        if body.len() > MAX_PARCEL_BYTES {
            return Err(LedgerError::TooLarge(format!(
                "a parcel of {} bytes, at most {MAX_PARCEL_BYTES} are allowed",
                body.len()
            )));
        }
        let Some((member, _)) = self.core.member(to.0) else {
            return Err(LedgerError::Refused(format!("{to} is not a member of the cluster")));
        };
        let request = pb::PassRequest { kind: kind.out().into(), body };
        let deadline = self.core.config.timing.propose_deadline;
        let passed = async {
            let mut client = self.client(to, &member.peer_addr).await?;
            client.pass(request).await.map_err(|status| call_error(to, &status))
        };
        let late = |_| LedgerError::Unavailable(format!("{to} took no parcel in time"));
        timeout(deadline, passed).await.map_err(late)?.map(|_| ())
    }
}

#[async_trait]
impl ClusterAdmin for Consensus {
    fn status(&self) -> ClusterStatus {
        let metrics = self.core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let leads = metrics.state.is_leader();
        let members = membership
            .nodes()
            .map(|(node, at)| {
                let me = *node == self.core.me().0;
                let last = metrics.last_log_index;
                let matched = metrics.replication.as_ref().and_then(|all| all.get(node)).cloned();
                let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(node)).cloned();
                Member {
                    node: NodeId(*node),
                    peer_addr: at.peer_addr.clone(),
                    voter: voters.contains(node),
                    matched: if me { last } else { matched.flatten().map(|id| id.index) },
                    silent_ms: if me {
                        leads.then_some(0)
                    } else {
                        heard
                            .flatten()
                            .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
                    },
                }
            })
            .collect();
        ClusterStatus {
            cluster_id: self.core.config.cluster_id.clone(),
            leadership: *self.leadership.borrow(),
            last_log: metrics.last_log_index.unwrap_or_default(),
            applied: *self.core.shared.applied.borrow(),
            snapshot: metrics.snapshot.map(|id| id.index),
            members,
            fatal: self.core.fatal.get(),
        }
    }

    async fn add_learner(&self, node: NodeId, peer_addr: String) -> Result<(), LedgerError> {
        self.administer(Operation::AddLearner(pb::Member { node: node.0, peer_addr })).await
    }

    async fn promote(&self, node: NodeId) -> Result<(), LedgerError> {
        self.administer(Operation::Promote(node.0)).await
    }

    async fn remove(&self, node: NodeId) -> Result<(), LedgerError> {
        self.administer(Operation::Remove(node.0)).await
    }

    async fn transfer(&self, to: NodeId) -> Result<(), LedgerError> {
        self.administer(Operation::Transfer(to.0)).await
    }
}
