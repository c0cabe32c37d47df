//! What the name of an indicator says it measures: the one table that detection, classification and
//! verification go by.

/// What a name says about its indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Memory in use.
    Memory,
    /// Open files.
    Descriptors,
    /// Room on a disk.
    Disk,
    /// Calls to others that get no answer.
    CallsTimeOut,
    /// Calls to others that find nobody.
    CallsRefused,
    /// Certificates.
    Certificate,
    /// Open ports.
    Listener,
    /// Files that should not change.
    Modified,
    /// Logins.
    Logins,
    /// Errors and latency have rules of their own.
    Requests,
    /// Anything else.
    Other,
}

impl Meaning {
    /// Of an indicator, by its name.
    #[must_use]
    pub(crate) fn of(indicator: &str) -> Self {
        let name = indicator.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
        match () {
            () if says(&["memory", "heap", "rss"]) => Self::Memory,
            () if says(&["fds", "descriptor", "open_files"]) => Self::Descriptors,
            () if says(&["disk", "spool", "volume"]) => Self::Disk,
            () if says(&["upstream", "dependency"]) && says(&["timeout"]) => Self::CallsTimeOut,
            () if says(&["upstream", "dependency"]) && says(&["refused", "resolve", "dns"]) => {
                Self::CallsRefused
            }
            () if says(&["certificate", "cert_"]) => Self::Certificate,
            () if says(&["listener", "open_ports"]) => Self::Listener,
            () if says(&["modified", "tamper", "integrity"]) => Self::Modified,
            () if says(&["login", "auth"]) => Self::Logins,
            () if says(&["error", "latency"]) => Self::Requests,
            () => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_say() {
        for (name, meaning) in [
            ("memory", Meaning::Memory),
            ("jvm_heap_used", Meaning::Memory),
            ("open_fds", Meaning::Descriptors),
            ("disk_used", Meaning::Disk),
            ("upstream_timeouts", Meaning::CallsTimeOut),
            ("dependency_refused", Meaning::CallsRefused),
            ("certificate_expired", Meaning::Certificate),
            ("unexpected_listeners", Meaning::Listener),
            ("artefact_modified", Meaning::Modified),
            ("logins_denied", Meaning::Logins),
            ("error_rate", Meaning::Requests),
            ("latency_p99", Meaning::Requests),
            ("cpu", Meaning::Other),
            ("queue_depth", Meaning::Other),
        ] {
            assert_eq!(Meaning::of(name), meaning, "{name}");
        }
    }
}
