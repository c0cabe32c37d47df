//! The store's only way to the disk, behind a trait: production uses RocksDB and files
//! ([`super::RocksDisk`]), simulations and crash tests use memory ([`super::MemoryDisk`]) or wrap one
//! of the two and let writes fail, hang or get lost.
//!
//! Every stored value is sealed with a checksum over its key and its bytes, so that damage and
//! misplacement are found whatever lies beneath.

use std::{io, time::Duration};

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Log entries by index.
    Log,
    /// Vote, committed, purge point, identity, format version.
    Meta,
    /// Audit chain and closed incidents by log index and ordinal.
    Records,
    /// What records are about, with their places.
    Index,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Log, Self::Meta, Self::Records, Self::Index];

    /// Its name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Meta => "meta",
            Self::Records => "records",
            Self::Index => "index",
        }
    }
}

/// One change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stores a value.
    Put {
        /// Where.
        table: Table,
        /// Key.
        key: Vec<u8>,
        /// Sealed value.
        value: Vec<u8>,
    },
    /// Removes the keys in `from..to`.
    DeleteRange {
        /// Where.
        table: Table,
        /// First removed.
        from: Vec<u8>,
        /// First kept.
        to: Vec<u8>,
    },
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Tables and files that survive the process. Calls block.
pub trait Disk: Send + Sync + 'static {
    /// Applies all changes or none, after every change of earlier calls. With `sync`, they and all
    /// earlier ones survive a power cut when this returns.
    fn write(&self, ops: &[Op], sync: bool) -> io::Result<()>;
    /// One value.
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// Pairs with keys in `from..to`, ascending; stops after `max_pairs`, or once `max_bytes` of
    /// values are reached (at least one pair is given).
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        max_pairs: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<Pair>>;
    /// Writes a file atomically and durably: under its name there is the old content or the new.
    fn put_file(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Reads a file.
    fn read_file(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Names of the files.
    fn list_files(&self) -> io::Result<Vec<String>>;
    /// Renames a file.
    fn rename_file(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, name: &str) -> io::Result<()>;
    /// Lets go of everything; later calls fail.
    fn close(&self);
    /// How much longer than the call the next write takes, where nothing may block: simulated disks
    /// are slow this way.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }
}

/// A stored value whose checksum does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// Shorter than a checksum.
    #[error("only {0} bytes")]
    Short(usize),
    /// Other bytes than were written, or under another key.
    #[error("checksum {found:08x} instead of {expected:08x}")]
    Checksum {
        /// As stored.
        expected: u32,
        /// As computed.
        found: u32,
    },
}

/// Puts a checksum over key and value before the value.
#[must_use]
pub(crate) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), value);
    let mut sealed = Vec::with_capacity(4 + value.len());
    sealed.extend_from_slice(&sum.to_be_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// Checks and removes what [`seal`] put there.
///
/// # Errors
/// When the value is not the one that was sealed under this key.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Damage> {
    let (sum, value) = sealed.split_first_chunk::<4>().ok_or(Damage::Short(sealed.len()))?;
    let expected = u32::from_be_bytes(*sum);
    let found = crc32c::crc32c_append(crc32c::crc32c(key), value);
    if expected == found { Ok(value) } else { Err(Damage::Checksum { expected, found }) }
}

/// Key of a log entry.
#[must_use]
pub fn log_key(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

/// Greater than every log and record key.
#[must_use]
pub(crate) fn end_key() -> Vec<u8> {
    vec![0xff; 13]
}

/// Key of a record.
#[must_use]
pub fn record_key(index: u64, ordinal: u32) -> Vec<u8> {
    let mut key = index.to_be_bytes().to_vec();
    key.extend_from_slice(&ordinal.to_be_bytes());
    key
}

/// Index and ordinal of a record key.
#[must_use]
pub(crate) fn parse_record_key(key: &[u8]) -> Option<(u64, u32)> {
    let (index, ordinal) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*index), u32::from_be_bytes(ordinal.try_into().ok()?)))
}

/// An error for data that is not what it should be.
pub(crate) fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}
