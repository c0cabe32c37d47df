//! Takes pushes in on any node: opens them, finds whose they are, keeps those of own shards and hands
//! the others to their owners.
//!
//! A push is answered once all of it is where it belongs, so that a sender repeats what is lost on
//! the way; a repeated sample is known by its time. Reading and mapping costs CPU alone and is done on
//! threads for blocking work, few at a time: control goes first.

mod events;
mod pushes;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use medic_api::http::push::PushRefusal;
use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{NodeId, ShardId, manifest::TenantSpec, symptom::Target};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    counts::{Counts, Result as Became},
    kube::book::EventBook,
    log::{Book, HandedLog, records::Line},
    mapper::{Allowed, Mapper},
    quota::{self, Bucket},
    sample::SeriesView,
    table::{Refused, Table},
    tally::{Moment, Offered},
    write::{self, BadWrite, Version},
};
use crate::detection::{entity::BEGUN_MS, exposition::Sample, indicator::Values, runtime::lock};

/// Messages being walked at once: one of two cores is left to control.
const WALKS_MAX: usize = 2;
/// Time an owner is given to take what is its own.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(4);
/// Tenants with pushed series; each is declared, so this bounds mistakes alone.
const TENANTS_MAX: usize = 1_000;

/// Telemetry on its way to its owner.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Whose.
    pub tenant: String,
    /// Names of the sources that it may come from.
    pub sources: Vec<String>,
    /// A version 1 message; empty: none.
    pub message: Vec<u8>,
    /// Lines of logs.
    pub logs: Vec<LogLines>,
}

/// Lines of one instance's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLines {
    /// Service.
    pub service: String,
    /// Instance.
    pub instance: String,
    /// As read.
    pub lines: Vec<Line>,
}

/// Hands telemetry to the owner of its shard.
#[async_trait]
pub trait Forward: Send + Sync + 'static {
    /// Hands over a version 1 message; gives what became of it.
    ///
    /// # Errors
    /// When the owner could not be reached, or did not answer.
    async fn forward(&self, to: NodeId, telemetry: Handed) -> Result<Counts, String>;
}

pub(super) struct Tenant {
    table: Table,
    bucket: Bucket,
    /// Of alerts: a tenant whose telemetry is too much is still heard when it calls for help.
    alerts: Bucket,
    quotas: TenantSpec,
}

impl Tenant {
    pub(super) fn of(mapper: Mapper, quotas: TenantSpec, now_ms: u64) -> Self {
        let per_second = per_second(&quotas);
        Self {
            table: Table::new(Arc::new(mapper)),
            bucket: Bucket::full(per_second, now_ms),
            alerts: Bucket::full(quota::alerts_per_second(per_second), now_ms),
            quotas,
        }
    }

    pub(super) fn values(&mut self, service: &str, instance: &str, now_ms: u64) -> Option<Values> {
        self.table.values(service, instance, now_ms)
    }

    fn series_max(&self) -> usize {
        self.quotas.max_series.unwrap_or(quota::SERIES_MAX) as usize
    }

    fn per_second(&self) -> u32 {
        per_second(&self.quotas)
    }
}

fn per_second(quotas: &TenantSpec) -> u32 {
    quotas.max_samples_per_second.unwrap_or(quota::SAMPLES_PER_SECOND_MAX)
}

type Shared = Arc<Mutex<Tenant>>;

/// The intake of one node.
pub struct Hub {
    ledger: Arc<dyn Ledger>,
    tenants: Mutex<BTreeMap<String, Shared>>,
    walks: Arc<Semaphore>,
    logs: Mutex<Book>,
    events: Mutex<EventBook>,
    forward: OnceLock<Arc<dyn Forward>>,
    begun: Instant,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

/// What a walk left over: messages for other owners.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) counts: Counts,
    away: BTreeMap<NodeId, Away>,
}

/// What belongs to another owner.
#[derive(Debug, Default)]
struct Away {
    message: Vec<u8>,
    logs: Vec<LogLines>,
}

/// How a message comes in.
pub(super) struct Walk {
    pub(super) owners: Vec<Option<NodeId>>,
    pub(super) me: NodeId,
    pub(super) allowed: Allowed,
    pub(super) now: Moment,
    /// It was forwarded: never further.
    pub(super) last: bool,
}

impl Hub {
    /// Over a ledger.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            tenants: Mutex::default(),
            walks: Arc::new(Semaphore::new(WALKS_MAX)),
            logs: Mutex::default(),
            events: Mutex::default(),
            forward: OnceLock::new(),
            begun: Instant::now(),
        })
    }

    /// Says how owners are reached; without it, what belongs to others waits with its sender.
    pub fn reach(&self, forward: Arc<dyn Forward>) {
        if self.forward.set(forward).is_err() {
            tracing::warn!("the way to other owners was set already");
        }
    }

    /// The indicators of an instance, when there is news of them. Pure memory.
    #[must_use]
    pub fn values(&self, target: &Target) -> Option<Values> {
        let tenant = lock(&self.tenants).get(&target.tenant).cloned()?;
        let now_ms = self.moment().mono_ms;
        lock(&tenant).table.values(&target.service, &target.instance, now_ms)
    }

    /// How a tenant's series are mapped now; `None`: there are too many tenants.
    #[must_use]
    pub fn mapper(&self, tenant: &str) -> Option<Arc<Mapper>> {
        let shared = self.tenant(tenant)?;
        let mapper = lock(&shared).table.mapper().clone();
        Some(mapper)
    }

    /// Takes so many alerts out of what a tenant may send (none: asks whether it may).
    ///
    /// # Errors
    /// In words, with the seconds to wait.
    pub fn charge_alerts(&self, tenant: &str, alerts: usize) -> Result<(), (String, u64)> {
        let Some(shared) = self.tenant(tenant) else {
            return Err((format!("more than {TENANTS_MAX} tenants send to this node"), 1));
        };
        let mut of_it = lock(&shared);
        let rate = quota::alerts_per_second(of_it.per_second());
        of_it.alerts.take(alerts, rate, self.moment().mono_ms).map_err(|seconds| {
            (format!("tenant `{tenant}` sends more than {rate} alerts a second"), seconds)
        })
    }

    /// An instance's log as samples; see [`Book::samples`].
    #[must_use]
    pub fn log_samples(&self, target: &Target) -> Vec<Sample> {
        lock(&self.logs).samples(target)
    }

    /// What is new in an instance's log; see [`Book::news`].
    #[must_use]
    pub fn log_news(&self, target: &Target) -> Option<String> {
        lock(&self.logs).news(target, self.moment().mono_ms)
    }

    /// What was learnt of an instance's log; see [`Book::handed`].
    #[must_use]
    pub fn log_learnt(&self, target: &Target) -> Option<HandedLog> {
        lock(&self.logs).handed(target, self.moment().mono_ms)
    }

    /// Goes on from what was learnt elsewhere; see [`Book::go_on_from`].
    pub fn log_go_on(&self, target: &Target, handed: &HandedLog) {
        lock(&self.logs).go_on_from(target, handed, self.moment().mono_ms);
    }

    /// Series held, of all tenants.
    #[must_use]
    pub fn series(&self) -> usize {
        let tenants: Vec<Shared> = lock(&self.tenants).values().cloned().collect();
        tenants.iter().map(|tenant| lock(tenant).table.len()).sum()
    }

    fn moment(&self) -> Moment {
        let wall = self.ledger.env().clock.now().0;
        Moment {
            mono_ms: BEGUN_MS + u64::try_from(self.begun.elapsed().as_millis()).unwrap_or_default(),
            wall_ms: i64::try_from(wall).unwrap_or(i64::MAX),
        }
    }

    /// The tenant's table, going by the manifests in force.
    fn tenant(&self, name: &str) -> Option<Shared> {
        let shared = {
            let mut tenants = lock(&self.tenants);
            match tenants.get(name) {
                Some(shared) => shared.clone(),
                None if tenants.len() >= TENANTS_MAX => return None,
                None => {
                    let (mapper, quotas) =
                        self.ledger.read(|s| (Mapper::of(s, name), s.quotas(name)));
                    let tenant = Tenant::of(mapper, quotas, self.moment().mono_ms);
                    let shared = Arc::new(Mutex::new(tenant));
                    tenants.insert(name.to_owned(), shared.clone());
                    shared
                }
            }
        };
        let mut tenant = lock(&shared);
        let newer = self.ledger.read(|state| {
            tenant.quotas = state.quotas(name);
            let current = tenant.table.mapper().current(state, name);
            (!current).then(|| Mapper::of(state, name))
        });
        if let Some(mapper) = newer {
            tenant.table.remap(Arc::new(mapper));
        }
        drop(tenant);
        Some(shared)
    }

    fn walk_of(&self, allowed: Allowed, last: bool) -> Walk {
        let owners = self.ledger.read(|state| {
            let owner = |shard| state.shards.get(&ShardId(shard)).and_then(|shard| shard.owner);
            (0..medic_state::state::SHARDS).map(owner).collect()
        });
        Walk { owners, me: self.ledger.node(), allowed, now: self.moment(), last }
    }

    /// Takes a message that was mapped by another node, which is not this shard's owner.
    ///
    /// # Errors
    /// When it is no message, or too much at once.
    pub async fn take_forwarded(&self, handed: Handed) -> Result<Counts, String> {
        let shared = self.tenant(&handed.tenant).ok_or("too many tenants")?;
        let mapper = lock(&shared).table.mapper().clone();
        let walk = self.walk_of(mapper.named(&handed.sources), true);
        let walked = self.walk(shared, Version::V1, handed.message, walk).await;
        let mut counts = walked.map_err(|error| error.to_string())?.counts;
        counts.merge(self.take_logs(&handed.tenant, &mapper, handed.logs));
        counts.record("peer");
        Ok(counts)
    }

    /// Takes samples that this node has fetched for a source of a tenant, who pays for them as for what is pushed;
    /// gives what was not taken, in words.
    ///
    /// # Errors
    /// When the tenant has too many, or they could not be brought to their owners.
    pub async fn take_own(
        &self,
        tenant: &str,
        source: &str,
        message: Vec<u8>,
    ) -> Result<Option<String>, PushRefusal> {
        let shared = self.tenant(tenant).ok_or_else(too_many_tenants)?;
        let surveyed = write::survey(Version::V1, &message).map_err(refusal)?;
        self.pay(tenant, &shared, surveyed.samples)?;
        let sources = vec![source.to_owned()];
        let (allowed, series_max) = {
            let tenant = lock(&shared);
            (tenant.table.mapper().named(&sources), tenant.series_max())
        };
        let walk = self.walk_of(allowed, false);
        let walked = self.walk(shared, Version::V1, message, walk).await.map_err(refusal)?;
        let counts = self.bring(tenant, sources, walked).await?;
        counts.record("source");
        counts.record_refused(tenant, "source", source);
        Ok(counts.complaint(tenant, series_max))
    }

    async fn walk(
        &self,
        shared: Shared,
        version: Version,
        message: Vec<u8>,
        walk: Walk,
    ) -> Result<Walked, BadWrite> {
        self.apart(move || walk_through(&shared, version, &message, &walk)).await
    }

    /// Does what costs CPU on a thread for blocking work, a few at a time.
    async fn apart<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = self.walks.clone().acquire_owned().await;
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        match worked.await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Brings what belongs to others to them.
    async fn bring(
        &self,
        tenant: &str,
        sources: Vec<String>,
        walked: Walked,
    ) -> Result<Counts, PushRefusal> {
        let Walked { mut counts, away } = walked;
        if !away.is_empty() {
            let Some(forward) = self.forward.get() else {
                return Err(PushRefusal::Later("other owners cannot be reached yet".to_owned()));
            };
            let sent = away.into_iter().map(|(node, Away { message, logs })| {
                let (tenant, sources) = (tenant.to_owned(), sources.clone());
                (node, Handed { tenant, sources, message, logs })
            });
            let sent = sent.map(|(node, handed)| async move {
                let sending = forward.forward(node, handed);
                let sent = tokio::time::timeout(FORWARD_TIMEOUT, sending).await;
                sent.unwrap_or_else(|_| Err(format!("no answer in {FORWARD_TIMEOUT:?}")))
                    .map_err(|why| PushRefusal::Later(format!("{node}, which watches it: {why}")))
            });
            for sent in join_all(sent).await {
                counts.merge(sent?);
            }
        }
        if counts.of(Became::NoOwner) > 0 {
            let text = format!("{} samples have no owner just now", counts.of(Became::NoOwner));
            return Err(PushRefusal::Later(text));
        }
        Ok(counts)
    }
}

fn too_many_tenants() -> PushRefusal {
    PushRefusal::Later(format!("more than {TENANTS_MAX} tenants push to this node"))
}

fn refusal(error: BadWrite) -> PushRefusal {
    match error {
        BadWrite::TooLarge(_) => PushRefusal::TooLarge(error.to_string()),
        BadWrite::Snappy(_)
        | BadWrite::Wire(_)
        | BadWrite::TooMany
        | BadWrite::TooManyFamilies
        | BadWrite::Symbol
        | BadWrite::TooManySymbols => PushRefusal::Wrong(error.to_string()),
    }
}

/// The walk itself: everything of one message.
pub(super) fn walk_through(
    shared: &Mutex<Tenant>,
    version: Version,
    message: &[u8],
    walk: &Walk,
) -> Result<Walked, BadWrite> {
    let mut walked = Walked::default();
    write::skim(version, message, |view, bytes| {
        let raw = matches!(version, Version::V1).then_some(bytes);
        take_series(shared, view, raw, walk, &mut walked)
    })?;
    Ok(walked)
}

/// # Errors
/// When its labels are none.
fn take_series(
    shared: &Mutex<Tenant>,
    view: &mut SeriesView<'_>,
    raw: Option<&[u8]>,
    walk: &Walk,
    Walked { counts, away }: &mut Walked,
) -> Result<(), BadWrite> {
    // Locked for one series at a time: whoever watches need not wait for the whole message.
    let mut tenant = lock(shared);
    let known = match view.unread {
        [] => None,
        labels => tenant.table.known(walk.allowed, labels),
    };
    if known.is_none() {
        drop(tenant);
        write::read_labels(view)?;
        if let Err(bad) = view.check() {
            counts.add_bad(bad, view.samples.len());
            return Ok(());
        }
        tenant = lock(shared);
    }
    counts.add(Became::Histogram, view.histograms);
    if view.samples.is_empty() {
        return Ok(());
    }
    let series_max = tenant.series_max();
    let found =
        known.unwrap_or_else(|| tenant.table.find(walk.allowed, view, series_max, walk.now));
    let spot = match found {
        Ok(spot) => spot,
        Err(why) => {
            let name = write::name(view)?;
            counts.add_refused(why.into(), view.samples.len(), name);
            return Ok(());
        }
    };
    match walk.owners.get(spot.shard.0 as usize).copied().flatten() {
        Some(owner) if owner == walk.me => {
            let mut no_measurement = false;
            let changed = tenant.table.offer(spot, view, walk.now, |offered| {
                counts.add(offered.into(), 1);
                no_measurement |= matches!(offered, Offered::NotFinite | Offered::Negative);
            });
            counts.type_changes += u64::from(changed);
            if no_measurement {
                counts.note_example(write::name(view)?);
            }
        }
        Some(owner) if !walk.last => {
            let message = &mut away.entry(owner).or_default().message;
            match raw {
                Some(raw) => super::wire::put_bytes(message, 1, raw),
                None => {
                    let labels = view.labels.iter().copied();
                    write::put_typed_series(message, labels, &view.samples, view.kind);
                }
            }
        }
        Some(_) | None => counts.add(Became::NoOwner, view.samples.len()),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
