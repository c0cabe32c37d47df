//! Programs of the system that some faults need, and whether they are there.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::io::AsyncBufReadExt as _;

use super::Fault;

/// What this machine and this binary can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `strace` may be attached to our processes.
    pub strace: bool,
    /// `prlimit` may change limits of our processes.
    pub prlimit: bool,
    /// The `medic` binary has its failpoints compiled in.
    pub failpoints: bool,
    /// libfaketime is installed.
    pub clocks: bool,
    /// Nodes can have disks of their own.
    pub disks: bool,
}

impl Capabilities {
    /// Looks around. `failpoints` is known by the caller alone.
    #[must_use]
    pub fn look(failpoints: bool) -> Self {
        let strace = find("strace").is_some() && nix::unistd::geteuid().is_root();
        Self {
            strace,
            prlimit: find("prlimit").is_some(),
            failpoints,
            clocks: super::clock::library().is_some(),
            disks: super::disk::available(),
        }
    }

    /// A machine that can do everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self { strace: true, prlimit: true, failpoints: true, clocks: true, disks: true }
    }

    /// Why a fault cannot be had here.
    #[must_use]
    pub fn missing(&self, fault: Fault) -> Option<&'static str> {
        match fault {
            Fault::FailingSync if !self.strace => Some("strace is not installed, or not allowed"),
            Fault::NoDescriptors | Fault::NoMemory if !self.prlimit => {
                Some("prlimit is not installed")
            }
            Fault::ClockStep | Fault::ClockSkew if !self.clocks => {
                Some("libfaketime is not installed")
            }
            Fault::PowerCut | Fault::PowerCutAll | Fault::FullDisk if !self.disks => {
                Some(super::disk::reason().unwrap_or("no mount namespace of its own"))
            }
            Fault::KillAtFailpoint | Fault::AgentAtFailpoint | Fault::SlowDisk
                if !self.failpoints =>
            {
                Some("the medic binary has no failpoints (feature `failpoints`)")
            }
            _ => None,
        }
    }
}

/// strace holds a process of some dozen threads well within this.
const ATTACHED_WITHIN: Duration = Duration::from_secs(3);

/// A program on the path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Runs a tool and waits for it.
pub(crate) fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let found = find(program).unwrap_or_else(|| PathBuf::from(program));
    let output = Command::new(found)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sets the most files a process may have open: those it has, and `more`. `None`: the hard limit.
///
/// # Errors
/// When the process is gone or the limit is refused.
pub fn descriptors_max(pid: i32, more: Option<u64>) -> anyhow::Result<()> {
    let limit = match more {
        Some(more) => {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            format!("--nofile={}:", u64::try_from(open)? + more)
        }
        None => format!("--nofile={}:", hard_limit(pid)?),
    };
    run("prlimit", &["--pid", &pid.to_string(), &limit]).map(drop)
}

/// The most files a process may allow itself.
fn hard_limit(pid: i32) -> anyhow::Result<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_ascii_whitespace().nth(4));
    hard.map(str::to_owned).context("no limit of open files in /proc")
}

/// Sets the most address space a process may have: what it has, and so many MiB more. `None`:
/// unlimited.
///
/// # Errors
/// When the process is gone or the limit is refused.
pub fn memory_max(pid: i32, more_mib: Option<u64>) -> anyhow::Result<()> {
    let limit = match more_mib {
        Some(more) => {
            let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
            let pages: u64 = statm.split_ascii_whitespace().next().context("statm")?.parse()?;
            let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4_096);
            format!("--as={}:", pages * u64::try_from(page)? + (more << 20))
        }
        None => "--as=unlimited:".to_owned(),
    };
    run("prlimit", &["--pid", &pid.to_string(), &limit]).map(drop)
}

/// Attaches `strace` to a process, so that its next syncs fail with EIO, and waits until it holds it.
/// It ends with the process, or when the child is dropped.
///
/// # Errors
/// When strace cannot be started, or says that it cannot hold the process.
pub async fn trace_syncs(pid: i32, log: &Path) -> anyhow::Result<tokio::process::Child> {
    let mut tracer = tokio::process::Command::new("strace")
        .args(["-f", "-p", &pid.to_string(), "-e", "trace=fsync,fdatasync"])
        .args(["-e", "inject=fsync,fdatasync:error=EIO"])
        .arg("-o")
        .arg(log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting strace")?;
    let stderr = tracer.stderr.take().context("strace has no stderr")?;
    let mut said = tokio::io::BufReader::new(stderr).lines();
    let attached = async {
        while let Some(line) = said.next_line().await? {
            if line.contains(" attached") {
                return Ok(());
            }
            if !line.trim().is_empty() {
                bail!("{line}");
            }
        }
        bail!("it ended")
    };
    match tokio::time::timeout(ATTACHED_WITHIN, attached).await {
        Ok(attached) => attached.with_context(|| format!("strace of process {pid}"))?,
        Err(_) => bail!("strace did not hold process {pid} within {ATTACHED_WITHIN:?}"),
    }
    // What it says of threads that come and go must not stop it.
    tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    Ok(tracer)
}
