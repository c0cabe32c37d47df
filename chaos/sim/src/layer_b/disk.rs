//! A node's disk: it survives the node, loses what was not synced when the power goes, is slow, and
//! fails a write when it is told to.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use medic_raft::store::{Disk, MemoryDisk, Op, Pair, Table, log_key};

/// Entries that have not been purged for certain: the others need not be read any more.
const LAST_ENTRIES: usize = 8;

/// The disk as one incarnation of its node sees it.
pub(super) struct SimDisk {
    below: Arc<MemoryDisk>,
    lag_ms: AtomicU64,
    /// The next write fails, and nobody knows how much of it was done.
    full: AtomicBool,
    /// Something on it was damaged, now or earlier.
    damaged: AtomicBool,
}

impl SimDisk {
    /// An empty disk.
    pub(super) fn new() -> Arc<Self> {
        Self::over(Arc::default(), false)
    }

    fn over(below: Arc<MemoryDisk>, damaged: bool) -> Arc<Self> {
        Arc::new(Self {
            below,
            lag_ms: AtomicU64::new(0),
            full: AtomicBool::new(false),
            damaged: AtomicBool::new(damaged),
        })
    }

    /// What the next incarnation finds: everything that was written.
    pub(super) fn after_kill(&self) -> Arc<Self> {
        self.left(usize::MAX)
    }

    fn left(&self, kept: usize) -> Arc<Self> {
        Self::over(self.below.after_power_cut(kept), self.damaged.load(Ordering::Acquire))
    }

    /// What the next incarnation finds when the power went: what was synced, and a part of the rest,
    /// which `draw` picks out of how many writes there are.
    pub(super) fn after_power_cut(&self, draw: impl FnOnce(u64) -> u64) -> (Arc<Self>, usize) {
        let unsynced = self.below.unsynced();
        let kept = usize::try_from(draw(unsynced as u64)).unwrap_or(0).min(unsynced);
        (self.left(kept), unsynced - kept)
    }

    /// Damages the newest snapshot, once in the life of a node; false: there is no older one from
    /// which the log goes on, and the damage could not be borne.
    pub(super) fn damage_newest_snapshot(&self) -> bool {
        let files = self.below.list_files().unwrap_or_default();
        let mut snapshots: Vec<&String> =
            files.iter().filter(|name| name.ends_with(".snap")).collect();
        snapshots.sort();
        let [.., older, newest] = snapshots[..] else { return false };
        let reaches = older.split('-').next().and_then(|index| index.parse::<u64>().ok());
        let log = self.below.scan(Table::Log, &[], &log_key(u64::MAX), 1, 1).unwrap_or_default();
        let goes_on = reaches
            .zip(log.first())
            .is_some_and(|(index, (first, _))| *first <= log_key(index + 1));
        if !goes_on || self.damaged.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.below.damage_file(newest);
        true
    }

    /// Damages one of the last entries of the log, which `draw` picks out of how many there are;
    /// false: there is none.
    pub(super) fn damage_log(&self, draw: impl FnOnce(u64) -> u64) -> bool {
        let (from, to) = (log_key(0), log_key(u64::MAX));
        let all = self.below.scan(Table::Log, &from, &to, usize::MAX, usize::MAX);
        let all = all.unwrap_or_default();
        let last = &all[all.len().saturating_sub(LAST_ENTRIES)..];
        if last.is_empty() {
            return false;
        }
        let at = usize::try_from(draw(last.len() as u64)).unwrap_or_default();
        self.below.damage(Table::Log, &last[at.min(last.len() - 1)].0);
        true
    }

    /// Every write takes so much longer.
    pub(super) fn slow(&self, by_ms: u64) {
        self.lag_ms.store(by_ms, Ordering::Release);
    }

    /// The next write fails.
    pub(super) fn fill(&self) {
        self.full.store(true, Ordering::Release);
    }

    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::Acquire) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn write(&self, ops: &[Op], sync: bool) -> io::Result<()> {
        self.room()?;
        self.below.write(ops, sync)
    }

    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.below.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        max_pairs: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        self.below.scan(table, from, to, max_pairs, max_bytes)
    }

    fn put_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.room()?;
        self.below.put_file(name, content)
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        self.below.read_file(name)
    }

    fn list_files(&self) -> io::Result<Vec<String>> {
        self.below.list_files()
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename_file(from, to)
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.below.remove_file(name)
    }

    fn close(&self) {
        self.below.close();
    }

    fn lag(&self) -> Duration {
        Duration::from_millis(self.lag_ms.load(Ordering::Acquire))
    }
}
