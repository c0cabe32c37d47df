//! Refusals and failures of the ledger as gRPC statuses, and the metadata that goes with calls.
//!
//! The kind of a refusal is told twice: as `google.rpc.ErrorInfo` in the status details, which is
//! what gRPC libraries of all languages read, and as metadata, which every tool prints.

use std::collections::HashMap;

use medic_raft::LedgerError;
use medic_state::{Refusal, text::clip_to};
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Response metadata: the kind of a refusal, for programs.
pub const REFUSAL: &str = "medic-refusal";
/// The kind of a refusal that is none: nobody can tell whether it was done. Ask again, under the same
/// request id.
pub const OUTCOME_UNKNOWN: &str = "outcome-unknown";
/// Request metadata: `stale` reads what this node has, without asking the leader how far it is.
pub const CONSISTENCY: &str = "medic-consistency";
/// Response metadata: the log index a read was answered at.
pub const INDEX: &str = "medic-index";

/// `domain` of the `google.rpc.ErrorInfo` in status details. Its `reason` is the kind in capitals
/// (`STALE_REVISION`), its metadata what the refusal names (`given`, `current`, `permission`, …).
pub const DOMAIN: &str = "medic.v1";

/// Bytes of a status message. It travels as a header, each byte as three at the worst, and once more
/// among the details (in base64), and clients take 16 KiB of headers: what quotes a longer mistake
/// whole would not arrive at all.
const MESSAGE_BYTES_MAX: usize = 3_072;
/// Bytes of one value among an error's details.
const DETAIL_BYTES_MAX: usize = 256;

/// A status that tells programs its kind.
fn of_kind(
    code: Code,
    message: String,
    kind: &'static str,
    named: HashMap<String, String>,
) -> Status {
    let reason = kind.to_ascii_uppercase().replace('-', "_");
    let details = ErrorDetails::with_error_info(reason, DOMAIN, named);
    let message = clip_to(&message, MESSAGE_BYTES_MAX);
    let mut status = Status::with_error_details(code, message, details);
    status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(kind));
    status
}

/// The same status in other words.
pub(super) fn reworded(status: &Status, message: String) -> Status {
    let message = clip_to(&message, MESSAGE_BYTES_MAX);
    let (code, metadata) = (status.code(), status.metadata().clone());
    if status.details().is_empty() {
        return Status::with_metadata(code, message, metadata);
    }
    let details = status.get_error_details();
    Status::with_error_details_and_metadata(code, message, details, metadata)
}

/// What the law refused, as a status with the refusal's kind.
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
    of_kind(code, refusal.to_string(), kind, named(refusal))
}

/// What a refusal names, for programs.
fn named(refusal: &Refusal) -> HashMap<String, String> {
    let pairs: Vec<(&str, String)> = match refusal {
        Refusal::StaleFence { given, current } => {
            vec![("given", given.0.to_string()), ("current", current.0.to_string())]
        }
        Refusal::StaleEpoch { given, current } => {
            vec![("given", given.0.to_string()), ("current", current.0.to_string())]
        }
        Refusal::StaleRevision { given, current } => {
            vec![("given", given.0.to_string()), ("current", current.0.to_string())]
        }
        Refusal::Denied { principal, permission, tenant } => vec![
            ("principal", principal.clone()),
            ("permission", permission.clone()),
            ("tenant", tenant.clone()),
        ],
        Refusal::NotFound(_)
        | Refusal::IllegalState(_)
        | Refusal::HeldBack(_)
        | Refusal::Invalid(_)
        | Refusal::Limit(_)
        | Refusal::Conflict(_) => Vec::new(),
    };
    let short = |value: String| clip_to(&value, DETAIL_BYTES_MAX);
    pairs.into_iter().map(|(key, value)| (key.to_owned(), short(value))).collect()
}

/// Why the ledger gave no answer.
pub(super) fn ledger_status(error: &LedgerError) -> Status {
    let code = match error {
        LedgerError::Unavailable(_) | LedgerError::Stopped(_) | LedgerError::NotLeader => {
            Code::Unavailable
        }
        LedgerError::Ambiguous(_) => {
            return of_kind(Code::Aborted, error.to_string(), OUTCOME_UNKNOWN, HashMap::new());
        }
        LedgerError::TooLarge(_) => Code::InvalidArgument,
        LedgerError::Refused(_) => Code::FailedPrecondition,
    };
    Status::new(code, clip_to(&error.to_string(), MESSAGE_BYTES_MAX))
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
