//! Process liveness, as the agent on the host reports it.

use std::{fmt, time::Duration};

use medic_proto::fleet::v1::ProcessState;

use super::{Failure, Outcome};
use crate::world::Seen;

/// The state of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// It runs.
    Running,
    /// It is there, stopped by a signal or frozen.
    Paused,
    /// It exited and was not meant to.
    Dead,
    /// It is not meant to run.
    Stopped,
    /// Nobody has said lately.
    #[default]
    Unknown,
}

impl Liveness {
    /// As in the label `process`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Dead => "dead",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Agents report every few seconds and at once on a change; an older report says nothing.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(10);

/// What the last report is worth now.
#[must_use]
pub fn liveness(seen: Option<&Seen>) -> Liveness {
    let Some(seen) = seen.filter(|seen| seen.age <= REPORT_AGE_MAX) else {
        return Liveness::Unknown;
    };
    match seen.status.state() {
        ProcessState::Unspecified => Liveness::Unknown,
        ProcessState::Running => Liveness::Running,
        ProcessState::Paused => Liveness::Paused,
        ProcessState::Dead => Liveness::Dead,
        ProcessState::Stopped => Liveness::Stopped,
    }
}

/// The outcome of a process probe.
pub(in crate::detection) fn check(seen: Option<&Seen>) -> Outcome {
    match (liveness(seen), seen) {
        (Liveness::Running, _) => Outcome::Good,
        (Liveness::Unknown, None) => Outcome::NoData("no agent has reported it".to_owned()),
        (Liveness::Unknown, Some(seen)) => {
            let age = seen.age.as_secs();
            Outcome::NoData(format!("the agent's last report is {age} s old"))
        }
        (other, _) => Outcome::Bad(Failure::Process(other)),
    }
}
