//! Faults by name: what may happen to a cluster, how often it is drawn, what goes with what.

use std::fmt;

use serde::Serialize;

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
    /// The wall clock of one node jumps.
    ClockStep,
    /// Every node's wall clock is wrong in its own way, and goes at its own pace.
    ClockSkew,
    /// The power of one node fails: what was not synced is lost.
    PowerCut,
    /// The power of all nodes fails at once.
    PowerCutAll,
    /// There is no room left on the disk of one node.
    FullDisk,
    /// A node is killed, and bits of its files flip before it comes back.
    BitFlips,
    /// Nodes and agents get new keys and certificates while they run.
    CertRotation,
    /// The certificate of a running node ends.
    CertExpiry,
    /// A node is replaced: a new one joins, is promoted, and the old one is removed.
    Membership,
    /// SIGSTOP for every instance of a service: probes and scrapes of it get no answer.
    SourceLoss,
    /// The agent that first reaches a failpoint aborts there.
    AgentAtFailpoint,
    /// SIGKILL for the leader, time and again, whenever a plan is in the middle of a step.
    MidRemediation,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 33] = [
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
        Self::ClockStep,
        Self::ClockSkew,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::FullDisk,
        Self::BitFlips,
        Self::CertRotation,
        Self::CertExpiry,
        Self::Membership,
        Self::SourceLoss,
        Self::AgentAtFailpoint,
        Self::MidRemediation,
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
            Self::ClockStep => "clock-step",
            Self::ClockSkew => "clock-skew",
            Self::PowerCut => "power-cut",
            Self::PowerCutAll => "power-cut-all",
            Self::FullDisk => "full-disk",
            Self::BitFlips => "bit-flips",
            Self::CertRotation => "cert-rotation",
            Self::CertExpiry => "cert-expiry",
            Self::Membership => "membership-change",
            Self::SourceLoss => "source-loss",
            Self::AgentAtFailpoint => "agent-at-failpoint",
            Self::MidRemediation => "kill-mid-remediation",
        }
    }

    /// How often it is drawn beside the others: leaders die most.
    #[must_use]
    pub const fn weight(self) -> u32 {
        match self {
            Self::KillAtFailpoint => 24,
            Self::MidRemediation => 4,
            Self::KillLeader => 6,
            Self::AgentAtFailpoint | Self::Membership | Self::Transfer => 6,
            Self::KillLeaderTwice
            | Self::IsolateLeader
            | Self::PauseLeader
            | Self::ClockStep
            | Self::PowerCut
            | Self::BitFlips => 4,
            Self::KillFollower
            | Self::Split
            | Self::LeaderMute
            | Self::LeaderDeaf
            | Self::BadWeather
            | Self::AgentLoss
            | Self::ClockSkew
            | Self::PowerCutAll
            | Self::FullDisk
            | Self::CertRotation
            | Self::CertExpiry
            | Self::SourceLoss => 3,
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

    /// Whether two faults use the same tool, so that the second would undo the first, or damage
    /// more at a time than a cluster is built to stand.
    #[must_use]
    pub fn clashes(self, other: Self) -> bool {
        self == other || self.tools().iter().any(|tool| other.tools().contains(tool))
    }

    /// What it needs for itself.
    const fn tools(self) -> &'static [Tool] {
        match self {
            Self::IsolateLeader
            | Self::Split
            | Self::LeaderMute
            | Self::LeaderDeaf
            | Self::Bridge
            | Self::BadWeather => &[Tool::Links],
            Self::PowerCut | Self::PowerCutAll | Self::FullDisk => &[Tool::Disks],
            // Of three nodes one may be damaged or on its way out, not two.
            Self::BitFlips => &[Tool::Disks, Tool::Members],
            Self::Membership => &[Tool::Members],
            Self::ClockStep | Self::ClockSkew => &[Tool::Clocks],
            Self::CertRotation | Self::CertExpiry => &[Tool::Certificates],
            Self::AgentLoss | Self::TelemetryLoss | Self::AgentAtFailpoint => &[Tool::Agents],
            Self::KillAtFailpoint => &[Tool::Points],
            Self::KillLeader
            | Self::KillLeaderTwice
            | Self::KillFollower
            | Self::KillAll
            | Self::MidRemediation
            | Self::PauseLeader
            | Self::PauseFollower
            | Self::RollingRestart
            | Self::Transfer
            | Self::SlowDisk
            | Self::FailingSync
            | Self::NoDescriptors
            | Self::NoMemory
            | Self::SourceLoss => &[],
        }
    }
}

/// What two faults cannot have at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Links,
    Disks,
    Members,
    Clocks,
    Certificates,
    Agents,
    Points,
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
