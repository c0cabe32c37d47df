//! One watched instance: what was seen of it, which findings are active, what to tell the law.
//!
//! ```text
//!  on_process ─┐
//!  on_probe   ─┼─► tracks (streaks) ─► votes ─► agreement ─► Raise ─► repeat (30 s, or changed) ─► Clear
//!  on_scrape  ─┘                                              (confirmed)          (3 good of every voter)
//! ```
//!
//! Pure: time is an argument. Guards, in one place:
//! * stopped on purpose, or a standby nobody says runs: nothing is wrong with it;
//! * started less than 3 s ago: network checks do not count yet (a death does);
//! * treated right now (a step of a plan runs on it): active findings go on and clear, nothing new is
//!   raised, because what the treatment does looks like a fault. Streaks go on, so that what is still
//!   wrong when the steps end is raised with the first word that is of after them ([`figures`]).
//!
//! Invariant: a finding is repeated only while somebody votes for it, and cleared only by good data
//! from those who voted, never by silence.

pub mod carried;
mod checkpoint;
mod closer;
mod figures;
mod guard;
mod health;
mod host;
mod lasting;
mod prognosis;
mod proof;
mod pushed;
mod silence;
mod telling;
mod text;
mod together;
mod track;
mod trust;
mod votes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(in crate::detection) use checkpoint::short;
pub use checkpoint::{EntityCheckpoint, Misfits};
pub(in crate::detection) use closer::SECOND_MS;
use health::BudgetWatch;
pub use prognosis::Foreknown;
use prognosis::Prognosis;
use proof::Proofs;
pub use proof::Prover;
use trust::Standing;
pub use trust::Trust;

use medic_state::{
    Millis, Timestamp,
    manifest::{InstanceSpec, ServiceSpec},
    symptom::{Fingerprint, Severity, Symptom, Target},
};

use super::{
    counted::Measured,
    detector::{Moment, SETTLE_MS, Series},
    ensemble::{self, Kind, Voter},
    indicator::{Counters, Values},
    probe::{Liveness, Outcome, liveness},
};
use crate::world::Seen;
use together::Together;
use track::{ProcessTrack, Track};

/// Network checks of a process this young do not count.
pub const GRACE_MS: u64 = 3_000;
/// An active finding is reported again after this time.
pub const REPEAT_MS: u64 = 30_000;
/// A report that got no answer, or whose content changed, waits at least this long.
const AGAIN_MS: u64 = 2_000;
/// An agent away from every node for this long is lost.
const AGENT_LOST_MS: u64 = 10_000;
/// A voter without data for this long no longer keeps a finding open, if another is good.
const SILENT_MS: u64 = 30_000;

/// Where a node's monotonic clock begins: so late that what another node has seen long before this one began
/// (some 35 years) has a time here too.
pub const BEGUN_MS: u64 = 1 << 40;

/// The two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds since any fixed point; of a node, [`BEGUN_MS`] when it begins.
    pub mono_ms: u64,
    /// The wall's.
    pub wall: Timestamp,
}

/// What the state says about the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Steps of a plan run on it.
    pub treated: bool,
    /// Its agent is known, and connected to no node.
    pub agent_away: bool,
    /// Active findings of this entity that no open incident holds (any more).
    pub unheld: BTreeSet<Kind>,
    /// How far detectors are believed in its tenant.
    pub trust: Arc<Trust>,
    /// Indicators whose limits such predictions as now did mostly not come true of, in its tenant.
    pub doubted: BTreeSet<String>,
}

/// What the law should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This is seen.
    Report(Kind, Box<Symptom>),
    /// This is seen no longer.
    Clear(Kind, Fingerprint),
}

/// A finding that the law was, or will be, told of.
#[derive(Clone, Debug)]
struct Active {
    voters: BTreeSet<Voter>,
    /// Who has stated a fact, of this kind or beside it.
    facts: BTreeSet<Voter>,
    since: Timestamp,
    told: Option<Told>,
    tried_ms: Option<u64>,
}

/// What was last admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    at_ms: u64,
    severity: Severity,
    voters: BTreeSet<Voter>,
    facts: BTreeSet<Voter>,
    process: Liveness,
    /// The version before the configuration in force: another one, another roll-out.
    previous_config: String,
    /// An incident took it in; else it was only noted (silenced, for example).
    held: bool,
}

/// One instance.
#[derive(Debug)]
pub struct Entity {
    target: Target,
    source: String,
    standby: bool,
    /// An agent runs a process of it, and speaks of it.
    has_process: bool,
    process: ProcessTrack,
    agent_away_ms: Option<u64>,
    agent_back_ms: u64,
    probes: BTreeMap<String, Track>,
    series: BTreeMap<String, Series>,
    fed: pushed::Fed,
    together: Together,
    lasting: lasting::Lasting,
    suspected: Option<Timestamp>,
    active: BTreeMap<Kind, Active>,
    lead_s: f64,
    begun_ms: u64,
    /// Since when it has been watched, here or by whoever watched it before.
    watched_since_ms: u64,
    prognosis: Prognosis,
    budget: Option<BudgetWatch>,
    standing: Standing,
    /// The version of the weights that its series go by.
    heard: u64,
    proofs: Proofs,
    /// Why an indicator has no value.
    silence: BTreeMap<String, String>,
    silences: silence::Silences,
    sources: checkpoint::Sources,
    /// Counters as last scraped, here or by whoever watched it before.
    pub(in crate::detection) counters: Option<Counters>,
    guard: guard::Guard,
    figures: figures::Figures,
    /// Indicators whose figures are a host's.
    of_host: BTreeSet<String>,
    unread: host::Unread,
}

impl Entity {
    /// Nothing seen yet. `source` is how reports are signed; `lead` how far ahead predictions look.
    #[must_use]
    pub fn new(
        target: Target,
        source: String,
        service: &ServiceSpec,
        instance: &InstanceSpec,
        lead: Millis,
        now: Now,
    ) -> Self {
        let series: BTreeMap<_, _> =
            service.indicators.iter().map(|i| (i.name.clone(), Series::new(i, service))).collect();
        Self {
            target,
            source,
            standby: instance.standby,
            has_process: instance.agent.is_some() && service.process.is_some(),
            process: ProcessTrack::default(),
            agent_away_ms: None,
            agent_back_ms: now.mono_ms,
            probes: service.probes.iter().map(|p| (p.name.clone(), Track::default())).collect(),
            fed: pushed::Fed::new(service.scrape.is_some()),
            together: Together::new(series.len()),
            lasting: lasting::Lasting::default(),
            series,
            suspected: None,
            active: BTreeMap::new(),
            lead_s: lead.as_duration().as_secs_f64(),
            begun_ms: now.mono_ms,
            watched_since_ms: now.mono_ms,
            prognosis: Prognosis::new(service, now),
            budget: BudgetWatch::of(service),
            standing: Standing::default(),
            heard: 0,
            proofs: Proofs::default(),
            silence: BTreeMap::new(),
            silences: silence::Silences::new(service),
            sources: checkpoint::Sources::of(service),
            counters: None,
            guard: guard::Guard::new(service, instance),
            figures: figures::Figures::default(),
            of_host: health::of_host(service),
            unread: host::Unread::new(service),
        }
    }

    /// Takes over a finding that the law knows from an earlier owner (or an earlier form of this
    /// entity): everybody who could have voted for it must be good before it is cleared.
    pub fn adopt(&mut self, kind: Kind, since: Timestamp) {
        let voters = self.eligible(kind);
        let facts = BTreeSet::new();
        let adopted = Active { voters, facts, since, told: None, tried_ms: None };
        self.active.entry(kind).or_insert(adopted);
    }

    /// Indicators watched.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Indicators that are too many to be looked at together with the others.
    #[must_use]
    pub fn apart_count(&self) -> usize {
        self.series.len().saturating_sub(together::TOGETHER_MAX)
    }

    /// Findings active.
    #[must_use]
    pub fn active_count(&self) -> usize {
        self.active.len()
    }

    /// The agent's last word (or none).
    pub fn on_process(&mut self, seen: Option<&Seen>, now: Now) {
        if let Some(seen) = seen {
            self.on_config(seen);
        }
        let process = &mut self.process;
        let was = process.liveness;
        process.liveness = liveness(seen);
        if process.liveness == Liveness::Dead && was == Liveness::Running {
            self.prognosis.failed(now);
        }
        if let Some(seen) = seen {
            let status = &seen.status;
            process.last_exit.clone_from(&status.last_exit);
            let incarnation = Some((status.pid, status.started_unix_ms));
            if process.liveness == Liveness::Running && process.incarnation != incarnation {
                process.incarnation = incarnation;
                process.since_ms = now.mono_ms;
                self.series.values_mut().for_each(Series::process_changed);
                self.silences.process_changed();
                self.prognosis.replaced(now);
                self.guard.forget();
            }
        }
        let outcome = super::probe::check_process(seen);
        self.process.track.note(outcome, now);
        match seen.filter(|_| self.process.liveness == Liveness::Running) {
            Some(Seen { status, .. }) => {
                status.guard.iter().for_each(|said| self.guard.note(said, now));
            }
            None if self.has_process => self.guard.forget(),
            None => {}
        }
        if self.has_process {
            self.heed(&Voter::Process, now);
            self.heed_guard(now);
        }
    }

    /// The configuration, as the agent last told: what is reported now should say what it was changed
    /// to a moment ago. Counts as no look at the process.
    pub fn on_config(&mut self, seen: &Seen) {
        let status = &seen.status;
        self.process.config_changed = Timestamp(status.config_changed_unix_ms);
        self.process.previous_config.clone_from(&status.previous_config_hash);
    }

    /// A probe has an outcome.
    pub fn on_probe(&mut self, name: &str, outcome: Outcome, now: Now) {
        if let Some(track) = self.probes.get_mut(name) {
            track.note(outcome, now);
            self.heed(&Voter::Probe(name.to_owned()), now);
        }
    }

    /// A scrape gave these values, or failed for this reason.
    pub fn on_scrape(&mut self, values: Result<&Values, String>, now: Now) {
        self.figures.looked();
        self.fed.scraped(values.as_ref().ok().copied());
        let beside = self.fed.take_beside(now.mono_ms).into_iter();
        let mut given: BTreeMap<String, Measured> =
            beside.map(|(name, value)| (name, Measured::exact(value))).collect();
        if let Ok(values) = &values {
            given.extend(values.measured().map(|(name, measured)| (name.to_owned(), measured)));
        }
        if values.is_ok() || !given.is_empty() {
            self.feed(given.iter().map(|(name, measured)| (name.as_str(), *measured)), now);
        }
        if values.is_err() {
            self.together.no_values();
        }
        for (name, series) in &mut self.series {
            let why = match &values {
                _ if given.contains_key(name) => None,
                Ok(values) => Some(values.missing.get(name).cloned().unwrap_or_default()),
                Err(why) => Some(why.clone()),
            };
            match why.filter(|_| !self.fed.by_pushes(name, now.mono_ms)) {
                Some(why) => {
                    series.no_value();
                    self.silence.insert(name.clone(), why);
                }
                None => drop(self.silence.remove(name)),
            }
        }
        self.heed_indicators(now);
    }

    /// Gives values, in the order of their names, to their series.
    fn feed<'n>(&mut self, values: impl Iterator<Item = (&'n str, Measured)>, now: Now) {
        let known_since = match self.process.incarnation {
            Some(_) => self.process.since_ms,
            None => self.watched_since_ms,
        };
        let settled = now.mono_ms.saturating_sub(known_since) >= SETTLE_MS;
        let suspects: BTreeSet<&Voter> =
            self.active.values().flat_map(|active| &active.voters).collect();
        let treated = self.figures.reach_into_treatment();
        let mut values = values.peekable();
        let mut row = vec![f64::NAN; self.series.len()];
        for ((name, series), cell) in self.series.iter_mut().zip(&mut row) {
            while values.next_if(|(other, _)| *other < name.as_str()).is_some() {}
            let Some((_, measured)) = values.next_if(|(other, _)| other == name) else { continue };
            *cell = measured.value;
            if let Some(budget) = self.budget.as_mut().filter(|budget| budget.indicator == *name) {
                budget.note(measured.value, now);
            }
            self.silences.valued(name);
            let suspect = !suspects.is_empty() && suspects.contains(&Voter::Series(name.clone()));
            let moment = Moment { settled, suspect, treated };
            series.update(now.mono_ms, measured, self.lead_s, moment);
            self.lasting.note(series, now);
        }
        self.together.update(&row, now);
        self.figures.came(now);
        self.prognosis.scraped(&self.series, settled, now);
    }

    /// What the law should be told next, if anything; one thing at a time, the weightiest first.
    /// Nothing is remembered as told until [`Self::told`] or
    /// [`Self::cleared`] says so. What rests on detectors alone is new only once the prover says so.
    pub fn evaluate(
        &mut self,
        circumstances: &Circumstances,
        prover: &mut Prover<'_>,
        now: Now,
    ) -> Option<Change> {
        self.note_agent(circumstances, now);
        self.figures.treated(circumstances.treated, now);
        self.heed_weights(&circumstances.trust);
        let votes = self.votes(now);
        let votes = self.standing.believed(votes, &circumstances.trust, now);
        let votes = self.unless_doubted(votes, &circumstances.doubted);
        self.suspected = match (votes.is_empty(), self.suspected) {
            (true, _) => None,
            (false, None) => Some(now.wall),
            (false, since) => since,
        };
        let tested = circumstances.trust.tests(self.series.keys()) + self.probes.len() as f64;
        let fresh = self.fresh_votes(&votes);
        if let Some(finding) = ensemble::agree(&fresh, tested)
            && (!self.news(finding.kind, circumstances)
                || self.proofs.proven(finding.kind, (fresh.as_slice(), tested), prover, now))
        {
            self.raise(finding, circumstances, now);
        }
        self.excuse_silence(circumstances, now);
        let silent = self.silent(now);
        if let Some(finding) = silent.clone() {
            self.raise(finding, circumstances, now);
        }
        let kinds: Vec<Kind> = self.active.keys().copied().collect();
        kinds.into_iter().find_map(|kind| {
            let found = match kind {
                Kind::MonitorSilent => silent.clone(),
                _ => ensemble::describe(kind, &votes, tested),
            };
            if let Some(finding) = found {
                self.report(finding, circumstances.unheld.contains(&kind), now)
            } else if self.over(kind, now) {
                self.clear(kind, now)
            } else {
                None
            }
        })
    }

    /// The law admitted a report; `held`: into an incident.
    pub fn told(&mut self, kind: Kind, symptom: &Symptom, held: bool, now: Now) {
        let process = self.process.liveness;
        if let Some(active) = self.active.get_mut(&kind) {
            active.told = Some(Told {
                at_ms: now.mono_ms,
                severity: symptom.severity,
                voters: active.voters.clone(),
                facts: active.facts.clone(),
                process,
                previous_config: symptom.labels.get("previous_config").cloned().unwrap_or_default(),
                held,
            });
        }
    }

    /// Fingerprints of the active findings.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<(Kind, Fingerprint)> {
        self.active.keys().map(|kind| (*kind, self.fingerprint(*kind))).collect()
    }

    /// The law admitted a clear, or knows nothing of it.
    pub fn cleared(&mut self, kind: Kind) {
        self.active.remove(&kind);
    }

    fn heed_weights(&mut self, trust: &Trust) {
        if self.heard != trust.version() {
            self.heard = trust.version();
            self.series.values_mut().for_each(|series| series.heed(trust.eager(&series.name)));
        }
    }

    fn note_agent(&mut self, circumstances: &Circumstances, now: Now) {
        if circumstances.agent_away {
            self.agent_away_ms.get_or_insert(now.mono_ms);
        } else if self.agent_away_ms.take().is_some() {
            self.agent_back_ms = now.mono_ms;
        }
    }

    fn fingerprint(&self, kind: Kind) -> Fingerprint {
        fingerprint_of(&self.target, kind.as_str())
    }
}

/// The fingerprint of a finding, without its symptom.
pub(in crate::detection) fn fingerprint_of(target: &Target, kind: &str) -> Fingerprint {
    Symptom {
        target: target.clone(),
        kind: kind.to_owned(),
        severity: Severity::Info,
        summary: String::new(),
        p_value: medic_state::Ppm::ONE,
        signals: Vec::new(),
        since: Timestamp(0),
        time_to_event: None,
        labels: BTreeMap::new(),
        source: String::new(),
    }
    .fingerprint()
}

#[cfg(test)]
mod tests;
