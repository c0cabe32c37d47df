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
        let name = Words::of(indicator);
        let says = |words: &[&str]| words.iter().any(|word| name.say(word));
        match () {
            () if says(&["latency", "duration"]) => Self::Requests,
            () if says(&["memory", "heap", "rss"]) => Self::Memory,
            () if says(&["fds", "descriptor", "open_files"]) => Self::Descriptors,
            () if says(&["disk", "spool", "volume"]) => Self::Disk,
            () if says(&["upstream", "dependency"]) && says(&["timeout"]) => Self::CallsTimeOut,
            () if says(&["upstream", "dependency"]) && says(&["refused", "resolve", "dns"]) => {
                Self::CallsRefused
            }
            () if says(&["certificate", "cert"]) => Self::Certificate,
            () if says(&["listener", "open_ports"]) => Self::Listener,
            () if says(&["modified", "tamper", "integrity", "privilege"]) => Self::Modified,
            () if says(&["login", "auth", "authentication"]) => Self::Logins,
            () if says(&["error"]) => Self::Requests,
            () => Self::Other,
        }
    }
}

/// A name in its words: `jvm_heapUsed` is jvm, heap, used.
struct Words(Vec<String>);

/// From so many letters on a word is unlike any other, and what follows it (`tampered`, `listeners`) is its
/// ending.
const LONG: usize = 5;

impl Words {
    fn of(name: &str) -> Self {
        let mut words = vec![String::new()];
        let mut lower = false;
        for letter in name.chars() {
            if !letter.is_ascii_alphanumeric() || (lower && letter.is_ascii_uppercase()) {
                words.push(String::new());
            }
            lower = letter.is_ascii_lowercase();
            if let Some(last) = words.last_mut().filter(|_| letter.is_ascii_alphanumeric()) {
                last.push(letter.to_ascii_lowercase());
            }
        }
        words.retain(|word| !word.is_empty());
        Self(words)
    }

    /// Whether a word, or several in a row joined by `_`, is among them; in the plural too.
    fn say(&self, wanted: &str) -> bool {
        let wanted: Vec<&str> = wanted.split('_').collect();
        let is = |(word, wanted): (&String, &&str)| {
            let ending = word.strip_prefix(*wanted);
            ending.is_some_and(|ending| matches!(ending, "" | "s") || wanted.len() >= LONG)
        };
        self.0.windows(wanted.len()).any(|row| row.iter().zip(&wanted).all(is))
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
            ("jvmHeapUsed", Meaning::Memory),
            ("open_files", Meaning::Descriptors),
            ("auth_failures", Meaning::Logins),
            ("login_storm", Meaning::Logins),
            ("privilege_changes", Meaning::Modified),
            ("cert_expiry", Meaning::Certificate),
            // Words within words say nothing, and how long something takes is no security figure.
            ("author_count", Meaning::Other),
            ("oauth_latency", Meaning::Requests),
            ("login_latency_p99", Meaning::Requests),
            ("concert_tickets", Meaning::Other),
            ("cheap_calls", Meaning::Other),
            ("plugins_loaded", Meaning::Other),
            ("unmodified_files", Meaning::Other),
            ("terrors", Meaning::Other),
        ] {
            assert_eq!(Meaning::of(name), meaning, "{name}");
        }
    }
}
