//! RocksDB and plain files, in one locked directory.
//!
//! ```text
//!   data_dir/LOCK          held for the life of the process
//!   data_dir/db/           RocksDB: log, meta, records, index
//!   data_dir/snapshots/    checksummed files, written aside and renamed
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use nix::fcntl::{Flock, FlockArg};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction, IteratorMode, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::{
    disk::{Disk, Op, Pair, Table, invalid},
    wal,
};
use crate::config::StartError;

/// Production's disk.
pub struct RocksDisk {
    files: PathBuf,
    open: RwLock<Option<Open>>,
}

struct Open {
    db: DB,
    _lock: Flock<File>,
}

impl RocksDisk {
    /// Locks and opens a data directory, and creates it when there is none.
    ///
    /// # Errors
    /// When the directory cannot be used, is in use, or the database in it is damaged.
    pub fn open(dir: &Path) -> Result<Self, StartError> {
        let at = |source| StartError::DataDir { dir: dir.to_owned(), source };
        let files = dir.join("snapshots");
        fs::create_dir_all(&files).map_err(at)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("LOCK"))
            .map_err(at)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                StartError::Locked { dir: dir.to_owned() }
            } else {
                at(errno.into())
            }
        })?;
        for entry in fs::read_dir(&files).map_err(at)? {
            let path = entry.map_err(at)?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).map_err(at)?;
            }
        }
        wal::check(&dir.join("db")).map_err(|error| StartError::Store(damaged(error)))?;
        let families = Table::ALL.map(|t| ColumnFamilyDescriptor::new(t.name(), family(t)));
        let db = DB::open_cf_descriptors(&database(), dir.join("db"), families)
            .map_err(|error| StartError::Store(from_rocks(&error)))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at)?;
        Ok(Self { files, open: RwLock::new(Some(Open { db, _lock: lock })) })
    }

    fn with<T>(&self, run: impl FnOnce(&DB) -> io::Result<T>) -> io::Result<T> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        run(&open.as_ref().ok_or_else(closed)?.db)
    }
}

/// Options of the database. An incomplete last record of the write-ahead log was never acknowledged
/// and is dropped; damage anywhere else refuses to open (`wal` finds what RocksDB takes for the former).
fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // Tables that change rarely would otherwise keep old write-ahead logs alive.
    options.set_max_total_wal_size(128 << 20);
    options.set_keep_log_file_num(4);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options
}

fn family(table: Table) -> Options {
    let mut options = Options::default();
    match table {
        Table::Log => options.set_write_buffer_size(32 << 20),
        Table::Records => {
            options.set_write_buffer_size(16 << 20);
            options.set_compression_type(rocksdb::DBCompressionType::Zstd);
        }
        Table::Index => options.set_write_buffer_size(8 << 20),
        Table::Meta => options.set_write_buffer_size(1 << 20),
    }
    options
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the store is closed")
}

fn from_rocks(error: &rocksdb::Error) -> io::Error {
    let text = error.to_string();
    if text.contains("No space left on device") {
        let text = format!("the disk is full: {text}; free space and start the node again");
        return io::Error::new(io::ErrorKind::StorageFull, text);
    }
    if error.kind() == rocksdb::ErrorKind::Corruption {
        return damaged(invalid(text));
    }
    io::Error::other(text)
}

/// Says what to do about damage; other errors stay as they are.
fn damaged(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::InvalidData {
        return error;
    }
    invalid(format!(
        "the database is damaged: {error}. Nothing was changed. Remove this node from the cluster and add it again under a new id with an empty data directory, or restore the directory from a backup"
    ))
}

fn handle(db: &DB, table: Table) -> io::Result<&ColumnFamily> {
    db.cf_handle(table.name())
        .ok_or_else(|| io::Error::other(format!("the table {} is missing", table.name())))
}

impl Disk for RocksDisk {
    fn write(&self, ops: &[Op], sync: bool) -> io::Result<()> {
        self.with(|db| {
            let mut batch = WriteBatch::default();
            for op in ops {
                match op {
                    Op::Put { table, key, value } => batch.put_cf(handle(db, *table)?, key, value),
                    Op::DeleteRange { table, from, to } => {
                        batch.delete_range_cf(handle(db, *table)?, from, to);
                    }
                }
            }
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            db.write_opt(batch, &options).map_err(|error| from_rocks(&error))
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.with(|db| db.get_cf(handle(db, table)?, key).map_err(|error| from_rocks(&error)))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        max_pairs: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        self.with(|db| {
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(to.to_vec());
            let mode = IteratorMode::From(from, Direction::Forward);
            let (mut found, mut bytes) = (Vec::new(), 0);
            for pair in db.iterator_cf_opt(handle(db, table)?, options, mode) {
                let (key, value) = pair.map_err(|error| from_rocks(&error))?;
                bytes += value.len();
                found.push((key.into_vec(), value.into_vec()));
                if found.len() >= max_pairs || bytes >= max_bytes {
                    break;
                }
            }
            Ok(found)
        })
    }

    fn put_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let aside = self.files.join(format!("{name}.tmp"));
        let mut file = File::create(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&aside, self.files.join(name))?;
        File::open(&self.files)?.sync_all()
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.files.join(name))
    }

    fn list_files(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.files)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.files.join(from), self.files.join(to))
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.files.join(name))
    }

    fn close(&self) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}
