//! What one node foresees, as it travels and as the API shows it.

use std::collections::BTreeMap;

use medic_api::convert;
use medic_proto::v1 as pb;
use medic_state::{
    Epoch, Millis, NodeId, Ppm, ShardId, Timestamp, codec,
    manifest::Mode,
    symptom::{Severity, Symptom, Target},
};
use minicbor::{Decode, Encode};

use super::{PREDICTIONS_MAX, outcomes::OfShard};
use crate::{
    detection::{
        predict::{
            forecast::{ForecastKind, Opening},
            record::{Bin, Score},
        },
        runtime::{Foreseen, Predictions, symptom_of},
    },
    intelligence::Preventive,
};

/// What nodes tell each other.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Message {
    /// What the sender foresees.
    #[n(0)]
    Table(#[n(0)] Table),
    /// Outcomes that the sender knows of.
    #[n(1)]
    Outcomes(#[n(0)] BTreeMap<ShardId, OfShard>),
}

impl Message {
    pub(super) fn outcomes(outcomes: BTreeMap<ShardId, OfShard>) -> Vec<u8> {
        codec::encode(&Self::Outcomes(outcomes))
    }
}

/// What a node foresees.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Table {
    /// When, by its own clock.
    #[n(0)]
    pub(super) at: Timestamp,
    /// The shards it tells of, with the epochs under which it owns them.
    #[n(1)]
    pub(super) covers: BTreeMap<ShardId, Epoch>,
    /// The likeliest first.
    #[n(2)]
    pub(super) predictions: Vec<One>,
    /// How many less likely ones are not among them.
    #[n(3)]
    pub(super) left_off: u64,
}

/// One prediction. Times are in seconds from the table's.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct One {
    #[n(0)]
    pub(super) shard: ShardId,
    #[n(1)]
    pub(super) target: Target,
    #[n(2)]
    kind: ForecastKind,
    #[n(3)]
    subject: String,
    #[n(4)]
    probability: f64,
    #[n(5)]
    confidence: f64,
    #[n(6)]
    seconds: f64,
    #[n(7)]
    earliest: f64,
    #[n(8)]
    latest: f64,
    #[n(9)]
    horizon: f64,
    #[n(10)]
    factors: Vec<String>,
    #[n(11)]
    opening: Opening,
}

impl Table {
    /// The likeliest predictions, which come first in `all`.
    pub(super) fn of(
        all: Predictions,
        at: Timestamp,
        covers: BTreeMap<ShardId, Epoch>,
        most: usize,
    ) -> Self {
        let left_off = all.predictions.len().saturating_sub(most) as u64;
        let predictions = all.predictions.into_iter().take(most).map(One::of).collect();
        Self { at, covers, predictions, left_off }
    }

    /// Whether these are predictions.
    ///
    /// # Errors
    /// With what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.predictions.len() > PREDICTIONS_MAX {
            return Err(format!("more than {PREDICTIONS_MAX} predictions"));
        }
        let no_number = |one: &&One| one.numbers().into_iter().any(f64::is_nan);
        self.predictions.iter().find(no_number).map_or(Ok(()), |one| {
            Err(format!(
                "of the prediction about {} of {} something is no number",
                one.subject, one.target
            ))
        })
    }

    /// As a message of at most `bytes_max`: long texts cost less likely predictions.
    pub(super) fn encoded(mut self, bytes_max: usize) -> Vec<u8> {
        loop {
            let message = Message::Table(self);
            let bytes = codec::encode(&message);
            let Message::Table(table) = message else { return bytes };
            if bytes.len() <= bytes_max || table.predictions.is_empty() {
                return bytes;
            }
            self = table;
            let half = self.predictions.len() / 2;
            self.left_off += (self.predictions.len() - half) as u64;
            self.predictions.truncate(half);
        }
    }
}

impl One {
    fn of(foreseen: Foreseen) -> Self {
        let Foreseen { tenant, service, instance, shard, forecast } = foreseen;
        Self {
            shard,
            target: Target { tenant, service, instance },
            kind: forecast.kind,
            subject: forecast.subject,
            probability: forecast.probability,
            confidence: forecast.confidence,
            seconds: forecast.seconds,
            earliest: forecast.earliest,
            latest: forecast.latest,
            horizon: forecast.horizon,
            factors: forecast.factors,
            opening: forecast.opening,
        }
    }

    const fn numbers(&self) -> [f64; 6] {
        let Self { probability, confidence, seconds, earliest, latest, horizon, .. } = self;
        [*probability, *confidence, *seconds, *earliest, *latest, *horizon]
    }

    /// The symptom that would tell of it.
    fn symptom(&self) -> Symptom {
        let labels = [("indicator", &self.subject), ("prediction", &self.kind.as_str().to_owned())];
        Symptom {
            target: self.target.clone(),
            kind: symptom_of(self.kind, self.opening).to_owned(),
            severity: Severity::Warning,
            summary: String::new(),
            p_value: Ppm::ONE,
            signals: Vec::new(),
            since: Timestamp(0),
            time_to_event: Some(Millis((self.seconds * 1e3) as u64)),
            labels: labels.map(|(name, value)| (name.to_owned(), value.clone())).into(),
            source: String::new(),
        }
    }

    /// What can be done: first what the playbooks of its tenant would do, then what people can.
    fn actions(&self, preventive: &mut Preventive<'_>) -> Vec<String> {
        let playbooks =
            preventive.matching(&self.symptom()).into_iter().map(|(name, mode)| match mode {
                Mode::Approve => format!("playbook {name}, once it is approved"),
                Mode::Auto | Mode::Shadow => format!("playbook {name}"),
            });
        let people = self.kind.actions().iter().map(|action| (*action).to_owned());
        playbooks.chain(people).collect()
    }

    /// As the API shows it.
    pub(super) fn shown(
        &self,
        node: NodeId,
        at: Timestamp,
        preventive: &mut Preventive<'_>,
    ) -> pb::Prediction {
        let ms = |seconds: f64| (seconds * 1e3) as u64;
        pb::Prediction {
            target: Some(convert::target(&self.target)),
            kind: kind(self.kind).into(),
            subject: self.subject.clone(),
            probability: self.probability.clamp(0.0, 1.0),
            confidence: self.confidence.clamp(0.0, 1.0),
            at: Some(convert::time(at)),
            expected_ms: ms(self.seconds),
            earliest_ms: ms(self.earliest),
            latest_ms: ms(self.latest),
            horizon_ms: ms(self.horizon),
            factors: self.factors.clone(),
            actions: self.actions(preventive),
            node: node.to_string(),
        }
    }
}

const fn kind(kind: ForecastKind) -> pb::PredictionKind {
    match kind {
        ForecastKind::Failure => pb::PredictionKind::Failure,
        ForecastKind::Capacity => pb::PredictionKind::Capacity,
        ForecastKind::Performance => pb::PredictionKind::Performance,
        ForecastKind::SecurityRisk => pb::PredictionKind::SecurityRisk,
    }
}

/// A score as the API shows it.
pub(super) fn scored(score: &Score) -> pb::PredictionScore {
    let bin = |bin: &Bin| pb::CalibrationBin {
        from: bin.from,
        count: bin.count,
        said: bin.said,
        came_true: bin.came_true,
    };
    pb::PredictionScore {
        kind: kind(score.kind).into(),
        count: score.count,
        came_true: score.came_true,
        inconclusive: score.inconclusive,
        brier: score.brier,
        calibration_error: score.ece,
        coverage: score.coverage,
        calibration: score.calibration.iter().map(bin).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        detection::predict::forecast::{Forecast, When},
        fixture::{T0, fleet},
    };

    /// As another node shows a forecast about an instance of `orders`.
    fn told((kind, opening): (ForecastKind, Opening), subject: &str) -> One {
        let when = When { seconds: 600.0, earliest: 500.0, latest: 800.0 };
        let forecast = Forecast::new((kind, subject), 0.9, 0.9, when, Vec::new()).unwrap();
        let [tenant, service, instance] = ["default", "orders", "orders-1"].map(str::to_owned);
        let forecast = forecast.opening(opening);
        let foreseen = Foreseen { tenant, service, instance, shard: ShardId(1), forecast };
        let all = Predictions { predictions: vec![foreseen], scores: Vec::new() };
        let bytes = Table::of(all, T0, BTreeMap::new(), 1).encoded(10_000);
        let Message::Table(mut table) = codec::decode(&bytes).unwrap() else { panic!("a table") };
        table.predictions.remove(0)
    }

    #[test]
    fn what_can_be_done_is_of_the_class_that_its_symptom_will_be_of() {
        use ForecastKind::{Capacity, Failure, Performance, SecurityRisk};
        use Opening::{Elsewhere, WithinHorizon, WithinLead};
        let state = fleet();
        let mut preventive = Preventive::of(&state);
        for (of, subject, kind, playbook) in [
            ((Capacity, Elsewhere), "memory", "saturation-predicted", "recycle-leaking-instances"),
            ((Capacity, WithinLead), "disk_free", "capacity-predicted", "relieve-filling-disk"),
            (
                (SecurityRisk, WithinHorizon),
                "cert_expiry",
                "security-predicted",
                "renew-ending-certificate",
            ),
            (
                (Failure, WithinHorizon),
                "process",
                "failure-predicted",
                "restart-before-failure, once it is approved",
            ),
            (
                (Performance, WithinLead),
                "latency_p99",
                "latency-predicted",
                "restart-slowing-instance, once it is approved",
            ),
            // An objective is one whatever its indicator is called.
            ((Performance, WithinHorizon), "latency_p99", "budget-predicted", ""),
            ((Performance, WithinHorizon), "error_rate", "budget-predicted", ""),
        ] {
            let one = told(of, subject);
            assert_eq!(one.symptom().kind, kind, "{subject}");
            let actions = one.actions(&mut preventive);
            let playbooks: Vec<&str> =
                actions.iter().filter_map(|action| action.strip_prefix("playbook ")).collect();
            let expected: Vec<&str> =
                Some(playbook).filter(|name| !name.is_empty()).into_iter().collect();
            assert_eq!(playbooks, expected, "{kind} of {subject}");
        }
    }
}
