//! The five monitors, and which of them an indicator belongs to.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    detection::{detector::Role, ensemble::Voter},
    meaning::Meaning,
};

/// What is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Monitor {
    /// The process, its host, and what they fill up.
    #[n(0)]
    Infrastructure,
    /// Whether it answers, and with what.
    #[n(1)]
    Application,
    /// Its calls to others.
    #[n(2)]
    Dependencies,
    /// Logins, listeners, changed files, privileges, certificates.
    #[n(3)]
    Security,
    /// Latency, saturation, the error budget.
    #[n(4)]
    Performance,
}

impl Monitor {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Infrastructure,
        Self::Application,
        Self::Dependencies,
        Self::Security,
        Self::Performance,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Infrastructure => "infrastructure",
            Self::Application => "application",
            Self::Dependencies => "dependencies",
            Self::Security => "security",
            Self::Performance => "performance",
        }
    }

    /// Whose an indicator is.
    #[must_use]
    pub fn of_indicator(name: &str, role: Role) -> Self {
        match Meaning::of(name) {
            Meaning::Memory | Meaning::Descriptors | Meaning::Disk => Self::Infrastructure,
            Meaning::CallsTimeOut | Meaning::CallsRefused => Self::Dependencies,
            Meaning::Certificate | Meaning::Listener | Meaning::Modified | Meaning::Logins => {
                Self::Security
            }
            Meaning::Requests | Meaning::Other => match role {
                Role::Errors => Self::Application,
                Role::Latency | Role::Resource => Self::Performance,
                Role::Other => Self::Application,
            },
        }
    }

    /// Whose word a vote is. `role`: of the indicator that votes.
    #[must_use]
    pub fn of_voter(voter: &Voter, role: impl Fn(&str) -> Role) -> Self {
        match voter {
            Voter::Process | Voter::Agent => Self::Infrastructure,
            Voter::Probe(_) => Self::Application,
            Voter::Series(name) => Self::of_indicator(name, role(name)),
            Voter::Together => Self::Performance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_roles_say_whose_an_indicator_is() {
        for (name, role, monitor) in [
            ("memory", Role::Resource, Monitor::Infrastructure),
            ("error_rate", Role::Errors, Monitor::Application),
            ("requests", Role::Other, Monitor::Application),
            ("upstream_timeouts", Role::Errors, Monitor::Dependencies),
            ("logins_denied", Role::Errors, Monitor::Security),
            ("latency_p99", Role::Latency, Monitor::Performance),
            ("queue_depth", Role::Resource, Monitor::Performance),
        ] {
            assert_eq!(Monitor::of_indicator(name, role), monitor, "{name}");
        }
    }
}
