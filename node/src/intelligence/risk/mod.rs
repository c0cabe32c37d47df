//! The five risks of a plan, each with its reasons, and their combination.
//!
//! ```text
//!  risk = 0.6 × the worst + 0.4 × the weighted mean
//! ```
//!
//! The worst leads, because a plan that is harmless in four respects and dangerous in one is
//! dangerous; the mean lets the rest be heard. A calculator that cannot tell counts as 1.0, with
//! its error named. All are pure functions of the incident's scene and the plan.
//!
//! What most of them turn on is the *loss*: the share of requests to a service that are answered well
//! now and would not be while a step runs. Steps run one after another, so it is that of the worst
//! step. Restarting a dead process loses nothing; restarting the only healthy instance loses all. Where
//! others are in rotation, they take part of it over: callers try again there, or find out.

mod blast_radius;
mod business;
mod compliance;
mod rollback;
mod technical;

use medic_state::{
    Ppm,
    action::{ActionInfo, action_info},
    decision::{RiskKind, RiskScore},
    manifest::SafetyClass,
    plan::{Plan, PlannedStep},
};

use super::scene::{Scene, fraction, ppm};
use crate::topology;

/// What a calculator sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct RiskInput<'a> {
    /// The incident.
    pub(super) scene: &'a Scene<'a>,
    /// The plan.
    pub(super) plan: &'a Plan,
}

/// A score from 0 to 1, with what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    /// The score.
    pub(super) score: f64,
    /// Why.
    pub(super) reasons: Vec<String>,
}

/// Why a risk could not be told; it counts as 1.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RiskError {
    /// The touched service is not declared.
    #[error("service {0} is not declared, so its risk cannot be told")]
    NoService(String),
    /// The catalogue has no such action.
    #[error("nothing is known about the action `{0}`")]
    NoAction(String),
    /// A calculation went wrong.
    #[error("the calculation gave {0}")]
    NotANumber(String),
}

type Calculator = fn(&RiskInput<'_>) -> Result<Scored, RiskError>;

/// The calculators and their weights in the mean.
const CALCULATORS: [(RiskKind, f64, Calculator); 5] = [
    (RiskKind::BlastRadius, 0.25, blast_radius::score),
    (RiskKind::BusinessImpact, 0.30, business::score),
    (RiskKind::Technical, 0.20, technical::score),
    (RiskKind::Compliance, 0.10, compliance::score),
    (RiskKind::Rollback, 0.15, rollback::score),
];

/// Share of the worst risk in the combination.
const WORST: f64 = 0.6;

/// Assesses a plan: the five risks and their combination.
#[must_use]
pub(super) fn assess(input: &RiskInput<'_>) -> (Vec<RiskScore>, Ppm) {
    let risks: Vec<RiskScore> = CALCULATORS
        .iter()
        .map(|(kind, _, calculate)| {
            let scored = calculate(input).and_then(|scored| {
                let number = scored.score.is_finite();
                number
                    .then_some(scored.clone())
                    .ok_or(RiskError::NotANumber(format!("{}", scored.score)))
            });
            match scored {
                Ok(scored) => {
                    RiskScore { kind: *kind, score: ppm(scored.score), reasons: scored.reasons }
                }
                Err(error) => {
                    let reasons = vec![format!("counts as 1.0: {error}")];
                    RiskScore { kind: *kind, score: Ppm::ONE, reasons }
                }
            }
        })
        .collect();
    let combined = combine(&risks);
    (risks, combined)
}

/// The documented combination.
fn combine(risks: &[RiskScore]) -> Ppm {
    let worst = risks.iter().map(|risk| fraction(risk.score)).fold(0.0, f64::max);
    let mean: f64 = risks
        .iter()
        .zip(CALCULATORS)
        .map(|(risk, (_, weight, _))| weight * fraction(risk.score))
        .sum();
    ppm(WORST * worst + (1.0 - WORST) * mean)
}

/// The catalogue's entry of a step.
fn info(step: &PlannedStep) -> Result<&'static ActionInfo, RiskError> {
    action_info(&step.action.name).ok_or_else(|| RiskError::NoAction(step.action.name.clone()))
}

/// Whether a step keeps its target from serving; an opaque one must be assumed to.
fn interrupts(step: &PlannedStep) -> Result<bool, RiskError> {
    Ok(info(step)?.interrupts || step.safety == SafetyClass::Opaque)
}

/// The part of an instance's requests that is lost while it restarts, though others serve: those under
/// way, and those that come before callers notice.
const NOT_TAKEN_OVER: f64 = 0.6;

/// The greatest share of a service's present good answers that any one step stops: what its target
/// answers well, over the instances that requests go to.
fn loss(input: &RiskInput<'_>) -> Result<f64, RiskError> {
    let scene = input.scene;
    let mut greatest: f64 = 0.0;
    for step in &input.plan.steps {
        let Some(serving) = scene.serving(&step.target).filter(|share| *share > 0.0) else {
            continue;
        };
        if !interrupts(step)? {
            continue;
        }
        let target = &step.target;
        let all = topology::running_targets(scene.state, &target.tenant, &target.service);
        let in_rotation = all.iter().filter(|target| scene.serving(target).is_some()).count();
        #[allow(clippy::cast_precision_loss, reason = "instances of one service")]
        let share = serving / in_rotation.max(1) as f64;
        let alone = in_rotation <= 1;
        greatest = greatest.max(if alone { share } else { share * NOT_TAKEN_OVER });
    }
    Ok(greatest.clamp(0.0, 1.0))
}

/// For people.
fn share(loss: f64) -> String {
    format!("{:.0} %", loss * 100.0)
}
