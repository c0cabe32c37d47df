//! Conversions between openraft's types and our own protobuf types: the one form on wire and disk.
//!
//! Decoding never guesses: a missing part or an unknown kind of entry is an error.

use std::collections::{BTreeMap, BTreeSet};

use medic_proto::peer::v1 as pb;
use openraft::{
    EntryPayload,
    raft::{
        AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};

use crate::types::{
    LeaderId, LogEntry, LogId, Membership, PeerNode, Proposal, SnapshotMeta, StoredMembership,
    TypeConfig, Vote,
};

/// A message or stored value that this build does not understand.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not protobuf of the expected type.
    #[error("not a {what}: {source}")]
    Malformed {
        /// The expected type.
        what: &'static str,
        /// What protobuf says.
        source: prost::DecodeError,
    },
    /// A required part is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The set of members contradicts itself.
    #[error("bad membership: {0}")]
    Membership(String),
    /// An entry of a kind this build does not know, or damaged.
    #[error(
        "log entry {index} cannot be understood: {source}; if a newer version wrote it, upgrade this node"
    )]
    UnknownEntry {
        /// Its log index.
        index: u64,
        /// What the law's codec says.
        source: medic_state::codec::CodecError,
    },
}

/// Decodes a protobuf message.
///
/// # Errors
/// When the bytes are not one.
pub fn decode<M: prost::Message + Default>(
    what: &'static str,
    bytes: &[u8],
) -> Result<M, WireError> {
    M::decode(bytes).map_err(|source| WireError::Malformed { what, source })
}

/// Position in the log, to protobuf.
#[must_use]
pub const fn log_id_out(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

/// Position in the log, from protobuf.
#[must_use]
pub const fn log_id_in(id: &pb::LogId) -> LogId {
    LogId { leader_id: LeaderId { term: id.term, node_id: id.node }, index: id.index }
}

/// A vote, to protobuf.
#[must_use]
pub const fn vote_out(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

/// A vote, from protobuf.
#[must_use]
pub const fn vote_in(vote: &pb::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: vote.term, node_id: vote.node }, committed: vote.committed }
}

fn required_vote(vote: Option<&pb::Vote>) -> Result<Vote, WireError> {
    vote.map(vote_in).ok_or(WireError::Missing("the vote"))
}

/// A membership, to protobuf.
#[must_use]
pub fn membership_out(membership: &Membership) -> pb::Membership {
    let configs = membership
        .get_joint_config()
        .iter()
        .map(|nodes| pb::Voters { nodes: nodes.iter().copied().collect() })
        .collect();
    let members = membership
        .nodes()
        .map(|(node, at)| pb::Member { node: *node, peer_addr: at.peer_addr.clone() })
        .collect();
    pb::Membership { configs, members }
}

/// A membership, from protobuf.
///
/// # Errors
/// When a voter is not a member, or a set of voters is empty.
pub fn membership_in(membership: pb::Membership) -> Result<Membership, WireError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|voters| voters.nodes.into_iter().collect()).collect();
    let members: BTreeMap<u64, PeerNode> = membership
        .members
        .into_iter()
        .map(|member| (member.node, PeerNode { peer_addr: member.peer_addr }))
        .collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|error| WireError::Membership(error.to_string()))
}

/// A log entry, to protobuf.
#[must_use]
pub fn entry_out(entry: &LogEntry) -> pb::LogEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::log_entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(proposal) => pb::log_entry::Payload::Command(proposal.bytes().clone()),
        EntryPayload::Membership(membership) => {
            pb::log_entry::Payload::Membership(membership_out(membership))
        }
    };
    pb::LogEntry { id: Some(log_id_out(&entry.log_id)), payload: Some(payload) }
}

/// A log entry, from protobuf.
///
/// # Errors
/// When a part is missing, or the command is not one this build knows.
pub fn entry_in(entry: pb::LogEntry) -> Result<LogEntry, WireError> {
    let log_id = log_id_in(&entry.id.ok_or(WireError::Missing("the entry's position"))?);
    let payload = match entry.payload.ok_or(WireError::Missing("the entry's payload"))? {
        pb::log_entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::log_entry::Payload::Command(bytes) => EntryPayload::Normal(
            Proposal::decode(bytes)
                .map_err(|source| WireError::UnknownEntry { index: log_id.index, source })?,
        ),
        pb::log_entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_in(membership)?)
        }
    };
    Ok(LogEntry { log_id, payload })
}

/// What a snapshot covers, to protobuf.
#[must_use]
pub fn snapshot_meta_out(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id_out),
        membership: Some(pb::StoredMembership {
            log_id: meta.last_membership.log_id().as_ref().map(log_id_out),
            membership: Some(membership_out(meta.last_membership.membership())),
        }),
    }
}

/// What a snapshot covers, from protobuf.
///
/// # Errors
/// When a part is missing or the membership contradicts itself.
pub fn snapshot_meta_in(meta: pb::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    let stored = meta.membership.ok_or(WireError::Missing("the snapshot's membership"))?;
    let membership =
        membership_in(stored.membership.ok_or(WireError::Missing("the snapshot's members"))?)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last.as_ref().map(log_id_in),
        last_membership: StoredMembership::new(stored.log_id.as_ref().map(log_id_in), membership),
    })
}

/// A replication request, to protobuf.
#[must_use]
pub fn append_out(request: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_out(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_out),
        committed: request.leader_commit.as_ref().map(log_id_out),
        entries: request.entries.iter().map(entry_out).collect(),
    }
}

/// A replication request, from protobuf.
///
/// # Errors
/// When a part is missing, or an entry is not one this build knows.
pub fn append_in(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: required_vote(request.vote.as_ref())?,
        prev_log_id: request.previous.as_ref().map(log_id_in),
        leader_commit: request.committed.as_ref().map(log_id_in),
        entries: request.entries.into_iter().map(entry_in).collect::<Result<_, _>>()?,
    })
}

/// A replication result, to protobuf.
#[must_use]
pub fn appended_out(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as R;
    let result = match result {
        Ok(matched) => R::Matched(pb::Matched { log_id: matched.as_ref().map(log_id_out) }),
        Err(StreamAppendError::Conflict(at)) => R::Conflict(log_id_out(at)),
        Err(StreamAppendError::HigherVote(vote)) => R::HigherVote(vote_out(vote)),
    };
    pb::AppendResponse { result: Some(result) }
}

/// A replication result, from protobuf.
///
/// # Errors
/// When it is empty.
pub fn appended_in(
    response: pb::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use pb::append_response::Result as R;
    Ok(match response.result.ok_or(WireError::Missing("the append result"))? {
        R::Matched(matched) => Ok(matched.log_id.as_ref().map(log_id_in)),
        R::Conflict(at) => Err(StreamAppendError::Conflict(log_id_in(&at))),
        R::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(&vote))),
    })
}

/// A request for a vote, to protobuf.
#[must_use]
pub fn vote_request_out(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_out(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_out),
        leadership_transfer: request.leadership_transfer,
    }
}

/// A request for a vote, from protobuf.
///
/// # Errors
/// When the vote is missing.
pub fn vote_request_in(request: &pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    Ok(VoteRequest {
        vote: required_vote(request.vote.as_ref())?,
        last_log_id: request.last.as_ref().map(log_id_in),
        leadership_transfer: request.leadership_transfer,
    })
}

/// The answer to a request for a vote, to protobuf.
#[must_use]
pub fn vote_response_out(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_out),
    }
}

/// The answer to a request for a vote, from protobuf.
///
/// # Errors
/// When the vote is missing.
pub fn vote_response_in(
    response: &pb::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: required_vote(response.vote.as_ref())?,
        vote_granted: response.granted,
        last_log_id: response.last.as_ref().map(log_id_in),
    })
}

/// A transfer of leadership, to protobuf.
#[must_use]
pub fn transfer_out(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from_leader: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_out),
    }
}

/// A transfer of leadership, from protobuf.
///
/// # Errors
/// When the vote is missing.
pub fn transfer_in(
    request: &pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let from = required_vote(request.from_leader.as_ref())?;
    Ok(TransferLeaderRequest::new(from, request.to, request.last.as_ref().map(log_id_in)))
}

/// The answer to a transfer, to protobuf.
#[must_use]
pub fn transferred_out(
    response: &TransferLeaderResponse<TypeConfig>,
) -> pb::TransferLeaderResponse {
    use pb::transfer_leader_response::Result as R;
    let result = match response {
        Ok(()) => R::Accepted(pb::Blank {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            R::VoteChanged(pb::VoteChanged {
                expected: Some(vote_out(expected)),
                actual: Some(vote_out(actual)),
            })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            R::LogNotFlushed(pb::LogNotFlushed {
                expected: expected.as_ref().map(log_id_out),
                actual: actual.as_ref().map(log_id_out),
            })
        }
    };
    pb::TransferLeaderResponse { result: Some(result) }
}

/// The answer to a transfer, from protobuf.
///
/// # Errors
/// When a part is missing.
pub fn transferred_in(
    response: &pb::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    use pb::transfer_leader_response::Result as R;
    Ok(match response.result.as_ref().ok_or(WireError::Missing("the transfer result"))? {
        R::Accepted(_) => Ok(()),
        R::VoteChanged(changed) => Err(TransferLeaderError::VoteChanged {
            expected: required_vote(changed.expected.as_ref())?,
            actual: required_vote(changed.actual.as_ref())?,
        }),
        R::LogNotFlushed(lag) => Err(TransferLeaderError::LogNotFlushed {
            expected: lag.expected.as_ref().map(log_id_in),
            actual: lag.actual.as_ref().map(log_id_in),
        }),
    })
}
