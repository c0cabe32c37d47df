//! A file that takes room in a directory, up to a bound.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl, sys::statvfs::statvfs};

use crate::experiment::{
    manifest::{Fill, size},
    system::Trouble,
};

/// Every file of ours is called so.
pub(in crate::experiment) const PREFIX: &str = ".medic-chaos-fill-";
/// Bytes written at a time, where room cannot be had by asking.
const CHUNK: usize = 1 << 20;

/// A file that is to be made.
#[derive(Clone, Debug)]
pub struct Filling {
    /// Where.
    pub path: PathBuf,
    /// Most that it takes.
    pub bytes: u64,
    /// What is left free.
    pub leave: u64,
}

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, bytes, leave) = (self.path.display(), self.bytes, self.leave);
        write!(f, "a file {path} of up to {bytes} bytes, {leave} bytes left free")
    }
}

impl Filling {
    /// What a fault asks for. Whether that is allowed was asked before.
    ///
    /// # Errors
    /// When the directory is none, or is reached by a link.
    pub(super) fn plan(dir: &Path, wanted: &Fill, id: &str) -> Result<Self, Trouble> {
        let real = std::fs::canonicalize(dir).map_err(Trouble::file("looking at", dir))?;
        if real != dir || !real.is_dir() {
            let message =
                format!("{} is {}, not a directory itself", dir.display(), real.display());
            return Err(Trouble::Refused(message));
        }
        let bytes = size(&wanted.bytes).unwrap_or(0);
        let leave = size(&wanted.leave).unwrap_or(u64::MAX);
        Ok(Self { path: dir.join(format!("{PREFIX}{id}")), bytes, leave })
    }

    /// Takes the room.
    pub(super) fn begin(&self) -> Result<(), Trouble> {
        let dir = self.path.parent().unwrap_or(&self.path);
        let room = statvfs(dir).map_err(|e| Trouble::file("looking at", dir)(e.into()))?;
        let free = room.blocks_available() * room.fragment_size();
        let bytes = self.bytes.min(free.saturating_sub(self.leave));
        if bytes == 0 {
            let message = format!(
                "{} has {free} bytes free, and {} are to be left",
                dir.display(),
                self.leave
            );
            return Err(Trouble::Refused(message));
        }
        let options = OpenOptions::new().write(true).create_new(true).open(&self.path);
        let mut file = options.map_err(Trouble::file("making", &self.path))?;
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        match fcntl::fallocate(&file, fcntl::FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP) => {
                written(&mut file, bytes).map_err(Trouble::file("filling", &self.path))
            }
            Err(error) => Err(Trouble::file("filling", &self.path)(error.into())),
        }
    }
}

fn written(file: &mut std::fs::File, bytes: u64) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    Ok(())
}
