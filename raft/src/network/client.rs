//! Calls to peers, as openraft makes them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::BoxFuture, stream::BoxStream};
use medic_proto::peer::v1::{self as pb, peer_client};
use medic_state::{BootId, NodeId};
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tonic::{Code, Status, service::interceptor::InterceptedService, transport::Channel};

use super::{ConnectError, Lane, Pool, Tag};
use crate::{
    config::{MAX_MESSAGE_BYTES, Timing},
    store::{RecordStore, Shared},
    types::{PeerNode, Snapshot, TypeConfig, Vote},
    wire::{self, WireError},
};

/// A client whose calls are tagged.
pub(crate) type PeerClient = peer_client::PeerClient<InterceptedService<Channel, Tag>>;
type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// Snapshot file bytes in one message.
const PIECE_BYTES: usize = 512 << 10;
/// Pieces of a snapshot waiting to be sent.
const PIECES_AHEAD: usize = 4;

/// Makes clients for peers.
pub(crate) struct Caller {
    pub(crate) pool: Pool,
    pub(crate) cluster: String,
    pub(crate) me: NodeId,
    pub(crate) boot: BootId,
    pub(crate) timing: Timing,
    pub(crate) shared: Arc<Shared>,
}

impl Caller {
    pub(crate) async fn client(
        &self,
        to: NodeId,
        addr: &str,
        lane: Lane,
    ) -> Result<PeerClient, ConnectError> {
        let channel = self.pool.get(to, addr, lane).await?;
        let known = self.shared.registered_boot(to);
        let tag = Tag::new(&self.cluster, self.me, to, self.boot, known);
        Ok(peer_client::PeerClient::with_interceptor(channel, tag)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

/// openraft's factory of links.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) caller: Arc<Caller>,
    pub(crate) records: RecordStore,
}

impl Links {
    fn link(&self, target: u64, node: &PeerNode, lane: Lane) -> Link {
        let addr = node.peer_addr.clone();
        Link { shared: self.clone(), target: NodeId(target), addr, lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Link {
        self.link(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Link {
        self.link(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Link {
        self.link(target, node, Lane::Bulk)
    }
}

/// One way to one peer.
pub(crate) struct Link {
    shared: Links,
    target: NodeId,
    addr: String,
    lane: Lane,
}

impl Link {
    async fn client(&self, lane: Lane) -> Rpc<PeerClient> {
        let client = self.shared.caller.client(self.target, &self.addr, lane).await;
        client.map_err(|error| Unreachable::new(&error).into())
    }

    /// One call with a deadline.
    async fn unary<T>(
        &self,
        action: RPCTypes,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Rpc<T> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(self.late(action, deadline)),
        }
    }

    fn failed(&self, status: &Status) -> RPCError<TypeConfig> {
        let text = format!("{} ({}): {}", self.target, self.addr, describe(status));
        match status.code() {
            // The peer is there but did not like this call: try again at once, a few times.
            Code::Cancelled | Code::Aborted | Code::ResourceExhausted => {
                NetworkError::from_string(text).into()
            }
            _ => {
                tracing::debug!(peer = self.target.0, status = text, "peer call failed");
                Unreachable::from_string(text).into()
            }
        }
    }

    fn late(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        let id = self.shared.caller.me.0;
        Timeout { action, id, target: self.target.0, timeout }.into()
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Rpc<Vote> {
        let deadline = self.shared.caller.timing.snapshot_deadline;
        let mut client = self.client(self.lane).await?;
        crate::crash_point!("peer_before_snapshot");
        let head = client.records_head(pb::RecordsHeadRequest {});
        let head = self.unary(RPCTypes::InstallSnapshot, deadline, head).await?;
        let last = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let (chunks, rx) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        let produce = produce_chunks(
            self.shared.records.clone(),
            vote,
            (head.through.saturating_add(1), last),
            snapshot.snapshot,
            chunks,
        );
        let call = client.install_snapshot(tokio_stream::wrappers::ReceiverStream::new(rx));
        let call = self.unary(RPCTypes::InstallSnapshot, deadline, call);
        // A failed read of the records drops the channel before the file is complete: the peer then
        // refuses the cut-off file.
        let (response, produced) = tokio::join!(call, produce);
        let response = response?;
        produced.map_err(|error| NetworkError::new(&error))?;
        let vote = response.vote.as_ref().ok_or(WireError::Missing("the vote")).map_err(bad)?;
        Ok(wire::vote_in(vote))
    }
}

fn bad(error: WireError) -> RPCError<TypeConfig> {
    NetworkError::new(&error).into()
}

/// A status with the cause that tonic hides in its source.
pub(crate) fn describe(status: &Status) -> String {
    use std::error::Error as _;
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}

async fn produce_chunks(
    records: RecordStore,
    vote: Vote,
    (mut first, last): (u64, u64),
    file: Bytes,
    chunks: tokio::sync::mpsc::Sender<pb::SnapshotChunk>,
) -> std::io::Result<()> {
    let gone = |_| std::io::Error::other("the peer ended the transfer");
    let head = pb::SnapshotChunk { vote: Some(wire::vote_out(&vote)), ..Default::default() };
    chunks.send(head).await.map_err(gone)?;
    while first <= last {
        let piece = records.piece(first, last)?;
        let Some(raw) = piece.last() else { break };
        first = raw.index + 1;
        let records = piece
            .into_iter()
            .map(|raw| pb::StoredRecord {
                index: raw.index,
                ordinal: raw.ordinal,
                record: raw.bytes.into(),
            })
            .collect();
        let chunk = pb::SnapshotChunk { records, ..Default::default() };
        chunks.send(chunk).await.map_err(gone)?;
    }
    let mut file = file;
    while !file.is_empty() {
        let piece = file.split_to(file.len().min(PIECE_BYTES));
        let chunk = pb::SnapshotChunk { file: piece, ..Default::default() };
        chunks.send(chunk).await.map_err(gone)?;
    }
    Ok(())
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let input = futures::stream::iter([request]);
        let mut output = self.stream_append(input, option).await?;
        let result = output.next().await.unwrap_or_else(|| {
            Err(NetworkError::from_string("the peer ended the stream without an answer").into())
        })?;
        Ok(result.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft waits out its back-off where a request is taken from `input`. Dialling before
            // that would make a dead peer a busy loop.
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let input = futures::stream::iter([first]).chain(input);
            let deadline = self.shared.caller.timing.append_deadline;
            let mut client = self.client(self.lane).await?;
            let sent = Arc::new(AtomicU64::new(0));
            let input = {
                let sent = sent.clone();
                input.map(move |request| {
                    sent.fetch_add(1, Ordering::AcqRel);
                    wire::append_out(&request)
                })
            };
            let call = client.append_stream(input);
            let this = &*self;
            let output = this.unary(RPCTypes::AppendEntries, deadline, call).await?;
            let state = Some((output, 0_u64));
            let stream = futures::stream::unfold(state, move |state| {
                let sent = sent.clone();
                async move {
                    let (mut output, answered) = state?;
                    loop {
                        let waiting = sent.load(Ordering::Acquire) > answered;
                        match tokio::time::timeout(deadline, output.next()).await {
                            Ok(None) => return None,
                            Ok(Some(Ok(response))) => {
                                let result = wire::appended_in(response).map_err(bad);
                                return Some((result, Some((output, answered + 1))));
                            }
                            Ok(Some(Err(status))) => {
                                return Some((Err(this.failed(&status)), None));
                            }
                            // Nothing to answer: an idle stream is fine.
                            Err(_) if !waiting => {}
                            Err(_) => {
                                let late = this.late(RPCTypes::AppendEntries, deadline);
                                return Some((Err(late), None));
                            }
                        }
                    }
                }
            });
            Ok(stream.boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let mut client = self.client(Lane::Control).await?;
        let call = client.vote(wire::vote_request_out(&request));
        let response = self.unary(RPCTypes::Vote, option.hard_ttl(), call).await?;
        wire::vote_response_in(&response).map_err(bad)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let mut client = self.client(Lane::Control).await?;
        let call = client.pre_vote(wire::vote_request_out(&request));
        let response = self.unary(RPCTypes::Vote, option.hard_ttl(), call).await?;
        wire::vote_response_in(&response).map_err(bad)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => Ok(SnapshotResponse::new(sent?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let mut client = self.client(Lane::Control).await?;
        let call = client.transfer_leader(wire::transfer_out(&request));
        let response = self.unary(RPCTypes::TransferLeader, option.hard_ttl(), call).await?;
        wire::transferred_in(&response).map_err(bad)
    }
}
