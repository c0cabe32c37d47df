//! The playbook's own expectation, held against what was seen. Three-valued, over time.
//!
//! ```text
//!  per target, newest sample backwards:   … F F T T T T ◄ now
//!                                             └─ hold ─┘   held when it spans `hold`
//! ```
//!
//! It holds when for every target it was true without a break for `hold`. A sample without data
//! breaks it, and is not false. Nothing seen at all is never true, whatever the expression says.

use std::collections::BTreeMap;

use medic_state::{Millis, Timestamp, saga::Saga, symptom::Target};

use super::{AssessError, Sample};
use crate::{
    expr::{Condition, Facts, Scalar, Truth},
    world::Observation,
};

/// How long the other checks may lag behind a held expectation: symptoms clear after seconds.
pub(super) const LAG: Millis = Millis(10_000);
/// A false answer this recent at the end of the time counts as false.
const RECENT: Millis = Millis(5_000);

/// What one target's samples say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Whom.
    pub(super) target: Target,
    /// The latest answer.
    pub(super) latest: Truth,
    /// How long it has been true up to the latest sample; no more than hold and [`LAG`] are counted.
    pub(super) for_: Millis,
    /// Whether it was false lately.
    pub(super) false_lately: bool,
    /// When it could first be told, of the samples kept.
    pub(super) first_told: Option<Timestamp>,
}

/// What all targets' samples say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// Held on all targets for the whole hold time.
    Held,
    /// True everywhere now, and on its way to being held.
    Holding,
    /// False somewhere.
    False(String),
    /// Cannot be told somewhere.
    NoData(String),
}

/// Reads the baseline of one target: `before`.
pub(super) fn before(saga: &Saga, target: &Target) -> BTreeMap<String, f64> {
    let suffix = format!("@{target}");
    let mut values = BTreeMap::new();
    // Probes first, so that an indicator of the same name wins, as it does in `latest`.
    for prefix in ["probe.", "metric."] {
        for (key, text) in &saga.plan.baseline {
            let name = key.strip_prefix(prefix).and_then(|key| key.strip_suffix(&suffix));
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
            if let (Some(name), Some(value)) = (name, value) {
                values.insert(name.to_owned(), value);
            }
        }
    }
    values
}

fn facts(before: &BTreeMap<String, f64>, seen: &Observation) -> Facts {
    let mut facts = Facts::default();
    for map in ["probe", "metric", "before", "delta"] {
        facts.declare(map);
    }
    let mut latest = BTreeMap::new();
    for (name, good) in &seen.probes {
        let value = if *good { 1.0 } else { 0.0 };
        facts.set("probe", name, Scalar::Number(value));
        latest.insert(name.as_str(), value);
    }
    for (name, value) in &seen.metrics {
        facts.set("metric", name, Scalar::Number(*value));
        latest.insert(name.as_str(), *value);
    }
    for (name, value) in before {
        facts.set("before", name, Scalar::Number(*value));
        if let Some(now) = latest.get(name.as_str()) {
            facts.set("delta", name, Scalar::Number(now - value));
        }
    }
    facts
}

fn answer(
    condition: &Condition,
    before: &BTreeMap<String, f64>,
    seen: &Observation,
) -> Result<Truth, crate::expr::ExprError> {
    if seen.probes.is_empty() && seen.metrics.is_empty() {
        let why = seen.errors.iter().next().map_or_else(
            || "nothing was seen".to_owned(),
            |(name, error)| format!("{name}: {error}"),
        );
        return Ok(Truth::NoData(why));
    }
    condition.evaluate(&facts(before, seen))
}

/// Evaluates the expectation on all verify targets.
pub(super) fn hold(saga: &Saga, history: &[Sample]) -> Result<Vec<Held>, AssessError> {
    let verify = &saga.plan.verify;
    let enough = Millis(verify.hold.0.saturating_add(LAG.0));
    let bad = |reason: String| AssessError::BadExpectation {
        playbook: saga.plan.playbook.clone(),
        expect: verify.expect.clone(),
        reason,
    };
    let condition = Condition::parse(&verify.expect).map_err(|error| bad(error.to_string()))?;
    saga.plan
        .verify_targets
        .iter()
        .map(|target| {
            let before = before(saga, target);
            let samples = history.iter().rev().filter(|sample| sample.target == *target);
            let mut held = one(&condition, &before, target, (verify.hold, enough), samples)
                .map_err(|error| bad(error.to_string()))?;
            for sample in history.iter().filter(|sample| sample.target == *target) {
                let told = answer(&condition, &before, &sample.observation)
                    .map_err(|error| bad(error.to_string()))?;
                if !matches!(told, Truth::NoData(_)) {
                    held.first_told = Some(sample.observation.at);
                    break;
                }
            }
            Ok(held)
        })
        .collect()
}

/// Newest first. Looks back no further than it must.
fn one<'a>(
    condition: &Condition,
    before: &BTreeMap<String, f64>,
    target: &Target,
    (hold, enough): (Millis, Millis),
    samples: impl Iterator<Item = &'a Sample>,
) -> Result<Held, crate::expr::ExprError> {
    let mut held = Held {
        target: target.clone(),
        latest: Truth::NoData("nothing was seen".to_owned()),
        for_: Millis(0),
        false_lately: false,
        first_told: None,
    };
    let mut newest: Option<Timestamp> = None;
    let mut unbroken = true;
    for sample in samples {
        let at = sample.observation.at;
        let truth = answer(condition, before, &sample.observation)?;
        if newest.is_none() {
            held.latest = truth.clone();
        }
        let age = newest.get_or_insert(at).since(at);
        match truth {
            Truth::True if unbroken => held.for_ = age,
            Truth::True => {}
            Truth::False => {
                unbroken = false;
                held.false_lately |= age <= RECENT.max(hold);
            }
            Truth::NoData(_) => unbroken = false,
        }
        if (unbroken && held.for_ >= enough) || (!unbroken && age > RECENT.max(hold)) {
            break;
        }
    }
    Ok(held)
}

/// Sums the targets up.
pub(super) fn expectation(held: &[Held], hold: Millis) -> Expectation {
    let names = |pick: &dyn Fn(&Held) -> bool| {
        held.iter()
            .filter(|h| pick(h))
            .map(|h| h.target.to_string())
            .take(5)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if held.is_empty() {
        return Expectation::NoData("the plan names nobody to look at".to_owned());
    }
    let is_false = |h: &Held| h.latest == Truth::False;
    if held.iter().any(is_false) {
        return Expectation::False(format!("it is false at {}", names(&is_false)));
    }
    let dark = held.iter().find_map(|h| match &h.latest {
        Truth::NoData(why) => Some(format!("{}: {why}", h.target)),
        Truth::True | Truth::False => None,
    });
    if let Some(why) = dark {
        let flaps = |h: &Held| h.false_lately;
        return if held.iter().any(flaps) {
            Expectation::False(format!("it was false lately at {}", names(&flaps)))
        } else {
            Expectation::NoData(why)
        };
    }
    if held.iter().all(|h| h.for_ >= hold) { Expectation::Held } else { Expectation::Holding }
}
