//! Names of the metrics this layer keeps.

/// A metric of the action layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Counter: fences this node has taken office under.
    OfficesTaken,
    /// Histogram, seconds: from the first look at an incident to its decision in the log.
    DecisionDuration,
    /// Histogram, seconds, by `action`: from sending to the answer.
    ActDuration,
    /// Counter: failures inside Medic that escalated an incident.
    InternalFailures,
    /// Counter: messages that a channel did not take.
    NotificationsFailed,
    /// Counter: shards that got a new owner.
    ShardMoves,
}

impl Metric {
    /// Its name as scraped.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OfficesTaken => "medic_offices_taken_total",
            Self::DecisionDuration => "medic_decision_duration_seconds",
            Self::ActDuration => "medic_act_duration_seconds",
            Self::InternalFailures => "medic_internal_failures_total",
            Self::NotificationsFailed => "medic_notifications_failed_total",
            Self::ShardMoves => "medic_shard_moves_total",
        }
    }
}
