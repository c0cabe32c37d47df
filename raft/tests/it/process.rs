//! RocksDB in a process that is killed at its writes, and on a disk that is really full.
//!
//! The parent runs this test binary again as the child, which finds its part in the environment.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use medic_raft::{
    Config, Consensus, Env, Ledger, LedgerExt,
    store::{Disk, Ground, Op, Pair, RocksDisk, Table, WriterMode},
};
use medic_state::NodeId;
use tokio::time::timeout;

use crate::{
    harness::{PATIENCE, connector, registration},
    start::{leads, quick},
};

const DIR: &str = "MEDIC_TEST_DIR";
const KILL_AT: &str = "MEDIC_TEST_KILL_AT";

/// Kills its own process before or after one of its writes: `2n` before, `2n + 1` after the n-th.
struct Deadly {
    disk: RocksDisk,
    writes: AtomicU64,
    kill_at: u64,
}

impl Deadly {
    fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let die = |now: bool| {
            if now {
                let me = nix::unistd::Pid::this();
                nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        };
        die(number * 2 == self.kill_at);
        let result = write();
        die(number * 2 + 1 == self.kill_at);
        result
    }
}

impl Disk for Deadly {
    fn write(&self, ops: &[Op], sync: bool) -> io::Result<()> {
        self.around(|| self.disk.write(ops, sync))
    }

    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.disk.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        max_pairs: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        self.disk.scan(table, from, to, max_pairs, max_bytes)
    }

    fn put_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.around(|| self.disk.put_file(name, content))
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        self.disk.read_file(name)
    }

    fn list_files(&self) -> io::Result<Vec<String>> {
        self.disk.list_files()
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename_file(from, to)
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.disk.remove_file(name)
    }

    fn close(&self) {
        self.disk.close();
    }
}

fn config(dir: &Path) -> Config {
    let mut config = quick(1);
    config.data_dir = dir.join("data");
    config.snapshot_every = 5;
    config
}

/// Appends an acknowledged entry to a file that survives the process.
fn note(dir: &Path, number: u64) {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("acked")).unwrap();
    writeln!(file, "{number}").unwrap();
}

fn noted(dir: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(dir.join("acked")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

async fn holds(dir: &Path, what: &str) {
    let raft = Consensus::start(config(dir), Env::system(), connector()).await.expect(what);
    leads(&raft).await;
    raft.linearize().await.expect(what);
    raft.read(|state| {
        for number in noted(dir) {
            assert!(state.nodes.contains_key(&NodeId(number)), "{what}: lost {number}");
        }
    });
    raft.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let (Ok(dir), Ok(kill_at)) = (std::env::var(DIR), std::env::var(KILL_AT)) else { return };
    let dir = PathBuf::from(dir);
    let config = config(&dir);
    let disk = RocksDisk::open(&config.data_dir).unwrap();
    let kill_at = kill_at.parse().unwrap();
    let disk = Arc::new(Deadly { disk, writes: AtomicU64::new(0), kill_at });
    let raft = Consensus::start_on(
        config,
        Env::system(),
        connector(),
        Ground::new(disk, WriterMode::Thread),
    )
    .await;
    let raft = raft.unwrap();
    leads(&raft).await;
    for number in 100..115 {
        let entry = registration(&raft, number, "a:1");
        raft.propose(entry).await.unwrap();
        note(&dir, number);
    }
    raft.shutdown().await;
}

fn run(test: &str, dir: &Path, kill_at: u64) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .env(KILL_AT, kill_at.to_string())
        .output()
        .unwrap()
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_its_writes_loses_nothing() {
    let mut killed = 0;
    for kill_at in (2..14).chain([20, 27, 33, 40, 51, 60]) {
        let dir = tempfile::tempdir().unwrap();
        let status = run("process::child_that_is_killed", dir.path(), kill_at);
        killed += u32::from(!status.success());
        holds(dir.path(), &format!("killed at {kill_at}")).await;
    }
    assert!(killed >= 14, "only {killed} children were killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    if std::env::var(KILL_AT).is_ok() {
        return;
    }
    let dir = PathBuf::from(dir);
    std::fs::write(dir.join("ballast"), vec![1; 24 << 20]).unwrap();
    let raft = Consensus::start(config(&dir), Env::system(), connector()).await.unwrap();
    leads(&raft).await;
    let padding = "a".repeat(200 << 10);
    let mut number = 100;
    loop {
        let entry = registration(&raft, number, &padding);
        if raft.propose(entry).await.is_err() {
            break;
        }
        note(&dir, number);
        number += 1;
        assert!(number < 1_000, "the disk is not small");
    }
    let mut fatal = raft.fatal();
    let reason = timeout(PATIENCE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    let reason = reason.unwrap();
    assert!(reason.contains("No space left") || reason.contains("disk is full"), "{reason}");
    raft.shutdown().await;
    std::fs::remove_file(dir.join("ballast")).unwrap();
    assert!(number > 101);
    holds(&dir, "after the disk was full").await;
}

/// Needs a mount namespace of its own, so root; elsewhere the memory disk's test stands for it.
#[test]
fn a_really_full_disk_stops_the_node_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=64m medic-test \"$1\" && exec \"$2\" --exact process::child_on_a_small_disk --nocapture";
    let may = Command::new("unshare").args(["-m", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return;
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("mount:") {
        return;
    }
    assert!(output.status.success(), "{text}");
}
