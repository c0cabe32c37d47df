//! The kinds of faults that the healing campaign injects, and what they ought to be taken for.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// The customer's five categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// What the service stands on.
    Infrastructure,
    /// The service itself.
    Application,
    /// What it was told.
    Configuration,
    /// What lies between services.
    Network,
    /// What keeps others out.
    Security,
}

impl Category {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Infrastructure => "infrastructure",
            Self::Application => "application",
            Self::Configuration => "configuration",
            Self::Network => "network",
            Self::Security => "security",
        }
    }
}

/// Whom a kind hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One instance of one of these services.
    One(&'static [&'static str]),
    /// All instances of one of these services.
    All(&'static [&'static str]),
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident, $text:literal, $category:ident, $class:literal, $reach:expr;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind {
            $($(#[doc = $doc])* $name,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As in options and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Of which category.
            #[must_use]
            pub const fn category(self) -> Category {
                match self { $(Self::$name => Category::$category),* }
            }

            /// The class that Medic should give it.
            #[must_use]
            pub const fn class(self) -> &'static str {
                match self { $(Self::$name => $class),* }
            }

            /// Whom it hits.
            #[must_use]
            pub const fn reach(self) -> Reach {
                match self { $(Self::$name => $reach),* }
            }

            /// What is done, for people.
            #[must_use]
            pub fn story(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim()),* }
            }
        }
    };
}

const ANY: &[&str] = &["gateway", "orders", "users", "catalog", "datastore"];
const CALLERS: &[&str] = &["orders", "users", "catalog"];
const MIDDLE: &[&str] = &["orders", "users", "catalog", "datastore"];
const ENTRY: &[&str] = &["gateway"];
const BOTTOM: &[&str] = &["datastore"];

kinds! {
    /// A runaway loop takes a processor for itself.
    CpuBurn, "cpu-burn", Infrastructure, "infrastructure/saturation", Reach::One(ANY);
    /// The spool fills its disk to the last byte.
    DiskFull, "disk-full", Infrastructure, "infrastructure/disk-full", Reach::One(MIDDLE);
    /// SIGKILL.
    Crash, "crash", Application, "application/crash", Reach::One(ANY);
    /// SIGKILL, and the first two starts after it end in a crash too.
    CrashLoop, "crash-loop", Application, "application/crash", Reach::One(ANY);
    /// SIGSTOP: the process is there, and answers nothing.
    Hang, "hang", Application, "application/hang", Reach::One(ANY);
    /// The workers wait for each other; the process looks well from outside.
    Deadlock, "deadlock", Application, "application/hang", Reach::One(ANY);
    /// Memory is held for good, 4 MiB more each second.
    MemoryLeak, "memory-leak", Application, "application/memory-leak", Reach::One(ANY);
    /// Descriptors are opened and forgotten, twelve each second.
    DescriptorLeak, "descriptor-leak", Application, "application/descriptor-leak", Reach::One(ANY);
    /// Half of the requests of one instance fail.
    Errors, "errors", Application, "application/errors", Reach::One(ANY);
    /// Half of the requests of all instances fail.
    ErrorsEverywhere, "errors-everywhere", Application, "application/errors", Reach::All(CALLERS);
    /// One instance takes 800 ms longer.
    Slow, "slow", Application, "application/latency", Reach::One(ANY);
    /// The datastore hangs, all of it.
    DependencyDown, "dependency-down", Application, "application/hang", Reach::All(BOTTOM);
    /// The datastore takes 700 ms longer, more than its callers wait.
    DependencySlow, "dependency-slow", Application, "application/latency", Reach::All(BOTTOM);
    /// A configuration with a wrong address of a dependency is rolled out.
    WrongDependency, "wrong-dependency", Configuration, "configuration/bad-rollout", Reach::One(CALLERS);
    /// A configuration with a wrong port to serve on is rolled out.
    WrongPort, "wrong-port", Configuration, "configuration/bad-rollout", Reach::One(ANY);
    /// A configuration that cannot be read is rolled out; the restart that comes with it fails.
    BrokenConfig, "broken-config", Configuration, "configuration/bad-rollout", Reach::One(ANY);
    /// The port is gone while the process runs.
    PortLost, "port-lost", Network, "network/unreachable", Reach::One(ANY);
    /// What one instance sends to its dependencies arrives nowhere: no answer ever comes back.
    OneWayLoss, "one-way-loss", Network, "network/partition", Reach::One(CALLERS);
    /// One instance has resolved its dependencies to an address where nobody listens.
    WrongUpstream, "wrong-upstream", Network, "network/name-resolution", Reach::One(CALLERS);
    /// The certificate has expired; requests fail until it is renewed, which is done at start.
    CertificateExpired, "certificate-expired", Security, "security/certificate-expiry", Reach::One(MIDDLE);
    /// The process listens on a port that nobody asked for.
    StrayListener, "stray-listener", Security, "security/unexpected-listener", Reach::One(ANY);
    /// The program's artefact on disk is changed by somebody.
    Tampering, "tampering", Security, "security/tampering", Reach::One(ANY);
    /// Somebody tries keys at the gateways, forty a second.
    LoginStorm, "login-storm", Security, "security/login-storm", Reach::All(ENTRY);
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("there is no fault `{text}`; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_at_least_sixteen_in_all_five_categories() {
        let names: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert!(names.len() >= 16 && names.len() == Kind::ALL.len());
        let categories: BTreeSet<Category> = Kind::ALL.iter().map(|kind| kind.category()).collect();
        assert_eq!(categories.len(), 5);
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().unwrap(), *kind);
            assert!(!kind.story().is_empty());
        }
        assert!("gremlin".parse::<Kind>().unwrap_err().contains("crash"));
    }
}
