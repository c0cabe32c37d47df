//! Snapshot files.
//!
//! ```text
//!   "MEDICSNP" | version u32 | meta length u32 | meta | state length u64 | state | crc32c u32
//! ```
//!
//! The same bytes are the file and what travels to another node. The state is in the law's encoding,
//! the meta in protobuf. Records are not in the file: they are in their table, and are sent before it.

use bytes::Bytes;
use medic_proto::peer::v1 as pb;
use medic_state::{FormError, State};
use prost::Message as _;

use crate::{types::SnapshotMeta, wire};

const MAGIC: &[u8; 8] = b"MEDICSNP";
const VERSION: u32 = 1;
/// Suffix of snapshot files.
const SUFFIX: &str = ".snap";
/// Suffix of damaged ones that were set aside.
pub(crate) const DAMAGED: &str = ".damaged";

/// Name of the file of a snapshot. Names sort by index.
pub(crate) fn file_name(meta: &SnapshotMeta) -> String {
    meta.last_log_id.map_or_else(
        || format!("{:020}-0-0{SUFFIX}", 0),
        |id| format!("{:020}-{}-{}{SUFFIX}", id.index, id.leader_id.term, id.leader_id.node_id),
    )
}

/// Whether a file is a snapshot.
pub(crate) fn is_snapshot(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// The file of a snapshot.
#[must_use]
pub fn encode(meta: &SnapshotMeta, state: &State) -> Bytes {
    let meta = wire::snapshot_meta_out(meta).encode_to_vec();
    let state = state.to_snapshot();
    let mut file = Vec::with_capacity(meta.len() + state.len() + 28);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_be_bytes());
    let meta_len = u32::try_from(meta.len()).unwrap_or(u32::MAX);
    file.extend_from_slice(&meta_len.to_be_bytes());
    file.extend_from_slice(&meta);
    file.extend_from_slice(&(state.len() as u64).to_be_bytes());
    file.extend_from_slice(&state);
    let sum = crc32c::crc32c(&file);
    file.extend_from_slice(&sum.to_be_bytes());
    Bytes::from(file)
}

/// A file that is no snapshot this build can use.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Whole, but of a form that only newer builds know.
    #[error("{0}")]
    Newer(String),
    /// Not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl From<&str> for SnapshotError {
    fn from(reason: &str) -> Self {
        Self::Damaged(reason.to_owned())
    }
}

/// Checks a snapshot file and takes it apart; a state of an older form is lifted.
///
/// # Errors
/// What is wrong with it, in words.
pub fn decode(file: &[u8]) -> Result<(SnapshotMeta, State), SnapshotError> {
    let (body, sum) = file.split_last_chunk::<4>().ok_or("it is too short")?;
    let version = body.strip_prefix(MAGIC).ok_or("it does not begin with MEDICSNP")?;
    let found = crc32c::crc32c(body);
    let expected = u32::from_be_bytes(*sum);
    if found != expected {
        let reason = format!("checksum {found:08x} instead of {expected:08x}");
        return Err(SnapshotError::Damaged(reason));
    }
    let (version, rest) = version.split_first_chunk::<4>().ok_or("it has no version")?;
    let version = u32::from_be_bytes(*version);
    if version > VERSION {
        return Err(SnapshotError::Newer(format!(
            "it has version {version}, this build knows up to {VERSION}: \
             start a build at least as new as the one that wrote it"
        )));
    }
    if version == 0 {
        return Err("there is no version 0".into());
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("it has no header")?;
    let length = u32::from_be_bytes(*length) as usize;
    let (meta, rest) = rest.split_at_checked(length).ok_or("its header is cut off")?;
    let (length, state) = rest.split_first_chunk::<8>().ok_or("it has no state")?;
    if u64::from_be_bytes(*length) != state.len() as u64 {
        return Err("its state is cut off".into());
    }
    let meta = wire::decode::<pb::SnapshotMeta>("snapshot header", meta)
        .and_then(wire::snapshot_meta_in)
        .map_err(|error| SnapshotError::Damaged(error.to_string()))?;
    let state = State::from_snapshot(state).map_err(|error| match error {
        FormError::Newer { .. } | FormError::Beyond { .. } => {
            SnapshotError::Newer(error.to_string())
        }
        FormError::Unreadable(_) => SnapshotError::Damaged(error.to_string()),
    })?;
    Ok((meta, state))
}
