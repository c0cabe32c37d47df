//! What kind of fault is it? Small rules, each of which may speak for one class.
//!
//! ```text
//!  rule ─► Evidence{class, weight, reason}      per class: 1 - Π(1 - weight)   (noisy-or)
//!                                               a class may explain others away
//!  best class × (1 - 0.4 × best unexplained rival) = confidence    (no rival to what was observed)
//! ```
//!
//! Noisy-or: Pearl, Probabilistic Reasoning in Intelligent Systems (1988), section 4.3.2. "Explains
//! away": a bad configuration accounts for the crash it causes, so the crash is no rival to it.

use std::collections::BTreeMap;

use medic_state::symptom::Target;

use super::{rules_of_class::RULES, scene::Scene};

/// One rule's word.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Evidence {
    /// For which class.
    pub(super) class: &'static str,
    /// How sure it is by itself, from 0 to 1.
    pub(super) weight: f64,
    /// Why, for people.
    pub(super) reason: String,
    /// Who it thinks is the cause, when that is not the incident's target.
    pub(super) cause: Option<Target>,
}

/// What the rules came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Classification {
    /// `category/class`, or `unknown`.
    pub(super) class: &'static str,
    /// From 0 to 1.
    pub(super) confidence: f64,
    /// Strongest first.
    pub(super) reasons: Vec<String>,
    /// The suspected cause, when it is not the incident's target.
    pub(super) cause: Option<Target>,
}

/// No rule spoke.
pub(super) const UNKNOWN: &str = "unknown";

/// What a class accounts for beside itself.
fn explains(class: &str) -> &'static [&'static str] {
    match class {
        "configuration/bad-rollout" => &[
            "application/crash",
            "application/hang",
            "application/errors",
            "application/latency",
            "network/unreachable",
            "network/partition",
            "network/name-resolution",
        ],
        "infrastructure/host-down" => {
            &["application/crash", "application/hang", "network/unreachable"]
        }
        "dependency/failure" => &["application/errors", "application/latency", "application/hang"],
        "application/memory-leak" | "application/descriptor-leak" => {
            &["infrastructure/saturation", "application/latency", "application/errors"]
        }
        "infrastructure/disk-full" => &[
            "infrastructure/saturation",
            "application/errors",
            "application/latency",
            "application/hang",
        ],
        "infrastructure/saturation" => &["application/latency"],
        "application/crash" | "application/hang" => {
            &["application/errors", "application/latency", "network/unreachable"]
        }
        "security/certificate-expiry" | "security/certificate-invalid" => {
            &["application/errors", "application/hang", "network/unreachable"]
        }
        "security/tampering" | "security/unexpected-listener" => {
            &["application/errors", "application/latency", "infrastructure/saturation"]
        }
        "security/login-storm" => {
            &["infrastructure/saturation", "application/errors", "application/latency"]
        }
        "application/errors" => &["application/latency"],
        "network/unreachable" | "network/partition" | "network/name-resolution" => {
            &["application/errors", "application/latency"]
        }
        _ => &[],
    }
}

/// Whether the evidence of a class is the fault itself, seen by whoever can know: a dead process, a
/// port that nobody declared. Another fault beside it does not make it doubtful.
fn observed(class: &str) -> bool {
    matches!(
        class,
        "application/crash"
            | "infrastructure/disk-full"
            | "security/certificate-expiry"
            | "security/certificate-invalid"
            | "security/unexpected-listener"
            | "security/tampering"
    )
}

/// At this confidence a class explains others away even when they alone would score higher.
const EXPLAINS_FROM: f64 = 0.7;
/// How much the strongest unexplained rival takes away.
const RIVALRY: f64 = 0.4;

/// Classifies one incident.
#[must_use]
pub(super) fn classify(scene: &Scene<'_>) -> Classification {
    let mut evidence: Vec<Evidence> = RULES.iter().flat_map(|rule| rule(scene)).collect();
    evidence.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let scores = combine(&evidence);
    let Some((class, score)) = best(&scores) else {
        let reasons = vec!["no rule knows these symptoms".to_owned()];
        return Classification { class: UNKNOWN, confidence: 0.0, reasons, cause: None };
    };
    let rival = scores
        .iter()
        .filter(|(other, _)| **other != class && !explains(class).contains(other))
        .max_by(|a, b| a.1.total_cmp(b.1));
    let mut reasons: Vec<String> = evidence
        .iter()
        .filter(|e| e.class == class)
        .map(|e| format!("{} ({:.2})", e.reason, e.weight))
        .collect();
    let mut confidence = score;
    if let Some((other, strength)) = rival {
        if observed(class) && score >= EXPLAINS_FROM {
            reasons.push(format!("beside it there is {other} ({strength:.2})"));
        } else {
            confidence *= 1.0 - RIVALRY * strength;
            reasons.push(format!("it could also be {other} ({strength:.2})"));
        }
    }
    for explained in evidence.iter().filter(|e| explains(class).contains(&e.class)) {
        reasons.push(format!("accounts for: {}", explained.reason));
    }
    reasons.dedup();
    let cause = evidence.iter().find(|e| e.class == class).and_then(|e| e.cause.clone());
    Classification { class, confidence, reasons, cause }
}

/// Per class, the probability that not all of its evidence errs. The evidence must come strongest
/// first: the same finding at a second and third instance is much the same evidence, and counts a
/// fifth; further ones count nothing.
fn combine(evidence: &[Evidence]) -> BTreeMap<&'static str, f64> {
    let mut doubts: BTreeMap<&'static str, (f64, usize)> = BTreeMap::new();
    for piece in evidence {
        let (doubt, pieces) = doubts.entry(piece.class).or_insert((1.0, 0));
        let weight = match *pieces {
            0 => piece.weight,
            1 | 2 => piece.weight * 0.2,
            _ => 0.0,
        };
        *pieces += 1;
        *doubt *= 1.0 - weight.clamp(0.0, 0.99);
    }
    doubts.into_iter().map(|(class, (doubt, _))| (class, 1.0 - doubt)).collect()
}

fn best(scores: &BTreeMap<&'static str, f64>) -> Option<(&'static str, f64)> {
    let explained_by = |class: &str| {
        scores.iter().any(|(other, score)| {
            *score >= EXPLAINS_FROM && *other != class && explains(other).contains(&class)
        })
    };
    scores
        .iter()
        .filter(|(class, _)| !explained_by(class))
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(class, score)| (*class, *score))
}
