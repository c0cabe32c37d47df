//! One instance's configuration file: which version is in force, which were before it.
//!
//! ```text
//!   line:   A ── B ── C        C is in force, B is "previous"
//!   restore previous:  A ── B  (C's content is kept, but B's previous is A: restoring twice goes
//!                               further back, never to the version just left)
//! ```
//!
//! The file is watched, not owned: whoever rolls a version out, this sees it and keeps a copy.
//! Invariant: every version in `line` has its content kept, if it was of bearable size.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use medic_state::Digest;
use serde::{Deserialize, Serialize};

use super::store::{self, StoreError};

/// Versions kept.
const VERSIONS_MAX: usize = 10;
/// Larger files are hashed by nobody and kept by nobody: they are no configuration.
pub(super) const SIZE_MAX: u64 = 4 << 20;

/// What is remembered of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConfigRecord {
    /// The first content has been written.
    #[serde(default)]
    pub(super) first_written: bool,
    /// Hash in force; empty: there is no file.
    #[serde(default)]
    pub(super) current: String,
    /// Versions that led to the present one, oldest first; the last is `current`.
    #[serde(default)]
    line: Vec<String>,
    /// Versions whose content is kept, oldest seen first.
    #[serde(default)]
    kept: Vec<String>,
    /// When `current` came into force; zero: it always was.
    #[serde(default)]
    pub(super) changed_ms: u64,
}

/// Tells an unchanged file without reading it.
type Marks = (u64, u64, i64, i64, i64, i64);

/// The file, and where its versions are kept.
#[derive(Debug)]
pub(super) struct ConfigFile {
    versions: PathBuf,
    marks: Option<Marks>,
}

impl ConfigFile {
    pub(super) const fn new(versions: PathBuf) -> Self {
        Self { versions, marks: None }
    }

    /// Looks whether the file changed, and keeps what it holds. Whether the record changed.
    pub(super) fn look(
        &mut self,
        path: &Path,
        record: &mut ConfigRecord,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.marks = None;
                let gone = !record.current.is_empty();
                if gone {
                    record.current.clear();
                    record.changed_ms = now_ms;
                }
                return Ok(gone);
            }
            Err(error) => return Err(StoreError::io("look at", path)(error)),
        };
        let marks = (
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        );
        if self.marks == Some(marks) {
            return Ok(false);
        }
        if found.size() > SIZE_MAX {
            let error = io::Error::other(format!("larger than {SIZE_MAX} bytes"));
            return Err(StoreError::io("keep a copy of", path)(error));
        }
        let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
        let hash = hash(&bytes);
        if hash != record.current || !record.kept.contains(&hash) {
            self.keep(record, &hash, &bytes)?;
        }
        self.marks = Some(marks);
        if hash == record.current {
            return Ok(false);
        }
        // The change time says when it was rolled out, even if nobody looked then.
        let changed = u64::try_from(found.ctime()).unwrap_or_default() * 1000
            + u64::try_from(found.ctime_nsec()).unwrap_or_default() / 1_000_000;
        if !record.line.is_empty() {
            record.changed_ms = changed.min(now_ms);
        }
        advance(record, hash);
        Ok(true)
    }

    /// Replaces the file's content, keeping what it held and what it will hold.
    pub(super) fn put(
        &mut self,
        path: &Path,
        bytes: &[u8],
        record: &mut ConfigRecord,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.look(path, record, now_ms)?;
        let hash = hash(bytes);
        self.keep(record, &hash, bytes)?;
        store::write(path, bytes)?;
        self.look(path, record, now_ms)?;
        Ok(())
    }

    /// A kept version, checked against its hash.
    pub(super) fn version(&self, hash: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.versions.join(hash);
        let bytes = fs::read(&path).map_err(StoreError::io("read the kept version", &path))?;
        if self::hash(&bytes) == hash {
            Ok(bytes)
        } else {
            let problem = "its content does not have the hash it is named by".to_owned();
            Err(StoreError::Damaged { path, problem })
        }
    }

    fn keep(&self, record: &mut ConfigRecord, hash: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.versions.join(hash);
        if !path.exists() {
            store::write(&path, bytes)?;
        }
        record.kept.retain(|kept| kept != hash);
        record.kept.push(hash.to_owned());
        while record.kept.len() > VERSIONS_MAX {
            let oldest = record.kept.remove(0);
            record.line.retain(|version| *version != oldest);
            let path = self.versions.join(&oldest);
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(())
    }
}

impl ConfigRecord {
    /// Hash of the version in force before the present one, if its content is kept.
    pub(super) fn previous(&self) -> Option<&str> {
        let before = if self.line.last() == Some(&self.current) {
            self.line.len().checked_sub(2)?
        } else {
            // The file is gone: what it held last.
            self.line.len().checked_sub(1)?
        };
        self.line.get(before).map(String::as_str)
    }
}

/// Moves the line on to a version: back along it if it is there, else one further.
fn advance(record: &mut ConfigRecord, hash: String) {
    match record.line.iter().position(|version| *version == hash) {
        Some(at) => record.line.truncate(at + 1),
        None => record.line.push(hash.clone()),
    }
    record.current = hash;
}

/// SHA-256 in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    Digest::of(&[bytes]).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    struct Fixture {
        _dir: tempfile::TempDir,
        path: PathBuf,
        file: ConfigFile,
        record: ConfigRecord,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("app.conf");
            let file = ConfigFile::new(dir.path().join("configs"));
            Self { path, file, record: ConfigRecord::default(), _dir: dir }
        }

        fn roll_out(&mut self, text: &str) {
            fs::write(&self.path, text).unwrap();
            assert!(self.file.look(&self.path, &mut self.record, u64::MAX).unwrap());
        }

        fn put(&mut self, hash: &str) {
            let bytes = self.file.version(hash).unwrap();
            self.file.put(&self.path, &bytes, &mut self.record, u64::MAX).unwrap();
        }
    }

    #[test]
    fn a_roll_out_by_others_is_seen_and_can_be_taken_back() {
        let mut f = Fixture::new();
        assert!(!f.file.look(&f.path, &mut f.record, 9).unwrap());
        f.roll_out("good");
        assert_eq!((f.record.previous(), f.record.changed_ms), (None, 0));
        f.roll_out("bad");
        assert!(f.record.changed_ms > 0);
        assert_eq!(f.record.previous(), Some(hash(b"good").as_str()));
        f.put(&hash(b"good"));
        assert_eq!(fs::read_to_string(&f.path).unwrap(), "good");
        // The version just left is not what a second restore would bring.
        assert_eq!(f.record.previous(), None);
        // But by its hash it is there, for the undo.
        f.put(&hash(b"bad"));
        assert_eq!(f.record.previous(), Some(hash(b"good").as_str()));
    }

    #[test]
    fn a_file_that_vanished_has_a_previous_version() {
        let mut f = Fixture::new();
        f.roll_out("good");
        fs::remove_file(&f.path).unwrap();
        assert!(f.file.look(&f.path, &mut f.record, 7).unwrap());
        assert_eq!((f.record.current.as_str(), f.record.changed_ms), ("", 7));
        assert_eq!(f.record.previous(), Some(hash(b"good").as_str()));
    }

    #[test]
    fn ten_versions_are_kept() {
        let mut f = Fixture::new();
        for i in 0..25 {
            f.roll_out(&i.to_string());
        }
        assert_eq!(f.record.kept.len(), VERSIONS_MAX);
        assert_eq!(fs::read_dir(&f.file.versions).unwrap().count(), VERSIONS_MAX);
        assert_eq!(f.record.previous(), Some(hash(b"23").as_str()));
        assert!(f.file.version(&hash(b"3")).is_err());
    }

    #[test]
    fn a_kept_version_that_changed_is_not_used() {
        let mut f = Fixture::new();
        f.roll_out("good");
        fs::write(f.file.versions.join(hash(b"good")), "evil").unwrap();
        assert!(f.file.version(&hash(b"good")).unwrap_err().to_string().contains("cannot be used"));
    }
}
