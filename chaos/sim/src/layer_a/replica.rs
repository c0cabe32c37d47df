//! How a node's state follows the log: entry by entry, or by a snapshot of its leader's.

use std::sync::{Arc, PoisonError};

use medic_raft::Ledger as _;
use medic_state::{Digest, NodeId, State, codec};

use super::consensus::{Core, HASH_EVERY};
use crate::{
    coverage::Sometimes,
    history::{Recorder, What},
};

/// A follower further behind than this is sent a snapshot.
const SNAPSHOT_BEHIND: u64 = 24;

impl Core {
    /// A node applies everything it holds up to `index`.
    pub(super) fn apply_at(&mut self, node: NodeId, index: u64, recorder: &Recorder) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let ledger = member.ledger.clone();
        let from = *ledger.applied.borrow();
        if from >= index {
            return;
        }
        {
            let mut state = ledger.state().write().unwrap_or_else(PoisonError::into_inner);
            for at in from + 1..=index {
                let Some(logged) = usize::try_from(at - 1).ok().and_then(|at| self.log.get(at))
                else {
                    break;
                };
                let applied = state.apply(at, &logged.entry);
                let records = Digest::of(&[&codec::encode(&applied.records)]);
                let hash = (at.is_multiple_of(HASH_EVERY)).then(|| state.hash());
                recorder.happened(What::Applied { node, index: at, records, state: hash });
            }
        }
        ledger.applied.send_replace(index);
        self.snapshot_if_due(node, index);
    }

    fn snapshot_if_due(&mut self, node: NodeId, index: u64) {
        /// As in production a number of entries, only smaller.
        const EVERY: u64 = 100;
        let Some(member) = self.members.get_mut(&node) else { return };
        let last = member.snapshot.as_ref().map_or(0, |(index, _)| *index);
        if index >= last + EVERY {
            let state = member.ledger.state().read().unwrap_or_else(PoisonError::into_inner);
            let bytes = state.to_snapshot();
            drop(state);
            member.snapshot = Some((index, Arc::new(bytes)));
        }
    }

    /// A follower far behind gets a snapshot of its leader.
    pub(super) fn catch_up(&mut self, leader: NodeId, node: NodeId, recorder: &Recorder) {
        let committed = self.log.len() as u64;
        let Some(behind) = self.members.get(&node).map(|member| committed - member.stored) else {
            return;
        };
        if behind == 0 {
            return;
        }
        if behind > SNAPSHOT_BEHIND
            && let Some(from) = self.members.get(&leader).map(|member| member.ledger.clone())
        {
            let state = from.state().read().unwrap_or_else(PoisonError::into_inner);
            let (bytes, busy) = (state.to_snapshot(), state.sagas.values().any(under_way));
            drop(state);
            self.install(node, &bytes, recorder);
            if busy {
                recorder.reached(Sometimes::SnapshotDuringSaga);
            }
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.stored = committed;
        }
    }

    fn install(&mut self, node: NodeId, bytes: &[u8], recorder: &Recorder) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let Ok(state) = State::from_snapshot(bytes) else {
            recorder.trace(format_args!("{node} cannot read a snapshot"));
            return;
        };
        let (index, hash) = (state.applied, state.hash());
        if index <= *member.ledger.applied.borrow() {
            return;
        }
        *member.ledger.state().write().unwrap_or_else(PoisonError::into_inner) = state;
        member.ledger.applied.send_replace(index);
        member.snapshot = Some((index, Arc::new(bytes.to_vec())));
        recorder.trace(format_args!("{node} installs a snapshot at {index}"));
        recorder.happened(What::Installed { node, index, state: hash });
    }
}

fn under_way(saga: &medic_state::saga::Saga) -> bool {
    saga.started_at.is_some() && !saga.status.ended()
}
