//! One child process that can be killed, paused and continued, and ends when its handle is dropped.
//!
//! Not when its owner is ended by SIGKILL: to have the kernel see to that would need unsafe code here.
//! Where nodes live in namespaces their keeper ends them then (`campaign::ground`); on loopback they go on,
//! and `pkill -f FOLDER` with the folder of the campaign ends them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::netns::within;

/// Time a process is given to end after SIGTERM.
const TERM_PATIENCE: Duration = Duration::from_secs(5);

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    netns: Option<PathBuf>,
    child: Option<Child>,
}

impl Process {
    /// Describes a process; `start` starts it. Its output is appended to `log`.
    #[must_use]
    pub fn new(name: &str, program: &Path, args: Vec<String>, log: PathBuf) -> Self {
        let (name, program) = (name.to_owned(), program.to_owned());
        Self { name, program, args, env: Vec::new(), log, netns: None, child: None }
    }

    /// Sets environment for the next start (replacing what was set before).
    pub fn set_env(&mut self, env: &[(&str, &str)]) {
        self.env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    }

    /// Has it started in a network namespace from now on.
    pub fn set_netns(&mut self, netns: Option<PathBuf>) {
        self.netns = netns;
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok())
    }

    /// Starts it.
    ///
    /// # Errors
    /// When its log cannot be opened or the program cannot be run.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("opening {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C is for the one who started us; we end our children ourselves.
            .process_group(0)
            .kill_on_drop(true);
        let spawned = match &self.netns {
            Some(netns) => within(netns, || command.spawn())?,
            None => command.spawn(),
        };
        let child = spawned
            .with_context(|| format!("starting {} ({})", self.name, self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When waiting fails.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.with_context(|| format!("killing {}", self.name))?;
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL when it outstays the patience.
    ///
    /// # Errors
    /// When waiting fails.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if self.pid().is_some() {
            self.signal(Signal::SIGCONT)?;
            self.signal(Signal::SIGTERM)?;
        }
        if let Some(child) = self.child.as_mut()
            && tokio::time::timeout(TERM_PATIENCE, child.wait()).await.is_err()
        {
            return self.kill().await;
        }
        self.child = None;
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not run or waiting fails.
    pub async fn wait(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let child = self.child.as_mut().with_context(|| format!("{} does not run", self.name))?;
        Ok(child.wait().await?)
    }

    /// Whether it has ended; reaps it when it has.
    pub fn ended(&mut self) -> bool {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => false,
            Some(_) => {
                self.child = None;
                true
            }
            None => true,
        }
    }
}

/// Process ids whose command line contains `text`, this process excluded.
#[must_use]
pub fn processes_with(text: &str) -> Vec<i32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .filter_map(|pid| i32::try_from(pid).ok())
        .collect()
}

/// Kills what agents with their folders below `dir` have started and left running: services outlive
/// their agent, and nothing in a command line says whose they are.
pub fn kill_services_below(dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let logs_there = ["fd/1", "fd/2"].iter().any(|fd| {
            std::fs::read_link(entry.path().join(fd)).is_ok_and(|file| file.starts_with(dir))
        });
        let by_an_agent = logs_there
            && std::fs::read(entry.path().join("environ")).is_ok_and(|environ| {
                environ.split(|byte| *byte == 0).any(|one| one.starts_with(b"MEDIC_INSTANCE="))
            });
        if by_an_agent && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
            tracing::debug!(pid, %error, "already gone");
        }
    }
}

/// Kills every process whose command line contains `text`, this process excluded.
pub fn kill_processes_with(text: &str) {
    for pid in processes_with(text) {
        if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
            tracing::debug!(pid, %error, "already gone");
        }
    }
}
