//! What this node foresees of the instances it watches, and how good it was at that.

use std::sync::Arc;

use medic_raft::Clock;
use metrics::{counter, gauge};
use serde::Serialize;

use super::{Runtime, Shared, lock};
use crate::detection::{
    entity::Now,
    metrics::Metric,
    predict::{
        forecast::Forecast,
        record::{Score, Scored},
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
    /// What is foreseen; its probability is corrected by the record.
    #[serde(flatten)]
    pub forecast: Forecast,
}

/// All of them, and their record since the node began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Predictions {
    /// The likeliest first.
    pub predictions: Vec<Foreseen>,
    /// How earlier ones turned out, by kind.
    pub scores: Vec<Score>,
}

impl Runtime {
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
        let record = lock(&self.record).clone();
        let entities = lock(&self.entities);
        let mut predictions = Vec::new();
        for (target, (_, entity)) in entities.iter() {
            for mut forecast in lock(entity).forecasts(now) {
                forecast.probability = record.calibrated(forecast.kind, forecast.probability);
                predictions.push(Foreseen {
                    tenant: target.tenant.clone(),
                    service: target.service.clone(),
                    instance: target.instance.clone(),
                    forecast,
                });
            }
        }
        predictions.sort_by(|a, b| b.forecast.probability.total_cmp(&a.forecast.probability));
        Predictions { predictions, scores: record.scores() }
    }

    /// Takes what became of forecasts.
    pub(super) fn note_scored(&self, scored: Vec<Scored>) {
        if scored.is_empty() {
            return;
        }
        let mut record = lock(&self.record);
        for one in scored {
            let (kind, outcome) = (one.kind.as_str(), one.outcome.as_str());
            counter!(Metric::Predictions.name(), "kind" => kind, "outcome" => outcome).increment(1);
            record.note(one);
        }
        for score in record.scores().into_iter().filter(|score| score.count > 0) {
            let kind = score.kind.as_str();
            gauge!(Metric::PredictionBrier.name(), "kind" => kind).set(score.brier);
            gauge!(Metric::PredictionError.name(), "kind" => kind).set(score.ece);
        }
    }
}
