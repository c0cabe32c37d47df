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

    /// Whose an indicator is. `of_host`: its figures are a host's.
    #[must_use]
    pub fn of_indicator(name: &str, role: Role, of_host: bool) -> Self {
        match Meaning::of(name) {
            Meaning::Memory | Meaning::Descriptors | Meaning::Disk => Self::Infrastructure,
            Meaning::CallsTimeOut | Meaning::CallsRefused => Self::Dependencies,
            Meaning::Certificate | Meaning::Listener | Meaning::Modified | Meaning::Logins => {
                Self::Security
            }
            Meaning::Requests | Meaning::Other if of_host => Self::Infrastructure,
            Meaning::Requests | Meaning::Other => match role {
                Role::Errors => Self::Application,
                Role::Latency | Role::Resource => Self::Performance,
                Role::Other => Self::Application,
            },
        }
    }

    /// Whose word a vote is. `about`: the role of the indicator that votes, and whether it is of a host.
    #[must_use]
    pub fn of_voter(voter: &Voter, about: impl Fn(&str) -> (Role, bool)) -> Self {
        match voter {
            Voter::Process | Voter::Agent => Self::Infrastructure,
            Voter::Probe(_) => Self::Application,
            Voter::Series(name) => {
                let (role, of_host) = about(name);
                Self::of_indicator(name, role, of_host)
            }
            Voter::Guard(_) => Self::Security,
            Voter::Together | Voter::Budget => Self::Performance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_roles_say_whose_an_indicator_is() {
        for (name, role, of_host, monitor) in [
            ("cpu_busy", Role::Other, true, Monitor::Infrastructure),
            ("io_stalled", Role::Other, true, Monitor::Infrastructure),
            ("logins_denied", Role::Errors, true, Monitor::Security),
            ("memory", Role::Resource, false, Monitor::Infrastructure),
            ("error_rate", Role::Errors, false, Monitor::Application),
            ("requests", Role::Other, false, Monitor::Application),
            ("upstream_timeouts", Role::Errors, false, Monitor::Dependencies),
            ("logins_denied", Role::Errors, false, Monitor::Security),
            ("latency_p99", Role::Latency, false, Monitor::Performance),
            ("queue_depth", Role::Resource, false, Monitor::Performance),
        ] {
            assert_eq!(Monitor::of_indicator(name, role, of_host), monitor, "{name}");
        }
    }
}
