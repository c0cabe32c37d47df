//! Real processes: started in a session of their own, told apart by pid, start time and boot,
//! signalled, and found again.
//!
//! A service is never tied to the agent's life: no pipe, no terminal, no parent-death signal. Its
//! output goes to a file. `setsid(1)` (util-linux, busybox) puts it into a session of its own,
//! without `unsafe`; where it is missing, a process group of its own must do.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{procfs, spec::Spec};

/// Carries the name of one start, by which a process can be found that was started just before the
/// agent was killed.
const START_VARIABLE: &str = "MEDIC_START";
/// Handed on from the agent's environment; everything else is declared or absent.
const INHERITED: [&str; 4] = ["HOME", "LANG", "TZ", "USER"];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SETSID: [&str; 2] = ["/usr/bin/setsid", "/bin/setsid"];
/// Output kept: one file of this size and one before it.
const LOG_MAX: u64 = 8 << 20;

/// One process, as no other ever was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: u32,
    /// Clock ticks from boot to its start.
    pub(super) start_ticks: u64,
    pub(super) boot: String,
}

/// How a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    Paused,
    /// Ended: `exit 1`, `signal 9`, or `ended` when another than the agent was its parent.
    Ended(String),
}

/// Starts what `spec` says; its output is appended to `log`.
#[allow(clippy::zombie_processes, reason = "reaped by `life`, by pid: it may outlive this agent")]
pub(super) fn spawn(spec: &Spec, start: &str, log: &Path, boot: &str) -> io::Result<ProcessId> {
    executable(&spec.command)?;
    rotate(log)?;
    let output = OpenOptions::new().create(true).append(true).open(log)?;
    let setsid = SETSID.iter().find(|path| Path::new(path).exists());
    let mut command = match setsid {
        Some(setsid) => {
            let mut command = Command::new(setsid);
            command.arg(&spec.command);
            command
        }
        None => {
            let mut command = Command::new(&spec.command);
            command.process_group(0);
            command
        }
    };
    command
        .args(&spec.args)
        .env_clear()
        .env("PATH", PATH)
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(&spec.env)
        .env("MEDIC_INSTANCE", spec.key.to_string())
        .env(START_VARIABLE, start)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    if !spec.working_dir.is_empty() {
        command.current_dir(&spec.working_dir);
    }
    let child = command.spawn()?;
    let stat = procfs::stat(child.id())?
        .ok_or_else(|| io::Error::other("the process was gone before it could be looked at"))?;
    Ok(ProcessId { pid: child.id(), start_ticks: stat.start_ticks, boot: boot.to_owned() })
}

/// Says what `setsid` would say into a log nobody reads.
fn executable(command: &str) -> io::Result<()> {
    let path = Path::new(command);
    if !path.is_absolute() {
        return Err(io::Error::other(format!("`{command}` is not an absolute path")));
    }
    let found = fs::metadata(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{command}: {error}")))?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!("{command} is not an executable file")))
    }
}

/// Keeps a log bounded while its process goes on writing: its end is copied aside, then it is
/// emptied. (The process holds it open for appending. What it writes in between is lost.)
pub(super) fn rotate(log: &Path) -> io::Result<()> {
    match fs::metadata(log) {
        Ok(found) if found.len() > LOG_MAX => {
            fs::copy(log, log.with_extension("log.1"))?;
            File::options().write(true).open(log)?.set_len(0)
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The last lines of a log, for people.
pub(super) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(400);
    let text = String::from_utf8_lossy(&text[from..]);
    text.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Finds the process of a start whose pid could not be noted in time.
pub(super) fn find(start: &str, boot: &str) -> Option<ProcessId> {
    let (pid, stat) = procfs::by_environment(START_VARIABLE, start)?;
    Some(ProcessId { pid, start_ticks: stat.start_ticks, boot: boot.to_owned() })
}

impl ProcessId {
    fn raw(&self) -> Option<i32> {
        i32::try_from(self.pid).ok().filter(|pid| *pid > 1)
    }

    /// The kernel's word on exactly this process.
    pub(super) fn stat(&self, boot: &str) -> io::Result<Option<procfs::Stat>> {
        if self.boot != boot {
            return Ok(None);
        }
        let stat = procfs::stat(self.pid)?;
        Ok(stat.filter(|stat| stat.start_ticks == self.start_ticks))
    }

    /// How it does. Reaps it, when it is a child that has ended.
    pub(super) fn life(&self, boot: &str) -> io::Result<Life> {
        let Some(stat) = self.stat(boot)? else { return Ok(Life::Ended("ended".to_owned())) };
        Ok(match stat.state {
            'Z' | 'X' => Life::Ended(self.reap()),
            'T' | 't' => Life::Paused,
            'D' if procfs::frozen(self.pid) => Life::Paused,
            _ => Life::Running,
        })
    }

    fn reap(&self) -> String {
        let Some(pid) = self.raw() else { return "ended".to_owned() };
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => format!("exit {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("signal {}", signal as i32),
            Ok(_) | Err(_) => "ended".to_owned(),
        }
    }

    /// Sends it a signal. That it is gone already is no error.
    pub(super) fn signal(&self, signal: Signal, boot: &str) -> io::Result<()> {
        if self.stat(boot)?.is_none() {
            return Ok(());
        }
        send(self.pid, signal, || Ok(self.stat(boot)?.is_some()))
    }

    /// Kills whatever is left of its session, itself included. Its pid cannot have gone to another
    /// while processes of its session live, so what is found is its own.
    pub(super) fn kill_all(&self, boot: &str) -> io::Result<()> {
        if self.boot != boot {
            return Ok(());
        }
        self.signal(Signal::SIGKILL, boot)?;
        let another = procfs::stat(self.pid)?.is_some_and(|s| s.start_ticks != self.start_ticks);
        if another {
            return Ok(());
        }
        for (pid, started) in procfs::Table::read().followers(self.pid) {
            send(pid, Signal::SIGKILL, || {
                Ok(procfs::stat(pid)?.is_some_and(|stat| stat.start_ticks == started))
            })?;
        }
        Ok(())
    }
}

/// Signals a process if `it_is_still` the one that is meant. With a pidfd (Linux 5.3), which is
/// opened before the question is asked, no other process can get the signal, however fast pids are
/// reused; without, the moment between question and signal remains.
fn send(
    pid: u32,
    signal: Signal,
    it_is_still: impl FnOnce() -> io::Result<bool>,
) -> io::Result<()> {
    use rustix::process::{self as sys, PidfdFlags};
    let Some(raw) = i32::try_from(pid).ok().filter(|pid| *pid > 1) else { return Ok(()) };
    let named = sys::Pid::from_raw(raw).zip(sys::Signal::from_named_raw(signal as i32));
    let pidfd = named.map(|(pid, signal)| (sys::pidfd_open(pid, PidfdFlags::empty()), signal));
    if let Some((Err(rustix::io::Errno::SRCH), _)) = pidfd {
        return Ok(());
    }
    if !it_is_still()? {
        return Ok(());
    }
    match pidfd {
        Some((Ok(pidfd), signal)) => match sys::pidfd_send_signal(pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        },
        // An older kernel, a filter of system calls, no descriptors left.
        Some((Err(_), _)) | None => gone_is_fine(kill(Pid::from_raw(raw), signal)),
    }
}

fn gone_is_fine(sent: nix::Result<()>) -> io::Result<()> {
    match sent {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
