//! Sources that are asked: a Prometheus by queries, exposition endpoints by scrapes.
//!
//! ```text
//!   each second: Sources of the shards this node owns ─► due? ─► ask or scrape ─► Hub (as if pushed)
//! ```
//!
//! A source belongs to the shard of its own name, so that one node asks it, and another does when that
//! one is gone. What it says goes the way of pushes to whoever watches the instances it speaks of.
//! Every request is bounded in time and bytes; a source that fails is asked again at its next round, and
//! said once. Files of targets are read at each round: what changes in one counts from the next round on.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{
    State,
    manifest::{
        DiscoverySpec, DnsSpec, Kind as ManifestKind, ManifestKey, NamedQuery, QuerySpec,
        SourceSpec, Spec,
    },
    symptom::Target,
};
use metrics::{counter, gauge};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    discovery::{self, Endpoint, FILE_BYTES_MAX, TARGETS_MAX},
    hub::Hub,
    mapper::Mapper,
    promql::{self, Told},
    sample::{NAME, Sample},
    srv,
    write::{self, MESSAGE_BYTES_MAX},
};
use crate::detection::{
    exposition::{self, Exposition},
    metrics::Metric,
    probe::{self, Certificates},
    scrape,
};

/// Where the system's name servers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time that one query or scrape may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Queries or scrapes of one source at once.
const AT_ONCE: usize = 8;
/// Sources being asked at once.
const ROUNDS_MAX: usize = 16;

/// Asks sources until it is told to stop.
pub struct Fetcher {
    ledger: Arc<dyn Ledger>,
    hub: Arc<Hub>,
    client: reqwest::Client,
    folder: PathBuf,
    certificates: Certificates,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// `folder`: where `file_sd` files lie.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        hub: Arc<Hub>,
        folder: PathBuf,
    ) -> Result<Arc<Self>, String> {
        let client = probe::client().map_err(|error| format!("HTTP client: {error}"))?;
        let certificates = Certificates::default();
        Ok(Arc::new(Self { ledger, hub, client, folder, certificates }))
    }

    /// Until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut due: BTreeMap<ManifestKey, Instant> = BTreeMap::new();
        let mut said: BTreeMap<ManifestKey, String> = BTreeMap::new();
        let mut rounds: JoinSet<(ManifestKey, Duration, Result<(), String>)> = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(Ok((key, interval, result))) = rounds.join_next() => {
                    note(&mut said, &key, result);
                    due.insert(key, Instant::now() + interval);
                }
                _ = look.tick() => {
                    gauge!(Metric::IntakeSeries.name()).set(self.hub.series() as f64);
                    let wanted = self.ledger.read(|state| own(state, self.ledger.node()));
                    due.retain(|key, _| wanted.contains_key(key));
                    said.retain(|key, _| wanted.contains_key(key));
                    for (key, source) in wanted {
                        let now = Instant::now();
                        let ready = due.get(&key).is_none_or(|at| *at <= now);
                        if ready && rounds.len() < ROUNDS_MAX {
                            // Not again before it has come back.
                            due.insert(key.clone(), now + Duration::from_secs(3_600));
                            rounds.spawn(self.clone().round(key, source));
                        }
                    }
                }
            }
        }
    }

    async fn round(
        self: Arc<Self>,
        key: ManifestKey,
        source: SourceSpec,
    ) -> (ManifestKey, Duration, Result<(), String>) {
        let (interval, result) = match (&source.query, &source.scrape) {
            (Some(query), _) => (query.interval, self.ask(query).await),
            (None, Some(scrape)) => (scrape.interval, self.scrape(&key.tenant, scrape).await),
            (None, None) => return (key, LOOK_EVERY, Err("it says nothing to ask".to_owned())),
        };
        let (message, failed) = result;
        let mut result = failed.map_or(Ok(()), Err);
        if !message.is_empty()
            && let Err(refusal) = self.hub.take_own(&key.tenant, &key.name, message).await
        {
            result = Err(format!("{refusal:?}"));
        }
        (key, interval.as_duration(), result)
    }

    /// All queries of a round; what they say, and the first failure.
    async fn ask(&self, spec: &QuerySpec) -> (Vec<u8>, Option<String>) {
        let url = format!("{}/api/v1/query", spec.url.trim_end_matches('/'));
        let asked: Vec<_> = spec.queries.iter().map(|one| self.ask_one(&url, one)).collect();
        let (mut message, mut failed) = (Vec::new(), None);
        let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(told) = asked.next().await {
            match told {
                Ok(_) if message.len() >= MESSAGE_BYTES_MAX => failed = failed.or_else(too_much),
                Ok(told) => {
                    for (labels, sample) in told {
                        let labels = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
                        write::put_series(&mut message, labels, &[sample]);
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        (message, failed)
    }

    async fn ask_one(&self, url: &str, one: &NamedQuery) -> Result<Vec<Told>, String> {
        let about = |error: &dyn std::fmt::Display| format!("query `{}`: {error}", one.name);
        let request = (self.client.post(url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("query={}", encoded(&one.query)));
        let body = scrape::body_of(request, FETCH_TIMEOUT).await.map_err(|error| about(&error))?;
        promql::read(&body, &one.name).map_err(|error| about(&error))
    }

    async fn scrape_one<'e>(
        &self,
        endpoint: &'e Endpoint,
        path: &str,
        mapper: &Mapper,
    ) -> (&'e Endpoint, Result<Exposition, String>) {
        let url = format!("http://{}{path}", endpoint.address);
        let body = scrape::fetch(&self.client, &url, FETCH_TIMEOUT, &self.certificates).await;
        let read = body.and_then(|body| Ok(exposition::parse(&body, |name| mapper.wants(name))?));
        (endpoint, read.map_err(|error| format!("{}: {error}", endpoint.address)))
    }

    /// All endpoints of a round; what they say, and the first failure.
    async fn scrape(&self, tenant: &str, spec: &DiscoverySpec) -> (Vec<u8>, Option<String>) {
        let (endpoints, mut failed) = self.endpoints(spec).await;
        // What nobody wants is not even read.
        let Some(mapper) = self.hub.mapper(tenant) else {
            return (Vec::new(), Some("too many tenants".to_owned()));
        };
        let scraped: Vec<_> =
            endpoints.iter().map(|one| self.scrape_one(one, &spec.path, &mapper)).collect();
        let mut message = Vec::new();
        let mut scraped = stream::iter(scraped).buffer_unordered(AT_ONCE);
        while let Some((endpoint, read)) = scraped.next().await {
            match read {
                Ok(_) if message.len() >= MESSAGE_BYTES_MAX => failed = failed.or_else(too_much),
                Ok(read) => self.put(&mut message, spec, endpoint, &read),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        (message, failed)
    }

    fn put(
        &self,
        message: &mut Vec<u8>,
        spec: &DiscoverySpec,
        endpoint: &Endpoint,
        read: &Exposition,
    ) {
        let at_ms = i64::try_from(self.ledger.env().clock.now().0).unwrap_or(i64::MAX);
        for sample in &read.samples {
            // What is nearest wins: the series' own labels, its endpoint's, its source's.
            let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
            let given = spec.labels.iter().chain(&endpoint.labels);
            labels.extend(given.map(|(name, value)| (name.as_str(), value.as_str())));
            labels.insert("instance", &endpoint.address);
            labels.extend(sample.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            labels.insert(NAME, &sample.name);
            write::put_series(
                message,
                labels.into_iter(),
                &[Sample { at_ms, value: sample.value }],
            );
        }
    }

    async fn endpoints(&self, spec: &DiscoverySpec) -> (Vec<Endpoint>, Option<String>) {
        let plain = |address: String| Endpoint { address, labels: BTreeMap::new() };
        let mut found: Vec<Endpoint> = spec.targets.iter().cloned().map(plain).collect();
        let mut failed = None;
        if let Some(file) = &spec.file {
            match self.file(file).await {
                Ok(endpoints) => found.extend(endpoints),
                Err(error) => failed = Some(format!("file `{file}`: {error}")),
            }
        }
        if let Some(dns) = &spec.dns {
            match tokio::time::timeout(FETCH_TIMEOUT, self.resolve(dns)).await {
                Ok(Ok(addresses)) => found.extend(addresses.into_iter().map(plain)),
                Ok(Err(error)) => failed = Some(format!("resolving `{}`: {error}", dns.name)),
                Err(_) => failed = Some(format!("resolving `{}` took too long", dns.name)),
            }
        }
        found.truncate(TARGETS_MAX);
        (found, failed)
    }

    /// Addresses with the port of the manifest, or what SRV records say.
    async fn resolve(&self, dns: &DnsSpec) -> Result<Vec<String>, String> {
        if !srv::is_srv(&dns.name) {
            let found = tokio::net::lookup_host((dns.name.as_str(), dns.port)).await;
            let found = found.map_err(|error| error.to_string())?;
            return Ok(found.map(|address| address.to_string()).collect());
        }
        let text = tokio::fs::read_to_string(RESOLV_CONF).await;
        let text = text.map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        // Numbers that nobody can guess: whoever guessed one could answer in a server's place.
        let id = self.ledger.env().entropy.next_u64() as u16;
        srv::resolve(&dns.name, &srv::servers(&text), id).await
    }

    /// The manifest gives a plain name (the law has seen to it); what it leads to must lie in the
    /// folder too, and be a file.
    async fn file(&self, name: &str) -> Result<Vec<Endpoint>, String> {
        let path = self.folder.join(name);
        let kind = tokio::fs::symlink_metadata(&path).await.map_err(|error| error.to_string())?;
        if !kind.is_file() || kind.len() > FILE_BYTES_MAX as u64 {
            return Err(format!("it is no plain file of at most {FILE_BYTES_MAX} bytes"));
        }
        let text = tokio::fs::read_to_string(&path).await.map_err(|error| error.to_string())?;
        discovery::read(&text).map_err(|error| error.to_string())
    }
}

fn too_much() -> Option<String> {
    Some(format!("more than {MESSAGE_BYTES_MAX} bytes of series in one round: ask for less"))
}

/// A text as a form's value.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
        out
    })
}

/// The sources of owned shards that are asked.
fn own(state: &State, me: medic_state::NodeId) -> BTreeMap<ManifestKey, SourceSpec> {
    let first =
        ManifestKey { kind: ManifestKind::Source, tenant: String::new(), name: String::new() };
    let sources =
        state.manifests.range(first..).take_while(|(key, _)| key.kind == ManifestKind::Source);
    sources
        .filter_map(|(key, stored)| {
            let Spec::Source(spec) = &stored.manifest.spec else { return None };
            let whole = Target {
                tenant: key.tenant.clone(),
                service: format!("source/{}", key.name),
                instance: String::new(),
            };
            let owner = state.shards.get(&State::shard_of(&whole)).and_then(|shard| shard.owner);
            let asked = spec.query.is_some() || spec.scrape.is_some();
            (asked && owner == Some(me)).then(|| (key.clone(), spec.clone()))
        })
        .collect()
}

/// Says what fails when it is news.
fn note(said: &mut BTreeMap<ManifestKey, String>, key: &ManifestKey, result: Result<(), String>) {
    let outcome = if result.is_ok() { "good" } else { "failed" };
    counter!(Metric::SourceRounds.name(), "result" => outcome).increment(1);
    match result {
        Ok(()) => {
            if said.remove(key).is_some() {
                tracing::info!(source = %key, "the source answers again");
            }
        }
        Err(error) => {
            if said.get(key) != Some(&error) {
                tracing::warn!(source = %key, error, "the source cannot be asked, or not in full");
                said.insert(key.clone(), error);
            }
        }
    }
}
