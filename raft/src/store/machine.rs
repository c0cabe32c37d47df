//! The law's state in memory, fed by the log.
//!
//! ```text
//!   committed entries ─► State::apply ─┬─► records ─► writer
//!                                      ├─► answer to the proposer
//!                                      └─► `applied` moves
//! ```
//!
//! On start the state comes from the newest good snapshot, and openraft applies the log after it
//! again. Invariant: records of an entry are on their way to the disk before anybody is told that
//! the entry is applied, and durable before a snapshot covers them.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use medic_state::{BootId, NodeId, State};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use super::{
    StoreOptions, Witness,
    disk::{Disk, invalid},
    records::RecordStore,
    snapshot::{self, SnapshotError},
    writer::WriterMode,
};
use crate::{
    config::StartError,
    ledger::Committed,
    metrics::Metric,
    types::{LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership, TypeConfig},
};

/// Snapshot files kept.
const KEEP: usize = 2;

/// What readers share with the machine.
pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    pub(crate) applied: watch::Sender<u64>,
    position: Mutex<Position>,
}

#[derive(Clone, Default)]
struct Position {
    last: Option<LogId>,
    membership: StoredMembership,
}

/// openraft's state machine: the law.
#[derive(Clone)]
pub struct Machine {
    disk: Arc<dyn Disk>,
    mode: WriterMode,
    pub(crate) shared: Arc<Shared>,
    pub(crate) records: RecordStore,
    witness: Option<Arc<dyn Witness>>,
    /// File of the current snapshot.
    current: Arc<Mutex<Option<(SnapshotMeta, String)>>>,
}

impl Machine {
    /// Loads the newest snapshot that is good and from which the log goes on. A damaged one is set
    /// aside; one that only newer builds can read is left alone, and this build does not start.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        records: RecordStore,
        options: &StoreOptions,
        log_begins: u64,
    ) -> Result<Self, StartError> {
        let mut damaged: Vec<(String, String)> = Vec::new();
        let mut found = None;
        let files = disk.list_files()?;
        for name in files.into_iter().rev().filter(|name| snapshot::is_snapshot(name)) {
            let read = disk.read_file(&name);
            let read = read.map_err(|error| SnapshotError::Damaged(error.to_string()));
            match read.and_then(|file| snapshot::decode(&file)) {
                Ok((meta, state)) => {
                    found = Some((meta, name, state));
                    break;
                }
                Err(SnapshotError::Newer(reason)) => {
                    return Err(StartError::NewerSnapshot { file: name, reason });
                }
                Err(SnapshotError::Damaged(reason)) => damaged.push((name, reason)),
            }
        }
        let reaches =
            found.as_ref().map_or(0, |(meta, ..)| meta.last_log_id.map_or(0, |id| id.index + 1));
        if log_begins > reaches {
            let (file, reason) = damaged
                .into_iter()
                .next()
                .unwrap_or_else(|| ("(none)".to_owned(), "there is no snapshot".to_owned()));
            return Err(StartError::CorruptSnapshot { file, reason, log_begins });
        }
        for (file, reason) in damaged {
            tracing::error!(
                file,
                reason,
                "damaged snapshot set aside; an older one and the log do"
            );
            disk.rename_file(&file, &format!("{file}{}", snapshot::DAMAGED))?;
        }
        let (state, position, current) = match found {
            None => (State::new(), Position::default(), None),
            Some((meta, name, state)) => {
                let position =
                    Position { last: meta.last_log_id, membership: meta.last_membership.clone() };
                (state, position, Some((meta, name)))
            }
        };
        let applied = watch::Sender::new(position.last.map_or(0, |id| id.index));
        let shared = Shared { state: RwLock::new(state), applied, position: Mutex::new(position) };
        let current = Arc::new(Mutex::new(current));
        let witness = options.witness.clone();
        let this =
            Self { disk, mode: options.mode, shared: Arc::new(shared), records, witness, current };
        if reaches > 0 {
            this.witness_installed(reaches - 1);
        }
        Ok(this)
    }

    fn current(&self) -> MutexGuard<'_, Option<(SnapshotMeta, String)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the witness of a state that did not come from entries.
    fn witness_installed(&self, index: u64) {
        if let Some(witness) = &self.witness {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            witness.installed(index, &state);
        }
    }

    /// Runs blocking work where it does not hold up the runtime.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let this = self.clone();
        match self.mode {
            WriterMode::Thread => tokio::task::spawn_blocking(move || work(&this))
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error))),
            WriterMode::Task => work(&this),
        }
    }

    /// Makes a snapshot the current one, unless a newer one was installed while it was built: a
    /// follower that needs what lies between the two would be sent the older one for ever.
    fn adopt(&self, meta: SnapshotMeta, name: String) {
        let mut current = self.current();
        if current.as_ref().is_none_or(|(known, _)| known.last_log_id <= meta.last_log_id) {
            *current = Some((meta, name));
        }
    }

    /// Keeps a snapshot, durably, and drops the oldest.
    async fn keep(&self, meta: SnapshotMeta, file: Bytes) -> io::Result<()> {
        self.records.sync().await?;
        self.blocking(move |this| {
            Metric::Snapshots.add();
            Metric::SnapshotBytes.set(file.len() as u64);
            let name = snapshot::file_name(&meta);
            crate::crash_point!("raft_snapshot_before_write");
            this.disk.put_file(&name, &file)?;
            crate::crash_point!("raft_snapshot_after_write");
            this.adopt(meta, name);
            let files = this.disk.list_files()?;
            let snapshots = files.into_iter().filter(|name| snapshot::is_snapshot(name));
            for old in snapshots.rev().skip(KEEP) {
                this.disk.remove_file(&old)?;
            }
            Ok(())
        })
        .await
    }
}

impl Shared {
    /// The incarnation under which a node registered last, as far as this node has applied.
    pub(crate) fn registered_boot(&self, node: NodeId) -> Option<BootId> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.nodes.get(&node).map(|known| known.boot)
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self, to: LogId) {
        Metric::AppliedIndex.set(to.index);
        self.position().last = Some(to);
        self.applied.send_replace(to.index);
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.shared.position();
        Ok((position.last, position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let outcome = match entry.payload {
                EntryPayload::Blank => Outcome(None),
                EntryPayload::Membership(membership) => {
                    self.shared.position().membership =
                        StoredMembership::new(Some(entry.log_id), membership);
                    Outcome(None)
                }
                EntryPayload::Normal(proposal) => {
                    let applied = {
                        let state = &self.shared.state;
                        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
                        let known = state.can_follow(&proposal.entry().command);
                        known.map_err(|error| invalid(error.to_string()))?;
                        let applied = state.apply(entry.log_id.index, proposal.entry());
                        if let Some(witness) = &self.witness {
                            witness.applied(entry.log_id.index, proposal.entry(), &applied, &state);
                        }
                        applied
                    };
                    crate::crash_point!("raft_apply_before_records");
                    self.records.push(entry.log_id.index, &applied.records).await?;
                    crate::crash_point!("raft_apply_after_records");
                    Outcome(Some(Committed { index: applied.effective, answer: applied.answer }))
                }
            };
            self.shared.moved(entry.log_id);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone();
        let position = self.shared.position().clone();
        Builder { machine: self.clone(), state: Some(state), position }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Bytes) -> io::Result<()> {
        let (found, state) = snapshot::decode(&file)
            .map_err(|reason| invalid(format!("the snapshot cannot be installed: {reason}")))?;
        if found != *meta {
            return Err(invalid("the snapshot covers something else than its header says"));
        }
        crate::crash_point!("raft_snapshot_before_install");
        let kept = self.current().as_ref().is_some_and(|(current, _)| current == meta);
        if !kept {
            self.keep(meta.clone(), file).await?;
        }
        *self.shared.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.shared.position().membership = meta.last_membership.clone();
        if let Some(last) = meta.last_log_id {
            self.shared.moved(last);
            self.witness_installed(last.index);
        }
        crate::crash_point!("raft_snapshot_after_install");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some((meta, name)) = self.current().clone() else { return Ok(None) };
        let file = self.blocking({
            let name = name.clone();
            move |this| this.disk.read_file(&name)
        });
        let snapshot = Bytes::from(file.await?);
        snapshot::decode(&snapshot)
            .map_err(|reason| invalid(format!("the snapshot {name} is damaged: {reason}")))?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Takes one snapshot of the state as it was when the builder was made.
pub struct Builder {
    machine: Machine,
    state: Option<State>,
    position: Position,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state.take().ok_or_else(|| invalid("this snapshot was built already"))?;
        let meta = SnapshotMeta {
            last_log_id: self.position.last,
            last_membership: self.position.membership.clone(),
        };
        let file = {
            let meta = meta.clone();
            self.machine.blocking(move |_| Ok(snapshot::encode(&meta, &state))).await?
        };
        self.machine.keep(meta.clone(), file.clone()).await?;
        Ok(Snapshot { meta, snapshot: file })
    }
}
