//! openraft's own suite for stores, on RocksDB and in memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use medic_raft::{
    store::{Disk, LogStore, Machine, MemoryDisk, RocksDisk, Store, StoreOptions, WriterMode},
    types::{LeaderId, LogEntry, LogId, TypeConfig},
};
use medic_state::NodeId;
use openraft::{
    EntryPayload, RaftLogReader as _, RaftSnapshotBuilder as _, StorageError,
    storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _},
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

struct OnRocks;
struct InMemory;

/// Keeps what lies beneath the store for the length of one test.
struct Guard {
    _store: Store,
    _dir: Option<TempDir>,
}

async fn open(disk: Arc<dyn Disk>, mode: WriterMode) -> Store {
    let options = StoreOptions {
        node_id: NodeId(1),
        cluster_id: "suite".to_owned(),
        fsync_deadline: Duration::from_secs(10),
        mode,
        witness: None,
    };
    Store::open(disk, &options).await.unwrap()
}

impl StoreBuilder<TypeConfig, LogStore, Machine, Guard> for OnRocks {
    async fn build(&self) -> Result<(Guard, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RocksDisk::open(dir.path()).unwrap());
        let store = open(disk, WriterMode::Thread).await;
        let (log, machine) = (store.log.clone(), store.machine.clone());
        Ok((Guard { _store: store, _dir: Some(dir) }, log, machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, Machine, Guard> for InMemory {
    async fn build(&self) -> Result<(Guard, LogStore, Machine), StorageError<TypeConfig>> {
        let store = open(Arc::new(MemoryDisk::default()), WriterMode::Task).await;
        let (log, machine) = (store.log.clone(), store.machine.clone());
        Ok((Guard { _store: store, _dir: None }, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rocksdb_passes_the_suite() {
    Suite::test_all(OnRocks).await.unwrap();
    // RocksDB must not be open when the process ends: its destructors would race with static ones.
    // The writer threads hold the last references; they drop them and then end.
    let deadline = Instant::now() + Duration::from_secs(30);
    while writers() > 0 {
        assert!(Instant::now() < deadline, "a writer thread never let go of its disk");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writer threads of this process that have not ended.
fn writers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "medic-log")
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_passes_the_suite() {
    Suite::test_all(InMemory).await.unwrap();
}

fn blank(index: u64) -> LogEntry {
    let leader_id = LeaderId { term: 1, node_id: 1 };
    LogEntry { log_id: LogId { leader_id, index }, payload: EntryPayload::Blank }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_long_in_the_making_does_not_hide_a_newer_one() {
    let store = open(Arc::new(MemoryDisk::default()), WriterMode::Task).await;
    let mut machine = store.machine.clone();
    machine.apply(futures::stream::iter([Ok((blank(1), None))])).await.unwrap();
    let mut early = machine.get_snapshot_builder().await;
    machine.apply(futures::stream::iter([Ok((blank(2), None))])).await.unwrap();
    let newer = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let older = early.build_snapshot().await.unwrap();
    assert!(older.meta.last_log_id < newer.meta.last_log_id);
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, newer.meta);
    assert_eq!(current.snapshot, newer.snapshot);
}

/// A leader's stream to a node that had been called off read on across what was purged meanwhile, and would
/// have sent entry 264 as the one after 260.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_has_no_gap_and_tells_of_none() {
    let store = open(Arc::new(MemoryDisk::default()), WriterMode::Task).await;
    let mut log = store.log.clone();
    log.blocking_append((1..10).map(blank)).await.unwrap();
    log.purge(blank(4).log_id).await.unwrap();
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(3, 8).await.unwrap(), []);
    let found = reader.limited_get_log_entries(5, 8).await.unwrap();
    assert_eq!(found, [5, 6, 7].map(blank));
    for entries in [vec![blank(12)], vec![blank(10), blank(12)], vec![blank(9)]] {
        let error = log.blocking_append(entries).await.unwrap_err();
        assert!(error.to_string().contains("does not follow entry"), "{error}");
    }
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(blank(9).log_id), "nothing of it was taken");
    log.blocking_append([blank(10)]).await.unwrap();
    log.purge(blank(20).log_id).await.unwrap();
    assert!(log.blocking_append([blank(11)]).await.is_err());
    log.blocking_append([blank(21)]).await.unwrap();
}
