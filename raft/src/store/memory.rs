//! A disk in memory that can lose power, fail and hang: for simulations and crash tests.
//!
//! ```text
//!   tables   durable ◄─ sync ── unsynced batches, in order ─► a prefix of them survives
//!   files    durable ◄─ put ─── unsynced names, in order ───► a prefix of them survives
//! ```
//!
//! A batch is one record of a write-ahead log: torn, it cannot be read again, and neither can anything
//! written behind it. A file is written aside, synced, renamed, and its directory synced; renames and
//! removals alone are not synced, and a power cut may take them back. Invariant: what a call has
//! reported as durable is there after a power cut, unless it was written behind a torn batch.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::disk::{Disk, Op, Pair, Table};

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It succeeds.
    Done,
    /// It fails and leaves nothing.
    Fail(io::ErrorKind),
    /// It reaches the disk, and fails all the same. A file has its new name, and its directory is not
    /// synced.
    DoneButFail(io::ErrorKind),
    /// It fails in the middle: of a batch nothing can be read again, of a file half is left, aside.
    Torn(io::ErrorKind),
    /// It does not return until [`MemoryDisk::release`], and then succeeds.
    Hang,
}

/// Decides the fate of the n-th write (tables and files counted together, from 1).
pub type Fates = dyn Fn(u64) -> Fate + Send + Sync;

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// The disk.
pub struct MemoryDisk {
    content: Mutex<Content>,
    fates: Box<Fates>,
    released: (Mutex<bool>, Condvar),
}

type Files = BTreeMap<String, Arc<[u8]>>;

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// So many of the batches, the oldest first.
    pub batches: usize,
    /// So many of the changes of names, the oldest first.
    pub names: usize,
}

impl Kept {
    /// All of it: the process ends, and the machine goes on.
    pub const ALL: Self = Self { batches: usize::MAX, names: usize::MAX };
}

/// One record of the write-ahead log.
#[derive(Clone)]
enum Batch {
    Whole(Vec<Op>),
    Torn,
}

/// A change of the directory that a power cut may take back.
#[derive(Clone)]
enum Rename {
    Put(String, Arc<[u8]>),
    Move(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct Content {
    durable: Tables,
    unsynced: Vec<Batch>,
    now: Tables,
    files_durable: Files,
    names_unsynced: Vec<Rename>,
    files: Files,
    writes: u64,
    closed: bool,
}

impl Content {
    /// A batch is written; synced, unless something torn stands before it.
    fn batch(&mut self, ops: &[Op], sync: bool) {
        apply(&mut self.now, ops);
        self.unsynced.push(Batch::Whole(ops.to_vec()));
        if sync {
            let torn = self.unsynced.iter().position(|batch| matches!(batch, Batch::Torn));
            let end = torn.unwrap_or(self.unsynced.len());
            for batch in self.unsynced.drain(..end) {
                if let Batch::Whole(ops) = batch {
                    apply(&mut self.durable, &ops);
                }
            }
        }
    }

    fn name(&mut self, change: Rename) {
        change.apply(&mut self.files);
        self.names_unsynced.push(change);
    }

    /// The directory is synced.
    fn sync_names(&mut self) {
        for change in self.names_unsynced.drain(..) {
            change.apply(&mut self.files_durable);
        }
    }

    /// Everything is durable as it is now.
    fn settle(&mut self) {
        self.durable = self.now.clone();
        self.unsynced.clear();
        self.files_durable = self.files.clone();
        self.names_unsynced.clear();
    }
}

impl Rename {
    fn apply(&self, files: &mut Files) {
        match self {
            Self::Put(name, content) => {
                files.insert(name.clone(), content.clone());
            }
            Self::Move(from, to) => {
                if let Some(file) = files.remove(from) {
                    files.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => {
                files.remove(name);
            }
        }
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::with_fates(|_| Fate::Done)
    }
}

impl MemoryDisk {
    /// An empty disk with the given fates.
    #[must_use]
    pub fn with_fates(fates: impl Fn(u64) -> Fate + Send + Sync + 'static) -> Self {
        Self {
            content: Mutex::default(),
            fates: Box::new(fates),
            released: (Mutex::new(false), Condvar::new()),
        }
    }

    /// What a power cut leaves: everything that was synced, and the first `kept` of the batches that
    /// were not, with every change of names. The new disk never fails.
    #[must_use]
    pub fn after_power_cut(&self, kept: usize) -> Arc<Self> {
        let kept = Kept { batches: kept, ..Kept::ALL };
        Arc::new(self.left(kept, |_| Fate::Done))
    }

    /// What a power cut leaves: everything that was synced, and so much of the rest. Files that were
    /// written aside and never named are gone, as whoever opens the directory sees to. The new disk
    /// has these fates.
    #[must_use]
    pub fn left(&self, kept: Kept, fates: impl Fn(u64) -> Fate + Send + Sync + 'static) -> Self {
        let content = self.content();
        let mut tables = content.durable.clone();
        for batch in content.unsynced.iter().take(kept.batches) {
            match batch {
                Batch::Whole(ops) => apply(&mut tables, ops),
                Batch::Torn => break,
            }
        }
        let mut files = content.files_durable.clone();
        content.names_unsynced.iter().take(kept.names).for_each(|change| change.apply(&mut files));
        files.retain(|name, _| !name.ends_with(ASIDE));
        let mut survivor = Content { now: tables, files, ..Content::default() };
        survivor.settle();
        Self { content: Mutex::new(survivor), ..Self::with_fates(fates) }
    }

    /// Writes so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.content().writes
    }

    /// Batches that a power cut may lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.content().unsynced.len()
    }

    /// Changes of names that a power cut may take back.
    #[must_use]
    pub fn unsynced_names(&self) -> usize {
        self.content().names_unsynced.len()
    }

    /// Flips one bit of a stored value: damage.
    pub fn damage(&self, table: Table, key: &[u8]) {
        let mut content = self.content();
        let value = content.now.get_mut(&(table, key.to_vec()));
        if let Some(last) = value.and_then(|value| value.last_mut()) {
            *last ^= 1;
        }
        content.settle();
    }

    /// Flips one bit of a file.
    pub fn damage_file(&self, name: &str) {
        let mut content = self.content();
        let Some(file) = content.files.get_mut(name) else { return };
        let mut damaged = file.to_vec();
        if let Some(byte) = damaged.get_mut(40) {
            *byte ^= 1;
        }
        *file = damaged.into();
        content.settle();
    }

    /// Removes a stored value.
    pub fn lose(&self, table: Table, key: &[u8]) {
        let mut content = self.content();
        content.now.remove(&(table, key.to_vec()));
        content.settle();
    }

    /// Lets hanging writes go on.
    pub fn release(&self) {
        *self.released.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.released.1.notify_all();
    }

    fn with_file(&self, name: &str, change: impl FnOnce(String) -> Rename) -> io::Result<()> {
        let mut content = self.content();
        if !content.files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        content.name(change(name.to_owned()));
        Ok(())
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a write as its fate has it: `done` when it reaches the disk, `torn` when half of it does.
    fn run(
        &self,
        done: impl FnOnce(&mut Content, Fate),
        torn: impl FnOnce(&mut Content),
    ) -> io::Result<()> {
        let number = {
            let mut content = self.content();
            content.writes += 1;
            content.writes
        };
        let fate = (self.fates)(number);
        if fate == Fate::Hang {
            let mut released = self.released.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*released {
                released = self.released.1.wait(released).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let mut content = self.content();
        if content.closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the store is closed"));
        }
        match fate {
            Fate::Done | Fate::Hang => {
                done(&mut content, fate);
                Ok(())
            }
            Fate::Fail(kind) => Err(kind.into()),
            Fate::DoneButFail(kind) => {
                done(&mut content, fate);
                Err(kind.into())
            }
            Fate::Torn(kind) => {
                torn(&mut content);
                Err(kind.into())
            }
        }
    }
}

/// What a file is called while it is written.
const ASIDE: &str = ".tmp";

fn apply(tables: &mut Tables, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put { table, key, value } => {
                tables.insert((*table, key.clone()), value.clone());
            }
            Op::DeleteRange { table, from, to } if from < to => {
                let gone = (*table, from.clone())..(*table, to.clone());
                let gone: Vec<_> = tables.range(gone).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    tables.remove(&key);
                }
            }
            Op::DeleteRange { .. } => {}
        }
    }
}

impl Disk for MemoryDisk {
    fn write(&self, ops: &[Op], sync: bool) -> io::Result<()> {
        self.run(
            |content, _| content.batch(ops, sync),
            |content| content.unsynced.push(Batch::Torn),
        )
    }

    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.content().now.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        max_pairs: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let content = self.content();
        let low = Bound::Included((table, from.to_vec()));
        let high = Bound::Excluded((table, to.to_vec()));
        let (mut found, mut bytes) = (Vec::new(), 0);
        for ((_, key), value) in content.now.range((low, high)) {
            bytes += value.len();
            found.push((key.clone(), value.clone()));
            if found.len() >= max_pairs || bytes >= max_bytes {
                break;
            }
        }
        Ok(found)
    }

    fn put_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.run(
            |disk, fate| {
                disk.name(Rename::Put(name.to_owned(), content.into()));
                if !matches!(fate, Fate::DoneButFail(_)) {
                    disk.sync_names();
                }
            },
            |disk| {
                let half = content.get(..content.len() / 2).unwrap_or_default();
                disk.name(Rename::Put(format!("{name}{ASIDE}"), half.into()));
            },
        )
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        let content = self.content();
        let file = content.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.to_vec())
    }

    fn list_files(&self) -> io::Result<Vec<String>> {
        Ok(self.content().files.keys().cloned().collect())
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        self.with_file(from, |from| Rename::Move(from, to.to_owned()))
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.with_file(name, Rename::Remove)
    }

    fn close(&self) {
        self.content().closed = true;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn put(key: u8) -> [Op; 1] {
        [Op::Put { table: Table::Log, key: vec![key], value: vec![key] }]
    }

    fn keys(disk: &MemoryDisk) -> Vec<u8> {
        let all = disk.scan(Table::Log, &[0], &[255], 100, 100).unwrap();
        all.into_iter().filter_map(|(key, _)| key.first().copied()).collect()
    }

    fn cut(disk: &MemoryDisk, batches: usize, names: usize) -> MemoryDisk {
        disk.left(Kept { batches, names }, |_| Fate::Done)
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_a_prefix_of_the_rest() {
        let disk = MemoryDisk::default();
        disk.write(&put(1), true).unwrap();
        disk.write(&put(2), false).unwrap();
        disk.write(&put(3), false).unwrap();
        assert_eq!(disk.unsynced(), 2);
        assert_eq!(keys(&cut(&disk, 0, 0)), [1]);
        assert_eq!(keys(&cut(&disk, 1, 0)), [1, 2]);
        assert_eq!(keys(&disk.left(Kept::ALL, |_| Fate::Done)), [1, 2, 3]);
    }

    #[test]
    fn nothing_behind_a_torn_batch_is_read_again_though_it_was_synced() {
        let torn = |n| if n == 3 { Fate::Torn(io::ErrorKind::Other) } else { Fate::Done };
        let disk = MemoryDisk::with_fates(torn);
        disk.write(&put(1), true).unwrap();
        disk.write(&put(2), false).unwrap();
        disk.write(&put(3), true).unwrap_err();
        disk.write(&put(4), true).unwrap();
        assert_eq!(keys(&disk), [1, 2, 4]);
        assert_eq!(keys(&disk.left(Kept::ALL, |_| Fate::Done)), [1, 2]);
    }

    #[test]
    fn names_need_a_file_written_after_them_to_survive() {
        let disk = MemoryDisk::default();
        disk.put_file("1", b"one").unwrap();
        disk.put_file("2", b"two").unwrap();
        disk.rename_file("1", "1.damaged").unwrap();
        disk.remove_file("2").unwrap();
        assert_eq!(disk.unsynced_names(), 2);
        let names = |names| cut(&disk, 0, names).list_files().unwrap();
        assert_eq!(names(0), ["1", "2"]);
        assert_eq!(names(1), ["1.damaged", "2"]);
        assert_eq!(names(2), ["1.damaged"]);
        disk.put_file("3", b"three").unwrap();
        assert_eq!((disk.unsynced_names(), names(0)), (0, vec!["1.damaged".into(), "3".into()]));
        disk.remove_file("2").unwrap_err();
    }

    #[test]
    fn a_torn_file_is_not_under_its_name_and_one_done_but_failed_may_be() {
        let kind = io::ErrorKind::StorageFull;
        let fates = move |n| match n {
            2 => Fate::Torn(kind),
            3 => Fate::DoneButFail(kind),
            _ => Fate::Done,
        };
        let disk = MemoryDisk::with_fates(fates);
        disk.put_file("1", b"old").unwrap();
        disk.put_file("1", b"newer!").unwrap_err();
        assert_eq!(disk.read_file("1").unwrap(), b"old");
        assert_eq!(disk.read_file("1.tmp").unwrap(), b"new");
        disk.put_file("1", b"newest").unwrap_err();
        for (names, content) in
            [(0, b"old".to_vec()), (1, b"old".to_vec()), (2, b"newest".to_vec())]
        {
            let after = cut(&disk, 0, names);
            assert_eq!(after.list_files().unwrap(), ["1"]);
            assert_eq!(after.read_file("1").unwrap(), content);
        }
    }
}
