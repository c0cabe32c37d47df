//! One instance of the simulated fleet: its process, its configuration, what ails it.

use medic_proto::fleet::v1::{self as wire, ProcessState};
use medic_state::Digest;

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It is there and does nothing.
    Paused,
    /// It ended and was not meant to.
    Dead,
    /// It is not meant to run.
    Stopped,
}

/// What ails it, beside being dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// It answers with errors.
    Errors,
    /// It answers slowly.
    Slow,
    /// It leaks memory since this time.
    Leaks(u64),
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// A restart.
    Restart,
    /// The good configuration.
    Config,
    /// Somebody else, who is called.
    Call,
    /// Time alone.
    Time,
}

/// An illness and its course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illness {
    /// What.
    pub ill: Ill,
    /// What helps.
    pub cure: Cure,
    /// It passes by itself then.
    pub until_ms: u64,
}

/// One instance.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    /// Its service.
    pub(super) service: String,
    /// The agent on its host.
    pub(super) agent: String,
    /// Declared, and not started until it is needed.
    pub(super) standby: bool,
    /// Its process.
    pub(super) life: Life,
    /// What ails it.
    pub(super) illness: Option<Illness>,
    /// Whether the host is there.
    pub(super) host_up: bool,
    /// Hash of its configuration.
    pub(super) config: String,
    /// The version before.
    pub(super) previous: String,
    config_changed_ms: u64,
    pub(super) pid: u32,
    started_ms: u64,
    /// The key and attempt that started the last process that its agent started.
    pub(super) cause: String,
}

/// Hash of a configuration.
#[must_use]
pub(super) fn hash(content: &str) -> String {
    Digest::of(&[content.as_bytes()]).to_string()
}

impl Instance {
    /// Well, and running unless it is a standby.
    #[must_use]
    pub(super) fn new(service: &str, agent: &str, standby: bool) -> Self {
        Self {
            service: service.to_owned(),
            agent: agent.to_owned(),
            standby,
            life: if standby { Life::Stopped } else { Life::Running },
            illness: None,
            host_up: true,
            config: hash("good"),
            previous: String::new(),
            config_changed_ms: 0,
            pid: 100,
            started_ms: 0,
            cause: String::new(),
        }
    }

    /// Whether it has a process.
    #[must_use]
    pub(super) fn alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Paused)
    }

    /// Its agent starts it, for this cause.
    pub(super) fn start(&mut self, cause: &str, now_ms: u64) {
        cause.clone_into(&mut self.cause);
        self.begin(now_ms);
    }

    /// Its process begins.
    pub(super) fn begin(&mut self, now_ms: u64) {
        self.life = Life::Running;
        self.pid += 1;
        self.started_ms = now_ms;
        self.cured_by(Cure::Restart);
        if matches!(self.illness, Some(Illness { ill: Ill::Leaks(_), .. })) {
            self.illness = None;
        }
    }

    /// Another configuration.
    pub(super) fn configure(&mut self, hash_of: &str, now_ms: u64) {
        if self.config != hash_of {
            self.previous = std::mem::replace(&mut self.config, hash_of.to_owned());
            self.config_changed_ms = now_ms;
        }
        if hash_of == hash("good") {
            self.cured_by(Cure::Config);
        }
    }

    /// This was done for it.
    pub(super) fn cured_by(&mut self, cure: Cure) {
        if self.illness.is_some_and(|illness| illness.cure == cure) {
            self.illness = None;
        }
    }

    /// What ails it now.
    #[must_use]
    pub(super) fn ill(&self, now_ms: u64) -> Option<Ill> {
        self.illness.filter(|illness| now_ms < illness.until_ms).map(|illness| illness.ill)
    }

    /// Whether it serves.
    #[must_use]
    pub(super) fn serves(&self, now_ms: u64) -> bool {
        self.host_up && self.life == Life::Running && self.ill(now_ms) != Some(Ill::Errors)
    }

    /// Whether nothing is wrong with it.
    #[must_use]
    pub(super) fn well(&self, now_ms: u64) -> bool {
        let rests = self.standby && self.life == Life::Stopped;
        rests || (self.serves(now_ms) && self.ill(now_ms).is_none())
    }

    /// As its agent reports it; times by the wall clock.
    #[must_use]
    pub(super) fn status(&self, epoch_ms: u64) -> wire::InstanceStatus {
        let state = match self.life {
            Life::Running => ProcessState::Running,
            Life::Paused => ProcessState::Paused,
            Life::Dead => ProcessState::Dead,
            Life::Stopped => ProcessState::Stopped,
        };
        let wall = |ms: u64| if ms == 0 { 0 } else { epoch_ms + ms };
        wire::InstanceStatus {
            state: state.into(),
            pid: self.pid,
            started_unix_ms: epoch_ms + self.started_ms,
            config_hash: self.config.clone(),
            config_changed_unix_ms: wall(self.config_changed_ms),
            previous_config_hash: self.previous.clone(),
            last_exit: if self.life == Life::Dead { "signal 9".to_owned() } else { String::new() },
            ..wire::InstanceStatus::default()
        }
    }

    /// Its metrics, as it exposes them. `starved`: what it depends on is gone.
    #[must_use]
    pub(super) fn exposition(&self, now_ms: u64, starved: bool, noise: u64) -> String {
        let jitter = f64::from(u32::try_from(noise % 1_000).unwrap_or_default()) / 1_000.0;
        let ill = self.ill(now_ms);
        let errors = match (ill, starved) {
            (Some(Ill::Errors), _) => 0.6,
            (_, true) => 0.4,
            (Some(Ill::Slow | Ill::Leaks(_)) | None, false) => 0.0,
        };
        let latency = if ill == Some(Ill::Slow) { 1.2 } else { 0.05 };
        let leaked = match ill {
            // 160 MiB in about two minutes.
            Some(Ill::Leaks(since)) => now_ms.saturating_sub(since) / 1_000 * 1_200_000,
            Some(Ill::Errors | Ill::Slow) | None => 0,
        };
        let memory = 30_000_000 + leaked + noise % 300_000;
        format!(
            "error_rate {:.4}\nlatency_p99 {:.4}\nmemory {memory}\n",
            errors + 0.004 * jitter,
            latency + 0.01 * jitter
        )
    }
}
