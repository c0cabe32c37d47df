//! An instance's history, gone through as its owner would have: the same entity, the same foretelling, and a law
//! that admits at once whatever it is told.
//!
//! ```text
//!   row ─► what the row before left to the test of time ─► on_scrape ─► evaluate, until all is told ─► foretell
//! ```
//!
//! A row is a scrape that came at its time, and what it says stands until the next one. So nothing happens
//! between two rows but that a finding which must last is proven ([`Prover`]): it is asked again at each time
//! that adds to its evidence, a few times at the most, however far apart rows are.
//!
//! Invariant: what is told about a time rests on rows up to that time alone. Deliberately absent: probes,
//! processes, agents and treatments, of which rows say nothing; and closer looks: who watches live scrapes
//! again after seconds where a value leaves a question open, while a history has the rows that it has.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Epoch, Ppm, Timestamp,
    manifest::{IndicatorSource, InstanceSpec, ServiceSpec},
    symptom::{Symptom, Target},
};

use super::{
    Timings,
    foretell::{self, Foretelling, Topic, Word},
};
use crate::detection::{
    counted::{NO_SERIES, NOTHING_COUNTED, NOTHING_OBSERVED},
    ensemble::Kind,
    entity::{
        BEGUN_MS, Change, Circumstances, Entity, Now, Prover,
        carried::{BadCheckpoint, Carried},
    },
    indicator::Values,
    lord::Stream,
    predict::{forecast::Forecast, record::Record},
};

/// How its reports are signed.
const SOURCE: &str = "backtest";
/// Times further apart than so many of the usual steps are a gap: what was said before it does not stand until
/// it ends. As for pushes, of which so many may be missed.
const STEPS_STOOD: u64 = 4;
/// What is told about one row at the most: every kind may end, and begin.
const WORDS_MAX: usize = 2 * Kind::ALL.len();

/// What the law would have been told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// This is seen: for the first time, or again.
    Report(Box<Symptom>),
    /// A finding of this kind is over.
    Clear(&'static str),
}

/// One instance, and how far its history has been gone through.
#[derive(Debug)]
pub struct Replay {
    entity: Entity,
    target: Target,
    /// Of a shard of its own.
    stream: Stream,
    level: Ppm,
    foretelling: Foretelling,
    held: BTreeSet<Topic>,
    /// What the law holds of the entity's findings: since when.
    reported: BTreeMap<Kind, Timestamp>,
    /// What became of its predictions.
    record: Record,
    /// Why a value is missing, by indicator.
    missing: BTreeMap<String, &'static str>,
    now: Now,
    /// The time of the newest row, as its history tells it.
    row_ms: Option<i64>,
    usual_ms: u64,
    anew: bool,
}

impl Replay {
    /// Nothing seen yet; its first row comes at this time (Unix, milliseconds).
    #[must_use]
    pub fn new(
        target: Target,
        service: &ServiceSpec,
        (timings, level): (Timings, Ppm),
        first_ms: i64,
    ) -> Self {
        let now = Now { mono_ms: BEGUN_MS, wall: wall(first_ms) };
        Self::of(target, service, (timings, level), now)
    }

    fn of(
        target: Target,
        service: &ServiceSpec,
        (timings, level): (Timings, Ppm),
        now: Now,
    ) -> Self {
        let instance = InstanceSpec {
            name: target.instance.clone(),
            agent: None,
            host: String::new(),
            port: None,
            region: None,
            standby: false,
            quorum_member: false,
        };
        let source = SOURCE.to_owned();
        let mut entity = Entity::new(target.clone(), source, service, &instance, timings.lead, now);
        entity.look_ahead(timings.horizons);
        // What a share or a quantile of nothing is, histories leave empty.
        let why = |source: &IndicatorSource| match source {
            IndicatorSource::Ratio { .. } => NOTHING_COUNTED,
            IndicatorSource::Quantile { .. } => NOTHING_OBSERVED,
            IndicatorSource::Gauge(_) | IndicatorSource::Rate(_) => NO_SERIES,
        };
        Self {
            entity,
            target,
            stream: Stream::default(),
            level,
            foretelling: Foretelling::new((timings.opens, timings.lead), now.mono_ms),
            held: BTreeSet::new(),
            reported: BTreeMap::new(),
            record: Record::default(),
            missing: service
                .indicators
                .iter()
                .map(|one| (one.name.clone(), why(&one.source)))
                .collect(),
            now,
            row_ms: None,
            usual_ms: 0,
            anew: false,
        }
    }

    /// Indicators that are too many to be looked at together with the others.
    #[must_use]
    pub fn apart_count(&self) -> usize {
        self.entity.apart_count()
    }

    /// Takes the row of a time in, its values by indicator, those that are missing left out; hands over what would
    /// have been told, and when. Whether it was taken: a row that is not later than the one before is none.
    pub fn row(
        &mut self,
        at_ms: i64,
        values: BTreeMap<String, f64>,
        told: &mut impl FnMut(Timestamp, Told),
    ) -> bool {
        let Some(next_ms) = self.step_to(at_ms) else { return false };
        self.prove_until(next_ms, told);
        self.row_ms = Some(at_ms);
        self.now = Now { mono_ms: next_ms, wall: wall(at_ms) };
        let why = self.missing.iter().filter(|(name, _)| !values.contains_key(*name));
        let missing = why.map(|(name, why)| (name.clone(), (*why).to_owned())).collect();
        let values = Values { values, missing, ..Values::default() };
        self.entity.on_scrape(Ok(&values), self.now);
        self.evaluate(told);
        self.foretell(told);
        true
    }

    /// What was told is forgotten, what was learnt is not: what stands still is told anew. Rows that follow may
    /// begin at any time.
    pub fn begin_anew(&mut self) {
        for (kind, _) in self.entity.fingerprints() {
            self.entity.cleared(kind);
        }
        self.reported.clear();
        for topic in std::mem::take(&mut self.held) {
            self.foretelling.cleared(topic);
        }
        self.anew = true;
    }

    /// As when its shard moves: another owner goes on with what a checkpoint carries and what the law holds.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn moved(
        self,
        service: &ServiceSpec,
        (timings, level): (Timings, Ppm),
    ) -> Result<Self, BadCheckpoint> {
        let mut learnt = self.entity.checkpoint(self.now);
        learnt.stream = Some(self.stream);
        let learnt = Carried::new(Epoch::default(), &learnt).open()?;
        let begun = (timings, level);
        let mut heir = Self::of(self.target, service, begun, self.now);
        for (kind, since) in &self.reported {
            heir.entity.adopt(*kind, *since);
        }
        heir.stream = learnt.stream.clone().unwrap_or_default();
        heir.entity.restore(learnt, self.now);
        let Self { held, reported, record, row_ms, usual_ms, anew, .. } = self;
        Ok(Self { held, reported, record, row_ms, usual_ms, anew, ..heir })
    }

    /// When a row comes, by the monotonic clock; `None`: not after the one before.
    fn step_to(&mut self, at_ms: i64) -> Option<u64> {
        let Some(before) = self.row_ms else { return Some(self.now.mono_ms) };
        let after = u64::try_from(at_ms.saturating_sub(before)).ok().filter(|after| *after > 0);
        // Another history goes on a step after the one before, where its own times do not say it.
        let other = std::mem::take(&mut self.anew).then_some(self.usual_ms.max(1));
        let after = after.or(other)?;
        // At once when it grows, slowly when it shrinks; one gap is not yet another step.
        self.usual_ms = match self.usual_ms {
            0 => after,
            usual => after.min(usual.saturating_mul(2)).max(usual / 4 * 3),
        };
        Some(self.now.mono_ms.saturating_add(after))
    }

    /// Asks again at the times before the next row that prove more.
    fn prove_until(&mut self, next_ms: u64, told: &mut impl FnMut(Timestamp, Told)) {
        let gap = next_ms.saturating_sub(self.now.mono_ms);
        if gap > self.usual_ms.saturating_mul(STEPS_STOOD) {
            return;
        }
        while let Some(at_ms) = self.entity.more_proof_ms(self.now).filter(|at| *at < next_ms) {
            self.entity.votes_stood(self.now, at_ms);
            self.now.wall.0 += at_ms.saturating_sub(self.now.mono_ms);
            self.now.mono_ms = at_ms;
            self.evaluate(told);
        }
        self.entity.votes_stood(self.now, next_ms);
    }

    /// Evaluates until there is nothing to tell.
    fn evaluate(&mut self, told: &mut impl FnMut(Timestamp, Told)) {
        let limits = self.corrected(self.entity.limits_foretold());
        let circumstances =
            Circumstances { doubted: foretell::doubted(&limits), ..Circumstances::default() };
        for _ in 0..WORDS_MAX {
            let mut prover = Prover { stream: &mut self.stream, level: self.level };
            match self.entity.evaluate(&circumstances, &mut prover, self.now) {
                None => break,
                Some(Change::Report(kind, mut symptom)) => {
                    foretell::relabel(&mut symptom, &limits);
                    self.entity.told(kind, &symptom, true, self.now);
                    self.reported.entry(kind).or_insert(symptom.since);
                    told(self.now.wall, Told::Report(symptom));
                }
                Some(Change::Clear(kind, _)) => {
                    self.entity.cleared(kind);
                    self.reported.remove(&kind);
                    told(self.now.wall, Told::Clear(kind.as_str()));
                }
            }
        }
        for scored in self.entity.take_scored(&circumstances, self.now) {
            self.record.note(scored);
        }
    }

    /// What is foreseen beside limits, and what of it has come to pass.
    fn foretell(&mut self, told: &mut impl FnMut(Timestamp, Told)) {
        if !self.foretelling.due(self.now) {
            return;
        }
        let forecasts = self.corrected(self.entity.forecasts(self.now));
        let facts = self.entity.facts(self.now);
        let seen = (forecasts.as_slice(), facts.as_slice());
        for _ in 0..WORDS_MAX {
            let about = (&self.target, SOURCE);
            match self.foretelling.next(about, seen, &self.held, self.now) {
                None => break,
                Some(Word::Foreseen(topic, symptom)) => {
                    self.foretelling.told(topic, self.now);
                    self.held.insert(topic);
                    told(self.now.wall, Told::Report(symptom));
                }
                Some(Word::Past(topic, _)) => {
                    self.foretelling.cleared(topic);
                    self.held.remove(&topic);
                    told(self.now.wall, Told::Clear(topic.symptom()));
                }
            }
        }
    }

    fn corrected(&self, mut forecasts: Vec<Forecast>) -> Vec<Forecast> {
        for one in &mut forecasts {
            one.probability = self.record.calibrated(one.kind, one.probability);
        }
        forecasts
    }
}

/// The wall's time; before 1970 there is none.
fn wall(at_ms: i64) -> Timestamp {
    Timestamp(u64::try_from(at_ms).unwrap_or_default())
}
