//! What is foreseen of one instance, and what became of it.
//!
//! Evidence is gathered with the process reports and scrapes that the entity takes anyway. Only a
//! limit that will be crossed within the lead opens an incident ([`super::votes`]); the other forecasts are
//! told and scored, and open none.

use std::collections::BTreeMap;

use medic_state::manifest::ServiceSpec;

use super::Now;
use crate::detection::{
    detector::{Role, Series},
    predict::{
        budget::{Budget, Objective},
        forecast::{Forecast, ForecastKind, When, crossing, expiry},
        record::{Scored, Waiting},
        restarts::Restarts,
    },
};

/// What a restart or a treatment makes unknowable.
const UPSET: [ForecastKind; 2] = [ForecastKind::Failure, ForecastKind::Capacity];

/// The evidence, and the forecasts that wait.
#[derive(Debug)]
pub(super) struct Prognosis {
    restarts: Restarts,
    budget: Option<(String, Objective, Budget)>,
    waiting: Waiting,
    scraped_ms: Option<u64>,
}

impl Prognosis {
    pub(super) fn new(service: &ServiceSpec, now: Now) -> Self {
        let budget = service
            .slo
            .as_ref()
            .map(|slo| (slo.indicator.clone(), Objective::of(slo), Budget::default()));
        Self {
            restarts: Restarts::new(seconds(now)),
            budget,
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

    /// The process died by itself.
    pub(super) fn failed(&mut self, now: Now) {
        self.restarts.failed(seconds(now));
        self.waiting.happened(ForecastKind::Failure, "process", now.mono_ms);
    }

    /// The process is another one.
    pub(super) fn replaced(&mut self) {
        self.waiting.disturbed(&[ForecastKind::Capacity]);
    }

    /// A scrape was taken in: holds what was foreseen against it, and holds itself to what is.
    pub(super) fn scraped(&mut self, series: &BTreeMap<String, Series>, now: Now) {
        let elapsed = self.scraped_ms.map_or(0, |before| now.mono_ms.saturating_sub(before));
        self.scraped_ms = Some(now.mono_ms);
        for (name, one) in series {
            let Some(reading) = &one.last else { continue };
            if reading.crossed {
                self.waiting.happened(ForecastKind::Capacity, name, now.mono_ms);
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

    /// What is foreseen now.
    pub(super) fn forecasts(&self, series: &BTreeMap<String, Series>, now: Now) -> Vec<Forecast> {
        let mut all: Vec<Forecast> = self.restarts.forecast(seconds(now)).into_iter().collect();
        if let Some((about, objective, budget)) = &self.budget {
            all.extend(budget.forecast(about, *objective));
        }
        all.extend(series.values().filter_map(|one| of_series(one, now)));
        all
    }

    /// What has ended since the last time. `treated`: a plan's steps run on the instance.
    pub(super) fn take_scored(&mut self, treated: bool, now: Now) -> Vec<Scored> {
        if treated {
            self.waiting.disturbed(&UPSET);
        }
        self.waiting.take(now.mono_ms)
    }
}

/// What one indicator foretells.
pub(super) fn of_series(series: &Series, now: Now) -> Option<Forecast> {
    let reading = series.last.as_ref()?;
    if tells_an_end(&series.name) {
        return expiry(&series.name, reading.value, seconds(now));
    }
    let limit = series.limit?;
    if let Some(foreseen) = reading.foreseen {
        let when = When {
            seconds: foreseen.seconds,
            earliest: foreseen.earliest,
            latest: foreseen.latest,
        };
        let factors = vec![format!(
            "{} of {limit}, rising by {:.3e} a second (p {:.1e})",
            reading.value, foreseen.slope, foreseen.p_value
        )];
        return crossing(&series.name, when, foreseen.p_value, factors);
    }
    let (seconds, earliest, latest) = series.former_lives(reading.value)?;
    let factors = vec!["it rose like this in every life before this one".to_owned()];
    crossing(&series.name, When { seconds, earliest, latest }, LIVES_P, factors)
}

/// What agreement of a few former lives is worth, as a p-value.
const LIVES_P: f64 = 0.25;

/// A gauge that holds the end of a certificate as Unix time, as `probe_ssl_earliest_cert_expiry` does.
fn tells_an_end(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("cert") && (name.contains("expir") || name.contains("not_after"))
}

fn seconds(now: Now) -> f64 {
    now.wall.0 as f64 / 1e3
}
