//! Identities: who is who, proven by certificates of the cluster's own authority.
//!
//! ```text
//!   medic init ──► CA ──► node-1, node-2, …   OU nodes    peer port, API port
//!                    ├──► agents              OU agents   fleet service alone
//!                    └──► users               OU users    API, as far as their roles reach
//! ```
//!
//! A certificate says the name (CN), the cluster (O) and the kind (OU). Everything else, roles above
//! all, is replicated state. [`load`] proves a certificate before it is used and names what is wrong
//! with it; [`ReloadableTls`] swaps it for a renewed one without a restart.
//! Absent on purpose: revocation lists. Certificates are short-lived; a lost one is answered by
//! removing its role bindings (users), its `agent` references (agents), or its membership (nodes).

mod authority;
mod init;
mod load;
#[cfg(test)]
mod tests;
mod texts;

use std::{fmt, path::PathBuf};

use medic_state::{Timestamp, rbac::PrincipalKind};

pub use authority::{Authority, Issued, Subject};
pub use init::{InitPlan, Layout, Made, Newcomer, Renewal, init, issue, renew};
pub use load::{Identity, Material, ReloadableTls, inspect, load};

/// Chooses the one provider of cryptography of this process (ring). Several crates in the tree use
/// rustls and must agree. Call it first in `main`; more calls change nothing.
pub fn provide_crypto() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("a provider of cryptography was chosen already");
    }
}

/// The kind of an identity, as the certificate's organizational unit says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Members of the cluster.
    Nodes,
    /// Agents on hosts.
    Agents,
    /// People and programs.
    Users,
}

impl Unit {
    /// As written in the certificate.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Agents => "agents",
            Self::Users => "users",
        }
    }

    /// The unit of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Nodes, Self::Agents, Self::Users].into_iter().find(|unit| unit.as_str() == name)
    }

    /// What it is in the law's words.
    #[must_use]
    pub const fn principal_kind(self) -> PrincipalKind {
        match self {
            Self::Nodes => PrincipalKind::Node,
            Self::Agents => PrincipalKind::Agent,
            Self::Users => PrincipalKind::User,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why security material cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; `medic certs issue` makes certificates", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is something already.
    #[error(
        "{} exists already: it belongs to a cluster; choose another directory, or add to this one \
         with `medic certs issue`",
        path.display()
    )]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// The file holds no such thing.
    #[error("{} holds no {what} in PEM form: {reason}", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found instead.
        reason: String,
    },
    /// The certificate cannot be read.
    #[error("{} holds a certificate that cannot be read: {reason}", path.display())]
    BadCertificate {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its time is over.
    #[error(
        "the certificate in {} expired at {}; renew it with `medic certs renew`",
        path.display(),
        medic_state::time::format_rfc3339(*at)
    )]
    Expired {
        /// Which.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
    /// Its time has not come.
    #[error(
        "the certificate in {} is valid only from {} on; is this machine's clock right?",
        path.display(),
        medic_state::time::format_rfc3339(*at)
    )]
    NotYetValid {
        /// Which.
        path: PathBuf,
        /// From when.
        at: Timestamp,
    },
    /// Certificate and key do not belong together.
    #[error("{} is not the key of the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Another authority signed it.
    #[error("the certificate in {} was not signed by the authority in {}", cert.display(), ca.display())]
    WrongAuthority {
        /// The certificate.
        cert: PathBuf,
        /// The authority.
        ca: PathBuf,
    },
    /// It is good for something else.
    #[error(
        "the certificate in {} is for `{found}` (organizational unit); `{expected}` is needed here",
        path.display()
    )]
    WrongUnit {
        /// Which.
        path: PathBuf,
        /// As it says.
        found: String,
        /// As needed.
        expected: Unit,
    },
    /// It belongs to another cluster.
    #[error("the certificate in {} belongs to cluster `{found}`, not `{expected}`", path.display())]
    WrongCluster {
        /// Which.
        path: PathBuf,
        /// As it says.
        found: String,
        /// As needed.
        expected: String,
    },
    /// It names someone else.
    #[error("the certificate in {} names `{found}`, not `{expected}`", path.display())]
    WrongName {
        /// Which.
        path: PathBuf,
        /// As it says.
        found: String,
        /// As needed.
        expected: String,
    },
    /// A name that cannot be in a certificate or a file name.
    #[error("`{name}` is no good name: use 1 to 63 letters, digits, `-`, `_`, `.`")]
    BadName {
        /// As given.
        name: String,
    },
    /// A request that makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The library refused.
    #[error("cannot make a certificate for {name}: {source}")]
    Generate {
        /// For whom.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The library refused.
    #[error("cannot set up TLS from {}: {source}", path.display())]
    Tls {
        /// From which certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Refuses names that would be ambiguous in a certificate, a file name or a table.
fn check_name(name: &str) -> Result<(), SecurityError> {
    let fits = (1..=63).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits { Ok(()) } else { Err(SecurityError::BadName { name: name.to_owned() }) }
}
