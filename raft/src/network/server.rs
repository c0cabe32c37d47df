//! Calls from peers.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use medic_proto::peer::v1::{self as pb, peer_server::Peer};
use medic_state::{NodeId, codec};
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::{Claim, incarnations::Incarnations, printable};
use crate::{
    consensus::Core,
    ledger::LedgerError,
    parcel::{Parcel, ParcelKind},
    store::{self, RawRecord, SnapshotError},
    types::{Proposal, Snapshot},
    wire::{self, WireError},
};

/// Says which node a connection belongs to, from what the transport verified (its certificate).
pub type IdentityCheck =
    dyn Fn(&Extensions) -> Result<Option<NodeId>, Status> + Send + Sync + 'static;

/// Believes whoever a call claims to come from: for plain connections in tests.
#[must_use]
pub fn trust_metadata() -> Arc<IdentityCheck> {
    Arc::new(|_| Ok(None))
}

/// Largest snapshot file taken; the law's state is bounded far below.
const MAX_SNAPSHOT_BYTES: usize = 1 << 30;
/// A peer that sends nothing for this long in the middle of a snapshot has gone.
const CHUNK_DEADLINE: Duration = Duration::from_secs(30);
/// Peers whose incarnations are remembered: more than any cluster has members.
const MAX_PEERS: usize = 256;

/// The peer port of one node.
pub(crate) struct PeerService {
    core: Arc<Core>,
    identity: Arc<IdentityCheck>,
    boots: Mutex<BTreeMap<NodeId, Incarnations>>,
    /// One snapshot at a time.
    installs: Semaphore,
}

type Answer<T> = Result<Response<T>, Status>;

impl PeerService {
    pub(crate) fn new(core: Arc<Core>, identity: Arc<IdentityCheck>) -> Self {
        Self { core, identity, boots: Mutex::default(), installs: Semaphore::new(1) }
    }

    /// Refuses calls from another cluster, for another node, under a false name, from an incarnation
    /// that was replaced, and all calls once this node is out.
    fn admit<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let core = &self.core;
        core.alive().map_err(|error| Status::unavailable(error.to_string()))?;
        let claim = Claim::read(request.metadata())?;
        if claim.cluster != printable(&core.config.cluster_id) {
            return Err(Status::failed_precondition(format!(
                "{} belongs to cluster `{}`, this is {} of cluster `{}`: correct its cluster id or its peer addresses",
                claim.from,
                claim.cluster,
                core.me(),
                core.config.cluster_id
            )));
        }
        if claim.to != core.me() {
            return Err(Status::failed_precondition(format!(
                "{} wants to reach {}, but this is {}: correct the peer addresses",
                claim.from,
                claim.to,
                core.me()
            )));
        }
        if claim.from == core.me() {
            return Err(Status::failed_precondition(format!(
                "a second process runs as {}; every node needs its own id",
                claim.from
            )));
        }
        if let Some(verified) = (self.identity)(request.extensions())?
            && verified != claim.from
        {
            return Err(Status::permission_denied(format!(
                "the certificate is for {verified}, the call is from {}",
                claim.from
            )));
        }
        self.admit_boot(&claim)?;
        if let Some(known) = claim.known {
            core.recognise(known).map_err(|error| Status::unavailable(error.to_string()))?;
        }
        Ok(claim.from)
    }

    fn admit_boot(&self, claim: &Claim) -> Result<(), Status> {
        let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
        if !boots.contains_key(&claim.from) && boots.len() >= MAX_PEERS {
            return Err(Status::resource_exhausted("too many peers"));
        }
        let at = Instant::now();
        let known = boots.entry(claim.from).or_insert_with(|| Incarnations::first(claim.boot, at));
        known.admit(claim.boot, at).map_err(|refused| {
            let why = format!(
                "two processes run as {} ({} and {}): stop one of them and give it its own id",
                claim.from, claim.boot, refused.other
            );
            if refused.first {
                tracing::warn!("{why}");
            }
            Status::failed_precondition(why)
        })
    }

    /// What changes the cluster or reads it is for its members: the certificate of a node that was
    /// removed is still good.
    fn admit_member<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let from = self.admit(request)?;
        if self.core.is_member(from) {
            return Ok(from);
        }
        Err(Status::permission_denied(format!("{from} is not a member of this cluster")))
    }

    /// Takes in all chunks: records go to their table at once, the file is gathered.
    async fn receive(
        &self,
        chunks: &mut Streaming<pb::SnapshotChunk>,
    ) -> Result<(pb::Vote, Bytes), Status> {
        let (mut vote, mut file) = (None, Vec::new());
        let late = |_| Status::deadline_exceeded("the snapshot stopped coming");
        while let Some(chunk) =
            tokio::time::timeout(CHUNK_DEADLINE, chunks.message()).await.map_err(late)??
        {
            vote = vote.or(chunk.vote);
            let records: Vec<RawRecord> = chunk
                .records
                .into_iter()
                .map(|r| RawRecord { index: r.index, ordinal: r.ordinal, bytes: r.record.into() })
                .collect();
            crate::crash_point!("peer_snapshot_chunk");
            self.core.records.import(records).await.map_err(stored)?;
            if file.len() + chunk.file.len() > MAX_SNAPSHOT_BYTES {
                return Err(Status::out_of_range("the snapshot is larger than any can be"));
            }
            file.extend_from_slice(&chunk.file);
        }
        let vote = vote.ok_or_else(|| Status::invalid_argument("the snapshot carries no vote"))?;
        Ok((vote, Bytes::from(file)))
    }
}

fn stored(error: std::io::Error) -> Status {
    Status::internal(error.to_string())
}

fn bad(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this node is stopping: {error}"))
}

pub(crate) fn failure_out(error: &LedgerError) -> pb::Failure {
    use pb::failure::Kind;
    let (kind, text) = match error {
        LedgerError::NotLeader => (Kind::NotLeader, String::new()),
        LedgerError::Unavailable(text) => (Kind::Unavailable, text.clone()),
        LedgerError::Ambiguous(text) => (Kind::Ambiguous, text.clone()),
        LedgerError::Stopped(text) => (Kind::Stopped, text.clone()),
        LedgerError::TooLarge(text) => (Kind::TooLarge, text.clone()),
        LedgerError::Refused(text) => (Kind::Refused, text.clone()),
    };
    pb::Failure { kind: kind.into(), text }
}

pub(crate) fn failure_in(failure: pb::Failure) -> LedgerError {
    use pb::failure::Kind;
    match failure.kind() {
        Kind::NotLeader => LedgerError::NotLeader,
        Kind::Unavailable => LedgerError::Unavailable(failure.text),
        Kind::Unspecified | Kind::Ambiguous => LedgerError::Ambiguous(failure.text),
        // The leader is stopping; this node is not.
        Kind::Stopped => {
            LedgerError::Unavailable(format!("the leader is stopping: {}", failure.text))
        }
        Kind::TooLarge => LedgerError::TooLarge(failure.text),
        Kind::Refused => LedgerError::Refused(failure.text),
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStreamStream =
        Pin<Box<dyn Stream<Item = Result<pb::AppendResponse, Status>> + Send + 'static>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Answer<Self::AppendStreamStream> {
        self.admit(&request)?;
        crate::crash_point!("peer_append_stream");
        let refused: Arc<Mutex<Option<Status>>> = Arc::default();
        let core = self.core.clone();
        let input = {
            let (refused, core) = (refused.clone(), core.clone());
            futures::stream::unfold(request.into_inner(), move |mut input| {
                let (refused, core) = (refused.clone(), core.clone());
                async move {
                    let message = input.next().await?;
                    let request = message.and_then(|message| {
                        wire::append_in(message).map_err(|error| {
                            if matches!(error, WireError::UnknownEntry { .. }) {
                                core.fatal.set(error.to_string());
                            }
                            bad(error)
                        })
                    });
                    match request {
                        Ok(request) => Some((request, input)),
                        Err(status) => {
                            *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                            None
                        }
                    }
                }
            })
        };
        let output = core.raft.stream_append(input).map(|result| match result {
            Ok(result) => Ok(wire::appended_out(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        let refusal = futures::stream::once(async move {
            refused.lock().unwrap_or_else(PoisonError::into_inner).take()
        });
        let output = output.chain(refusal.filter_map(|status| async move { status.map(Err) }));
        Ok(Response::new(Box::pin(output)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        self.admit(&request)?;
        self.core.may_vote()?;
        let request = wire::vote_request_in(request.get_ref()).map_err(bad)?;
        crate::crash_point!("peer_before_vote");
        let response = self.core.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_out(&response)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        self.admit(&request)?;
        self.core.may_vote()?;
        let request = wire::vote_request_in(request.get_ref()).map_err(bad)?;
        crate::crash_point!("peer_before_pre_vote");
        let response = self.core.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_out(&response)))
    }

    async fn records_head(
        &self,
        request: Request<pb::RecordsHeadRequest>,
    ) -> Answer<pb::RecordsHeadResponse> {
        self.admit(&request)?;
        let through = *self.core.shared.applied.borrow();
        Ok(Response::new(pb::RecordsHeadResponse { through }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Answer<pb::SnapshotResponse> {
        let from = self.admit(&request)?;
        let _one = self
            .installs
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being installed"))?;
        let (vote, file) = self.receive(&mut request.into_inner()).await?;
        let (meta, _) = store::decode_snapshot(&file).map_err(|error| match error {
            SnapshotError::Newer(reason) => {
                let text = format!("the leader's snapshot cannot be read: {reason}");
                self.core.fatal.set(text.clone());
                Status::failed_precondition(text)
            }
            SnapshotError::Damaged(reason) => {
                Status::data_loss(format!("the snapshot arrived damaged: {reason}"))
            }
        })?;
        tracing::info!(from = from.0, bytes = file.len(), last = ?meta.last_log_id, "installing a snapshot");
        let snapshot = Snapshot { meta, snapshot: file };
        let response = self
            .core
            .raft
            .install_full_snapshot(wire::vote_in(&vote), snapshot)
            .await
            .map_err(stopped)?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some(wire::vote_out(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Answer<pb::TransferLeaderResponse> {
        self.admit(&request)?;
        let request = wire::transfer_in(request.get_ref()).map_err(bad)?;
        crate::crash_point!("peer_before_transfer");
        let response = self.core.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(wire::transferred_out(&response)))
    }

    async fn forward(&self, request: Request<pb::ForwardRequest>) -> Answer<pb::ForwardResponse> {
        use pb::forward_response::Result as R;
        self.admit_member(&request)?;
        let proposal = Proposal::decode(request.into_inner().entry).map_err(|error| {
            Status::invalid_argument(format!("the forwarded entry cannot be read: {error}"))
        })?;
        // One clock at a time makes the law's time: the leader's. A follower whose clock is ahead
        // would end every cooldown and budget at once, and make time stand still after that.
        let proposal = proposal.stamped(self.core.stamp());
        crate::crash_point!("peer_before_forwarded");
        let result = match self.core.propose_here(proposal).await {
            Ok(committed) => R::Committed(pb::Committed {
                index: committed.index,
                answer: codec::encode(&committed.answer).into(),
            }),
            Err(error) => R::Failure(failure_out(&error)),
        };
        crate::crash_point!("peer_after_forwarded");
        Ok(Response::new(pb::ForwardResponse { result: Some(result) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Answer<pb::ReadIndexResponse> {
        use pb::read_index_response::Result as R;
        self.admit_member(&request)?;
        self.admit(&request)?;
        crate::crash_point!("peer_read_index");
        let result = match self.core.read_index_here().await {
            Ok(index) => R::Index(index),
            Err(error) => R::Failure(failure_out(&error)),
        };
        Ok(Response::new(pb::ReadIndexResponse { result: Some(result) }))
    }

    async fn admin(&self, request: Request<pb::AdminRequest>) -> Answer<pb::AdminResponse> {
        self.admit_member(&request)?;
        let operation = request
            .into_inner()
            .operation
            .ok_or_else(|| Status::invalid_argument("no operation is named"))?;
        let failure = self.core.administer(operation).await.err().map(|e| failure_out(&e));
        Ok(Response::new(pb::AdminResponse { failure }))
    }

    async fn pass(&self, request: Request<pb::PassRequest>) -> Answer<pb::PassResponse> {
        let from = self.admit_member(&request)?;
        let request = request.into_inner();
        let kind = ParcelKind::taken(request.kind()).ok_or_else(|| {
            Status::invalid_argument(format!("parcels of kind {} are not known here", request.kind))
        })?;
        self.core.inboxes.put(kind, Parcel { from, body: request.body })?;
        Ok(Response::new(pb::PassResponse {}))
    }
}
