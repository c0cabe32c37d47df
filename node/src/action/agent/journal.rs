//! What this agent was ordered: the highest fence, what was begun, what came of it.
//!
//! ```text
//!   order ──► Begin{key, attempt, fence, …} fsync ──► act ──► Outcome{key, …} fsync ──► report
//! ```
//!
//! One line per record: CRC-32C of the rest in hexadecimal, a blank, JSON. Append only; rewritten
//! whole when it has grown to several times what is kept. Invariants: a fence is durable before
//! anything under it is done or answered; fences never decrease; nothing is appended behind bytes
//! that may be damaged. A torn last record was never acknowledged and is cut off; damage before it
//! is refused. Absent on purpose: any knowledge of what acts do.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    book::{Book, KEYS_MAX},
    store::{self, StoreError},
};

pub(super) use super::book::{Begin, Known, Outcome};

/// Version of the records.
const VERSION: u32 = 1;
/// Records in the file before it is rewritten: fence, begin and outcome of twice the keys.
const RECORDS_MAX: usize = 4 * KEYS_MAX;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
enum Record {
    Header { version: u32 },
    Fence { fence: u64 },
    Begin(Begin),
    Outcome { key: String, attempt: u32, fence: u64, at_ms: u64, outcome: Outcome },
}

/// A journal that cannot be used, or an append that failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record before the last is damaged.
    #[error(
        "{} is damaged at byte {at} ({problem}); an agent must not act on a journal it cannot trust. Restore the file; or, when no remediation is running, move it away",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
        /// What is wrong.
        problem: String,
    },
    /// A higher fence has been accepted.
    #[error("fence {given} has passed: {highest} was accepted")]
    Fenced {
        /// As given.
        given: u64,
        /// The highest accepted.
        highest: u64,
    },
    /// An earlier append or sync failed: what is on disk is not known.
    #[error("an earlier write to {} failed ({reason}); restart the agent once the disk is well", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes known to be good.
    length: u64,
    records: usize,
    book: Book,
    broken: Option<String>,
}

impl Journal {
    /// Opens or creates it; cuts off a torn last record.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let mut file = open_file(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: 0,
            records: 0,
            book: Book::default(),
            broken: None,
        };
        journal.replay(&bytes)?;
        if journal.length < bytes.len() as u64 {
            tracing::warn!(path = %path.display(), at = journal.length, "a torn last record is cut off");
            journal.cut().map_err(StoreError::io("truncate", path))?;
        }
        if journal.records == 0 {
            journal.append(&Record::Header { version: VERSION })?;
        }
        Ok(journal)
    }

    fn replay(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let line = &rest[..end.unwrap_or(rest.len())];
            let last = end.is_none_or(|end| at + end + 1 == bytes.len());
            match parse(line) {
                Ok(record) if end.is_some() => self.take(record, at)?,
                // Whole, but its newline never came: as torn as any.
                Ok(_) => return Ok(()),
                // The header is written with the file; a wrong one is no torn append.
                Err(_) if last && at > 0 => return Ok(()),
                Err(_) if end.is_none() => return Ok(()),
                Err(problem) => return Err(self.damaged(at, problem)),
            }
            at += line.len() + 1;
            self.length = at as u64;
            self.records += 1;
        }
        Ok(())
    }

    fn damaged(&self, at: usize, problem: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), at, problem }
    }

    fn take(&mut self, record: Record, at: usize) -> Result<(), JournalError> {
        match (record, at) {
            (Record::Header { version: VERSION }, 0) => {}
            (Record::Header { version }, _) => {
                let problem = format!("version {version}, this build reads {VERSION}");
                return Err(self.damaged(at, problem));
            }
            (_, 0) => return Err(self.damaged(0, "no header".to_owned())),
            (Record::Fence { fence }, _) => self.book.raise(fence),
            (Record::Begin(begin), _) => self.book.begin(begin),
            (Record::Outcome { key, outcome, .. }, _) => {
                self.book.finish(&key, outcome);
            }
        }
        Ok(())
    }

    /// The highest fence accepted.
    pub(super) const fn highest(&self) -> u64 {
        self.book.highest()
    }

    /// What is known of a key.
    pub(super) fn known(&self, key: &str) -> Option<&Known> {
        self.book.known(key)
    }

    /// The outcome that answers an order without anything being done; `None`: carry it out.
    pub(super) fn answer(&self, key: &str, attempt: u32) -> Option<&Outcome> {
        self.book.answer(key, attempt)
    }

    /// Accepts a fence, durably, or refuses it.
    pub(super) fn accept(&mut self, fence: u64) -> Result<(), JournalError> {
        self.refuse_older(fence)?;
        if fence > self.book.highest() {
            self.append(&Record::Fence { fence })?;
            self.book.raise(fence);
        }
        Ok(())
    }

    /// Notes, durably, that an act is about to be done. Accepts its fence, or refuses.
    pub(super) fn begin(&mut self, begin: Begin) -> Result<(), JournalError> {
        self.refuse_older(begin.fence)?;
        self.append(&Record::Begin(begin.clone()))?;
        self.book.begin(begin);
        Ok(())
    }

    /// Notes, durably, what came of the last begin of a key. In memory it is noted even when the
    /// disk refuses it.
    pub(super) fn finish(
        &mut self,
        key: &str,
        fence: u64,
        at_ms: u64,
        outcome: Outcome,
    ) -> Result<(), JournalError> {
        let Some(attempt) = self.book.finish(key, outcome.clone()) else { return Ok(()) };
        self.append(&Record::Outcome { key: key.to_owned(), attempt, fence, at_ms, outcome })?;
        self.compact_if_grown();
        Ok(())
    }

    fn refuse_older(&self, given: u64) -> Result<(), JournalError> {
        let highest = self.book.highest();
        if self.book.refuses(given) { Err(JournalError::Fenced { given, highest }) } else { Ok(()) }
    }

    fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        if let Some(reason) = &self.broken {
            return Err(JournalError::Broken { path: self.path.clone(), reason: reason.clone() });
        }
        let line = line(record);
        crate::crash_point!("agent_journal_before_write");
        if let Err(error) = self.file.write_all(&line) {
            // A part of it may be in the file: take it back, or append no more.
            if let Err(also) = self.cut() {
                self.broken = Some(also.to_string());
            }
            return Err(StoreError::io("append to", &self.path)(error).into());
        }
        if let Err(error) = self.file.sync_data() {
            self.broken = Some(error.to_string());
            return Err(StoreError::io("sync", &self.path)(error).into());
        }
        crate::crash_point!("agent_journal_after_sync");
        self.length += line.len() as u64;
        self.records += 1;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.sync_data()
    }

    /// Rewrites the file with what is kept. When that fails, the old file goes on being used.
    fn compact_if_grown(&mut self) {
        if self.records <= RECORDS_MAX {
            return;
        }
        if let Err(error) = self.compact() {
            tracing::warn!(path = %self.path.display(), %error, "the journal could not be rewritten");
            // Not at once again.
            self.records /= 2;
        }
    }

    fn compact(&mut self) -> Result<(), JournalError> {
        let mut records = vec![Record::Header { version: VERSION }];
        records.push(Record::Fence { fence: self.book.highest() });
        for known in self.book.all() {
            records.push(Record::Begin(known.first.clone()));
            if known.last != known.first {
                records.push(Record::Begin(known.last.clone()));
            }
            if let Some(outcome) = known.outcome.clone() {
                let Begin { key, attempt, fence, at_ms, .. } = known.last.clone();
                records.push(Record::Outcome { key, attempt, fence, at_ms, outcome });
            }
        }
        let bytes: Vec<u8> = records.iter().flat_map(line).collect();
        store::write(&self.path, &bytes)?;
        let mut file = open_file(&self.path)?;
        file.seek(SeekFrom::End(0)).map_err(StoreError::io("seek in", &self.path))?;
        self.file = file;
        self.length = bytes.len() as u64;
        self.records = records.len();
        Ok(())
    }
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(StoreError::io("open", path))
}

fn line(record: &Record) -> Vec<u8> {
    let json = match serde_json::to_string(record) {
        Ok(json) => json,
        Err(error) => unreachable!("records hold text and numbers only: {error}"),
    };
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes()
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let (sum, json) = text.split_once(' ').ok_or("no checksum")?;
    let sum = u32::from_str_radix(sum, 16).map_err(|_| "no checksum")?;
    if sum != crc32c::crc32c(json.as_bytes()) {
        return Err("wrong checksum".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("unknown record: {error}"))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
