//! What is foreseen of one instance, and what became of it.
//!
//! Evidence is gathered with the process reports and scrapes that the entity takes anyway. A limit that
//! will be crossed within the lead opens an incident by its vote ([`super::votes`]); of the other forecasts,
//! and of what they said that has come to pass, the watch tells (`runtime::foretell`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use medic_state::manifest::ServiceSpec;
use minicbor::{Decode, Encode};

use super::{Circumstances, Entity, Now};
use crate::detection::{
    detector::{Role, Series},
    ensemble::{Kind, Vote, Voter},
    predict::{
        budget::{Budget, Objective},
        expiry::{Certificate, Form},
        forecast::{Fact, Forecast, ForecastKind, Horizons, Opening, When, crossing},
        record::{Scored, Waited, Waiting},
        recurrence::{Baseline, Ratios},
        restarts::Restarts,
        slope::{Slope, SlopeState},
    },
};

/// What a treatment makes unknowable.
const UPSET: [ForecastKind; 3] =
    [ForecastKind::Failure, ForecastKind::Capacity, ForecastKind::Performance];

/// The evidence, and the forecasts that wait.
#[derive(Debug)]
pub(super) struct Prognosis {
    restarts: Restarts,
    /// How the hazard goes on after a failure, in its service.
    ratios: Arc<Ratios>,
    budget: Option<(String, Objective, Budget)>,
    certificates: BTreeMap<String, (Form, Certificate)>,
    slopes: BTreeMap<String, Slope>,
    horizons: Horizons,
    /// When the process began, or the watch.
    lives_since_ms: u64,
    waiting: Waiting,
    scraped_ms: Option<u64>,
}

/// What is known of certificates and slopes, as it travels.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Foreknown {
    #[n(0)]
    certificates: BTreeMap<String, Certificate>,
    #[n(1)]
    slopes: BTreeMap<String, SlopeState>,
}

/// What the watch asks of what is foreseen.
impl Entity {
    /// Looks this far ahead from now on.
    pub fn look_ahead(&mut self, horizons: Horizons) {
        self.prognosis.horizons = horizons;
        let horizon_s = general_s(horizons);
        self.series.values_mut().for_each(|series| series.horizon_s = horizon_s);
    }

    /// Adds how it failed to what is known of its service.
    pub fn tell_failures(&self, now: Now, service: &mut Baseline) {
        self.prognosis.restarts.tell(seconds(now), service);
    }

    /// So failures follow each other in its service.
    pub fn learn_recurrence(&mut self, ratios: Arc<Ratios>) {
        self.prognosis.ratios = ratios;
    }

    /// What is foreseen of it within the horizon.
    #[must_use]
    pub fn forecasts(&self, now: Now) -> Vec<Forecast> {
        self.prognosis.forecasts(&self.series, now)
    }

    /// Limits that will be reached within the lead, of which the entity itself tells.
    #[must_use]
    pub fn limits_foretold(&self) -> Vec<Forecast> {
        let told = |one: &&Series| one.last.as_ref().is_some_and(|last| last.prediction.is_some());
        self.series.values().filter(told).filter_map(of_series).collect()
    }

    /// What has come to pass, and is told by no detector.
    #[must_use]
    pub fn facts(&self, now: Now) -> Vec<Fact> {
        self.prognosis.facts(now)
    }

    /// What became of earlier forecasts since the last time it was asked.
    pub fn take_scored(&mut self, circumstances: &Circumstances, now: Now) -> Vec<Scored> {
        self.prognosis.take_scored(circumstances.treated, now)
    }

    /// Without the votes for limits of which such predictions did not come true; what was told stands.
    pub(super) fn unless_doubted(
        &self,
        mut votes: Vec<Vote>,
        doubted: &BTreeSet<String>,
    ) -> Vec<Vote> {
        if !doubted.is_empty() && !self.active.contains_key(&Kind::SaturationPredicted) {
            votes.retain(|vote| {
                let limit = vote.kind == Kind::SaturationPredicted;
                !(limit && matches!(&vote.voter, Voter::Series(name) if doubted.contains(name)))
            });
        }
        votes
    }
}

impl Prognosis {
    pub(super) fn new(service: &ServiceSpec, now: Now) -> Self {
        let budget = service
            .slo
            .as_ref()
            .map(|slo| (slo.indicator.clone(), Objective::of(slo), Budget::default()));
        let named = || service.indicators.iter();
        let certificates = named().filter_map(|spec| {
            Some((spec.name.clone(), (Form::of(spec)?, Certificate::default())))
        });
        let slopes = named().filter_map(|spec| Some((spec.name.clone(), Slope::of(spec)?)));
        Self {
            restarts: Restarts::new(seconds(now)),
            ratios: Arc::default(),
            budget,
            certificates: certificates.collect(),
            slopes: slopes.collect(),
            horizons: Horizons::default(),
            lives_since_ms: now.mono_ms,
            waiting: Waiting::default(),
            scraped_ms: None,
        }
    }

    /// What another watch goes on from: how it failed, and what of its budget is spent.
    pub(super) fn learnt(&self) -> (Restarts, Option<Budget>) {
        let budget = self.budget.as_ref().map(|(_, _, budget)| budget.clone());
        (self.restarts.clone(), budget)
    }

    /// Goes on from what another watch knew.
    pub(super) fn learn(&mut self, restarts: Option<&Restarts>, spent: Option<&Budget>) {
        if let Some(restarts) = restarts {
            self.restarts.merge(restarts);
        }
        if let (Some((_, _, budget)), Some(spent)) = (&mut self.budget, spent) {
            budget.merge(spent);
        }
    }

    /// The same, of what can be read from scrapes.
    pub(super) fn foreknown(&self) -> Foreknown {
        let certificates = self.certificates.iter();
        let slopes = self.slopes.iter();
        Foreknown {
            certificates: certificates.map(|(n, (_, one))| (n.clone(), one.clone())).collect(),
            slopes: slopes.map(|(n, slope)| (n.clone(), slope.state.clone())).collect(),
        }
    }

    /// Goes on from that; its times were told at `then_ms` on the clock of its origin.
    pub(super) fn foreknow(&mut self, known: Foreknown, then_ms: u64, now: Now) {
        for (name, certificate) in known.certificates {
            if let Some((_, own)) = self.certificates.get_mut(&name)
                && *own == Certificate::default()
            {
                *own = certificate;
            }
        }
        for (name, state) in known.slopes {
            if let Some(slope) = self.slopes.get_mut(&name) {
                slope.learn(state, then_ms, now.mono_ms);
            }
        }
    }

    /// Forecasts that wait for their outcome, to travel.
    pub(super) fn waited(&self, now: Now, declared: impl Fn(&str) -> u64) -> Vec<Waited> {
        self.waiting.handed(now.mono_ms, declared)
    }

    /// Waits for them in another's place: see [`Waiting::take_over`].
    pub(super) fn wait_on(
        &mut self,
        waited: Vec<Waited>,
        at_ms: (u64, u64),
        declared: impl Fn(&str) -> u64,
    ) {
        self.waiting.take_over(waited, at_ms, declared);
    }

    /// The process died by itself.
    pub(super) fn failed(&mut self, now: Now) {
        self.restarts.failed(seconds(now));
        self.waiting.happened(ForecastKind::Failure, "process", now.mono_ms);
    }

    /// The process is another one.
    pub(super) fn replaced(&mut self, now: Now) {
        self.lives_since_ms = now.mono_ms;
        self.slopes.values_mut().for_each(Slope::process_changed);
        self.replaced_meanwhile();
    }

    /// What another watch foresaw was about a process that is gone.
    pub(super) fn replaced_meanwhile(&mut self) {
        self.waiting.disturbed(&[ForecastKind::Capacity]);
    }

    /// A scrape was taken in: holds what was foreseen against it, and holds itself to what is.
    /// `settled`: the process is past its first seconds.
    pub(super) fn scraped(&mut self, series: &BTreeMap<String, Series>, settled: bool, now: Now) {
        self.note_ends(now);
        let elapsed = self.scraped_ms.map_or(0, |before| now.mono_ms.saturating_sub(before));
        self.scraped_ms = Some(now.mono_ms);
        let horizon = general_s(self.horizons);
        for (name, one) in series {
            let slope = self.slopes.get_mut(name);
            let Some(reading) = &one.last else {
                slope.into_iter().for_each(Slope::no_value);
                continue;
            };
            if reading.crossed {
                self.waiting.happened(ForecastKind::Capacity, name, now.mono_ms);
            }
            if let Some(slope) = slope {
                slope.note(now.mono_ms, reading.value, horizon, settled);
                if slope.crossed() {
                    self.waiting.happened(slope.kind(), name, now.mono_ms);
                }
            }
            if let Some((form, certificate)) = self.certificates.get_mut(name)
                && let Some(end) = form.not_after(reading.value, seconds(now))
                && certificate.seen(end, seconds(now))
            {
                self.waiting.prevented(ForecastKind::SecurityRisk, name);
            }
            if let Some((about, objective, budget)) = &mut self.budget
                && about == name
                && one.role == Role::Errors
            {
                budget.note(reading.value, elapsed as f64 / 1e3, *objective);
                if budget.gone(*objective) {
                    self.waiting.happened(ForecastKind::Performance, name, now.mono_ms);
                }
            }
        }
        for forecast in self.forecasts(series, now) {
            self.waiting.hold(&forecast, now.mono_ms);
        }
    }

    /// Certificates end whether they are looked at or not.
    fn note_ends(&mut self, now: Now) {
        for (name, (_, certificate)) in &self.certificates {
            if certificate.ended(seconds(now)) {
                self.waiting.happened(ForecastKind::SecurityRisk, name, now.mono_ms);
            }
        }
    }

    /// What is foreseen now.
    pub(super) fn forecasts(&self, series: &BTreeMap<String, Series>, now: Now) -> Vec<Forecast> {
        let horizon = general_s(self.horizons);
        let mut all: Vec<Forecast> =
            self.restarts.forecast(seconds(now), horizon, &self.ratios).into_iter().collect();
        if let Some((about, objective, budget)) = &self.budget {
            all.extend(budget.forecast(about, *objective, horizon));
        }
        let ends = self.horizons.certificate.as_duration().as_secs_f64();
        all.extend(
            (self.certificates.iter())
                .filter_map(|(name, (_, one))| one.forecast(name, seconds(now), ends)),
        );
        all.extend(self.slopes.iter().filter_map(|(name, one)| one.forecast(name, horizon)));
        let lived = now.mono_ms.saturating_sub(self.lives_since_ms) as f64 / 1e3;
        all.extend(
            series.values().filter_map(|one| of_series(one).or_else(|| of_lives(one, lived))),
        );
        all
    }

    /// What has come to pass.
    fn facts(&self, now: Now) -> Vec<Fact> {
        let ended =
            (self.certificates.iter()).filter_map(|(name, (_, one))| one.fact(name, seconds(now)));
        ended.chain(self.slopes.iter().filter_map(|(name, slope)| slope.fact(name))).collect()
    }

    /// What has ended since the last time. `treated`: a plan's steps run on the instance.
    pub(super) fn take_scored(&mut self, treated: bool, now: Now) -> Vec<Scored> {
        self.note_ends(now);
        if treated {
            self.waiting.disturbed(&UPSET);
        }
        self.waiting.take(now.mono_ms)
    }
}

/// That an indicator will reach its limit, by its trend.
pub(super) fn of_series(series: &Series) -> Option<Forecast> {
    let (reading, limit) = (series.last.as_ref()?, series.limit?);
    let foreseen = reading.foreseen?;
    let when =
        When { seconds: foreseen.seconds, earliest: foreseen.earliest, latest: foreseen.latest };
    let factors = vec![format!(
        "{} of {limit}, rising by {:.3e} a second (p {:.1e})",
        reading.value, foreseen.slope, foreseen.p_value
    )];
    let about = (ForecastKind::Capacity, series.name.as_str());
    let told = crossing(about, when, (foreseen.p_value, series.horizon_s), factors)?;
    Some(told.opening(Opening::Elsewhere))
}

/// That it will reach it as in former lives of the process, of which the present one lasts `lived` seconds.
fn of_lives(series: &Series, lived: f64) -> Option<Forecast> {
    let reading = series.last.as_ref()?;
    let (seconds, earliest, latest) = series.former_lives(reading.value)?;
    let factors = vec!["it rose like this in every life before this one".to_owned()];
    let about = (ForecastKind::Capacity, series.name.as_str());
    let when = When { seconds, earliest, latest };
    let told = crossing(about, when, (LIVES_P, series.horizon_s), factors)?;
    // Who has more to live than it has lived is not helped by being recycled: so would be the next.
    let late = lived >= seconds;
    Some(told.opening(if late { Opening::WithinLead } else { Opening::Elsewhere }))
}

/// What agreement of a few former lives is worth, as a p-value.
const LIVES_P: f64 = 0.25;

fn general_s(horizons: Horizons) -> f64 {
    horizons.general.as_duration().as_secs_f64()
}

fn seconds(now: Now) -> f64 {
    now.wall.0 as f64 / 1e3
}
