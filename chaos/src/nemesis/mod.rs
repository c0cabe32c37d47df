//! What is done to a cluster to see whether it keeps its word, and when.
//!
//! ```text
//!   seed ──► schedule: rounds of one to three overlapping faults ──► steps, each with its time
//!                                                              round's end: everything is undone
//! ```
//!
//! The schedule is a function of the seed. Whom a fault hits ("the leader") is looked up when it
//! strikes, since only then it is known.

pub mod schedule;
mod tools;

pub use schedule::{Round, Timed, rounds};
pub use tools::{Capabilities, descriptors_max, memory_max, trace_syncs};

use std::fmt;

use serde::Serialize;

/// Whom a step hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Whom {
    /// Whoever leads.
    Leader,
    /// One of those that do not, by a drawn number.
    Follower(u64),
}

/// A fault, as it is drawn and reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL for the leader.
    KillLeader,
    /// SIGKILL for the leader and, once there is another, for that one too.
    KillLeaderTwice,
    /// SIGKILL for a follower.
    KillFollower,
    /// The process that first reaches a failpoint aborts there.
    KillAtFailpoint,
    /// SIGKILL for all nodes at once.
    KillAll,
    /// SIGSTOP for the leader, beyond the election timeout.
    PauseLeader,
    /// SIGSTOP for a follower.
    PauseFollower,
    /// Nobody hears the leader, and it hears nobody. Agents and clients still reach it.
    IsolateLeader,
    /// The cluster falls into a majority and a minority.
    Split,
    /// Nothing that the leader sends arrives.
    LeaderMute,
    /// Nothing that is sent to the leader arrives.
    LeaderDeaf,
    /// Two halves that both reach one node and not each other.
    Bridge,
    /// Delay, jitter and loss on all links.
    BadWeather,
    /// Every node is stopped and started, one after the other.
    RollingRestart,
    /// SIGKILL for an agent.
    AgentLoss,
    /// SIGSTOP for an agent: its reports stop, its connections stay.
    TelemetryLoss,
    /// Leadership is handed over.
    Transfer,
    /// Every log write of one node takes long.
    SlowDisk,
    /// The next sync of one node fails.
    FailingSync,
    /// One node may open no more files.
    NoDescriptors,
    /// One node may have no more memory.
    NoMemory,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::KillLeader,
        Self::KillLeaderTwice,
        Self::KillFollower,
        Self::KillAtFailpoint,
        Self::KillAll,
        Self::PauseLeader,
        Self::PauseFollower,
        Self::IsolateLeader,
        Self::Split,
        Self::LeaderMute,
        Self::LeaderDeaf,
        Self::Bridge,
        Self::BadWeather,
        Self::RollingRestart,
        Self::AgentLoss,
        Self::TelemetryLoss,
        Self::Transfer,
        Self::SlowDisk,
        Self::FailingSync,
        Self::NoDescriptors,
        Self::NoMemory,
    ];

    /// Its name, as in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::KillLeaderTwice => "kill-leader-twice",
            Self::KillFollower => "kill-follower",
            Self::KillAtFailpoint => "kill-at-failpoint",
            Self::KillAll => "kill-all",
            Self::PauseLeader => "pause-leader",
            Self::PauseFollower => "pause-follower",
            Self::IsolateLeader => "isolate-leader",
            Self::Split => "split",
            Self::LeaderMute => "leader-mute",
            Self::LeaderDeaf => "leader-deaf",
            Self::Bridge => "bridge",
            Self::BadWeather => "bad-weather",
            Self::RollingRestart => "rolling-restart",
            Self::AgentLoss => "agent-loss",
            Self::TelemetryLoss => "telemetry-loss",
            Self::Transfer => "transfer",
            Self::SlowDisk => "slow-disk",
            Self::FailingSync => "failing-sync",
            Self::NoDescriptors => "no-descriptors",
            Self::NoMemory => "no-memory",
        }
    }

    /// How often it is drawn beside the others: leaders die most.
    #[must_use]
    pub const fn weight(self) -> u32 {
        match self {
            Self::KillLeader => 14,
            Self::KillAtFailpoint => 16,
            Self::KillLeaderTwice | Self::IsolateLeader | Self::PauseLeader => 5,
            Self::KillFollower
            | Self::Split
            | Self::LeaderMute
            | Self::LeaderDeaf
            | Self::BadWeather
            | Self::AgentLoss
            | Self::Transfer => 3,
            Self::KillAll
            | Self::PauseFollower
            | Self::Bridge
            | Self::RollingRestart
            | Self::TelemetryLoss
            | Self::SlowDisk
            | Self::FailingSync
            | Self::NoDescriptors
            | Self::NoMemory => 2,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
            format!("`{text}` is no fault; known are {}", known.join(", "))
        })
    }
}

/// One thing that is done at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// SIGKILL for a node.
    Kill(Whom),
    /// SIGKILL for every node.
    KillAll,
    /// Nodes that do not run are started.
    StartDead,
    /// SIGTERM for a node, by its number.
    Stop(u64),
    /// SIGSTOP for a node.
    Pause(Whom),
    /// SIGCONT for all nodes.
    Resume,
    /// The next process to reach it aborts.
    Arm(&'static str),
    /// No failpoint is armed any more.
    Disarm,
    /// Links are cut or slowed.
    Weather(Weather),
    /// All links are fair.
    Fair,
    /// SIGKILL for an agent, by its position.
    KillAgent(u64),
    /// SIGSTOP for an agent.
    PauseAgent(u64),
    /// Agents run again, and go on.
    Agents,
    /// Leadership goes to a follower.
    Transfer(u64),
    /// Log writes of a node take this many milliseconds longer.
    SlowDisk(Whom, u64),
    /// Disks are as fast as they are.
    FastDisk,
    /// The next sync of a node fails.
    FailSync(Whom),
    /// A node may hold this many files open beyond those it has.
    Descriptors(Whom, u64),
    /// A node may have this much memory (MiB) beyond what it has.
    Memory(Whom, u64),
    /// Limits are lifted.
    Unlimited,
}

/// What happens to the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weather {
    /// The leader alone.
    IsolateLeader,
    /// Nodes whose bit is set in the number against the others.
    Split(u64),
    /// The leader's words get lost.
    LeaderMute,
    /// The leader hears nothing.
    LeaderDeaf,
    /// One node (by the number) reaches all, the halves do not reach each other.
    Bridge(u64),
    /// All links: delay, jitter (milliseconds), loss (of a thousand).
    Bad {
        /// Milliseconds.
        delay: u64,
        /// Milliseconds at most.
        jitter: u64,
        /// Chunks of a thousand.
        loss: u16,
    },
}
