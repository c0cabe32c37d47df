//! A disk in memory that can lose power, fail and hang: for simulations and crash tests.
//!
//! Unsynced writes are kept apart, in order. A power cut keeps a prefix of them, as a write-ahead log
//! does; files are atomic.

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
    /// It reaches the disk, and fails all the same.
    DoneButFail(io::ErrorKind),
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

#[derive(Clone, Default)]
struct Content {
    durable: Tables,
    unsynced: Vec<Vec<Op>>,
    now: Tables,
    files: BTreeMap<String, Vec<u8>>,
    writes: u64,
    closed: bool,
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

    /// What a power cut leaves: everything that was synced, and the first `kept` of the writes that
    /// were not. The new disk never fails.
    #[must_use]
    pub fn after_power_cut(&self, kept: usize) -> Arc<Self> {
        let content = self.content();
        let mut tables = content.durable.clone();
        for ops in content.unsynced.iter().take(kept) {
            apply(&mut tables, ops);
        }
        let survivor = Content {
            durable: tables.clone(),
            now: tables,
            files: content.files.clone(),
            ..Content::default()
        };
        let disk = Self { content: Mutex::new(survivor), ..Self::default() };
        Arc::new(disk)
    }

    /// Writes so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.content().writes
    }

    /// Writes that a power cut may lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.content().unsynced.len()
    }

    /// Flips one bit of a stored value: damage.
    pub fn damage(&self, table: Table, key: &[u8]) {
        let mut content = self.content();
        let value = content.now.get_mut(&(table, key.to_vec()));
        if let Some(last) = value.and_then(|value| value.last_mut()) {
            *last ^= 1;
        }
        content.durable = content.now.clone();
        content.unsynced.clear();
    }

    /// Flips one bit of a file.
    pub fn damage_file(&self, name: &str) {
        if let Some(byte) = self.content().files.get_mut(name).and_then(|file| file.get_mut(40)) {
            *byte ^= 1;
        }
    }

    /// Removes a stored value.
    pub fn lose(&self, table: Table, key: &[u8]) {
        let mut content = self.content();
        content.now.remove(&(table, key.to_vec()));
        content.durable = content.now.clone();
        content.unsynced.clear();
    }

    /// Lets hanging writes go on.
    pub fn release(&self) {
        *self.released.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.released.1.notify_all();
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a write as its fate has it.
    fn run(&self, write: impl FnOnce(&mut Content)) -> io::Result<()> {
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
            Fate::Fail(kind) => Err(kind.into()),
            Fate::DoneButFail(kind) => {
                write(&mut content);
                Err(kind.into())
            }
            Fate::Done | Fate::Hang => {
                write(&mut content);
                Ok(())
            }
        }
    }
}

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
        self.run(|content| {
            apply(&mut content.now, ops);
            content.unsynced.push(ops.to_vec());
            if sync {
                let Content { durable, unsynced, .. } = content;
                unsynced.drain(..).for_each(|ops| apply(durable, &ops));
            }
        })
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
        self.run(|disk| {
            disk.files.insert(name.to_owned(), content.to_vec());
        })
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        self.content().files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list_files(&self) -> io::Result<Vec<String>> {
        Ok(self.content().files.keys().cloned().collect())
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        let mut content = self.content();
        let file = content.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        content.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.content().files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn close(&self) {
        self.content().closed = true;
    }
}
