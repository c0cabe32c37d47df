//! The watch of this node over its shards.
//!
//! ```text
//!  applied state ─► wanted: instances of owned shards ─► one task each (watch)
//!       ▲                                                   │ probes, scrapes, agent reports
//!       └──────── ReportSymptom / ClearSymptom ◄────────────┘ under the shard's epoch
//! ```
//!
//! The supervisor compares what is wanted with what runs whenever the state changed, and at an
//! interval: a gained shard starts with the findings that the law holds (so that a new owner clears
//! what an old one reported), a lost one stops, a changed manifest starts its instances anew with the
//! detectors' state kept. A task that panics is counted, named, and started again after a growing
//! pause. A refusal because of an old epoch drops the shard at once.
//!
//! [`Learnt`] gives and takes detector state as bytes; `handover` carries them between nodes.

mod evidence;
mod foretell;
mod health;
mod learnt;
mod observers;
mod plan;
mod predictions;
mod replay;
mod treatment;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{
    Command, Epoch, Millis, Ppm, ShardId, command::ClearSymptom, state::State, symptom::Target,
};
use metrics::{counter, gauge};
use tokio::{
    sync::{Notify, mpsc},
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(super) use self::foretell::symptom_of;
pub use self::{
    health::Health,
    learnt::{Learnt, Took},
    predictions::{Foreseen, Predictions},
    replay::{Replay, Told},
};
use self::{learnt::Waiting, plan::Wanted, watch::Watcher};
use super::{
    entity::{BEGUN_MS, Entity, EntityCheckpoint, Now, Prover},
    foresight::outcomes::Outcomes,
    intake::Hub,
    lord::{self, Stream},
    metrics::Metric,
    observe::others::Others,
    predict::forecast::{Horizons, Opens},
    senses::{NetSenses, Senses},
};
use crate::{config::DetectionConfig, world::FleetView};

/// Even without a change the supervisor looks again after this time.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// Changes of the state are gathered for this long: the log may move thousands of times a second.
const SYNC_PAUSE: Duration = Duration::from_millis(100);
/// Instances of a service learn this often how failures follow each other in it.
const FAILURES_SHARED: Duration = Duration::from_secs(60);
/// First pause after a panic; doubles up to the second.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
const PANIC_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Timings of the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between scrapes, where the service does not say.
    pub scrape: Millis,
    /// Between looks at agents' reports (in memory).
    pub process: Millis,
    /// A predicted crossing is reported when it is nearer than this.
    pub lead: Millis,
    /// Other predictions that open an incident.
    pub opens: Opens,
    /// How far ahead predictions look.
    pub horizons: Horizons,
}

impl From<&DetectionConfig> for Timings {
    fn from(config: &DetectionConfig) -> Self {
        Self {
            scrape: config.interval,
            process: Millis(config.interval.0.min(1_000)),
            lead: config.lead,
            opens: config.opens,
            horizons: Horizons { general: config.horizon, certificate: config.certificate_horizon },
        }
    }
}

/// The running watch.
#[derive(Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

/// One watched instance, and the shard that it belongs to.
#[derive(Clone, Debug)]
struct Watched {
    shard: ShardId,
    /// Under which it is watched.
    epoch: Epoch,
    began_ms: u64,
    /// The epoch under which what it goes on from was learnt.
    from: Option<Epoch>,
    entity: Arc<Mutex<Entity>>,
}

/// What tasks and the runtime's handle share.
pub(super) struct Shared {
    senses: Arc<dyn Senses>,
    begun: Instant,
    entities: Mutex<BTreeMap<Target, Watched>>,
    restored: Mutex<BTreeMap<Target, Waiting>>,
    leaving: Mutex<BTreeMap<Target, (ShardId, Epoch, EntityCheckpoint)>>,
    /// Something is in `leaving`.
    left: Notify,
    outcomes: Arc<Mutex<Outcomes>>,
    /// One for each shard ever watched here or heard of, of 64.
    streams: Mutex<BTreeMap<ShardId, Stream>>,
    /// The level at which false findings are kept.
    level: Ppm,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn new(senses: Arc<dyn Senses>, level: Ppm) -> Self {
        Self {
            senses,
            begun: Instant::now(),
            entities: Mutex::default(),
            restored: Mutex::default(),
            leaving: Mutex::default(),
            left: Notify::new(),
            outcomes: Arc::default(),
            streams: Mutex::default(),
            level,
        }
    }

    /// A time on the clock that checkpoints go by.
    fn clock(&self, at: Instant) -> Duration {
        Duration::from_millis(BEGUN_MS).saturating_add(at.saturating_duration_since(self.begun))
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.clock(Instant::now()).as_millis()).unwrap_or(u64::MAX)
    }

    /// Looks with the stream of tests of a shard at hand.
    fn prove<T>(&self, shard: ShardId, look: impl FnOnce(&mut Prover<'_>) -> T) -> T {
        let mut streams = lock(&self.streams);
        let stream = streams.entry(shard).or_default();
        let before = (stream.tests(), stream.discoveries());
        let found = look(&mut Prover { stream: &mut *stream, level: self.level });
        for (result, now, before) in
            [("begun", stream.tests(), before.0), ("proven", stream.discoveries(), before.1)]
        {
            // It began to forget in between: what is there is new.
            let new = if now >= before { now - before } else { now };
            if new > 0 {
                counter!(Metric::Proofs.name(), "result" => result).increment(new);
            }
        }
        found
    }
}

impl Runtime {
    /// Starts watching over real sockets until `shutdown`.
    #[must_use]
    pub fn spawn(
        ledger: Arc<dyn Ledger>,
        fleet: Arc<dyn FleetView>,
        (intake, others): (Arc<Hub>, Arc<Others>),
        config: &DetectionConfig,
        shutdown: CancellationToken,
    ) -> Self {
        let senses = NetSenses::with(fleet, Some(intake), Some(others));
        let level = config.false_discovery_rate;
        Self::begin(ledger, senses, (Timings::from(config), level), shutdown)
    }

    /// Starts watching through any senses.
    #[must_use]
    pub fn spawn_with(
        ledger: Arc<dyn Ledger>,
        senses: Arc<dyn Senses>,
        timings: Timings,
        shutdown: CancellationToken,
    ) -> Self {
        Self::begin(ledger, senses, (timings, lord::LEVEL), shutdown)
    }

    fn begin(
        ledger: Arc<dyn Ledger>,
        senses: Arc<dyn Senses>,
        (timings, level): (Timings, Ppm),
        shutdown: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared::new(senses.clone(), level));
        let (stale_out, stale_in) = mpsc::unbounded_channel();
        let supervisor = Supervisor {
            ledger,
            senses,
            timings,
            shutdown,
            shared: shared.clone(),
            tasks: JoinSet::new(),
            by_id: HashMap::new(),
            running: BTreeMap::new(),
            panics: BTreeMap::new(),
            stale: BTreeMap::new(),
            stale_out,
            orphans_next: Instant::now(),
            failures_next: Instant::now(),
        };
        Self { shared, supervisor: tokio::spawn(supervisor.run(stale_in)) }
    }

    /// What its detectors have learnt.
    #[must_use]
    pub fn learnt(&self) -> Learnt {
        Learnt(self.shared.clone())
    }

    /// Waits until every task has ended (after `shutdown`).
    ///
    /// # Errors
    /// When the supervisor panicked: nothing is watched any more.
    pub async fn ended(self) -> Result<(), String> {
        self.supervisor.await.map_err(|error| format!("its supervisor failed: {error}"))
    }
}

/// Locks; a poisoned lock is taken over, since every holder leaves the value whole.
pub(in crate::detection) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running task.
#[derive(Debug)]
struct Running {
    wanted: Wanted,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Panicked {
    times: u32,
    not_before: Instant,
}

struct Supervisor {
    ledger: Arc<dyn Ledger>,
    senses: Arc<dyn Senses>,
    timings: Timings,
    shutdown: CancellationToken,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    by_id: HashMap<Id, Target>,
    running: BTreeMap<Target, Running>,
    panics: BTreeMap<Target, Panicked>,
    stale: BTreeMap<ShardId, Epoch>,
    stale_out: mpsc::UnboundedSender<(ShardId, Epoch)>,
    orphans_next: Instant,
    failures_next: Instant,
}

impl Supervisor {
    async fn run(mut self, mut stale_in: mpsc::UnboundedReceiver<(ShardId, Epoch)>) {
        let mut applied = self.ledger.applied();
        loop {
            applied.mark_unchanged();
            self.sync();
            self.clear_orphans().await;
            let pause = tokio::time::sleep(SYNC_PAUSE);
            tokio::pin!(pause);
            let mut look_again = false;
            while !look_again || !pause.is_elapsed() {
                tokio::select! {
                    () = self.shutdown.cancelled() => return self.end().await,
                    Some((shard, epoch)) = stale_in.recv() => {
                        self.stale.insert(shard, epoch);
                        look_again = true;
                    }
                    Some(ended) = self.tasks.join_next_with_id() => {
                        look_again |= self.note_end(ended);
                    }
                    () = &mut pause, if !pause.is_elapsed() => {}
                    changed = applied.changed(), if !look_again => {
                        if changed.is_err() { return self.end().await }
                        look_again = true;
                    }
                    () = tokio::time::sleep(SYNC_INTERVAL) => look_again = true,
                }
            }
        }
    }

    async fn end(mut self) {
        self.running.values().for_each(|running| running.stop.cancel());
        while self.tasks.join_next().await.is_some() {}
    }

    /// Starts and stops tasks until what runs is what is wanted.
    fn sync(&mut self) {
        let node = self.ledger.node();
        let wanted = self.ledger.read(|state| plan::wanted(state, node, &self.stale));
        self.stale.retain(|shard, epoch| {
            self.ledger.read(|state| state.shards.get(shard).is_some_and(|s| s.epoch <= *epoch))
        });
        let gone: Vec<Target> = (self.running.iter())
            .filter(|(target, running)| wanted.get(*target) != Some(&running.wanted))
            .map(|(target, _)| target.clone())
            .collect();
        for target in gone {
            self.stop(&target, wanted.contains_key(&target));
        }
        self.panics.retain(|target, _| wanted.contains_key(target));
        let now = Instant::now();
        for (target, one) in wanted {
            let waits = self.panics.get(&target).is_some_and(|p| p.not_before > now);
            if !waits && !self.running.contains_key(&target) {
                self.start(target, one);
            }
        }
        if self.failures_next <= now {
            self.failures_next = now + FAILURES_SHARED;
            let wall = self.ledger.env().clock.now();
            self.shared.share_failures(Now { mono_ms: self.shared.mono_ms(), wall });
        }
        self.gauges(node);
    }

    fn start(&mut self, target: Target, wanted: Wanted) {
        let now = Now { mono_ms: self.shared.mono_ms(), wall: self.ledger.env().clock.now() };
        let source = wanted.shard.to_string();
        let Some((service, instance)) = wanted.declared() else { return };
        let lead = self.timings.lead;
        let mut entity = Entity::new(target.clone(), source, service, instance, lead, now);
        entity.look_ahead(self.timings.horizons);
        for (kind, since) in self.ledger.read(|state| plan::held(state, &target)) {
            entity.adopt(kind, since);
        }
        let mut from = None;
        if let Some((epoch, checkpoint, came)) = self.shared.begin_with(&target) {
            self.shared.go_on(&mut entity, checkpoint, came);
            from = Some(epoch);
            counter!(Metric::WarmStarts.name()).increment(1);
        }
        let apart = entity.apart_count();
        // Once for a service as declared: its instances have the same indicators, and the same owner.
        if apart > 0 && wanted.position == 0 {
            let watched = entity.series_count();
            tracing::warn!(service = %target.service, tenant = %target.tenant, watched, apart, "too many indicators to be looked at together: the last by name are watched each by itself alone");
        }
        let entity = Arc::new(Mutex::new(entity));
        let Wanted { shard, epoch, .. } = wanted;
        let began_ms = now.mono_ms;
        let watched = Watched { shard, epoch, began_ms, from, entity: entity.clone() };
        lock(&self.shared.entities).insert(target.clone(), watched);
        let stop = self.shutdown.child_token();
        let watcher = Watcher {
            ledger: self.ledger.clone(),
            senses: self.senses.clone(),
            timings: self.timings,
            shared: self.shared.clone(),
            target: target.clone(),
            wanted: wanted.clone(),
            entity,
            stop: stop.clone(),
            stale: self.stale_out.clone(),
        };
        let handle = self.tasks.spawn(watcher.run());
        self.by_id.insert(handle.id(), target.clone());
        self.running.insert(target, Running { wanted, stop });
    }

    /// `again`: it will be started anew, with what the detectors know; else whoever watches it now is
    /// told what they know.
    fn stop(&mut self, target: &Target, again: bool) {
        if let Some(running) = self.running.remove(target) {
            running.stop.cancel();
        }
        let watched = lock(&self.shared.entities).remove(target);
        if let Some(Watched { shard, epoch, entity, .. }) = watched {
            let now = Now { mono_ms: self.shared.mono_ms(), ..Now::default() };
            let checkpoint = self.shared.checkpoint(&lock(&entity), now);
            self.shared.keep((shard, epoch), checkpoint, again);
        }
    }

    /// A task has ended; tells whether that was its own doing.
    fn note_end(&mut self, ended: Result<(Id, ()), JoinError>) -> bool {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(target) = self.by_id.remove(&id) else { return false };
        let Err(error) = ended else { return false };
        counter!(Metric::TaskPanics.name()).increment(1);
        let times = self.panics.get(&target).map_or(1, |p| p.times.saturating_add(1));
        let pause = PANIC_PAUSE.saturating_mul(1 << (times - 1).min(6)).min(PANIC_PAUSE_MAX);
        tracing::error!(%target, %error, times, ?pause, "watching it panicked; starting again");
        // Not with the state that it panicked over.
        self.running.remove(&target);
        lock(&self.shared.entities).remove(&target);
        self.panics.insert(target, Panicked { times, not_before: Instant::now() + pause });
        true
    }

    /// Findings of owned shards about instances that are declared no longer: nobody else clears them.
    async fn clear_orphans(&mut self) {
        if self.orphans_next > Instant::now() {
            return;
        }
        self.orphans_next = Instant::now() + SYNC_INTERVAL;
        let node = self.ledger.node();
        let orphans = self.ledger.read(|state| plan::orphans(state, node));
        for (shard, epoch, fingerprint) in orphans {
            let clear = Command::ClearSymptom(ClearSymptom { shard, epoch, fingerprint });
            let entry = self.ledger.entry(self.ledger.env().entropy.trace_id(), clear);
            match self.ledger.propose(entry).await {
                Ok(committed) => {
                    tracing::info!(%fingerprint, answer = ?committed.answer, "cleared a finding about an instance that is gone");
                }
                Err(error) => {
                    // The rest would wait as long: shards that come meanwhile are more urgent.
                    tracing::debug!(%fingerprint, %error, "not cleared yet");
                    return;
                }
            }
        }
    }

    fn gauges(&self, node: medic_state::NodeId) {
        let entities = lock(&self.shared.entities);
        let (mut series, mut active) = (0, 0);
        for watched in entities.values() {
            let entity = lock(&watched.entity);
            series += entity.series_count();
            active += entity.active_count();
        }
        let owned = |state: &State| state.shards.values().filter(|s| s.owner == Some(node)).count();
        gauge!(Metric::Instances.name()).set(entities.len() as f64);
        gauge!(Metric::Series.name()).set(series as f64);
        gauge!(Metric::ActiveFindings.name()).set(active as f64);
        gauge!(Metric::Shards.name()).set(self.ledger.read(owned) as f64);
    }
}

#[cfg(test)]
mod tests;
