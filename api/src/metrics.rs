//! Names of the doors' metrics, in one place.

/// A metric of the doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Connections let in, by door.
    Accepted,
    /// Connections refused, by door and reason.
    Refused,
    /// Connections open, by door.
    Open,
    /// Calls of the control API, by method and code.
    Calls,
    /// Calls denied before they reached a handler, by method.
    Denied,
    /// Reports of agents about instances that they do not run, by agent.
    StrangeReports,
}

impl Metric {
    /// Its name on `/metrics`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "medic_door_connections_total",
            Self::Refused => "medic_door_refused_total",
            Self::Open => "medic_door_connections_open",
            Self::Calls => "medic_api_calls_total",
            Self::Denied => "medic_api_denied_total",
            Self::StrangeReports => "medic_fleet_strange_reports_total",
        }
    }
}
