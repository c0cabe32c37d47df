//! The state directory: who may use it, and how files in it are replaced.
//!
//! ```text
//!   state_dir/format                      `medic-agent-state 1`
//!            /lock                        held while an agent lives: one agent per directory
//!            /journal                     fences, begun acts, outcomes (see `journal`)
//!            /declaration.json            the newest declaration
//!            /instances/<t>~<s>~<i>/state.json     what runs, and what is wanted
//!                                  /configs/<hash> earlier configuration files
//!                                  /output.log     what it wrote, and output.log.1
//! ```
//!
//! Invariant: a file is replaced whole or not at all, and is durable when `write` returns.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};

/// Version of the directory's form.
const FORMAT: &str = "medic-agent-state 1";

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{} cannot be used: {problem}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Another agent has it.
    #[error("{} is in use by another agent: give each agent a `state_dir` of its own", .0.display())]
    InUse(PathBuf),
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// An open state directory.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// Released with the process, however it ends.
    _lock: Flock<File>,
}

impl Store {
    /// Opens or creates it, and keeps every other agent out.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let instances = dir.join("instances");
        fs::create_dir_all(&instances).map_err(StoreError::io("create", &instances))?;
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| StoreError::InUse(dir.to_owned()))?;
        let store = Self { dir: dir.to_owned(), _lock: lock };
        store.check_format()?;
        Ok(store)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let path = self.path("format");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == FORMAT => Ok(()),
            Ok(text) => {
                let problem = format!(
                    "it says `{}`, this build reads `{FORMAT}`: run the build that wrote it",
                    text.trim()
                );
                Err(StoreError::Damaged { path, problem })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&path, format!("{FORMAT}\n").as_bytes())
            }
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Reads a file of ours; `None`: there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| StoreError::Damaged {
        path: path.to_owned(),
        problem: format!("{error}; restore it, or move it away if you know what it held"),
    })
}

/// Replaces a file of ours.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::io("encode", path)(io::Error::other(error)))?;
    write(path, &bytes)
}

/// Replaces a file whole, keeping its mode: a temporary file beside it, synced, renamed over it,
/// the directory synced.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".medic-tmp");
    let temporary = path.with_file_name(name);
    let mode: Option<Permissions> = fs::metadata(path).ok().map(|found| found.permissions());
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if let Some(mode) = mode {
            file.set_permissions(mode)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    })();
    written.map_err(|error| {
        if let Err(left) = fs::remove_file(&temporary)
            && left.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(path = %temporary.display(), error = %left, "a temporary file stays");
        }
        StoreError::io("write", path)(error)
    })
}

/// Whether a name from a declaration may become part of a path.
pub(super) fn plain_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 63 && !name.starts_with('.') && name.bytes().all(allowed)
}
