//! A disk of a node's own, whose power can fail: ext4 in a file, on a loop device, in a mount
//! namespace that nobody but the campaign and its children sees.
//!
//! ```text
//!   medic-chaos ──exec──► unshare --mount ──exec──► medic-chaos, in private
//!                                                     ├ node-1.img ── /dev/loopN ── data/node-1
//!                                                     └ …
//!   power fails: EXT4_IOC_SHUTDOWN without a flush · SIGKILL · unmount · mount (journal replayed)
//! ```
//!
//! The mounts end with the last process of the namespace, however it ends.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{errno::Errno, fcntl, sys::statvfs::statvfs};

use super::tools::{find, run};

/// Says that this process is in a mount namespace that was made for it.
const PRIVATE: &str = "MEDIC_CHAOS_PRIVATE_MOUNTS";
/// Size of a disk. The file is sparse: it takes what is written.
const SIZE: u64 = 512 << 20;
/// What takes all the room.
const BALLAST: &str = "ballast";
/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. Perl, since an ioctl from here would be
/// unsafe code, and it is there wherever git is.
const SHUT_DOWN: &str = r#"open(my $dir, "<", $ARGV[0]) or die "opening: $!\n"; my $flags = pack("L", 2); ioctl($dir, 0x8004587d, $flags) or die "shutting down: $!\n";"#;
/// A dying process may hold a file for a moment.
const TRIES: usize = 50;

/// Goes on in a mount namespace of its own, where that is allowed. On success it does not return;
/// it does when this process is in one already, or when there is no way.
///
/// # Errors
/// When the program that was tried a moment before cannot be run.
pub fn go_private() -> anyhow::Result<()> {
    if std::env::var_os(PRIVATE).is_some() || reason().is_some() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(PRIVATE, "1")
        .exec();
    Err(error).context("running unshare")
}

/// Whether disks can be had in this process.
#[must_use]
pub fn available() -> bool {
    std::env::var_os(PRIVATE).is_some()
}

/// Why there can be no disks here.
#[must_use]
pub fn reason() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, to mount a file system");
    }
    let tools = ["unshare", "mount", "umount", "mkfs.ext4", "perl"];
    if tools.iter().any(|tool| find(tool).is_none()) {
        return Some("needs unshare, mount, mkfs.ext4 and perl");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices");
    }
    let tried = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "true"])
        .stderr(Stdio::null())
        .status();
    let allowed = tried.is_ok_and(|status| status.success());
    (!allowed).then_some("needs a mount namespace of its own, which is not allowed here")
}

/// One disk, mounted on a folder.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    /// Makes the image and mounts it.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn make(image: &Path, folder: &Path) -> anyhow::Result<Self> {
        for made in [image.parent().unwrap_or(image), folder] {
            std::fs::create_dir_all(made)
                .with_context(|| format!("creating {}", made.display()))?;
        }
        File::create(image)
            .and_then(|file| file.set_len(SIZE))
            .with_context(|| format!("creating {}", image.display()))?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &path(image)])?;
        let disk = Self { image: image.to_owned(), folder: folder.to_owned() };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "loop", &path(&self.image), &path(&self.folder)]).map(drop)
    }

    async fn unmount(&self) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            if run("umount", &[&path(&self.folder)]).is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        run("umount", &[&path(&self.folder)]).map(drop)
    }

    /// The power fails: nothing that was not synced will be there. Whoever writes gets an error from
    /// now on.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn cut(&self) -> anyhow::Result<()> {
        run("perl", &["-e", SHUT_DOWN, &path(&self.folder)]).map(drop)
    }

    /// The power is back. Nobody may use the disk meanwhile.
    ///
    /// # Errors
    /// When a tool fails.
    pub async fn restore(&self) -> anyhow::Result<()> {
        self.unmount().await?;
        self.mount()
    }

    /// Takes all the room there is.
    ///
    /// # Errors
    /// When the file system refuses for another reason than want of room.
    pub fn fill(&self) -> anyhow::Result<()> {
        let file = File::create(self.ballast()).context("creating the ballast")?;
        let mut length = 0;
        loop {
            let room = statvfs(&self.folder).context("looking for room")?;
            let free = i64::try_from(room.blocks_available() * room.fragment_size())?;
            if free == 0 {
                return Ok(());
            }
            match fcntl::fallocate(&file, fcntl::FallocateFlags::empty(), length, free) {
                Ok(()) => length += free,
                // Its own bookkeeping needs the rest.
                Err(Errno::ENOSPC) => return Ok(()),
                Err(error) => bail!("filling {}: {error}", self.folder.display()),
            }
        }
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the ballast cannot be removed.
    pub fn make_room(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("removing the ballast")
            }
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join(BALLAST)
    }

    /// Unmounts it and throws it away.
    ///
    /// # Errors
    /// When it is in use.
    pub async fn discard(self) -> anyhow::Result<()> {
        self.unmount().await?;
        std::fs::remove_file(&self.image)
            .with_context(|| format!("removing {}", self.image.display()))
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
