//! What keeps a node from starting, and what it then says.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use medic_raft::{
    Config, Consensus, Env, Ledger, LedgerExt, RecordQuery, StartError,
    store::{
        Disk, Ground, MemoryDisk, Op, RocksDisk, Store, StoreOptions, Table, WriterMode, log_key,
    },
};
use medic_state::NodeId;
use tokio::time::timeout;

use crate::harness::{PATIENCE, connector, registration};

pub(crate) fn quick(node: u64) -> Config {
    let members = BTreeMap::from([(NodeId(node), "127.0.0.1:1".to_owned())]);
    let mut config = Config::new(NodeId(node), "test", "unused", members);
    config.timing.heartbeat = Duration::from_millis(10);
    config.timing.election_min = Duration::from_millis(30);
    config.timing.election_max = Duration::from_millis(60);
    config.timing.lease_margin = Duration::from_millis(5);
    config.timing.propose_deadline = Duration::from_secs(5);
    config
}

pub(crate) async fn start(
    config: Config,
    disk: Arc<MemoryDisk>,
    mode: WriterMode,
) -> Result<Arc<Consensus>, StartError> {
    Consensus::start_on(config, Env::system(), connector(), Ground::new(disk, mode)).await
}

pub(crate) async fn leads(raft: &Consensus) {
    let mut leadership = raft.leadership();
    timeout(PATIENCE, leadership.wait_for(|now| now.me)).await.unwrap().unwrap();
}

async fn commit(raft: &Consensus, node: u64) -> u64 {
    let entry = registration(raft, node, "a:1");
    raft.propose(entry).await.unwrap().index
}

/// A disk with some history: entries, and with `snapshots` two snapshots.
async fn history(snapshots: bool) -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::default());
    let mut config = quick(1);
    config.snapshot_every = if snapshots { 10 } else { 1_000 };
    let raft = start(config, disk.clone(), WriterMode::Task).await.unwrap();
    leads(&raft).await;
    let mut seen = Vec::new();
    for number in 100..130 {
        commit(&raft, number).await;
        if snapshots && number % 10 == 0 {
            raft.trigger_snapshot().await;
            let more = async {
                loop {
                    let files = disk.list_files().unwrap();
                    if files != seen {
                        return files;
                    }
                    tokio::task::yield_now().await;
                }
            };
            seen = timeout(PATIENCE, more).await.unwrap();
        }
    }
    raft.shutdown().await;
    disk.after_power_cut(usize::MAX)
}

fn refusal(result: Result<Arc<Consensus>, StartError>) -> String {
    match result {
        Ok(_) => panic!("it must refuse to start"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_anothers_directory() {
    let disk = history(false).await;
    let other = start(quick(2), disk.after_power_cut(0), WriterMode::Task).await;
    assert!(refusal(other).contains("belongs to node-1, but this node is configured as node-2"));
    let mut config = quick(1);
    config.cluster_id = "prod".to_owned();
    let other = refusal(start(config, disk.after_power_cut(0), WriterMode::Task).await);
    assert!(other.contains("belongs to cluster `test`"), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_damaged_log_and_says_where() {
    let disk = history(false).await;
    let damaged = disk.after_power_cut(0);
    damaged.damage(Table::Log, &log_key(7));
    let text = refusal(start(quick(1), damaged.clone(), WriterMode::Task).await);
    assert!(text.contains("damaged at index 7"), "{text}");
    assert!(text.contains("remove this node from the cluster"), "{text}");

    let hole = disk.after_power_cut(0);
    hole.lose(Table::Log, &log_key(7));
    let text = refusal(start(quick(1), hole, WriterMode::Task).await);
    assert!(text.contains("damaged at index 7: found entry 8"), "{text}");

    let vote = disk.after_power_cut(0);
    vote.damage(Table::Meta, b"vote");
    let text = refusal(start(quick(1), vote, WriterMode::Task).await);
    assert!(text.contains("stored vote is damaged: checksum"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_newer_format() {
    let disk = history(false).await;
    let mut value = crc32c::crc32c(b"format\0\0\0\x09").to_be_bytes().to_vec();
    value.extend_from_slice(&9_u32.to_be_bytes());
    let put = Op::Put { table: Table::Meta, key: b"format".to_vec(), value };
    disk.write(&[put], true).unwrap();
    let text = refusal(start(quick(1), disk, WriterMode::Task).await);
    assert!(text.contains("format 9, this build knows up to 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_replaced_by_the_one_before_it() {
    let disk = history(true).await;
    let files = disk.list_files().unwrap();
    assert_eq!(files.len(), 2, "{files:?}");
    let reference = start(quick(1), disk.after_power_cut(0), WriterMode::Task).await.unwrap();
    leads(&reference).await;
    let wanted = reference.read(medic_state::State::hash);
    reference.shutdown().await;

    let one = disk.after_power_cut(0);
    one.damage_file(&files[1]);
    let raft = start(quick(1), one.clone(), WriterMode::Task).await.unwrap();
    leads(&raft).await;
    raft.linearize().await.unwrap();
    assert_eq!(raft.read(medic_state::State::hash), wanted);
    assert!(one.list_files().unwrap().iter().any(|name| name.ends_with(".damaged")));
    raft.shutdown().await;

    let both = disk.after_power_cut(0);
    both.damage_file(&files[0]);
    both.damage_file(&files[1]);
    match start(quick(1), both, WriterMode::Task).await {
        // The log still reaches back to the beginning.
        Ok(raft) => {
            leads(&raft).await;
            raft.linearize().await.unwrap();
            assert_eq!(raft.read(medic_state::State::hash), wanted);
            raft.shutdown().await;
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("the state cannot be rebuilt here"), "{text}");
            assert!(text.contains(&files[1]), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_named_to_whoever_reads_it() {
    let disk = history(true).await;
    let first = disk.scan(Table::Records, &[], &[0xff; 13], 1, usize::MAX).unwrap();
    disk.damage(Table::Records, &first[0].0);
    // It is behind the snapshot: nothing writes it again.
    let raft = start(quick(1), disk, WriterMode::Task).await.unwrap();
    leads(&raft).await;
    let text = raft.records(RecordQuery { after: 0, limit: 10 }).unwrap_err().to_string();
    assert!(text.contains("the record") && text.contains("is damaged: checksum"), "{text}");
    let index = u64::from_be_bytes(first[0].0[..8].try_into().unwrap());
    let after = RecordQuery { after: index, limit: 10 };
    assert!(!raft.records(after).unwrap().is_empty(), "the others can still be read");
    raft.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_used_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = RocksDisk::open(dir.path()).unwrap();
    let text = RocksDisk::open(dir.path()).err().unwrap().to_string();
    assert!(text.contains("in use by another process"), "{text}");
    first.close();
    drop(RocksDisk::open(dir.path()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rocksdb_survives_a_torn_tail_and_refuses_damage_in_the_middle() {
    let options = StoreOptions {
        node_id: NodeId(1),
        cluster_id: "test".to_owned(),
        fsync_deadline: Duration::from_secs(10),
        mode: WriterMode::Thread,
        witness: None,
    };
    let (dir, wal) = logged().await;
    let whole = std::fs::read(&wal).unwrap();
    // In the middle, whatever part of a record it hits: RocksDB takes a damaged length for an
    // interrupted write. What is refused is left as it is.
    let middle = whole.len() / 2;
    for at in middle..middle + 128 {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x5a;
        std::fs::write(&wal, &damaged).unwrap();
        let text = RocksDisk::open(dir.path()).err().expect("damage is refused").to_string();
        assert!(text.contains("the database is damaged"), "{text}");
        assert!(text.contains("Remove this node from the cluster"), "{text}");
        assert!(std::fs::read(&wal).unwrap() == damaged, "nothing was changed");
    }
    // The last bytes of the write-ahead log never reached the disk: they belong to a write that was
    // not acknowledged (here: the last commit point, which is not synced).
    std::fs::write(&wal, &whole[..whole.len() - 3]).unwrap();
    let disk = Arc::new(RocksDisk::open(dir.path()).unwrap());
    Store::open(disk, &options).await.unwrap().close().await;
}

/// A node's directory after a hundred commands, and the write-ahead log they are in.
async fn logged() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(1);
    config.data_dir = dir.path().to_owned();
    let raft = Consensus::start(config.clone(), Env::system(), connector()).await.unwrap();
    leads(&raft).await;
    for number in 100..200 {
        commit(&raft, number).await;
    }
    raft.shutdown().await;
    let files =
        std::fs::read_dir(dir.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
    let wal = files.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap();
    (dir, wal)
}

#[tokio::test]
async fn refuses_bad_configuration() {
    for (what, change) in [
        ("node id 0", (|config| config.node_id = NodeId(0)) as fn(&mut Config)),
        ("cluster id is empty", |config| config.cluster_id.clear()),
        ("must be among its members", |config| config.members.clear()),
        ("timing must", |config| config.timing.heartbeat = Duration::from_secs(1)),
    ] {
        let mut config = quick(1);
        change(&mut config);
        let text = refusal(start(config, Arc::default(), WriterMode::Task).await);
        assert!(text.contains(what), "{text}");
    }
}
