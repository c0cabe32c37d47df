//! One round of a source that is asked.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use medic_api::http::push::PushRefusal;
use medic_state::manifest::{
    DiscoverySpec, DnsSpec, ManifestKey, NamedQuery, QuerySpec, Scheme, SourceSpec,
};
use metrics::counter;
use reqwest::Method;
use tokio::{task::JoinError, time::Instant};

use super::{Fetcher, LOOK_EVERY, encoded, voice::Voice};
use crate::detection::{
    exposition::ExpositionError,
    intake::{
        discovery::{self, Endpoint, FILE_BYTES_MAX, Found, TARGETS_MAX},
        mapper::Mapper,
        promql::{self, BadAnswer},
        scraped::{self, Manner, Scraped},
        srv,
        write::{self, MESSAGE_BYTES_MAX},
    },
    metrics::Metric,
    scrape::{self, ScrapeError},
};

/// Where the system's name servers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Time that one query or scrape may take, and no longer than its source's interval.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Queries or scrapes of one source at once.
const AT_ONCE: usize = 8;
/// A body of more bytes is read on a thread for blocking work: at some 200 MB/s this takes a millisecond.
const READ_IN_PLACE_BYTES_MAX: usize = 256 << 10;
/// Names of those that were left out, in what is said.
const NAMED_MAX: usize = 5;

/// Time between two rounds of a source.
pub(super) fn interval(source: &SourceSpec) -> Duration {
    let query = source.query.as_ref().map(|query| query.interval);
    let scrape = || source.scrape.as_ref().map(|scrape| scrape.interval);
    query.or_else(scrape).map_or(LOOK_EVERY, medic_state::Millis::as_duration)
}

/// How a round went.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Answers that were handed over.
    pub(super) landed: usize,
    /// Where the next round begins.
    pub(super) next: usize,
    troubles: Vec<String>,
}

impl Round {
    /// One that never came back.
    pub(super) fn broken(error: &JoinError) -> Self {
        let troubles = vec![format!("its round broke off: {error}")];
        Self { troubles, ..Self::default() }
    }

    fn fail(&mut self, trouble: impl Into<String>) {
        self.troubles.push(trouble.into());
    }

    /// The first of what went wrong, and how much more did. Answers land in any order: the first by name, and what is
    /// wrong with a file last, since it stays so while endpoints come and go.
    pub(super) fn trouble(&self) -> Option<String> {
        let first = self.troubles.iter().min_by_key(|text| (text.starts_with("file `"), *text))?;
        Some(match self.troubles.len() {
            1 => first.clone(),
            many => format!("{first}; and {} more", many - 1),
        })
    }

    /// What one answer came to.
    fn land(&mut self, landed: Result<Option<String>, String>) {
        match landed {
            Ok(complaint) => {
                self.landed += 1;
                self.troubles.extend(complaint);
            }
            Err(error) => self.fail(error),
        }
    }
}

/// Why an answer came to nothing.
pub(super) struct Missed {
    why: String,
    /// The tenant has sent all that it may for now.
    slow: bool,
}

impl Missed {
    /// Of whom.
    fn of(self, name: &str) -> Self {
        Self { why: format!("{name}: {}", self.why), ..self }
    }
}

impl From<String> for Missed {
    fn from(why: String) -> Self {
        Self { why, slow: false }
    }
}

impl Fetcher {
    pub(super) async fn round(
        self: Arc<Self>,
        key: ManifestKey,
        source: SourceSpec,
        from: usize,
    ) -> Round {
        let until = Instant::now() + interval(&source);
        let mut round = Round { next: from, ..Round::default() };
        let voice = match self.voice(&key, &source).await {
            Ok(voice) => voice,
            Err(error) => {
                round.fail(error);
                return round;
            }
        };
        let when = (from, until);
        match (&source.query, &source.scrape) {
            (Some(query), _) => self.ask(&key, query, &voice, when, &mut round).await,
            (None, Some(scrape)) => self.scrape(&key, scrape, &voice, when, &mut round).await,
            (None, None) => round.fail("it says nothing to ask"),
        }
        round
    }

    /// What the source's endpoints are spoken to with, as its files say now.
    async fn voice(&self, key: &ManifestKey, source: &SourceSpec) -> Result<Voice, String> {
        let (secrets, plain) = (self.secrets.clone(), self.client.clone());
        let (tenant, source) = (key.tenant.clone(), source.clone());
        blocking(move || Voice::read(&secrets, &tenant, &source, plain)).await
    }

    /// Does all of these, a few at a time and from `from` on, until they are done, the time is up, or the tenant may
    /// send no more; who was left out is named, and comes first in the next round.
    pub(super) async fn each<F: Future<Output = Result<Option<String>, Missed>>>(
        &self,
        all: Vec<(String, F)>,
        (from, until): (usize, Instant),
        round: &mut Round,
    ) {
        let count = all.len();
        let Some(from) = from.checked_rem(count) else { return };
        let (names, mut tasks): (Vec<String>, Vec<F>) = all.into_iter().unzip();
        tasks.rotate_left(from);
        let begun = AtomicUsize::new(0);
        let mut left: BTreeSet<usize> = (0..count).collect();
        let in_turn = tasks.into_iter().enumerate().map(|(turn, task)| {
            let begun = &begun;
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                ((from + turn) % count, task.await)
            }
        });
        let in_turn: Vec<_> = in_turn.collect();
        let mut landing = stream::iter(in_turn).buffer_unordered(AT_ONCE);
        let mut slow = None;
        while let Ok(Some((at, landed))) = tokio::time::timeout_at(until, landing.next()).await {
            left.remove(&at);
            slow = landed.as_ref().err().filter(|missed| missed.slow).map(|_| at);
            round.land(landed.map_err(|missed| missed.why));
            if slow.is_some() {
                break;
            }
        }
        drop(landing);
        round.next = slow.unwrap_or_else(|| (from + begun.load(Ordering::Relaxed)) % count);
        if !left.is_empty() {
            let named = left.iter().take(NAMED_MAX).filter_map(|at| names.get(*at));
            let named: Vec<&str> = named.map(String::as_str).collect();
            let more = match left.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let named = named.join("`, `");
            let when = if slow.is_some() { "for now" } else { "when its interval was over" };
            round.fail(format!("left out {when}: `{named}`{more}"));
        }
    }

    /// All queries of a round.
    async fn ask(
        &self,
        key: &ManifestKey,
        spec: &QuerySpec,
        voice: &Voice,
        when: (usize, Instant),
        round: &mut Round,
    ) {
        let url = format!("{}/api/v1/query", spec.url.trim_end_matches('/'));
        let timeout = FETCH_TIMEOUT.min(spec.interval.as_duration());
        let url = url.as_str();
        let all = spec.queries.iter().map(|query| {
            let asked = async move {
                let asked = self.ask_one(key, (voice, url), query, timeout).await;
                asked.map_err(|missed| missed.of(&format!("query `{}`", query.name)))
            };
            (query.name.clone(), asked)
        });
        self.each(all.collect(), when, round).await;
    }

    async fn ask_one(
        &self,
        key: &ManifestKey,
        (voice, url): (&Voice, &str),
        query: &NamedQuery,
        timeout: Duration,
    ) -> Result<Option<String>, Missed> {
        let asking = async {
            let request = (voice.request(Method::POST, url).await?)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(format!("query={}", encoded(&query.query)));
            scrape::body_of(request, &self.certificates).await
        };
        let body = scrape::within(timeout, asking).await.map_err(|error| error.to_string())?;
        let name = query.name.clone();
        let read = apart(body.len(), move || answered(&body, &name)).await;
        let (message, unread) = read.map_err(|error| error.to_string())?;
        let complaint = self.hand_over(key, message, unread).await?;
        let unread = (unread > 0).then(|| {
            let name = &query.name;
            format!("query `{name}`: {unread} series have no number, or too many labels")
        });
        Ok(complaint.or(unread))
    }

    /// All endpoints of a round.
    async fn scrape(
        &self,
        key: &ManifestKey,
        spec: &DiscoverySpec,
        voice: &Voice,
        when: (usize, Instant),
        round: &mut Round,
    ) {
        let timeout = FETCH_TIMEOUT.min(spec.interval.as_duration());
        let endpoints = self.endpoints(spec, timeout, round).await;
        // What nobody wants is not even read.
        let Some(mapper) = self.hub.mapper(&key.tenant) else {
            return round.fail("too many tenants");
        };
        let all = endpoints.iter().map(|endpoint| {
            let mapper = mapper.clone();
            let scraped = async move {
                let body = self.exposition_of(voice, &endpoint.url(spec), timeout).await;
                let scraped = match body {
                    Ok(body) => self.scrape_one(key, spec, endpoint, mapper, body).await,
                    Err(error) => Err(error.to_string().into()),
                };
                scraped.map_err(|missed| missed.of(&endpoint.name()))
            };
            (endpoint.name(), scraped)
        });
        self.each(all.collect(), when, round).await;
    }

    async fn exposition_of(
        &self,
        voice: &Voice,
        url: &str,
        timeout: Duration,
    ) -> Result<String, ScrapeError> {
        let fetching = async {
            let request = voice.request(Method::GET, url).await?;
            scrape::exposition_of(request, &self.certificates).await
        };
        scrape::within(timeout, fetching).await
    }

    async fn scrape_one(
        &self,
        key: &ManifestKey,
        spec: &DiscoverySpec,
        endpoint: &Endpoint,
        mapper: Arc<Mapper>,
        body: String,
    ) -> Result<Option<String>, Missed> {
        let given = scraped::given_labels(&spec.labels, endpoint);
        let manner = Manner::from(spec);
        let now_ms = i64::try_from(self.ledger.env().clock.now().0).unwrap_or(i64::MAX);
        let read = apart(body.len(), move || scraped::read(&body, &mapper, &given, manner, now_ms));
        let read = read.await.map_err(|error: ExpositionError| error.to_string())?;
        let Scraped { message, malformed, untimely, untimely_first } = read;
        let complaint = self.hand_over(key, message, malformed + untimely).await?;
        let name = endpoint.name();
        let malformed =
            (malformed > 0).then(|| format!("{name}: {malformed} lines are no samples"));
        let untimely = untimely_first.map(|first| {
            format!("{name}: {untimely} samples say that they are more than five minutes old, or ten minutes ahead (the first: `{first}`)")
        });
        Ok(complaint.or(malformed).or(untimely))
    }

    /// Hands a message to whoever watches what it speaks of; gives what was not taken of it.
    async fn hand_over(
        &self,
        key: &ManifestKey,
        message: Vec<u8>,
        unread: usize,
    ) -> Result<Option<String>, Missed> {
        if unread > 0 {
            let labels = [("tenant", key.tenant.clone()), ("source", key.name.clone())];
            counter!(Metric::SourceUnread.name(), &labels).increment(unread as u64);
        }
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(
                format!("more than {MESSAGE_BYTES_MAX} bytes of series: ask for less").into()
            );
        }
        if message.is_empty() {
            return Ok(None);
        }
        let taken = self.hub.take_own(&key.tenant, &key.name, message).await;
        taken.map_err(|refusal| match refusal {
            PushRefusal::Slow(why, _) => Missed { why, slow: true },
            PushRefusal::Wrong(why) | PushRefusal::TooLarge(why) | PushRefusal::Denied(why) => {
                why.into()
            }
            PushRefusal::Later(why) => why.into(),
        })
    }

    async fn endpoints(
        &self,
        spec: &DiscoverySpec,
        timeout: Duration,
        round: &mut Round,
    ) -> Vec<Endpoint> {
        let plain = Endpoint::plain;
        let mut found: Vec<Endpoint> = spec.targets.iter().cloned().map(plain).collect();
        if let Some(file) = &spec.file {
            match self.file(file).await {
                Ok(read) => {
                    let read = if guarded(spec) { read.over_tls_alone() } else { read };
                    let of_file = |what: String| format!("file `{file}`: {what}");
                    let named = read.left_out.iter().map(|left_out| of_file(left_out.to_string()));
                    round.troubles.extend(named);
                    if read.more > 0 {
                        round.fail(of_file(format!("{} more cannot be used", read.more)));
                    }
                    if read.too_many {
                        round.fail(of_file(format!("only its first {TARGETS_MAX} targets count")));
                    }
                    found.extend(read.endpoints);
                }
                Err(error) => round.fail(format!("file `{file}`: {error}")),
            }
        }
        if let Some(dns) = &spec.dns {
            match tokio::time::timeout(timeout, self.resolve(dns)).await {
                Ok(Ok(addresses)) => found.extend(addresses.into_iter().map(plain)),
                Ok(Err(error)) => round.fail(format!("resolving `{}`: {error}", dns.name)),
                Err(_) => round.fail(format!("resolving `{}` took too long", dns.name)),
            }
        }
        if found.len() > TARGETS_MAX {
            let many = found.len();
            round.fail(format!("{many} targets: only the first {TARGETS_MAX} are scraped"));
            found.truncate(TARGETS_MAX);
        }
        found
    }

    /// Addresses with the port of the manifest, or what SRV records say.
    async fn resolve(&self, dns: &DnsSpec) -> Result<Vec<String>, String> {
        if !srv::is_srv(&dns.name) {
            let found = tokio::net::lookup_host((dns.name.as_str(), dns.port)).await;
            let found = found.map_err(|error| error.to_string())?;
            return Ok(found.map(|address| address.to_string()).collect());
        }
        let servers = match &self.servers {
            Some(servers) => servers.clone(),
            None => {
                let text = tokio::fs::read_to_string(RESOLV_CONF).await;
                srv::servers(&text.map_err(|error| format!("{RESOLV_CONF}: {error}"))?)
            }
        };
        // Numbers that nobody can guess: whoever guessed one could answer in a server's place.
        let id = self.ledger.env().entropy.next_u64() as u16;
        srv::resolve(&dns.name, &servers, id).await
    }

    /// The manifest gives a plain name (the law has seen to it); what it leads to must lie in the
    /// folder too, and be a file.
    async fn file(&self, name: &str) -> Result<Found, String> {
        let path = self.folder.join(name);
        let kind = tokio::fs::symlink_metadata(&path).await.map_err(|error| error.to_string())?;
        if !kind.is_file() || kind.len() > FILE_BYTES_MAX as u64 {
            return Err(format!("it is no plain file of at most {FILE_BYTES_MAX} bytes"));
        }
        let text = tokio::fs::read_to_string(&path).await.map_err(|error| error.to_string())?;
        discovery::read(&text).map_err(|error| error.to_string())
    }
}

/// Whether it says that credentials go to its endpoints, and over TLS.
fn guarded(spec: &DiscoverySpec) -> bool {
    spec.scheme == Some(Scheme::Https)
        && (spec.authorization.is_some() || spec.basic_auth.is_some())
}

/// The series of an answer as a message, and how many were not read.
fn answered(body: &[u8], name: &str) -> Result<(Vec<u8>, usize), BadAnswer> {
    let mut message = Vec::new();
    let told = promql::read(body, name, |labels, sample| {
        // One more than the bound is kept, so that it is seen that there was too much.
        if message.len() <= MESSAGE_BYTES_MAX {
            let labels = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            write::put_series(&mut message, labels, &[sample]);
        }
    })?;
    Ok((message, told.unread))
}

/// Does what costs CPU in place where it is little, else on a thread for blocking work.
async fn apart<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= READ_IN_PLACE_BYTES_MAX {
        return work();
    }
    blocking(work).await
}

/// Does work that waits or costs CPU on a thread that is for it; its panic is that of whoever asked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
