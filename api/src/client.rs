//! The control API from the other side: for the CLI, for tests, for other programs.
//!
//! ```text
//!   call ─► node whose turn it is ── answers ──► done
//!                 │ away: the next one
//!                 └─► a whole round away: pause, again, until the patience is over
//! ```
//!
//! A client knows several nodes, and every node answers everything. A call is made again when it
//! said `UNAVAILABLE` (nothing was proposed), when its connection broke, or when its outcome is
//! unknown (nobody can tell): reads may be repeated anyway, and mutations carry a request id, so
//! that nothing happens twice. Waiting does not mend a certificate, nor nodes of which not one can
//! be reached: then the client gives up early, and says of each node why.

mod reason;
mod watch;

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
    decisions_client::DecisionsClient, detection_client::DetectionClient,
    health_client::HealthClient, incidents_client::IncidentsClient,
    manifests_client::ManifestsClient, predictions_client::PredictionsClient,
    remediations_client::RemediationsClient, safety_client::SafetyClient,
    watch_client::WatchClient,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use self::reason::{Away, away, chain, in_words};
pub use self::watch::{Events, Moment};

/// Largest answer taken.
const DECODE_MAX: usize = 64 << 20;
/// An open connection is asked this often whether the other side still lives, and given as long
/// again to say so: a paused node must not hold a call for longer.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// Between two rounds over the nodes; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Rounds in which not one node could be reached, before nobody is thought to be there. More than
/// one: a single node may be restarting.
const BARREN_ROUNDS: u32 = 3;

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
    /// Time of a call in all, however many nodes it takes.
    pub patience: Duration,
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
    #[error("no endpoint is configured; name some under `nodes` in the context")]
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
}

/// Connections to a cluster, made when they are needed.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    nodes: Vec<(String, Channel)>,
    current: AtomicUsize,
    patience: Duration,
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
    /// Predictions.
    predictions: PredictionsClient,
    /// How instances do.
    health: HealthClient,
    /// What detection has learnt.
    detection: DetectionClient,
    /// The cluster itself.
    cluster: ClusterClient,
    /// The audit log.
    audit: AuditClient,
    /// Events.
    watch: WatchClient,
}

impl Client {
    /// Connects to each node at the first call that is made on it.
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
            .map(|name| Ok((name.clone(), endpoint(config, name)?.connect_lazy())))
            .collect::<Result<_, _>>()?;
        let current = AtomicUsize::new(0);
        Ok(Self(Arc::new(Inner { nodes, current, patience: config.patience })))
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
        Services { channel: self.0.nodes[current].1.clone() }
    }

    /// Turns to the next node.
    pub fn advance(&self) {
        self.0.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a call, at each node in turn while it is away. The closure is called once per attempt:
    /// give every attempt of a mutation the same request id, made by the caller.
    ///
    /// # Errors
    /// What a node said; when none could be talked to, why each could not; when the patience is
    /// over, that and what was said last.
    pub async fn call<T, F>(&self, attempt: impl Fn(Services) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.0.patience;
        let mut pause = PAUSE_MIN;
        let mut barren = 0;
        loop {
            let mut round: Vec<Failure> = Vec::new();
            for _ in 0..self.0.nodes.len() {
                let name = self.endpoint().to_owned();
                let status = match timeout_at(deadline, attempt(self.services())).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(status)) => status,
                    Err(_) => return Err(self.given_up(round.last())),
                };
                let Some(why) = away(&status) else { return Err(status) };
                tracing::debug!(endpoint = name, %status, "turning to the next node");
                round.push((name, why, in_words(&status)));
                self.advance();
            }
            let all = |wanted: fn(Away) -> bool| round.iter().all(|(_, why, _)| wanted(*why));
            barren = if all(|why| why != Away::Busy) { barren + 1 } else { 0 };
            if all(|why| why == Away::Refused) {
                return Err(Status::unauthenticated(each("no node can be talked to", &round)));
            }
            if barren == BARREN_ROUNDS {
                return Err(Status::unavailable(each("no node can be reached", &round)));
            }
            if Instant::now() + pause >= deadline {
                return Err(self.given_up(round.last()));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The patience is over.
    fn given_up(&self, last: Option<&Failure>) -> Status {
        let said = last.map_or_else(
            || format!("{} has not answered", self.endpoint()),
            |(name, _, said)| format!("{name}: {said}"),
        );
        Status::deadline_exceeded(format!("gave up after {:?}: {said}", self.0.patience))
    }
}

/// A node, why it could not serve, and what was said.
type Failure = (String, Away, String);

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
    let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&config.ca_pem))
        .identity(Identity::from_pem(&config.cert_pem, &config.key_pem))
        .domain_name(config.server_name.as_deref().unwrap_or(host))
        // Endpoint's own timeout ends with the TCP connection, which a paused node still accepts.
        .timeout(config.connect_timeout);
    let endpoint = endpoint
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_EVERY)
        .tcp_nodelay(true)
        .user_agent(concat!("medic/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| bad())?;
    endpoint
        .tls_config(tls)
        .map_err(|error| ConnectError::Tls { endpoint: name.to_owned(), reason: chain(&error) })
}

/// Why each node could not be used.
fn each(what: &str, round: &[Failure]) -> String {
    let lines: String = round.iter().map(|(name, _, said)| format!("\n  {name}: {said}")).collect();
    format!("{what}:{lines}")
}
