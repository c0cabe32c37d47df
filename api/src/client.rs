//! The control API from the other side: for the CLI, for tests, for other programs.
//!
//! A client knows several nodes. It talks to one, and turns to the next when that one is away:
//! every node answers everything. A call is repeated when it says `UNAVAILABLE` (nothing was
//! proposed) or when its connection broke (nobody can tell): reads may be repeated anyway, and
//! mutations carry a request id, so that nothing happens twice.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use medic_proto::v1::{
    approvals_client::ApprovalsClient, audit_client::AuditClient, cluster_client::ClusterClient,
    decisions_client::DecisionsClient, incidents_client::IncidentsClient,
    manifests_client::ManifestsClient, remediations_client::RemediationsClient,
    safety_client::SafetyClient, watch_client::WatchClient,
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// Largest answer taken.
const DECODE_MAX: usize = 64 << 20;

/// How to reach a cluster.
#[derive(Clone)]
pub struct ClientConfig {
    /// `host:port` or `https://host:port` of control ports, in order of preference.
    pub endpoints: Vec<String>,
    /// Certificates of the cluster's authority, PEM.
    pub ca_pem: Vec<u8>,
    /// The caller's certificate, PEM.
    pub cert_pem: Vec<u8>,
    /// Its key, PEM.
    pub key_pem: Vec<u8>,
    /// The name the nodes' certificates must carry; absent: the host that is dialled.
    pub server_name: Option<String>,
    /// Time to connect to one node.
    pub connect_timeout: Duration,
    /// Time of one attempt of a call, up to its first answer.
    pub call_timeout: Duration,
}

impl fmt::Debug for ClientConfig {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("endpoints", &self.endpoints)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// A cluster that cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No endpoints were given.
    #[error("no endpoint is configured; name one with --endpoint or in the context")]
    NoEndpoint,
    /// An endpoint makes no sense.
    #[error("endpoint `{endpoint}` is not of the form host:port")]
    BadEndpoint {
        /// As given.
        endpoint: String,
    },
    /// The certificates make no sense.
    #[error("cannot use the certificates for `{endpoint}`: {reason}")]
    Tls {
        /// For which endpoint.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// None of the nodes answered.
    #[error("no node can be reached:\n{}", .0.join("\n"))]
    Unreachable(Vec<String>),
}

/// Connections to a cluster, made when they are needed.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    nodes: Vec<(String, Endpoint, Channel)>,
    current: AtomicUsize,
}

/// Clients of all services, at one node.
#[derive(Clone, Debug)]
pub struct Services {
    channel: Channel,
}

impl Services {
    /// The connection itself, for services that are not among ours.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:ident),+ $(,)?) => {
        impl Services {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(&self) -> $client<Channel> {
                    $client::new(self.channel.clone()).max_decoding_message_size(DECODE_MAX)
                }
            )+
        }
    };
}

services! {
    /// Incidents.
    incidents: IncidentsClient,
    /// Decisions.
    decisions: DecisionsClient,
    /// Approvals.
    approvals: ApprovalsClient,
    /// Remediations.
    remediations: RemediationsClient,
    /// Manifests.
    manifests: ManifestsClient,
    /// Freezes.
    safety: SafetyClient,
    /// The cluster itself.
    cluster: ClusterClient,
    /// The audit log.
    audit: AuditClient,
    /// Events.
    watch: WatchClient,
}

/// Connects to the first node that answers.
///
/// # Errors
/// When the configuration makes no sense, or no node answers; then each with its reason.
pub async fn connect(config: &ClientConfig) -> Result<Client, ConnectError> {
    let client = Client::lazy(config)?;
    let mut failures = Vec::new();
    for (i, (name, endpoint, _)) in client.0.nodes.iter().enumerate() {
        match endpoint.connect().await {
            Ok(_) => {
                client.0.current.store(i, Ordering::Relaxed);
                return Ok(client);
            }
            Err(error) => failures.push(format!("  {name}: {}", chain(&error))),
        }
    }
    Err(ConnectError::Unreachable(failures))
}

impl Client {
    /// Connects at the first call.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn lazy(config: &ClientConfig) -> Result<Self, ConnectError> {
        if config.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let nodes = config
            .endpoints
            .iter()
            .map(|name| {
                let endpoint = endpoint(config, name)?;
                let channel = endpoint.connect_lazy();
                Ok((name.clone(), endpoint, channel))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { nodes, current: AtomicUsize::new(0) })))
    }

    /// The endpoint that is talked to.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.nodes[self.0.current.load(Ordering::Relaxed) % self.0.nodes.len()].0
    }

    /// Clients of all services, at the node that is talked to.
    #[must_use]
    pub fn services(&self) -> Services {
        let current = self.0.current.load(Ordering::Relaxed) % self.0.nodes.len();
        Services { channel: self.0.nodes[current].2.clone() }
    }

    /// Turns to the next node.
    pub fn advance(&self) {
        self.0.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a call, at each node in turn while it is away. The closure is called once per attempt:
    /// give every attempt of a mutation the same request id, made by the caller.
    ///
    /// # Errors
    /// What the last attempt said; for a broken connection with everything that caused it.
    pub async fn call<T, F>(&self, attempt: impl Fn(Services) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut outcome = attempt(self.services()).await;
        for _ in 1..self.0.nodes.len() {
            match &outcome {
                Err(status) if away(status) => {
                    tracing::debug!(endpoint = self.endpoint(), %status, "turning to the next node");
                    self.advance();
                    outcome = attempt(self.services()).await;
                }
                Ok(_) | Err(_) => break,
            }
        }
        outcome.map_err(|status| match std::error::Error::source(&status) {
            Some(_) => {
                let message = format!("{}: {}", self.endpoint(), chain(&status));
                Status::with_metadata(status.code(), message, status.metadata().clone())
            }
            None => status,
        })
    }
}

/// Whether another node may do better. Only a failure of the connection has a source: what a server
/// says comes without.
fn away(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

fn endpoint(config: &ClientConfig, name: &str) -> Result<Endpoint, ConnectError> {
    let bad = || ConnectError::BadEndpoint { endpoint: name.to_owned() };
    let uri = if name.contains("://") { name.to_owned() } else { format!("https://{name}") };
    if !uri.starts_with("https://") {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(uri).map_err(|_| bad())?;
    if endpoint.uri().port().is_none() {
        return Err(bad());
    }
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&config.ca_pem))
        .identity(Identity::from_pem(&config.cert_pem, &config.key_pem));
    if let Some(server_name) = &config.server_name {
        tls = tls.domain_name(server_name);
    }
    let endpoint = endpoint
        .connect_timeout(config.connect_timeout)
        .timeout(config.call_timeout)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .tcp_nodelay(true)
        .user_agent(concat!("medic/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| bad())?;
    endpoint
        .tls_config(tls)
        .map_err(|error| ConnectError::Tls { endpoint: name.to_owned(), reason: chain(&error) })
}

/// An error with everything it was caused by: the cause is what its reader needs.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
