//! The state as bytes, and back. The layer that stores them adds its own checksum.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    codec::{self, CodecError},
    ids::Timestamp,
    state::{AuditHead, FenceState, STATE_VERSION, State, Totals},
};

impl State {
    /// The empty state of a cluster that has committed nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: STATE_VERSION,
            cluster_version: 1,
            applied: 0,
            now: Timestamp::default(),
            fence: FenceState::default(),
            nodes: BTreeMap::new(),
            agents: BTreeMap::new(),
            manifests: BTreeMap::new(),
            shards: BTreeMap::new(),
            incidents: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            sagas: BTreeMap::new(),
            locks: BTreeMap::new(),
            freezes: BTreeMap::new(),
            playbook_starts: BTreeMap::new(),
            target_starts: BTreeMap::new(),
            target_ends: BTreeMap::new(),
            breakers: BTreeMap::new(),
            lessons: BTreeMap::new(),
            request_order: VecDeque::new(),
            requests: BTreeMap::new(),
            audit: AuditHead::default(),
            totals: Totals::default(),
            held_since: BTreeMap::new(),
            reopened: BTreeMap::new(),
        }
    }

    /// The whole state as bytes: equal states give equal bytes.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// When the bytes are no state, or one of a form that this build does not know.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, CodecError> {
        let version = version_of(bytes)?;
        if version != STATE_VERSION {
            let reason = format!(
                "it has form {version}, and this build reads form {STATE_VERSION}: \
                 start the build that wrote it, or one that upgrades from it"
            );
            return Err(CodecError { what: "a snapshot of the state", reason });
        }
        codec::decode(bytes)
    }
}

/// The form's number stands first, so that it can be read whatever follows.
fn version_of(bytes: &[u8]) -> Result<u32, CodecError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let read = decoder.array().and_then(|_| decoder.u32());
    read.map_err(|error| CodecError {
        what: "a snapshot of the state",
        reason: format!("it does not begin with the number of its form: {error}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_snapshot_reads_back() {
        let state = State::new();
        assert_eq!(State::from_snapshot(&state.to_snapshot()).unwrap(), state);
    }

    #[test]
    fn another_form_and_garbage_are_refused_with_a_reason() {
        let state = State { version: 9, ..State::new() };
        let error = State::from_snapshot(&state.to_snapshot()).unwrap_err().to_string();
        assert!(error.contains("form 9"), "{error}");
        assert!(State::from_snapshot(b"").is_err());
        assert!(State::from_snapshot(b"not a snapshot").is_err());
        let mut longer = State::new().to_snapshot();
        longer.push(0);
        assert!(State::from_snapshot(&longer).is_err());
    }
}
