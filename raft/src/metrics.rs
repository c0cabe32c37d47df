//! Names of the figures that consensus publishes.

use metrics::{counter, gauge, histogram};

/// Every figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Seconds one group of writes took, sync included.
    LogWriteSeconds,
    /// Jobs written together.
    LogGroupJobs,
    /// Seconds from proposal to its application, on the leader.
    CommitSeconds,
    /// Applied log index.
    AppliedIndex,
    /// Term of the leader known here.
    Term,
    /// Whether this node leads.
    Leader,
    /// Leaders seen.
    LeaderChanges,
    /// Snapshots made or installed.
    Snapshots,
    /// Bytes of the newest snapshot.
    SnapshotBytes,
}

impl Metric {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogWriteSeconds => "medic_raft_log_write_seconds",
            Self::LogGroupJobs => "medic_raft_log_group_jobs",
            Self::CommitSeconds => "medic_raft_commit_seconds",
            Self::AppliedIndex => "medic_raft_applied_index",
            Self::Term => "medic_raft_term",
            Self::Leader => "medic_raft_leader",
            Self::LeaderChanges => "medic_raft_leader_changes_total",
            Self::Snapshots => "medic_raft_snapshots_total",
            Self::SnapshotBytes => "medic_raft_snapshot_bytes",
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "figures for people; 2^53 is enough")]
    pub(crate) fn set(self, value: u64) {
        gauge!(self.name()).set(value as f64);
    }

    pub(crate) fn add(self) {
        counter!(self.name()).increment(1);
    }

    pub(crate) fn observe(self, value: f64) {
        histogram!(self.name()).record(value);
    }
}
