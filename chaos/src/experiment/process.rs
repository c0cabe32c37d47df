//! Processes of the system, each told apart from every other there ever was, and signalled as that.
//!
//! Invariant: a signal goes to the process that was resolved, or to none: a pidfd is opened first,
//! then start time and boot are compared, then the signal goes through the pidfd. A process id that
//! was given to another meanwhile is left alone. Process 1, this process, its ancestors and kernel
//! threads are never found.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::manifest::ProcessMatch;

/// One process, as no other ever was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process id.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub start: u64,
    /// The boot it runs under.
    pub boot: String,
}

/// Why a process cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The pid file is no help.
    #[error("the pid file {path} {why}")]
    PidFile {
        /// Which.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing like it runs.
    #[error("no process is {0}; does it run, and as a program this user may look at?")]
    None(String),
    /// Too many do.
    #[error("{count} processes are {what} ({pids:?}): say more, so that one is left")]
    Several {
        /// How many.
        count: usize,
        /// What was looked for.
        what: String,
        /// Which.
        pids: Vec<u32>,
    },
    /// It is another.
    #[error("process {pid} is not {what}: it is {is}")]
    Another {
        /// Which.
        pid: u32,
        /// What was said of it.
        what: String,
        /// What it is.
        is: String,
    },
    /// It must not be touched.
    #[error("process {pid} is {what}: never a target")]
    Sacred {
        /// Which.
        pid: u32,
        /// Why.
        what: &'static str,
    },
    /// The system says no.
    #[error("{what} process {pid}: {cause}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which.
        pid: u32,
        /// What the system said; told in the message, so not its `source`.
        cause: io::Error,
    },
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) start: u64,
}

impl Stat {
    /// Dead, and only waited for.
    pub(super) const fn ended(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Reads `/proc/PID/stat`; nothing when there is no such process.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, parentheses too.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start })
}

/// The boot that is running.
pub(super) fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn exe(pid: u32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // A program that was replaced while it runs is still that program.
    let text = path.to_string_lossy();
    Some(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

/// Its arguments, the program's name first.
pub(super) fn argv(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut args: Vec<String> =
        line.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    args.pop();
    args
}

/// What it is, for people.
pub(super) fn describe(pid: u32) -> String {
    let program = exe(pid).map_or_else(|| "unknown".to_owned(), |exe| exe.display().to_string());
    let args = argv(pid).into_iter().skip(1).collect::<Vec<_>>().join(" ");
    format!("{program} {args}").trim_end().to_owned()
}

/// All process ids.
pub(super) fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// This process and all it descends from.
fn family() -> BTreeSet<u32> {
    let mut family = BTreeSet::from([std::process::id()]);
    let mut pid = std::process::id();
    while let Some(stat) = stat(pid) {
        if !family.insert(stat.parent) && stat.parent != pid {
            break;
        }
        if stat.parent <= 1 {
            break;
        }
        pid = stat.parent;
    }
    family
}

/// Whether what is said of a process (beside its pid file) is so.
pub(super) fn is(pid: u32, wanted: &ProcessMatch) -> bool {
    wanted.exe.as_ref().is_none_or(|path| exe(pid).is_some_and(|exe| exe == resolved(path)))
        && wanted.args.as_ref().is_none_or(|args| argv(pid).get(1..) == Some(args))
}

/// A path as `/proc/PID/exe` would show it.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Finds the one process that is meant.
///
/// # Errors
/// When there is none, more than one, or one that is never a target.
pub fn find(wanted: &ProcessMatch) -> Result<ProcessRef, ProcessError> {
    let pid = match &wanted.pid_file {
        Some(path) => {
            let pid = pid_in(path)?;
            if !is(pid, wanted) {
                let (what, is) = (wanted.to_string(), describe(pid));
                return Err(ProcessError::Another { pid, what, is });
            }
            pid
        }
        None => {
            let own = std::process::id();
            let mut found = all();
            found.retain(|pid| {
                *pid != own && is(*pid, wanted) && stat(*pid).is_some_and(|s| !s.ended())
            });
            match found.as_slice() {
                [pid] => *pid,
                [] => return Err(ProcessError::None(wanted.to_string())),
                _ => {
                    let (count, what) = (found.len(), wanted.to_string());
                    return Err(ProcessError::Several { count, what, pids: found });
                }
            }
        }
    };
    let target = ProcessRef::of(pid).ok_or_else(|| ProcessError::None(wanted.to_string()))?;
    // Once more, now that its start is noted: it is still what was meant.
    if !is(pid, wanted) {
        return Err(ProcessError::None(wanted.to_string()));
    }
    target.allowed()?;
    Ok(target)
}

fn pid_in(path: &Path) -> Result<u32, ProcessError> {
    let bad = |why: String| ProcessError::PidFile { path: path.display().to_string(), why };
    let text = fs::read_to_string(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    let pid = text.trim().parse().map_err(|_| bad("holds no process id".to_owned()))?;
    match stat(pid) {
        Some(stat) if !stat.ended() => Ok(pid),
        _ => Err(bad(format!("names process {pid}, which does not run"))),
    }
}

impl ProcessRef {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid).filter(|stat| !stat.ended())?;
        Some(Self { pid, start: stat.start, boot: boot() })
    }

    /// Whether it lives: this very one.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.boot == boot()
            && stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.ended())
    }

    /// Whether it may be touched at all.
    ///
    /// # Errors
    /// When it is process 1, this process, one of its ancestors, or the kernel's.
    pub fn allowed(&self) -> Result<(), ProcessError> {
        let sacred = |what| Err(ProcessError::Sacred { pid: self.pid, what });
        if self.pid == 1 {
            return sacred("the init process");
        }
        if family().contains(&self.pid) {
            return sacred("this program, or what started it");
        }
        if exe(self.pid).is_none() && argv(self.pid).is_empty() {
            return sacred("the kernel's, or another user's");
        }
        Ok(())
    }

    /// A handle on exactly this process; nothing when it is gone.
    fn open(&self) -> Result<Option<OwnedFd>, ProcessError> {
        let io = |cause: io::Error| ProcessError::Io { what: "opening", pid: self.pid, cause };
        let raw = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = raw.filter(|_| self.pid > 1) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Only now is the question safe: the id cannot pass to another while the handle is open
            // without the handle pointing at the old one.
            Ok(handle) => Ok(self.lives().then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(io(error.into())),
        }
    }

    /// Sends a signal to exactly this process. False: it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<bool, ProcessError> {
        let Some(handle) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => {
                Err(ProcessError::Io { what: "signalling", pid: self.pid, cause: error.into() })
            }
        }
    }

    /// Whether it is stopped, as after SIGSTOP.
    #[must_use]
    pub fn stopped(&self) -> bool {
        stat(self.pid).is_some_and(|stat| matches!(stat.state, 'T' | 't'))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn init_this_process_and_its_ancestors_are_never_targets() {
        let own = std::process::id();
        for pid in [1, own, stat(own).unwrap().parent] {
            let error = ProcessRef::of(pid).unwrap().allowed().unwrap_err();
            assert!(matches!(error, ProcessError::Sacred { .. }), "{error}");
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), pid.to_string()).unwrap();
            let wanted =
                ProcessMatch { pid_file: Some(file.path().to_owned()), ..ProcessMatch::default() };
            assert!(matches!(find(&wanted), Err(ProcessError::Sacred { .. })));
        }
    }

    #[test]
    fn a_process_id_that_passed_to_another_gets_no_signal() {
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let target = ProcessRef::of(child.id()).unwrap();
        let earlier = ProcessRef { start: target.start - 1, ..target.clone() };
        assert!(!earlier.signal(Signal::KILL).unwrap(), "it began at another time");
        let other_boot = ProcessRef { boot: "another".to_owned(), ..target.clone() };
        assert!(!other_boot.signal(Signal::KILL).unwrap());
        assert!(target.lives());
        assert!(target.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!target.signal(Signal::KILL).unwrap(), "gone");
    }

    #[test]
    fn only_exactly_one_process_is_found() {
        let seconds = format!("9{}", std::process::id());
        let start = || {
            let child = std::process::Command::new("/bin/sleep").arg(&seconds).spawn().unwrap();
            // The kernel shows the arguments a moment after it has begun the program.
            while argv(child.id()).is_empty() {
                std::thread::yield_now();
            }
            child
        };
        let exe = fs::canonicalize("/bin/sleep").unwrap();
        let wanted =
            ProcessMatch { exe: Some(exe), args: Some(vec![seconds.clone()]), pid_file: None };
        assert!(matches!(find(&wanted), Err(ProcessError::None(_))));
        let mut first = start();
        assert_eq!(find(&wanted).unwrap().pid, first.id());
        let mut second = start();
        assert!(matches!(find(&wanted), Err(ProcessError::Several { count: 2, .. })));
        for child in [&mut first, &mut second] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(matches!(find(&wanted), Err(ProcessError::None(_))));
    }
}
