//! One instance: what is wanted of it, which process it is, what it looks like now.
//!
//! ```text
//!   act lock  ──  held over a whole act (seconds): one act at a time
//!   core lock ──  held for one look or one change (milliseconds): reports never wait for acts
//! ```
//!
//! Starting and stopping its process stand in [`lifecycle`]. Invariants: what is to be started is
//! noted, durably, before it is (so that a process started just before the agent was killed is found
//! again), and a process is only ever taken for ours by pid, start time and boot. Absent on purpose:
//! restarting what died. Medic decides; this reports.

mod guarded;
mod lifecycle;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use medic_proto::fleet::v1::{self as wire, ProcessState};
use medic_raft::Env;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{
    config_file::{ConfigFile, ConfigRecord},
    guard,
    process::{self, Life, ProcessId},
    procfs,
    spec::{self, Key, Spec},
    store::{self, StoreError},
};

/// Version of `state.json`.
const VERSION: u32 = 1;

/// Why an act was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ActError {
    pub(super) reason: String,
    pub(super) retryable: bool,
}

impl ActError {
    pub(super) fn retryable(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), retryable: true }
    }

    pub(super) fn permanent(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), retryable: false }
    }
}

impl From<StoreError> for ActError {
    fn from(error: StoreError) -> Self {
        Self::retryable(error)
    }
}

/// What is meant to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    #[default]
    Running,
    Stopped,
}

/// The process of an instance, or its last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    #[serde(flatten)]
    pub(super) id: ProcessId,
    pub(super) started_ms: u64,
    /// Key and attempt of the act that started it, or `declared`.
    pub(super) cause: String,
    pub(super) ended: bool,
}

/// A start that was noted and whose pid was not yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Starting {
    start: String,
    at_ms: u64,
    cause: String,
}

/// `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// The boot in which it was written.
    boot: String,
    /// As declared last; `None`: never.
    standby: Option<bool>,
    wanted: Wanted,
    /// To be brought to `wanted` once: first declared, or the machine booted since.
    pending: bool,
    process: Option<Process>,
    starting: Option<Starting>,
    starts: u64,
    last_exit: String,
    config: ConfigRecord,
    /// The configuration by Medic's own hand, or the one that the process started with. Absent: not known.
    #[serde(default)]
    config_known: Option<String>,
    /// What the process was at its start.
    #[serde(default)]
    baseline: guard::Baseline,
}

#[derive(Debug)]
struct Core {
    spec: Spec,
    record: Record,
    config: ConfigFile,
    life: Option<Life>,
    usage: procfs::Usage,
    /// The last problem with the configuration file, told once.
    problem: String,
    /// Its process has ended since the configuration file was last looked at: it may be what it ended
    /// of, and goes with the first report of that.
    config_due: bool,
    watch: guard::Watch,
    /// What was last seen of the safety of a process.
    guard: Option<(ProcessId, wire::ProcessGuard)>,
}

/// One instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) key: Key,
    dir: PathBuf,
    boot: String,
    env: Env,
    act: Mutex<()>,
    core: Mutex<Core>,
}

impl Instance {
    /// Takes up what is on disk, and adopts its process if it lives.
    pub(super) fn open(dir: PathBuf, spec: Spec, boot: &str, env: Env) -> Result<Self, StoreError> {
        let path = dir.join("state.json");
        let mut record: Record = store::read_json(&path)?.unwrap_or_default();
        if record.version > VERSION {
            let problem = format!("version {}, this build reads {VERSION}", record.version);
            return Err(StoreError::Damaged { path, problem });
        }
        record.version = VERSION;
        if record.boot != boot {
            record.pending |= record.wanted == Wanted::Running;
            record.starting = None;
            boot.clone_into(&mut record.boot);
        }
        if let Some(starting) = record.starting.take()
            && let Some(id) = process::find(&starting.start, boot)
        {
            tracing::info!(instance = %spec.key, pid = id.pid, "found a process started just before");
            let Starting { at_ms: started_ms, cause, .. } = starting;
            record.process = Some(Process { id, started_ms, cause, ended: false });
        }
        let core = Core {
            config: ConfigFile::new(dir.join("configs")),
            spec: spec.clone(),
            record,
            life: None,
            usage: procfs::Usage::default(),
            problem: String::new(),
            config_due: false,
            watch: guard::Watch::default(),
            guard: None,
        };
        let (key, boot) = (spec.key.clone(), boot.to_owned());
        let instance = Self { key, dir, boot, env, act: Mutex::default(), core: Mutex::new(core) };
        instance.declare(spec)?;
        Ok(instance)
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held over an act: one at a time.
    pub(super) fn begin_act(&self) -> MutexGuard<'_, ()> {
        self.act.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.env.clock.now().0
    }

    fn log(&self) -> PathBuf {
        self.dir.join("output.log")
    }

    /// Takes a declaration. A changed command is used at the next start; a changed `standby`
    /// changes what is wanted.
    pub(super) fn declare(&self, spec: Spec) -> Result<(), StoreError> {
        let mut core = self.core();
        if core.record.standby != Some(spec.standby) {
            core.record.standby = Some(spec.standby);
            core.record.wanted = if spec.standby { Wanted::Stopped } else { Wanted::Running };
            core.record.pending = true;
        }
        core.spec = spec;
        self.save(&core)
    }

    fn save(&self, core: &Core) -> Result<(), StoreError> {
        store::write_json(&self.dir.join("state.json"), &core.record)
    }

    /// How its process does; `None`: it never had one, or it ended.
    pub(super) fn life(&self) -> Option<Life> {
        self.refresh(&mut self.core())
    }

    fn refresh(&self, core: &mut Core) -> Option<Life> {
        let process = core.record.process.as_mut().filter(|process| !process.ended)?;
        let life = match process.id.life(&self.boot) {
            Ok(life) => life,
            Err(error) => {
                tracing::warn!(instance = %self.key, %error, "cannot look at the process");
                return core.life.clone();
            }
        };
        if let Life::Ended(how) = life {
            process.ended = true;
            tracing::info!(instance = %self.key, pid = process.id.pid, how, "process ended");
            core.record.last_exit = how;
            core.life = None;
            core.config_due = true;
            if let Err(error) = self.save(core) {
                tracing::warn!(instance = %self.key, %error, "its end is not noted on disk");
            }
            return None;
        }
        core.life = Some(life);
        core.life.clone()
    }

    /// The process that runs, or ran last.
    pub(super) fn process(&self) -> Option<Process> {
        let mut core = self.core();
        self.refresh(&mut core);
        core.record.process.clone()
    }

    /// Whether it is declared a standby.
    pub(super) fn standby(&self) -> bool {
        self.core().spec.standby
    }

    /// What is meant to be.
    pub(super) fn wanted(&self) -> Wanted {
        self.core().record.wanted
    }

    /// Changes what is meant to be, durably.
    pub(super) fn want(&self, wanted: Wanted) -> Result<(), StoreError> {
        let mut core = self.core();
        if core.record.wanted == wanted {
            return Ok(());
        }
        core.record.wanted = wanted;
        self.save(&core)
    }

    /// How a changed configuration is made known to it; `None`: by a restart.
    pub(super) fn reload_signal(&self) -> Option<Signal> {
        let core = self.core();
        let name = &core.spec.reload_signal;
        if name.is_empty() { None } else { spec::signal(name).ok() }
    }

    /// The configuration as it is now: hash in force, and the version before it.
    pub(super) fn config(&self) -> Result<(String, Option<String>), ActError> {
        let mut core = self.core();
        let Core { spec, record, config, .. } = &mut *core;
        if spec.config_path.is_empty() {
            return Err(ActError::permanent("this instance declares no configuration file"));
        }
        if config.look(Path::new(&spec.config_path), &mut record.config, self.now_ms())? {
            self.save(&core)?;
        }
        let record = &core.record.config;
        Ok((record.current.clone(), record.previous().map(ToOwned::to_owned)))
    }

    /// Content of a kept version.
    pub(super) fn config_version(&self, hash: &str) -> Result<Vec<u8>, ActError> {
        self.core().config.version(hash).map_err(|error| {
            ActError::permanent(format!("version {hash} is not to be had: {error}"))
        })
    }

    /// Replaces the content of the configuration file.
    pub(super) fn put_config(&self, bytes: &[u8]) -> Result<(), ActError> {
        let mut core = self.core();
        let Core { spec, record, config, .. } = &mut *core;
        config.put(Path::new(&spec.config_path), bytes, &mut record.config, self.now_ms())?;
        core.know_config();
        Ok(self.save(&core)?)
    }

    /// How it does, for a report. With a table of all processes, its usage and its configuration are
    /// looked at too.
    pub(super) fn status(&self, thorough: Option<&procfs::Table>) -> wire::InstanceStatus {
        let mut core = self.core();
        let life = self.refresh(&mut core);
        if let Some(table) = thorough {
            self.look_at_usage(&mut core, table);
        }
        if thorough.is_some() || core.config_due {
            core.config_due = false;
            self.look_at_config(&mut core);
        }
        let record = &core.record;
        let process = record.process.as_ref().filter(|_| life.is_some());
        let state = match (&life, record.wanted) {
            (Some(Life::Paused), _) => ProcessState::Paused,
            (Some(_), _) => ProcessState::Running,
            (None, Wanted::Running) if !record.pending => ProcessState::Dead,
            (None, _) => ProcessState::Stopped,
        };
        let usage = life.as_ref().map(|_| core.usage).unwrap_or_default();
        wire::InstanceStatus {
            key: Some(self.key.to_wire()),
            state: state.into(),
            pid: process.map_or(0, |process| process.id.pid),
            started_unix_ms: process.map_or(0, |process| process.started_ms),
            restarts: record.starts.saturating_sub(1),
            config_hash: record.config.current.clone(),
            config_changed_unix_ms: record.config.changed_ms,
            previous_config_hash: record.config.previous().unwrap_or_default().to_owned(),
            last_exit: record.last_exit.clone(),
            rss_bytes: usage.rss_bytes,
            cpu_ms: usage.cpu_ms,
            open_files: usage.open_files,
            guard: process.and_then(|process| core.guard_of(&process.id)),
        }
    }

    fn look_at_usage(&self, core: &mut Core, table: &procfs::Table) {
        let live = core.record.process.as_ref().filter(|process| !process.ended);
        if let Some(process) = live
            && let Ok(Some(_)) = process.id.stat(&self.boot)
        {
            core.usage = table.usage(process.id.pid);
        }
        if let Err(error) = process::rotate(&self.log()) {
            tracing::warn!(instance = %self.key, %error, "its log cannot be rotated");
        }
    }

    fn look_at_config(&self, core: &mut Core) {
        let Core { spec, record, config, .. } = &mut *core;
        if spec.config_path.is_empty() {
            return;
        }
        let looked = config.look(Path::new(&spec.config_path), &mut record.config, self.now_ms());
        let problem = match looked {
            Ok(false) => String::new(),
            Ok(true) => {
                tracing::info!(instance = %self.key, hash = record.config.current, "configuration changed");
                self.save(core).err().map(|error| error.to_string()).unwrap_or_default()
            }
            Err(error) => error.to_string(),
        };
        if problem != core.problem {
            if !problem.is_empty() {
                tracing::warn!(instance = %self.key, problem, "configuration file");
            }
            core.problem = problem;
        }
    }

    /// Removes what is kept of it, its process having been stopped.
    pub(super) fn forget(&self) -> Result<(), StoreError> {
        std::fs::remove_dir_all(&self.dir).map_err(StoreError::io("remove", &self.dir))
    }
}
