//! How dangerous the actions are in themselves, and how many there are.

use std::collections::BTreeMap;

use medic_state::manifest::SafetyClass;

use super::{RiskError, RiskInput, Scored, info, loss};
use crate::intelligence::scene::fraction;

#[allow(clippy::cast_precision_loss, reason = "at most 256 steps")]
pub(super) fn score(input: &RiskInput<'_>) -> Result<Scored, RiskError> {
    let steps = &input.plan.steps;
    let mut actions: BTreeMap<&str, f64> = BTreeMap::new();
    for step in steps {
        actions.insert(&step.action.name, fraction(info(step)?.danger));
    }
    let calm: f64 = actions.values().map(|danger| 1.0 - danger).product();
    let mut score = 1.0 - calm;
    let mut reasons: Vec<String> = actions
        .iter()
        .map(|(name, danger)| format!("{name} has a danger of {danger:.2}"))
        .collect();
    if steps.len() > 1 {
        score += 0.01 * (steps.len().min(21) - 1) as f64;
        reasons.push(format!("{} steps", steps.len()));
    }
    if loss(input)? > 0.0 {
        score += 0.05;
        reasons.push("interrupts instances that serve".to_owned());
    }
    if steps.iter().any(|step| step.safety == SafetyClass::Opaque) {
        score += 0.2;
        reasons.push("an opaque step: nobody could tell whether it happened".to_owned());
    }
    Ok(Scored { score, reasons })
}
