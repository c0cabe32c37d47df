//! What this node foresees of the instances it watches, and how good it was at that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use medic_raft::Clock;
use medic_state::{Epoch, ShardId};
use metrics::{counter, gauge};
use serde::Serialize;

use super::{Runtime, Shared, Watched, lock};
use crate::detection::{
    entity::Now,
    foresight::outcomes::Outcomes,
    metrics::Metric,
    predict::{
        forecast::Forecast,
        record::{Score, Scored},
        recurrence::{Baseline, Ratios},
    },
};

/// A forecast about an instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Foreseen {
    /// Tenant.
    pub tenant: String,
    /// Service.
    pub service: String,
    /// Instance.
    pub instance: String,
    /// The shard it belongs to.
    #[serde(skip)]
    pub shard: ShardId,
    /// What is foreseen; its probability is corrected by the record.
    #[serde(flatten)]
    pub forecast: Forecast,
}

/// All of them, and their record, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Predictions {
    /// The likeliest first.
    pub predictions: Vec<Foreseen>,
    /// How earlier ones turned out, by kind.
    pub scores: Vec<Score>,
}

impl Runtime {
    /// How forecasts turned out; the watch adds to it.
    #[must_use]
    pub fn outcomes(&self) -> Arc<Mutex<Outcomes>> {
        self.shared.outcomes.clone()
    }

    /// Asks for the present predictions, as long as the watch runs.
    pub fn predictions(
        &self,
        clock: Arc<dyn Clock>,
    ) -> impl Fn() -> Predictions + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.predictions(Now { mono_ms: shared.mono_ms(), wall: clock.now() })
    }
}

impl Shared {
    fn predictions(&self, now: Now) -> Predictions {
        let record = lock(&self.outcomes).of_tenants(|_| true);
        let watched = lock(&self.entities).clone();
        let mut predictions = Vec::new();
        for (target, Watched { shard, entity, .. }) in &watched {
            let forecasts = lock(entity).forecasts(now);
            for forecast in self.corrected(&target.tenant, forecasts) {
                predictions.push(Foreseen {
                    tenant: target.tenant.clone(),
                    service: target.service.clone(),
                    instance: target.instance.clone(),
                    shard: *shard,
                    forecast,
                });
            }
        }
        predictions.sort_by(|a, b| b.forecast.probability.total_cmp(&a.forecast.probability));
        Predictions { predictions, scores: record.scores() }
    }

    /// Forecasts with their probability corrected by the record of their tenant: how things go with
    /// others says little of how they go here, and must not silence anything.
    pub(super) fn corrected(&self, tenant: &str, mut forecasts: Vec<Forecast>) -> Vec<Forecast> {
        if !forecasts.is_empty() {
            let record = lock(&self.outcomes).of_tenant(tenant);
            for one in &mut forecasts {
                one.probability = record.calibrated(one.kind, one.probability);
            }
        }
        forecasts
    }

    /// Tells every instance how failures follow each other in its service, and in its tenant where that is
    /// not known: all instances of a service are watched by one node.
    pub(super) fn share_failures(&self, now: Now) {
        let watched = lock(&self.entities).clone();
        let mut services: BTreeMap<(&str, &str), Baseline> = BTreeMap::new();
        for (target, Watched { entity, .. }) in &watched {
            let service = services.entry((&target.tenant, &target.service)).or_default();
            lock(entity).tell_failures(now, service);
        }
        let mut tenants: BTreeMap<&str, Baseline> = BTreeMap::new();
        for ((tenant, _), service) in &services {
            tenants.entry(tenant).or_default().add(service);
        }
        let tenants: BTreeMap<&str, Ratios> = (tenants.into_iter())
            .map(|(tenant, all)| (tenant, all.ratios(&Ratios::default())))
            .collect();
        let known: BTreeMap<(&str, &str), Arc<Ratios>> = (services.into_iter())
            .filter_map(|(about, service)| {
                Some((about, Arc::new(service.ratios(tenants.get(about.0)?))))
            })
            .collect();
        for (target, Watched { entity, .. }) in &watched {
            if let Some(ratios) = known.get(&(target.tenant.as_str(), target.service.as_str())) {
                lock(entity).learn_recurrence(ratios.clone());
            }
        }
    }

    /// Takes what became of forecasts.
    pub(super) fn note_scored(&self, of: (ShardId, Epoch), tenant: &str, scored: Vec<Scored>) {
        if scored.is_empty() {
            return;
        }
        let mut outcomes = lock(&self.outcomes);
        for one in scored {
            let (kind, outcome) = (one.kind.as_str(), one.outcome.as_str());
            counter!(Metric::Predictions.name(), "kind" => kind, "outcome" => outcome).increment(1);
            outcomes.note(of, tenant, one);
        }
        for score in
            outcomes.of_tenants(|_| true).scores().into_iter().filter(|score| score.count > 0)
        {
            let kind = score.kind.as_str();
            gauge!(Metric::PredictionBrier.name(), "kind" => kind).set(score.brier);
            gauge!(Metric::PredictionError.name(), "kind" => kind).set(score.ece);
        }
    }
}
