//! The task that watches one instance.
//!
//! Checks fly at the same time: a scrape that hangs delays no probe. Whenever one lands, the entity is
//! evaluated; at most one proposal is under way.

mod foreseeing;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use medic_raft::{Committed, Ledger, LedgerError, LedgerExt as _};
use medic_state::{
    Command, Epoch, Millis, Refusal, Reply, ShardId, TraceId,
    command::{ClearSymptom, ReportSymptom},
    symptom::Target,
};
use metrics::counter;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Timings, evidence,
    foretell::{self, Foretelling, Word},
    lock,
    observers::{self, Put},
    plan::{self, Wanted},
    treatment::{AFTERMATH_MS, Treatment},
};
use crate::detection::{
    beside::{self, Whose},
    entity::{Change, Circumstances, Entity, Now, SECOND_MS, Trust},
    exposition::Exposition,
    fill::fill,
    indicator::{Counters, Indicators, Values},
    metrics::Metric,
    observe::{Complaint, computed, quorum::Judged, read_once},
    scrape::ScrapeError,
    senses::Senses,
};

pub(super) struct Watcher {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) senses: Arc<dyn Senses>,
    pub(super) timings: Timings,
    pub(super) shared: Arc<Shared>,
    pub(super) target: Target,
    pub(super) wanted: Wanted,
    pub(super) entity: Arc<Mutex<Entity>>,
    pub(super) stop: CancellationToken,
    pub(super) stale: mpsc::UnboundedSender<(ShardId, Epoch)>,
}

/// Something that is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Process,
    Probe(usize),
    Scrape,
    Beside,
}

/// Something landed.
enum Landed {
    Probe(usize, Instant, Judged),
    Scraped(Result<(Exposition, Instant), ScrapeError>),
    Answered(Change, TraceId, Box<Result<Committed, LedgerError>>),
    Foretold(Word, Box<Result<Committed, LedgerError>>),
}

type Flight = FuturesUnordered<Pin<Box<dyn Future<Output = Landed> + Send>>>;

/// What a task knows beside its entity.
struct Desk {
    due: BTreeMap<Job, Instant>,
    indicators: Arc<Indicators>,
    counters_beside: Option<Counters>,
    flight: Flight,
    proposing: bool,
    last_scrape_error: Option<ScrapeError>,
    /// Kinds of what the last scrape gave that is no measurement.
    refused: u8,
    treatment: Treatment,
    /// When the treatment was last seen to run or to have ended, by the monotonic clock.
    treated_ms: Option<u64>,
    foretelling: Foretelling,
    trust: Arc<Trust>,
    put: Put,
}

impl Desk {
    /// Whether it is treated, or was a moment ago.
    fn aftermath(&mut self, treatment: Treatment, now_ms: u64) -> bool {
        if treatment.running || treatment != self.treatment {
            self.treated_ms = Some(now_ms);
        }
        self.treatment = treatment;
        self.treated_ms.is_some_and(|at| now_ms.saturating_sub(at) < AFTERMATH_MS)
    }
}

/// Shorter intervals are taken as this: a manifest must not make a probe a load test.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

impl Watcher {
    pub(super) async fn run(self) {
        let mut desk = self.desk();
        loop {
            let next = desk.due.values().min().copied();
            let wake = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep_until(wake) => self.begin_due(&mut desk),
                Some(landed) = desk.flight.next(), if !desk.flight.is_empty() => {
                    self.take(landed, &mut desk);
                }
            }
            self.evaluate(&mut desk);
        }
    }

    fn desk(&self) -> Desk {
        let mut due = BTreeMap::new();
        let mut indicators = Indicators::default();
        if let Some((service, _)) = self.wanted.declared() {
            due.insert(Job::Process, Instant::now());
            for (i, probe) in service.probes.iter().enumerate() {
                due.insert(Job::Probe(i), self.jittered(probe.interval.as_duration()));
            }
            if service.scrape.is_some() {
                due.insert(Job::Scrape, self.jittered(self.interval(Job::Scrape)));
            }
            indicators = Indicators::of(service);
            let of_host_alone = service.process.is_none();
            if of_host_alone || !indicators.list.is_empty() {
                due.insert(Job::Beside, Instant::now());
            }
        }
        Desk {
            due,
            indicators: Arc::new(indicators),
            counters_beside: None,
            flight: Flight::new(),
            proposing: false,
            last_scrape_error: None,
            refused: 0,
            treatment: Treatment::default(),
            treated_ms: None,
            foretelling: Foretelling::new(
                (self.timings.opens, self.timings.lead),
                self.now().mono_ms,
            ),
            trust: Arc::default(),
            put: Put::default(),
        }
    }

    /// First time of a job: within its interval, and within a second, so that instances do not beat
    /// together and a new owner is not late.
    fn jittered(&self, interval: Duration) -> Instant {
        let spread = interval.min(Duration::from_secs(1)).as_millis().max(1);
        let offset = u128::from(self.ledger.env().entropy.next_u64()) % spread;
        Instant::now() + Duration::from_millis(u64::try_from(offset).unwrap_or_default())
    }

    fn interval(&self, job: Job) -> Duration {
        let declared = self.wanted.declared().map(|(service, _)| service);
        let interval = match job {
            Job::Process => Some(self.timings.process),
            Job::Probe(i) => declared.and_then(|s| s.probes.get(i)).map(|probe| probe.interval),
            Job::Scrape | Job::Beside => {
                declared.and_then(|s| s.scrape.as_ref()).and_then(|s| s.interval)
            }
        };
        interval.unwrap_or(self.timings.scrape).as_duration().max(INTERVAL_MIN)
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.shared.mono_ms(), wall: self.ledger.env().clock.now() }
    }

    /// Begins what is due. A job in flight is due again only after it has landed.
    fn begin_due(&self, desk: &mut Desk) {
        let now = Instant::now();
        let ready: Vec<Job> =
            desk.due.iter().filter(|(_, at)| **at <= now).map(|(job, _)| *job).collect();
        for job in ready {
            desk.due.remove(&job);
            match job {
                Job::Process => {
                    let seen = self.senses.seen(&self.target);
                    let pushed = self.senses.pushed(&self.target);
                    let mut entity = lock(&self.entity);
                    entity.on_process(seen.as_ref(), self.now());
                    entity.on_pushed(pushed.as_ref(), self.now());
                    drop(entity);
                    desk.due.insert(job, now + self.interval(job));
                }
                Job::Probe(i) => self.begin_probe(i, desk),
                Job::Scrape => self.begin_scrape(desk),
                Job::Beside => {
                    let soon = self.look_beside(desk);
                    desk.due.insert(job, now + soon.unwrap_or(self.interval(job)));
                }
            }
        }
    }

    /// What stands beside the instance: in memory, like reports of its process. Gives how soon it is to be
    /// looked at again where counters were seen for the first time.
    fn look_beside(&self, desk: &mut Desk) -> Option<Duration> {
        let (service, instance) = self.wanted.declared()?;
        let whose = Whose { target: &self.target, service, instance };
        let now = self.now();
        let read = whose.samples(&*self.senses, &desk.indicators, now.wall);
        let values = (!read.samples.is_empty()).then(|| {
            desk.indicators.compute(
                &read,
                self.shared.clock(Instant::now()),
                &mut desk.counters_beside,
            )
        });
        let host = beside::host(&*self.senses, instance);
        let first = values.as_ref().is_some_and(Values::needs_second);
        let mut entity = lock(&self.entity);
        entity.on_host(host.as_deref(), now);
        entity.on_beside(values, now);
        first.then(|| Duration::from_millis(SECOND_MS).min(self.interval(Job::Beside)))
    }

    fn begin_probe(&self, i: usize, desk: &mut Desk) {
        let Some(look) = observers::look(&self.target, &self.wanted, i) else { return };
        let senses = self.senses.clone();
        let begun = Instant::now();
        desk.flight
            .push(Box::pin(async move { Landed::Probe(i, begun, look.taken(&*senses).await) }));
    }

    fn begin_scrape(&self, desk: &mut Desk) {
        let Some((service, instance)) = self.wanted.declared() else { return };
        let Some(scrape) = &service.scrape else { return };
        let url = fill(&scrape.url, &self.target.service, service, instance);
        let (senses, clock) = (self.senses.clone(), self.ledger.env().clock.clone());
        let indicators = desk.indicators.clone();
        desk.flight.push(Box::pin(async move {
            Landed::Scraped(read_once(&*senses, &*clock, &url, &indicators).await)
        }));
    }

    fn take(&self, landed: Landed, desk: &mut Desk) {
        let now = self.now();
        match landed {
            Landed::Probe(i, begun, judged) => {
                let declared = self.wanted.declared();
                let probe = declared.and_then(|(service, _)| service.probes.get(i));
                let soon = probe.and_then(|probe| {
                    desk.put.note(&self.target, &probe.name, judged.put);
                    let mut entity = lock(&self.entity);
                    entity.on_probe(&probe.name, judged.outcome, now);
                    entity.probe_again(&probe.name).map(Millis::as_duration)
                });
                let interval = self.interval(Job::Probe(i));
                let next = begun + soon.map_or(interval, |soon| soon.min(interval));
                // Not at once when it took longer than that.
                desk.due.insert(Job::Probe(i), next.max(Instant::now() + INTERVAL_MIN));
            }
            Landed::Scraped(result) => {
                let soon = {
                    let mut entity = lock(&self.entity);
                    let values = result.as_ref().map_err(ToString::to_string).map(|(read, at)| {
                        let at = self.shared.clock(*at);
                        let counters = &mut entity.counters;
                        let (values, complaint) = computed(&desk.indicators, read, at, counters);
                        self.note_refused(complaint, &mut desk.refused);
                        values
                    });
                    entity.on_scrape(values.as_ref().map_err(Clone::clone), now);
                    entity.look_again().map(Millis::as_duration)
                };
                let interval = self.interval(Job::Scrape);
                let next = soon.map_or(interval, |soon| soon.min(interval));
                desk.due.insert(Job::Scrape, Instant::now() + next);
                self.note_scrape(result.err(), desk);
            }
            Landed::Answered(change, trace, answer) => {
                desk.proposing = false;
                self.answered(change, trace, *answer, now);
            }
            Landed::Foretold(word, answer) => {
                desk.proposing = false;
                self.foretold(&word, *answer, desk, now);
            }
        }
    }

    /// Logs a scrape error when it is news.
    fn note_scrape(&self, error: Option<ScrapeError>, desk: &mut Desk) {
        if error != desk.last_scrape_error {
            match &error {
                Some(error) => tracing::warn!(target = %self.target, %error, "cannot be scraped"),
                None => tracing::info!(target = %self.target, "can be scraped again"),
            }
            desk.last_scrape_error = error;
        }
    }

    /// Logs what of a scrape is no measurement, when that is news.
    fn note_refused(&self, complaint: Option<Complaint>, known: &mut u8) {
        let kinds = complaint.as_ref().map_or(0, |(_, kinds)| *kinds);
        if let Some((refused, _)) = complaint.filter(|_| kinds & !*known != 0) {
            tracing::warn!(target = %self.target, refused, "is scraped in part");
        }
        *known = kinds;
    }

    fn evaluate(&self, desk: &mut Desk) {
        if desk.proposing {
            return;
        }
        let fingerprints = lock(&self.entity).fingerprints();
        let agent = self.wanted.declared().and_then(|(_, instance)| instance.agent.as_deref());
        let now = self.now();
        let limits = lock(&self.entity).limits_foretold();
        let limits = self.shared.corrected(&self.target.tenant, limits);
        let mut circumstances = self.ledger.read(|state| Circumstances {
            treated: desk.aftermath(Treatment::of(state, &self.target), now.mono_ms),
            agent_away: agent
                .is_some_and(|name| state.agents.get(name).is_some_and(|a| a.node.is_none())),
            unheld: (fingerprints.iter())
                .filter(|(_, fingerprint)| !state.fingerprints.contains_key(fingerprint))
                .map(|(kind, _)| *kind)
                .collect(),
            trust: Trust::of(state, &self.target.tenant, &desk.trust),
            doubted: foretell::doubted(&limits),
        });
        desk.trust.clone_from(&circumstances.trust);
        circumstances.agent_away &= agent.is_some_and(|name| !self.senses.connected(name));
        let seen = self.senses.seen(&self.target);
        let (change, scored) = {
            let mut entity = lock(&self.entity);
            if let Some(seen) = &seen {
                entity.on_config(seen);
            }
            let change = self
                .shared
                .prove(self.wanted.shard, |prover| entity.evaluate(&circumstances, prover, now));
            (change, entity.take_scored(&circumstances, now))
        };
        let home = (self.wanted.shard, self.wanted.epoch);
        self.shared.note_scored(home, &self.target.tenant, scored);
        if let Some(mut change) = change {
            if let Change::Report(_, symptom) = &mut change {
                desk.put.tell(symptom);
                evidence::add(symptom, &*self.senses, &self.target);
                foretell::relabel(symptom, &limits);
            }
            desk.proposing = true;
            desk.flight.push(self.propose(change));
        } else if !circumstances.treated
            && let Some(word) = self.foresee(desk, now)
        {
            // What a treatment does to it foretells nothing.
            desk.proposing = true;
            desk.flight.push(self.foretell(word));
        }
    }

    fn propose(&self, change: Change) -> Pin<Box<dyn Future<Output = Landed> + Send>> {
        let (shard, epoch) = (self.wanted.shard, self.wanted.epoch);
        let command = match &change {
            Change::Report(_, symptom) => Command::ReportSymptom(ReportSymptom {
                shard,
                epoch,
                symptom: symptom.as_ref().clone(),
            }),
            Change::Clear(_, fingerprint) => {
                Command::ClearSymptom(ClearSymptom { shard, epoch, fingerprint: *fingerprint })
            }
        };
        let ledger = self.ledger.clone();
        let trace = ledger.env().entropy.trace_id();
        let entry = ledger.entry(trace, command);
        Box::pin(async move {
            let answer = ledger.propose(entry).await;
            Landed::Answered(change, trace, Box::new(answer))
        })
    }

    fn answered(
        &self,
        change: Change,
        trace: TraceId,
        answer: Result<Committed, LedgerError>,
        now: Now,
    ) {
        let (metric, kind) = match &change {
            Change::Report(kind, _) => (Metric::Reports, *kind),
            Change::Clear(kind, _) => (Metric::Clears, *kind),
        };
        let result = match &answer {
            Ok(Committed { answer: Ok(Reply::Noted(_)), .. }) => "noted",
            Ok(Committed { answer: Ok(_), .. }) => "admitted",
            Ok(Committed { answer: Err(_), .. }) => "refused",
            Err(_) => "failed",
        };
        counter!(metric.name(), "kind" => kind.as_str(), "result" => result).increment(1);
        let committed = match answer {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!(target = %self.target, %kind, %error, "not proposed; trying again");
                return;
            }
        };
        match (change, committed.answer) {
            (Change::Report(kind, symptom), Ok(reply)) => {
                let held = matches!(reply, Reply::Incident(_));
                tracing::info!(target = %self.target, %kind, summary = symptom.summary, ?reply, %trace, "reported");
                lock(&self.entity).told(kind, &symptom, held, now);
            }
            (Change::Clear(kind, _), Ok(_) | Err(Refusal::NotFound(_))) => {
                tracing::info!(target = %self.target, %kind, "cleared");
                lock(&self.entity).cleared(kind);
            }
            (_, Err(Refusal::StaleEpoch { .. })) => self.end_stale(),
            (_, Err(refusal)) => {
                tracing::warn!(target = %self.target, %kind, %refusal, "refused; trying again");
            }
        }
    }

    /// The shard has another owner: nothing more is said here.
    fn end_stale(&self) {
        tracing::info!(target = %self.target, shard = %self.wanted.shard, "the shard has another owner");
        // The supervisor is gone only when everything ends.
        self.stale.send((self.wanted.shard, self.wanted.epoch)).unwrap_or_default();
        self.stop.cancel();
    }
}
