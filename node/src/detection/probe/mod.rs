//! Active checks. Each gives a typed result with its reason.
//!
//! Invariant: a check that could not be carried out from here (bad address in the manifest, no
//! file descriptors left, agent away) is [`Outcome::NoData`], never [`Outcome::Bad`].

mod certificate;
mod grpc;
mod http;
mod process;
mod tcp;

use std::{fmt, time::Duration};

use medic_state::manifest::ProbeKind;

pub(super) use certificate::AnyCertificate;
pub use certificate::{CERTIFICATE, Certificates, Flaw, Validity};
pub(crate) use http::builder as client_builder;
pub use http::client;
pub(super) use http::{judge as judge_http, note_certificate};
pub(super) use process::check as check_process;
pub use process::{Liveness, REPORT_AGE_MAX, liveness};

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad(Failure),
    /// Could not be told, and why.
    NoData(String),
}

impl Outcome {
    /// The label of metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad(_) => "bad",
            Self::NoData(_) => "no_data",
        }
    }
}

/// How a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The host answered that nobody listens there.
    Refused,
    /// Nothing was heard in time: a hang, or a network that drops.
    Timeout,
    /// The host cannot be reached or its name not resolved.
    Unreachable(String),
    /// The connection broke, or what came back is not the protocol.
    Broken(String),
    /// The certificate that was shown proves nothing.
    Certificate(Flaw),
    /// HTTP status outside 2xx and 3xx.
    Status(u16),
    /// The gRPC health service says so.
    NotServing(String),
    /// The agent says that the process is in this state.
    Process(Liveness),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::Broken(why) => write!(f, "broken answer: {why}"),
            Self::Certificate(flaw) => write!(f, "the certificate {flaw}"),
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::NotServing(why) => write!(f, "health service says {why}"),
            Self::Process(liveness) => write!(f, "process is {liveness}"),
        }
    }
}

/// Runs a network check (placeholders filled in already) within `timeout`.
pub(super) async fn run(
    client: &reqwest::Client,
    kind: &ProbeKind,
    timeout: Duration,
    certificates: &Certificates,
) -> Outcome {
    let check = async {
        match kind {
            ProbeKind::Http(url) => http::check(client, url, certificates).await,
            ProbeKind::Tcp(address) => tcp::check(address).await,
            ProbeKind::Grpc(url) => grpc::check(url, certificates).await,
            ProbeKind::Process(_) => {
                Outcome::NoData("process liveness comes from the agent".to_owned())
            }
        }
    };
    tokio::time::timeout(timeout, check).await.unwrap_or(Outcome::Bad(Failure::Timeout))
}

/// The name of a kind of check, for metrics and findings.
#[must_use]
pub const fn kind_name(kind: &ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Http(_) => "http",
        ProbeKind::Tcp(_) => "tcp",
        ProbeKind::Grpc(_) => "grpc",
        ProbeKind::Process(_) => "process",
    }
}

/// Tells what an I/O error says about the target, or that it says something about us alone.
fn judge_io(error: &std::io::Error) -> Outcome {
    use std::io::ErrorKind as Kind;
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM: ours.
    const OWN_ERRORS: [i32; 4] = [24, 23, 105, 12];
    if error.raw_os_error().is_some_and(|code| OWN_ERRORS.contains(&code)) {
        return Outcome::NoData(format!("this node lacks resources: {error}"));
    }
    match error.kind() {
        Kind::AddrNotAvailable => Outcome::NoData(format!("this node lacks ports: {error}")),
        Kind::InvalidInput => Outcome::NoData(format!("bad address: {error}")),
        Kind::ConnectionRefused => Outcome::Bad(Failure::Refused),
        Kind::TimedOut => Outcome::Bad(Failure::Timeout),
        Kind::HostUnreachable | Kind::NetworkUnreachable => {
            Outcome::Bad(Failure::Unreachable(error.to_string()))
        }
        _ => Outcome::Bad(Failure::Broken(error.to_string())),
    }
}

/// The first I/O error among the causes.
fn io_cause<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}
