//! The files that a process runs: the one behind it, and its declared command where that is another (a
//! script, say).
//!
//! A file is taken for changed when its content is: its SHA-256 is compared as soon as inode, size or times
//! differ. A file above [`FILE_BYTES_MAX`] is not read; there inode, size and time of change decide.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{marks, within};

/// Larger files are not read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Bytes read in one round over all instances; what finds no room waits for the next.
const ROUND_BYTES_MAX: u64 = 256 << 20;
/// Hashes remembered; when there are more, all are made anew.
const HASHES_MAX: usize = 512;

/// Tells an unchanged file without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Marks {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Marks {
    pub(super) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The same but for what a changed mode, owner or number of links leaves.
    fn same_content(&self, other: &Self) -> bool {
        self.same_file(other) && (self.size, self.modified) == (other.size, other.modified)
    }
}

/// SHA-256 of files, each made once: many instances run one program.
#[derive(Debug, Default)]
pub(in crate::action::agent) struct Hashes {
    known: BTreeMap<Marks, String>,
    read: u64,
}

/// What is known of a file's content.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Hash(String),
    /// It is too large to be read, or cannot be.
    Unread,
    /// No room for it in this round.
    Later,
}

impl Hashes {
    pub(super) fn begin_round(&mut self) {
        self.read = 0;
    }

    fn of(&mut self, path: &Path, marks: &Marks) -> Content {
        if let Some(hash) = self.known.get(marks) {
            return Content::Hash(hash.clone());
        }
        if marks.size > FILE_BYTES_MAX {
            return Content::Unread;
        }
        if self.read > 0 && self.read.saturating_add(marks.size) > ROUND_BYTES_MAX {
            return Content::Later;
        }
        self.read = self.read.saturating_add(marks.size);
        let Ok(hash) = hash(path) else { return Content::Unread };
        if self.known.len() >= HASHES_MAX {
            self.known.clear();
        }
        self.known.insert(*marks, hash.clone());
        Content::Hash(hash)
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(path)?.take(FILE_BYTES_MAX), Sha256::new());
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(medic_state::Digest(hasher.finalize().into()).to_string());
        }
        hasher.update(&buffer[..read]);
    }
}

/// One file, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    path: PathBuf,
    marks: Marks,
    /// Absent: not read yet. Empty: it is not read.
    sha256: Option<String>,
    /// What became of it; empty: nothing.
    verdict: String,
}

/// The files behind one process, as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Files {
    /// Which file it runs.
    running: Option<Marks>,
    known: Vec<Known>,
}

impl Files {
    /// Says what became of them; empty: nothing, or it cannot be told.
    pub(super) fn look(&mut self, pid: u32, command: &Path, hashes: &mut Hashes) -> String {
        let link = format!("/proc/{pid}/exe");
        let Ok(running) = marks(Path::new(&link)) else { return String::new() };
        if self.running.is_none_or(|before| !before.same_file(&running)) {
            let Ok(path) = fs::read_link(&link) else { return String::new() };
            *self = Self { running: Some(running), known: Vec::new() };
            self.known.push(Known::new(path, running));
            if let Ok(found) = marks(&within(pid, command))
                && !found.same_file(&running)
            {
                self.known.push(Known::new(command.to_owned(), found));
            }
        }
        let said: Vec<String> =
            self.known.iter_mut().filter_map(|file| file.look(pid, hashes)).collect();
        said.join("; ")
    }
}

impl Known {
    const fn new(path: PathBuf, marks: Marks) -> Self {
        Self { path, marks, sha256: None, verdict: String::new() }
    }

    fn look(&mut self, pid: u32, hashes: &mut Hashes) -> Option<String> {
        let at = within(pid, &self.path);
        match marks(&at) {
            Ok(now) => {
                if let Some(verdict) = self.judge(&at, &now, hashes) {
                    self.verdict = verdict;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.verdict = "was deleted".to_owned();
            }
            Err(_) => {}
        }
        (!self.verdict.is_empty()).then(|| format!("{} {}", self.path.display(), self.verdict))
    }

    /// What became of it, empty: nothing. `None`: as before, for now.
    fn judge(&mut self, at: &Path, now: &Marks, hashes: &mut Hashes) -> Option<String> {
        if self.marks == *now {
            if self.sha256.is_none() {
                match hashes.of(at, now) {
                    Content::Hash(hash) => self.sha256 = Some(hash),
                    Content::Unread => self.sha256 = Some(String::new()),
                    Content::Later => {}
                }
            }
            return Some(String::new());
        }
        let changed =
            if self.marks.same_file(now) { "was changed in place" } else { "was replaced" };
        let before = self.sha256.as_deref().filter(|hash| !hash.is_empty());
        let differs = match (before, hashes.of(at, now)) {
            (Some(_), Content::Later) => return None,
            (Some(before), Content::Hash(present)) => before != present,
            (Some(_) | None, _) => !self.marks.same_content(now),
        };
        Some(if differs { changed.to_owned() } else { String::new() })
    }
}
