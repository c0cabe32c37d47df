//! Refusals and failures of the ledger as gRPC statuses, and the metadata that goes with calls.

use medic_raft::LedgerError;
use medic_state::Refusal;
use tonic::{Code, Status, metadata::MetadataValue};

/// Response metadata: the kind of a refusal, for programs.
pub const REFUSAL: &str = "medic-refusal";
/// The kind of a refusal that is none: nobody can tell whether it was done. Ask again, under the same
/// request id.
pub const OUTCOME_UNKNOWN: &str = "outcome-unknown";
/// Request metadata: `stale` reads what this node has, without asking the leader how far it is.
pub const CONSISTENCY: &str = "medic-consistency";
/// Response metadata: the log index a read was answered at.
pub const INDEX: &str = "medic-index";

/// Bytes of a status message. It travels as a header, each byte as three at the worst, and clients
/// take 16 KiB of headers: what quotes a longer mistake whole would not arrive at all.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// The text, cut off where it is longer than so many bytes.
pub(super) fn clipped(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// What the law refused, as a status with the refusal's kind in its metadata.
#[must_use]
pub fn refusal_status(refusal: &Refusal) -> Status {
    let (code, kind) = match refusal {
        Refusal::StaleFence { .. } => (Code::Aborted, "stale-fence"),
        Refusal::StaleEpoch { .. } => (Code::Aborted, "stale-epoch"),
        Refusal::StaleRevision { .. } => (Code::Aborted, "stale-revision"),
        Refusal::NotFound(_) => (Code::NotFound, "not-found"),
        Refusal::IllegalState(_) => (Code::FailedPrecondition, "illegal-state"),
        Refusal::HeldBack(_) => (Code::FailedPrecondition, "held-back"),
        Refusal::Denied { .. } => (Code::PermissionDenied, "denied"),
        Refusal::Invalid(_) => (Code::InvalidArgument, "invalid"),
        Refusal::Limit(_) => (Code::ResourceExhausted, "limit"),
        Refusal::Conflict(_) => (Code::Aborted, "conflict"),
    };
    let mut status = Status::new(code, clipped(refusal.to_string(), MESSAGE_BYTES_MAX));
    status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(kind));
    status
}

/// Why the ledger gave no answer.
pub(super) fn ledger_status(error: &LedgerError) -> Status {
    let code = match error {
        LedgerError::Unavailable(_) | LedgerError::Stopped(_) | LedgerError::NotLeader => {
            Code::Unavailable
        }
        LedgerError::Ambiguous(_) => Code::Aborted,
        LedgerError::TooLarge(_) => Code::InvalidArgument,
        LedgerError::Refused(_) => Code::FailedPrecondition,
    };
    let mut status = Status::new(code, clipped(error.to_string(), MESSAGE_BYTES_MAX));
    if matches!(error, LedgerError::Ambiguous(_)) {
        status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(OUTCOME_UNKNOWN));
    }
    status
}

/// The caller's mistake.
pub(super) fn invalid(message: impl Into<String>) -> Status {
    refusal_status(&Refusal::Invalid(message.into()))
}

/// There is no such thing, or none that the caller may see: the two are told alike, so that ids of
/// other tenants cannot be probed.
pub(super) fn not_found(what: impl std::fmt::Display) -> Status {
    refusal_status(&Refusal::NotFound(what.to_string()))
}
