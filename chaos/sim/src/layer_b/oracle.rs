//! One more replica of the law, which never fails: it applies each entry when the first node does,
//! and every other node must then apply the same one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use medic_raft::store::Witness;
use medic_state::{
    Applied, Command, Digest, Entry, Fence, NodeId, PlanId, RequestId, State, codec,
    rbac::Principal, saga::SagaStatus,
};

use super::marks::{Mark, Marks};
use crate::{
    check::Violation,
    coverage::Sometimes,
    history::{Commit, Recorder, What, lock},
    tell,
};

/// States are compared at every index that this divides.
const HASH_EVERY: u64 = 16;

/// The replica, and everything that was committed.
#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) recorder: Recorder,
    pub(super) marks: Marks,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    entries: BTreeMap<u64, Digest>,
    statuses: BTreeMap<PlanId, SagaStatus>,
    requests: BTreeSet<(Principal, RequestId)>,
    violations: Vec<Violation>,
}

impl Oracle {
    pub(super) fn new(recorder: Recorder) -> Arc<Self> {
        Arc::new(Self { recorder, marks: Marks::default(), inner: Mutex::default() })
    }

    /// Looks at the replica.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&lock(&self.inner).state)
    }

    /// The newest fence that was committed.
    pub(super) fn newest_fence(&self) -> Fence {
        self.look(|state| state.fence.fence)
    }

    /// How many entries of the law were committed.
    pub(super) fn committed(&self) -> u64 {
        lock(&self.inner).entries.len() as u64
    }

    /// What the replica itself found to be wrong.
    pub(super) fn violations(&self) -> Vec<Violation> {
        lock(&self.inner).violations.clone()
    }

    /// Something else that must not be.
    pub(super) fn wrong(&self, invariant: u8, checker: &'static str, text: String) {
        self.recorder.trace(format_args!("WRONG {text}"));
        let ms = self.recorder.now_ms();
        lock(&self.inner).violations.push(Violation { invariant, checker, ms, text });
    }

    fn applied(&self, node: NodeId, index: u64, entry: &Entry, applied: &Applied, state: &State) {
        let digest = Digest::of(&[&codec::encode(entry)]);
        let known = lock(&self.inner).entries.get(&index).copied();
        match known {
            Some(known) if known == digest => {}
            Some(_) => {
                let what = entry.command.name();
                self.wrong(
                    7,
                    "one log",
                    format!("{node} applied another {what} at {index} than was committed there"),
                );
            }
            None => self.commit(node, index, entry, digest),
        }
        let records = Digest::of(&[&codec::encode(&applied.records)]);
        let state = index.is_multiple_of(HASH_EVERY).then(|| state.hash());
        self.recorder.happened(What::Applied { node, index, records, state });
    }

    fn commit(&self, node: NodeId, index: u64, entry: &Entry, digest: Digest) {
        let mut inner = lock(&self.inner);
        if index <= inner.state.applied {
            drop(inner);
            let text = format!("{node} applied {index}, where no other node had an entry");
            return self.wrong(7, "one log", text);
        }
        inner.entries.insert(index, digest);
        let applied = inner.state.apply(index, entry);
        let mut moved = Vec::new();
        let Inner { state, statuses, requests, .. } = &mut *inner;
        for (id, saga) in &state.sagas {
            if statuses.insert(*id, saga.status) != Some(saga.status) {
                moved.push((*id, saga.status));
            }
        }
        let request = entry.request.clone().map(|id| (entry.principal.clone(), id));
        let repeated = request.is_some_and(|key| !requests.insert(key));
        let by = match &entry.command {
            Command::Fence(fence) => fence.node,
            _ => node,
        };
        self.recorder.trace(format_args!(
            "commit {index} by {by} {} {}",
            entry.command.name(),
            tell::answer(&applied.answer)
        ));
        let commit = Commit {
            index,
            by,
            entry: Arc::new(entry.clone()),
            answer: applied.answer,
            records: applied.records,
            moved,
            repeated,
            state: index.is_multiple_of(HASH_EVERY).then(|| state.hash()),
        };
        tell::cover(&commit, state, &self.recorder);
        self.recorder.happened(What::Committed(Arc::new(commit)));
    }

    fn installed(&self, node: NodeId, index: u64, state: &State, at_start: bool) {
        let hash = state.hash();
        self.recorder.trace(format_args!("{node} has a snapshot's state at {index}"));
        if at_start {
            self.recorder.reached(Sometimes::RestartedFromSnapshot);
        } else {
            self.marks.reached(Mark::SnapshotSent);
            let under_way =
                |saga: &medic_state::saga::Saga| saga.started_at.is_some() && !saga.status.ended();
            if state.sagas.values().any(under_way) {
                self.recorder.reached(Sometimes::SnapshotDuringSaga);
            }
        }
        // The state is that of the last entry of the law; consensus has entries of its own.
        self.recorder.happened(What::Installed { node, index: state.applied, state: hash });
    }
}

/// Looks on at one incarnation of one node.
#[derive(Debug)]
pub(super) struct Onlooker {
    oracle: Arc<Oracle>,
    node: NodeId,
    begun: std::sync::atomic::AtomicBool,
}

impl Onlooker {
    pub(super) fn new(oracle: Arc<Oracle>, node: NodeId) -> Arc<Self> {
        Arc::new(Self { oracle, node, begun: false.into() })
    }
}

impl Witness for Onlooker {
    fn applied(&self, index: u64, entry: &Entry, applied: &Applied, state: &State) {
        self.begun.store(true, std::sync::atomic::Ordering::Release);
        self.oracle.applied(self.node, index, entry, applied, state);
    }

    fn installed(&self, index: u64, state: &State) {
        let at_start = !self.begun.swap(true, std::sync::atomic::Ordering::AcqRel);
        self.oracle.installed(self.node, index, state, at_start);
    }
}
