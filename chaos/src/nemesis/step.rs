//! What is done at one moment, as data.

use serde::Serialize;

use super::Skew;

/// Whom a step hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Whom {
    /// Whoever leads.
    Leader,
    /// One of those that do not, by a drawn number.
    Follower(u64),
}

/// Which failpoint is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// One of those that were hit least so far, by a drawn number.
    LeastHit(u64),
    /// One of those in the middle of a remediation that were hit least, by a drawn number.
    MidRemediation(u64),
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
    /// The next node to reach it aborts; which one it is, is found out when it is armed.
    Arm(Aim),
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
    /// SIGKILL for the leader as soon as a plan is in the middle of a step.
    KillMid,
    /// One agent aborts at its least-hit failpoint.
    ArmAgent(u64),
    /// A node's wall clock is wrong.
    Clock(Whom, Skew),
    /// Each node's wall clock is wrong in its own way, by a drawn number.
    Clocks(u64),
    /// All clocks are right.
    TrueClocks,
    /// The power of one node fails.
    Cut(Whom),
    /// The power of all nodes fails.
    CutAll,
    /// The disk of a node has no room left.
    Fill(Whom),
    /// There is room again.
    MakeRoom,
    /// A node is killed and bits in one of its files flip; which, by a drawn number.
    Flip(Whom, u64),
    /// Nodes and agents get new certificates.
    Rotate,
    /// A node's certificate ends in a moment.
    Expire(Whom),
    /// Certificates are good.
    Renew,
    /// A node is replaced by a new one.
    Replace(Whom),
    /// The instances of one service, by a drawn number, say nothing.
    Silence(u64),
    /// All services speak.
    Speak,
}

impl Step {
    /// Whether it ends a fault, and is none.
    #[must_use]
    pub const fn undoes(&self) -> bool {
        matches!(
            self,
            Self::StartDead
                | Self::Resume
                | Self::Disarm
                | Self::Fair
                | Self::Agents
                | Self::FastDisk
                | Self::Unlimited
                | Self::TrueClocks
                | Self::MakeRoom
                | Self::Renew
                | Self::Speak
        )
    }
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
