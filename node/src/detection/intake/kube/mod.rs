//! Events of a Kubernetes cluster: what happened to pods and nodes, as evidence.
//!
//! ```text
//!   list (pages) ─► watch, from its resourceVersion ─► lines ─► Event ─► whose? (place) ─► EventBook
//!     ▲               │ ends: go on from the last version                                   │
//!     └── 410 Gone ◄──┘ bookmark: a newer version                   samples, words of a symptom
//! ```
//!
//! Every node that has a `[[kubernetes]]` section watches by itself: three watches cost an API server
//! nothing, and whoever takes a shard over knows already. `Warning` events are named in symptoms of the
//! instances they are about; of `Normal` ones those that say of a change. All of them are samples
//! (`medic_kube_events_total`) that indicators can select.
//!
//! Spoken with the HTTP client there is. A client library of Kubernetes would add some sixteen crates and a
//! generated type for every object there is, for one list, one watch and ten fields of one object.
//!
//! Bounds: a page of [`PAGE_BYTES_MAX`], lines of [`wire::LINE_BYTES_MAX`], [`EVENTS_PER_SECOND_MAX`] events,
//! and the book's. [`wire`], [`place`] and [`book`] are pure. Deliberately absent: orders to the cluster, and
//! a configuration by manifest: token and authority are files of the node.

pub mod book;
pub mod place;
pub mod wire;

use std::{path::PathBuf, sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use medic_raft::env::Env;
use metrics::counter;
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::wire::{Endless, Event, Lines, Notice, Piece};
use super::quota::Bucket;
use crate::{cause::innermost, detection::metrics::Metric};

/// Events of one list page.
const PAGE: usize = 500;
/// Largest page that is read.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pages of one list: an API server forgets events after an hour.
const PAGES_MAX: usize = 200;
/// Events taken a second; what is above it is counted and left.
pub const EVENTS_PER_SECOND_MAX: u32 = 200;
/// A watch is asked to end after this time, so that a new token is presented.
const WATCH_S: u64 = 240;
/// Nothing was heard for so long although the watch should have ended.
const IDLE: Duration = Duration::from_secs(WATCH_S + 30);
/// Time for anything but a watch.
const ANSWER: Duration = Duration::from_secs(30);
/// Pauses after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Largest file of a token or an authority.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Where a pod finds who it is.
const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A cluster whose events are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubeConfig {
    /// Whose instances its events are about; absent: `default`.
    pub tenant: Option<String>,
    /// `https://host:port`; absent: as a pod finds it, by `KUBERNETES_SERVICE_HOST` and `_PORT`.
    pub server: Option<String>,
    /// PEM certificates of the server's authority; absent: the pod's.
    pub ca_file: Option<PathBuf>,
    /// Bearer token, read anew for every request; absent: the pod's.
    pub token_file: Option<PathBuf>,
    /// Only this namespace (which needs less permission); absent: all.
    pub namespace: Option<String>,
}

impl KubeConfig {
    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(medic_state::manifest::DEFAULT_TENANT)
    }

    /// What makes no sense in it.
    ///
    /// # Errors
    /// The key and the problem.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(server) = &self.server {
            let local = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
            let good =
                server.starts_with("https://") || local.iter().any(|l| server.starts_with(l));
            if !good || server.contains(['?', '#', '@']) {
                let problem =
                    format!("`{server}` is not `https://host:port` (or a proxy on this host)");
                return Err(("kubernetes.server", problem));
            }
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        match &self.namespace {
            Some(name) if name.is_empty() || name.len() > 63 || !name.bytes().all(legal) => {
                Err(("kubernetes.namespace", format!("`{name}` is no name of a namespace")))
            }
            _ => Ok(()),
        }
    }

    fn events(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, KubeError> {
        let server = match &self.server {
            Some(server) => server.trim_end_matches('/').to_owned(),
            None => {
                let read = |name: &'static str| environment(name).ok_or(KubeError::NoServer(name));
                let (host, port) =
                    (read("KUBERNETES_SERVICE_HOST")?, read("KUBERNETES_SERVICE_PORT")?);
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                format!("https://{host}:{port}")
            }
        };
        Ok(match &self.namespace {
            Some(namespace) => format!("{server}/api/v1/namespaces/{namespace}/events"),
            None => format!("{server}/api/v1/events"),
        })
    }
}

/// Why the cluster's events are not known.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// Not in a pod, and no server configured.
    #[error("`kubernetes.server` is not set, and neither is {0}: this node is in no pod")]
    NoServer(&'static str),
    /// A file cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Not reached, or broken off.
    #[error("the API server: {0}")]
    Connection(String),
    /// It says no.
    #[error("the API server answered HTTP status {0}{hint}", hint = hint(*.0))]
    Status(u16),
    /// The history is lost.
    #[error("the history is lost (410): all is listed anew")]
    Gone,
    /// It said that it cannot go on.
    #[error("the API server: {0}")]
    Failed(String),
    /// Larger than a list page may be, or longer than a list.
    #[error("a list of events is larger than {PAGE_BYTES_MAX} bytes a page or {PAGES_MAX} pages")]
    TooLarge,
    /// No list.
    #[error("what should be a list of events is none: {0}")]
    NoList(#[from] serde_json::Error),
    /// A line without an end.
    #[error(transparent)]
    Endless(#[from] Endless),
    /// Nothing was heard.
    #[error("nothing was heard of the API server for {0:?}")]
    Silent(Duration),
}

const fn hint(status: u16) -> &'static str {
    match status {
        401 => ": the token is not good (any more)",
        403 => ": the service account needs `list` and `watch` of `events`",
        _ => "",
    }
}

/// Takes events. `counts`: it happened while the watch ran; else it is known from before.
pub type Taker = Arc<dyn Fn(&Event, bool) -> Taken + Send + Sync>;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is evidence.
    Taken,
    /// It is about nothing that is declared.
    Unmapped,
    /// There is no room.
    Limit,
}

/// Watches the events of one cluster.
pub struct KubeWatch {
    config: KubeConfig,
    env: Env,
    take: Taker,
    begun: Instant,
}

impl std::fmt::Debug for KubeWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeWatch").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Where a watch stands.
struct Place {
    /// Absent: all is to be listed.
    version: Option<String>,
    /// The newest event, by the cluster's clock; absent before the first list.
    newest: Option<medic_state::Timestamp>,
    bucket: Bucket,
    /// Something was heard since the last failure.
    moved: bool,
}

impl KubeWatch {
    /// Gives what it sees to `take`.
    #[must_use]
    pub fn new(config: KubeConfig, env: Env, take: Taker) -> Self {
        Self { config, env, take, begun: Instant::now() }
    }

    /// Until `stop`. A failure is said when it is news, and tried again after a growing pause.
    pub async fn run(self, stop: CancellationToken) {
        let mut place = Place {
            version: None,
            newest: None,
            bucket: Bucket::full(EVENTS_PER_SECOND_MAX, 0),
            moved: false,
        };
        let (mut said, mut pauses) = (String::new(), self.pauses());
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.session(&mut place) => ended,
            };
            if std::mem::take(&mut place.moved) {
                pauses = self.pauses();
            }
            let Err(error) = ended else {
                said.clear();
                continue;
            };
            if matches!(error, KubeError::Gone) {
                place.version = None;
            }
            let text = error.to_string();
            if text != said {
                tracing::warn!(server = ?self.config.server, error = text, "events of Kubernetes are not known");
                said = text;
            }
            counter!(Metric::KubernetesFailures.name()).increment(1);
            let pause = pauses.next().unwrap_or(PAUSE_MAX);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Pauses that grow, and differ from node to node: they must not come back all at once.
    fn pauses(&self) -> backon::ExponentialBackoff {
        backon::ExponentialBuilder::default()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(PAUSE_MAX)
            .with_jitter()
            .with_jitter_seed(self.env.entropy.next_u64())
            .without_max_times()
            .build()
    }

    /// One list where it is needed, and one watch to its end.
    async fn session(&self, place: &mut Place) -> Result<(), KubeError> {
        let url = self.config.events(&|name| std::env::var(name).ok())?;
        let client = self.client(&url).await?;
        let version = match &place.version {
            Some(version) => version.clone(),
            None => self.list(&client, &url, place).await?,
        };
        self.watch(&client, &url, version, place).await
    }

    async fn list(
        &self,
        client: &reqwest::Client,
        url: &str,
        place: &mut Place,
    ) -> Result<String, KubeError> {
        let (before, mut newest) = (place.newest, place.newest.unwrap_or_default());
        let mut next = String::new();
        for _ in 0..PAGES_MAX {
            let query = format!("{url}?limit={PAGE}{}", following(&next));
            let response = timeout(ANSWER, self.get(client, &query)).await;
            let response = response.map_err(|_| KubeError::Silent(ANSWER))??;
            let body = timeout(ANSWER, body(response)).await;
            let page = wire::page(&body.map_err(|_| KubeError::Silent(ANSWER))??)?;
            for event in &page.events {
                // After a gap, what is newer than what was seen has happened since.
                let news = before.is_some_and(|before| event.at > before);
                self.give(event, news, place);
                newest = newest.max(event.at);
            }
            next = page.next;
            if next.is_empty() {
                place.newest = Some(newest);
                place.version = Some(page.version.clone());
                return Ok(page.version);
            }
        }
        Err(KubeError::TooLarge)
    }

    async fn watch(
        &self,
        client: &reqwest::Client,
        url: &str,
        version: String,
        place: &mut Place,
    ) -> Result<(), KubeError> {
        let query = format!(
            "{url}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={version}"
        );
        let response = timeout(ANSWER, self.get(client, &query)).await;
        let mut response = response.map_err(|_| KubeError::Silent(ANSWER))??;
        let mut lines = Lines::default();
        loop {
            let chunk = timeout(IDLE, response.chunk()).await;
            let chunk = chunk.map_err(|_| KubeError::Silent(IDLE))?.map_err(|e| broken(&e))?;
            let Some(chunk) = chunk else { return Ok(()) };
            let mut ended = Ok(());
            lines.feed(&chunk, |piece| {
                if ended.is_ok() {
                    ended = self.line(piece, place);
                }
            })?;
            ended?;
        }
    }

    fn line(&self, piece: Piece<'_>, place: &mut Place) -> Result<(), KubeError> {
        let Piece::Line(line) = piece else {
            count("too_long");
            return Ok(());
        };
        let version = match wire::notice(line) {
            Ok(Notice::Event(event, version)) => {
                self.give(&event, true, place);
                place.newest = place.newest.max(Some(event.at));
                version
            }
            Ok(Notice::Bookmark(version)) => Some(version),
            Ok(Notice::Other(version)) => version,
            Ok(Notice::Gone) => return Err(KubeError::Gone),
            Ok(Notice::Failed(why)) => return Err(KubeError::Failed(why)),
            Err(error) => {
                tracing::debug!(%error, "a line of the watch that is no notice");
                count("malformed");
                return Ok(());
            }
        };
        if let Some(version) = version {
            (place.version, place.moved) = (Some(version), true);
        }
        Ok(())
    }

    fn give(&self, event: &Event, counts: bool, place: &mut Place) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if place.bucket.take(1, EVENTS_PER_SECOND_MAX, now).is_err() {
            count("rate");
            return;
        }
        count(match (self.take)(event, counts) {
            Taken::Taken => "taken",
            Taken::Unmapped => "unmapped",
            Taken::Limit => "limit",
        });
    }

    async fn get(
        &self,
        client: &reqwest::Client,
        url: &str,
    ) -> Result<reqwest::Response, KubeError> {
        let mut request = client.get(url).header("accept", "application/json");
        // In the clear a token goes nowhere; a proxy on this host has its own.
        if url.starts_with("https:") {
            let default = PathBuf::from(IN_CLUSTER).join("token");
            let path = self.config.token_file.clone().unwrap_or(default);
            let token = read(path).await?;
            let token = String::from_utf8_lossy(&token);
            request = request.bearer_auth(token.trim());
        }
        let response = request.send().await.map_err(|error| broken(&error))?;
        match response.status().as_u16() {
            200 => Ok(response),
            410 => Err(KubeError::Gone),
            status => Err(KubeError::Status(status)),
        }
    }

    /// With the authority as its file says now.
    async fn client(&self, url: &str) -> Result<reqwest::Client, KubeError> {
        let mut roots = rustls::RootCertStore::empty();
        if url.starts_with("https:") {
            let default = PathBuf::from(IN_CLUSTER).join("ca.crt");
            let path = self.config.ca_file.clone().unwrap_or(default);
            let pem = read(path.clone()).await?;
            let bad = |why: String| KubeError::File { path: path.clone(), why };
            use rustls::pki_types::pem::PemObject as _;
            for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad("there is no certificate in it".to_owned()));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| KubeError::Connection(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(ANSWER)
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("medic/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| broken(&error))
    }
}

fn count(result: &'static str) {
    counter!(Metric::KubernetesEvents.name(), "result" => result).increment(1);
}

/// The next page of a list: its token is opaque.
fn following(next: &str) -> String {
    if next.is_empty() {
        return String::new();
    }
    format!("&continue={}", super::fetch::encoded(next))
}

async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, KubeError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > PAGE_BYTES_MAX {
            return Err(KubeError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn read(path: PathBuf) -> Result<Vec<u8>, KubeError> {
    let bad = |why: String| KubeError::File { path: path.clone(), why };
    let length = tokio::fs::metadata(&path).await.map_err(|error| bad(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(bad(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    tokio::fs::read(&path).await.map_err(|error| bad(error.to_string()))
}

fn broken(error: &reqwest::Error) -> KubeError {
    KubeError::Connection(innermost(error))
}

#[cfg(test)]
mod tests;
