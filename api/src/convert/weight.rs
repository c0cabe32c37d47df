//! How far detectors are believed.

use medic_proto::v1 as pb;
use medic_state::weight::{Opinion, Weight, WeightKey};

use super::time;

/// What turned out.
#[must_use]
pub const fn opinion(opinion: Opinion) -> pb::Opinion {
    match opinion {
        Opinion::FalseAlarm => pb::Opinion::FalseAlarm,
        Opinion::Missed => pb::Opinion::Missed,
        Opinion::Genuine => pb::Opinion::Genuine,
    }
}

/// Back; `None`: nothing was said.
#[must_use]
pub const fn opinion_from(opinion: pb::Opinion) -> Option<Opinion> {
    match opinion {
        pb::Opinion::Unspecified => None,
        pb::Opinion::FalseAlarm => Some(Opinion::FalseAlarm),
        pb::Opinion::Missed => Some(Opinion::Missed),
        pb::Opinion::Genuine => Some(Opinion::Genuine),
    }
}

/// A weight.
#[must_use]
pub fn detector_weight(key: &WeightKey, weight: &Weight) -> pb::DetectorWeight {
    pb::DetectorWeight {
        tenant: key.tenant.clone(),
        family: key.family.clone(),
        detector: key.detector.to_string(),
        millinats: weight.millinats,
        factor: (-f64::from(weight.millinats) / 1e3).exp(),
        version: weight.version,
        index: weight.index,
        at: Some(time(weight.at)),
        by: weight.by.clone(),
        opinion: opinion(weight.opinion).into(),
        incident: weight.incident.to_string(),
    }
}
