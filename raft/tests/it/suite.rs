//! openraft's own suite for stores, on RocksDB and in memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use medic_raft::{
    store::{Disk, LogStore, Machine, MemoryDisk, RocksDisk, Store, StoreOptions, WriterMode},
    types::TypeConfig,
};
use medic_state::NodeId;
use openraft::{
    StorageError,
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
