//! How sure is it that the plan resolves the incident?
//!
//! ```text
//!  confidence = class^0.45 · evidence^0.20 · record^0.25 · freshness^0.10
//! ```
//!
//! A weighted geometric mean: one factor near zero sinks the whole, as it should (a sure class is
//! worth nothing when the playbook never helped). Without history the record is the prior's mean,
//! 0.75: enough to act on clear evidence (0.9), not on a guess (below 0.7).

use medic_state::{Ppm, plan::Plan};

use super::{
    classify::Classification,
    recommend::Record,
    scene::{Scene, fraction, ppm},
};

/// A playbook that matches an alert, kind or indicator by name needs no class: its author has said
/// what it means.
const BY_SYMPTOM: f64 = 0.9;
/// Looks older than this are stale.
const FRESH_MS: u64 = 15_000;
/// Symptoms that nobody repeated for so long may be over.
const SYMPTOM_MS: u64 = 60_000;

/// Scores the confidence, with its reasons.
#[must_use]
pub(super) fn confidence(
    scene: &Scene<'_>,
    class: &Classification,
    record: &Record,
    plan: &Plan,
    by_symptom: bool,
) -> (Ppm, Vec<String>) {
    let evidence = evidence(scene);
    let (known, how) = if by_symptom && class.confidence < BY_SYMPTOM {
        let how = format!("{} is for this very symptom: {BY_SYMPTOM:.2}", plan.playbook);
        (BY_SYMPTOM, how)
    } else {
        (class.confidence, format!("class {}: {:.2}", class.class, class.confidence))
    };
    let (fresh, seen) = freshness(scene, plan);
    let value =
        known.powf(0.45) * evidence.0.powf(0.20) * record.mean.powf(0.25) * fresh.powf(0.10);
    let reasons = vec![
        how,
        evidence.1,
        format!("{} for {}: {record}, so {:.2}", plan.playbook, class.class, record.mean),
        seen,
    ];
    (ppm(value), reasons)
}

/// One minus the smallest p-value: how unlikely chance is.
fn evidence(scene: &Scene<'_>) -> (f64, String) {
    let own = scene.own();
    let Some(p) = own.iter().map(|s| s.symptom.p_value).min() else {
        return (0.5, "no active symptom to rest on: 0.50".to_owned());
    };
    let value = 1.0 - fraction(p);
    let detectors: std::collections::BTreeSet<&str> = own
        .iter()
        .flat_map(|s| &s.symptom.signals)
        .map(|signal| signal.detector.as_str())
        .collect();
    let p = if p.0 == 0 { "below 0.000001".to_owned() } else { p.to_string() };
    let text = format!("evidence: p-value {p}, {} detector(s) agree: {value:.2}", detectors.len());
    (value, text)
}

/// How recent the looks and the symptoms are.
fn freshness(scene: &Scene<'_>, plan: &Plan) -> (f64, String) {
    let seen = plan
        .verify_targets
        .iter()
        .filter_map(|target| scene.observations.get(target))
        .filter(|seen| !(seen.probes.is_empty() && seen.metrics.is_empty()))
        .filter(|seen| scene.now.since(seen.at).0 <= FRESH_MS)
        .count();
    let reported = scene.own().iter().map(|s| s.last_at).max().unwrap_or_default();
    let silent = scene.now.since(reported).0;
    let mut value: f64 = if seen == plan.verify_targets.len() { 1.0 } else { 0.85 };
    if silent > SYMPTOM_MS {
        value *= 0.7;
    }
    let text = format!(
        "fresh looks at {seen} of {} instances, last report {} s ago: {value:.2}",
        plan.verify_targets.len(),
        silent / 1000
    );
    (value, text)
}
