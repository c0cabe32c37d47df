//! Power cuts, failing, full and hanging disks, at every write.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use medic_raft::{
    Consensus, Env, Ledger, LedgerError, LedgerExt, RecordQuery,
    store::{Disk as _, Fate, Ground, Kept, MemoryDisk, Table, WriterMode, record_key},
};
use medic_state::{NodeId, Record, RequestId};
use tokio::time::timeout;

use crate::{
    harness::{Cluster, Node, PATIENCE, connector, registration},
    start::{leads, quick, start},
};

/// Entries proposed in one life.
const ENTRIES: u64 = 12;

/// Lives until the disk fails or all is proposed; gives the entries that were acknowledged.
async fn live(disk: Arc<MemoryDisk>, first: u64) -> Vec<(u64, u64)> {
    let mut config = quick(1);
    config.snapshot_every = 5;
    let Ok(raft) = start(config, disk, WriterMode::Task).await else { return Vec::new() };
    let mut acknowledged = Vec::new();
    let mut leadership = raft.leadership();
    let mut fatal = raft.fatal();
    let life = async {
        if leadership.wait_for(|now| now.me).await.is_err() {
            return;
        }
        for number in first..first + ENTRIES {
            let entry = registration(&raft, number, "a:1");
            match raft.propose(entry).await {
                Ok(committed) => acknowledged.push((number, committed.index)),
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = life => {}
        _ = fatal.wait_for(Option::is_some) => {}
    }
    raft.shutdown().await;
    acknowledged
}

/// What was acknowledged is there, at its place, with its audit records and without a gap.
async fn check(disk: Arc<MemoryDisk>, acknowledged: &[(u64, u64)], what: &str) {
    let mut config = quick(1);
    config.snapshot_every = 5;
    let raft = start(config, disk, WriterMode::Task).await.expect(what);
    leads(&raft).await;
    raft.linearize().await.expect(what);
    let records = raft.records(RecordQuery { after: 0, limit: 1_000 }).unwrap();
    let chain: Vec<(u64, u64)> = records
        .iter()
        .filter_map(|stored| match &stored.record {
            Record::Audit(link) => Some((link.seq, stored.index)),
            Record::Closed(_) => None,
        })
        .collect();
    for ((seq, _), expected) in chain.iter().zip(1..) {
        assert_eq!(*seq, expected, "{what}: the audit chain has a gap: {chain:?}");
    }
    raft.read(|state| {
        assert_eq!(state.audit.seq, chain.len() as u64, "{what}");
        for (number, index) in acknowledged {
            assert!(state.nodes.contains_key(&NodeId(*number)), "{what}: lost {number}");
            assert!(chain.iter().any(|(_, at)| at == index), "{what}: no record at {index}");
        }
    });
    raft.shutdown().await;
}

/// Every write in turn has this fate, and all after it `then`.
async fn walk(fail: Fate, then: Fate) {
    // One undisturbed life counts the writes.
    let disk = Arc::new(MemoryDisk::default());
    assert_eq!(live(disk.clone(), 100).await.len() as u64, ENTRIES);
    let writes = disk.writes();
    assert!(writes > 2 * ENTRIES, "{writes}");
    for at in 1..=writes {
        let fate = move |n: u64| match n {
            n if n < at => Fate::Done,
            n if n == at => fail,
            _ => then,
        };
        let disk = Arc::new(MemoryDisk::with_fates(fate));
        let acknowledged = live(disk.clone(), 100).await;
        // The power goes: of what was not synced a prefix remains, none of it or all of it.
        let (batches, names) = (disk.unsynced(), disk.unsynced_names());
        for kept in [
            Kept { batches: 0, names: 0 },
            Kept { batches: batches / 2, names: names / 2 },
            Kept { batches, names },
        ] {
            let what = format!("{fail:?} at write {at} of {writes}, {kept:?} unsynced");
            let left = disk.left(kept, |_| Fate::Done);
            check(Arc::new(left), &acknowledged, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_write_fails() {
    walk(Fate::Fail(ErrorKind::Other), Fate::Fail(ErrorKind::Other)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_write_succeeds_and_reports_failure() {
    walk(Fate::DoneButFail(ErrorKind::Other), Fate::DoneButFail(ErrorKind::Other)).await;
}

/// The disk works again after it tore one write, but nothing behind that can be read any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_behind_a_torn_write() {
    walk(Fate::Torn(ErrorKind::Other), Fate::Done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_in_good_health_lose_nothing() {
    let mut disk = Arc::new(MemoryDisk::default());
    let mut all = Vec::new();
    for life in 0..4 {
        all.extend(live(disk.clone(), 100 + 20 * life).await);
        check(disk.after_power_cut(0), &all, "after a power cut").await;
        disk = disk.after_power_cut(0);
    }
    assert_eq!(all.len() as u64, 4 * ENTRIES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_node_with_a_clear_word() {
    let full = |n| if n > 20 { Fate::Fail(ErrorKind::StorageFull) } else { Fate::Done };
    let disk = Arc::new(MemoryDisk::with_fates(full));
    let raft = start(quick(1), disk.clone(), WriterMode::Thread).await.unwrap();
    leads(&raft).await;
    let mut acknowledged = Vec::new();
    let error = loop {
        let number = 100 + acknowledged.len() as u64;
        let entry = registration(&raft, number, "a:1");
        match raft.propose(entry).await {
            Ok(committed) => acknowledged.push((number, committed.index)),
            Err(error) => break error,
        }
    };
    let expected = matches!(error, LedgerError::Ambiguous(_) | LedgerError::Stopped(_));
    assert!(expected, "{error}");
    let mut fatal = raft.fatal();
    let reason = timeout(PATIENCE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(reason.unwrap().contains("no storage space"));
    assert_eq!(raft.lease_remaining(), Duration::ZERO);
    let entry = registration(&raft, 1, "a:1");
    assert!(matches!(raft.propose(entry).await, Err(LedgerError::Stopped(_))));
    raft.shutdown().await;
    check(disk.after_power_cut(0), &acknowledged, "after the disk was full").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_written_is_never_called_not_committed() {
    let failing = Arc::new(AtomicBool::new(false));
    let fates = {
        let failing = failing.clone();
        move |_| match failing.load(Ordering::SeqCst) {
            true => Fate::DoneButFail(ErrorKind::Other),
            false => Fate::Done,
        }
    };
    let disk = Arc::new(MemoryDisk::with_fates(fates));
    let raft = start(quick(1), disk.clone(), WriterMode::Thread).await.unwrap();
    leads(&raft).await;
    let before = raft.propose(registration(&raft, 99, "a:1")).await.unwrap().index;
    // Its record is the last of what is written for it: the next write is the next entry's.
    let landed = async {
        while disk.get(Table::Records, &record_key(before, 0)).unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, landed).await.unwrap();
    failing.store(true, Ordering::SeqCst);
    let mut entry = registration(&raft, 100, "a:1");
    entry.request = Some(RequestId("r".to_owned()));
    // It is tried again under its id, and by then the node is out.
    let error = raft.propose(entry).await.unwrap_err();
    assert!(matches!(error, LedgerError::Ambiguous(_)), "{error}");
    raft.shutdown().await;
    let raft = start(quick(1), disk.after_power_cut(usize::MAX), WriterMode::Thread).await.unwrap();
    leads(&raft).await;
    raft.linearize().await.unwrap();
    raft.read(|state| assert!(state.nodes.contains_key(&NodeId(100))));
    raft.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_gives_way() {
    let mut cluster = Cluster::empty(3).await;
    let armed = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut disks = Vec::new();
    for node in 1..=3 {
        let id = NodeId(node);
        let fates = {
            let armed = armed.clone();
            move |_| {
                let hangs = armed.load(std::sync::atomic::Ordering::SeqCst) == node;
                if hangs { Fate::Hang } else { Fate::Done }
            }
        };
        let disk = Arc::new(MemoryDisk::with_fates(fates));
        disks.push(disk.clone());
        let mut config = cluster.config(id);
        config.timing.fsync_deadline = Duration::from_millis(300);
        let started = Node::start_with(config, |config| {
            Consensus::start_on(
                config,
                Env::system(),
                connector(),
                Ground::new(disk, WriterMode::Thread),
            )
        });
        cluster.nodes.insert(id, started.await.unwrap());
    }
    let old = cluster.leader().await;
    cluster.node(old).register(10, "a:1").await.unwrap();
    armed.store(old.0, std::sync::atomic::Ordering::SeqCst);
    let other = cluster.followers(old)[0];
    // The others may still commit without the leader's disk; then it is out and another leads.
    cluster.node(other).register(11, "a:1").await.ok();
    let mut fatal = cluster.node(old).raft.fatal();
    let reason = timeout(PATIENCE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(reason.unwrap().contains("has not completed a write"));
    let since = Instant::now();
    assert_ne!(cluster.node(other).leader_other_than(old).await, old);
    assert!(since.elapsed() < Duration::from_secs(10));
    cluster.node(other).register(12, "a:1").await.unwrap();
    for disk in &disks {
        disk.release();
    }
    cluster.stop().await;
}
