//! A node's disk: it survives the node, loses what was not synced when the power goes, is slow, and
//! fails a write when it is told to.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use medic_raft::store::{Disk, Fate, Kept, MemoryDisk, Op, Pair, Table, log_key};

use crate::history::lock;

/// Entries that have not been purged for certain: the others need not be read any more.
const LAST_ENTRIES: usize = 8;

/// How a damaged snapshot is called when it has been set aside.
const DAMAGED: &str = ".damaged";

/// A write that is going to go wrong; after it, every other one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// How.
    pub(super) fate: Fate,
    /// With which error, and so do all after it.
    pub(super) kind: io::ErrorKind,
    /// The next file, not the next batch.
    pub(super) file: bool,
}

/// What a power cut took, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) batches: usize,
    pub(super) names: usize,
}

/// The disk as one incarnation of its node sees it.
pub(super) struct SimDisk {
    below: MemoryDisk,
    /// What becomes of the write under way.
    fate: Arc<Mutex<Fate>>,
    lag_ms: AtomicU64,
    /// What is to go wrong.
    armed: Mutex<Option<Bad>>,
    /// What went wrong.
    hit: Mutex<Option<Bad>>,
    /// Something on it was damaged, now or earlier.
    damaged: AtomicBool,
    /// This incarnation found a damaged snapshot, and set it aside.
    set_aside: AtomicBool,
}

impl SimDisk {
    /// An empty disk.
    pub(super) fn new() -> Arc<Self> {
        let fate = Arc::new(Mutex::new(Fate::Done));
        let below = MemoryDisk::with_fates(read(&fate));
        Self::over(below, fate, false)
    }

    fn over(below: MemoryDisk, fate: Arc<Mutex<Fate>>, damaged: bool) -> Arc<Self> {
        Arc::new(Self {
            below,
            fate,
            lag_ms: AtomicU64::new(0),
            armed: Mutex::default(),
            hit: Mutex::default(),
            damaged: AtomicBool::new(damaged),
            set_aside: AtomicBool::new(false),
        })
    }

    /// What the next incarnation finds: everything that was written.
    pub(super) fn after_kill(&self) -> Arc<Self> {
        self.left(Kept::ALL)
    }

    fn left(&self, kept: Kept) -> Arc<Self> {
        let fate = Arc::new(Mutex::new(Fate::Done));
        let below = self.below.left(kept, read(&fate));
        Self::over(below, fate, self.damaged.load(Ordering::Acquire))
    }

    /// What the next incarnation finds when the power went: what was synced, and a part of the rest,
    /// which `draw` picks out of how much there is.
    pub(super) fn after_power_cut(&self, mut draw: impl FnMut(u64) -> u64) -> (Arc<Self>, Lost) {
        let mut part = |all: usize| usize::try_from(draw(all as u64)).unwrap_or(0).min(all);
        let (batches, names) = (self.below.unsynced(), self.below.unsynced_names());
        let kept = Kept { batches: part(batches), names: part(names) };
        let lost = Lost { batches: batches - kept.batches, names: names - kept.names };
        (self.left(kept), lost)
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

    /// A write is going to go wrong.
    pub(super) fn arm(&self, bad: Bad) {
        *lock(&self.armed) = Some(bad);
    }

    /// The write that went wrong, if one did.
    pub(super) fn hit(&self) -> Option<Bad> {
        *lock(&self.hit)
    }

    /// Whether this incarnation found a damaged snapshot, and did without it.
    pub(super) fn set_aside(&self) -> bool {
        self.set_aside.load(Ordering::Acquire)
    }

    /// Settles what becomes of the write that comes now.
    fn decide(&self, file: bool) {
        let mut hit = lock(&self.hit);
        *lock(&self.fate) = match *hit {
            Some(bad) => Fate::Fail(bad.kind),
            None => {
                let mut armed = lock(&self.armed);
                *hit = armed.take_if(|bad| bad.file == file);
                hit.map_or(Fate::Done, |bad| bad.fate)
            }
        };
    }
}

fn read(fate: &Arc<Mutex<Fate>>) -> impl Fn(u64) -> Fate + Send + Sync + 'static {
    let fate = fate.clone();
    move |_| *lock(&fate)
}

impl Disk for SimDisk {
    fn write(&self, ops: &[Op], sync: bool) -> io::Result<()> {
        self.decide(false);
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
        self.decide(true);
        self.below.put_file(name, content)
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        self.below.read_file(name)
    }

    fn list_files(&self) -> io::Result<Vec<String>> {
        self.below.list_files()
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename_file(from, to)?;
        if to.ends_with(DAMAGED) {
            self.set_aside.store(true, Ordering::Release);
        }
        Ok(())
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
