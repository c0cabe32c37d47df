//! The state as bytes, and back, from every form there ever was. The layer that stores them adds its
//! own checksum.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    codec::{self, CodecError},
    command::{CLUSTER_VERSION, NODE_WEIGHT_DEFAULT},
    form::FormError,
    ids::Timestamp,
    planted::{Planted, planted},
    state::{AuditHead, FenceState, STATE_VERSION, State, Totals},
    weight::Weights,
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
            told: BTreeMap::new(),
            channels: BTreeMap::new(),
            weights: Weights::default(),
        }
    }

    /// The whole state as bytes: equal states give equal bytes.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a state back; one of an older form is lifted to the present one.
    ///
    /// # Errors
    /// When the bytes are no state, or one of a newer form.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, FormError> {
        let (found, in_force) = form_of(bytes)?;
        if found > STATE_VERSION {
            return Err(FormError::Newer { what: WHAT, found, known: STATE_VERSION });
        }
        // Before all that it may hold and this build cannot read.
        within(in_force)?;
        if found == STATE_VERSION {
            let mut state: Self = codec::decode(bytes)?;
            if planted(Planted::SnapshotForgetsLocks) {
                state.locks.clear();
            }
            return Ok(state);
        }
        let done = usize::try_from(found)
            .unwrap_or(usize::MAX)
            .checked_sub(1)
            .ok_or_else(|| CodecError { what: WHAT, reason: "there is no form 0".to_owned() })?;
        let mut state: Self = codec::decode_older(bytes)?;
        for step in STEPS.iter().skip(done) {
            step(&mut state);
        }
        state.version = STATE_VERSION;
        Ok(state)
    }
}

/// A state under a command set that is not known here would move on otherwise than its peers'.
pub(super) fn within(found: u32) -> Result<(), FormError> {
    if found > CLUSTER_VERSION {
        return Err(FormError::Beyond { found, known: CLUSTER_VERSION });
    }
    Ok(())
}

const WHAT: &str = "a snapshot of the state";

/// The way from each form to the next: the first step makes form 2 of form 1. A step is never
/// changed once a build with it was released; a new form adds one.
const STEPS: [fn(&mut State); STATE_VERSION as usize - 1] =
    [to_form_2, to_form_3, to_form_4, to_form_5];

/// Form 1 did not say what nodes understand: the first command set.
fn to_form_2(state: &mut State) {
    for node in state.nodes.values_mut() {
        node.understands = 1;
    }
}

/// Form 2 knew no channels: there is nothing to lift.
const fn to_form_3(_: &mut State) {}

/// Form 3 knew no weights: every detector was taken at its word.
const fn to_form_4(_: &mut State) {}

/// In form 4 all nodes weighed the same, and none was drained.
fn to_form_5(state: &mut State) {
    for node in state.nodes.values_mut() {
        node.weight = NODE_WEIGHT_DEFAULT;
    }
}

/// The form's number stands first and the command set in force second, so that they can be read whatever follows.
fn form_of(bytes: &[u8]) -> Result<(u32, u32), CodecError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let read = decoder.array().and_then(|_| Ok((decoder.u32()?, decoder.u32()?)));
    read.map_err(|error| CodecError {
        what: WHAT,
        reason: format!("it does not begin with the numbers of its form and command set: {error}"),
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
    fn a_state_under_a_newer_command_set_is_refused_with_a_way_out() {
        let state = State { cluster_version: CLUSTER_VERSION + 1, ..State::new() };
        let error = State::from_snapshot(&state.to_snapshot()).unwrap_err();
        assert!(matches!(error, FormError::Beyond { .. }), "{error}");
        assert!(error.to_string().contains("at least as new"), "{error}");
    }

    #[test]
    fn another_form_and_garbage_are_refused_with_a_reason() {
        let state = State { version: 9, ..State::new() };
        let error = State::from_snapshot(&state.to_snapshot()).unwrap_err().to_string();
        assert!(error.contains("form 9") && error.contains("at least as new"), "{error}");
        assert!(State::from_snapshot(b"").is_err());
        assert!(State::from_snapshot(b"not a snapshot").is_err());
        let mut longer = State::new().to_snapshot();
        longer.push(0);
        assert!(State::from_snapshot(&longer).is_err());
    }
}
