//! What this agent was ordered: the highest fence, what was begun, what came of it.
//!
//! ```text
//!   order ──► Begin{key, attempt, fence, …} fsync ──► act ──► Outcome{key, …} fsync ──► report
//! ```
//!
//! One line per [`record`]. Append only; rewritten whole when it has grown to several times what is
//! kept. Invariants: a fence is durable before anything under it is done or answered; fences never
//! decrease; nothing is appended behind bytes that may be damaged. A torn last record was never
//! acknowledged and is cut off; damage before it is refused. Absent on purpose: any knowledge of what
//! acts do.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use super::{
    book::{Book, KEYS_MAX},
    record::{self, BadRecord, Record, Replayed},
    store::{self, StoreError},
};

pub(super) use super::book::{Begin, Known, Outcome};

/// Records in the file before it is rewritten: fence, begin and outcome of twice the keys.
const RECORDS_MAX: usize = 4 * KEYS_MAX;

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
        let Replayed { book, length, records } = record::replay(&bytes)
            .map_err(|BadRecord { at, problem }| damaged(path, at, problem))?;
        (journal.book, journal.records, journal.length) = (book, records, length as u64);
        if journal.length < bytes.len() as u64 {
            tracing::warn!(path = %path.display(), at = journal.length, "a torn last record is cut off");
            journal.cut().map_err(StoreError::io("truncate", path))?;
        }
        if journal.records == 0 {
            journal.append(&Record::HEADER)?;
        }
        Ok(journal)
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
        let line = record::line(record);
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
        let (bytes, records) = record::written(&self.book);
        store::write(&self.path, &bytes)?;
        let mut file = open_file(&self.path)?;
        file.seek(SeekFrom::End(0)).map_err(StoreError::io("seek in", &self.path))?;
        self.file = file;
        self.length = bytes.len() as u64;
        self.records = records;
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

fn damaged(path: &Path, at: usize, problem: String) -> JournalError {
    JournalError::Damaged { path: path.to_owned(), at, problem }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
