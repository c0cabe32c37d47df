//! Regimes that the touched services fall under.

use std::collections::BTreeSet;

use medic_state::action::Backend;

use super::{RiskError, RiskInput, Scored, info, loss};
use crate::topology;

pub(super) fn score(input: &RiskInput<'_>) -> Result<Scored, RiskError> {
    let scene = input.scene;
    let mut regimes = BTreeSet::new();
    for target in input.plan.targets() {
        let spec = topology::service(scene.state, &target.tenant, &target.service)
            .ok_or_else(|| RiskError::NoService(target.service.clone()))?;
        regimes.extend(spec.compliance.iter().map(String::as_str));
    }
    if regimes.is_empty() {
        let reasons = vec!["the touched services fall under no regime".to_owned()];
        return Ok(Scored { score: 0.0, reasons });
    }
    let names = regimes.iter().copied().collect::<Vec<_>>().join(", ");
    #[allow(clippy::cast_precision_loss, reason = "a handful of regimes")]
    let mut score = 0.3 + 0.05 * (regimes.len() - 1) as f64;
    let mut reasons = vec![format!("falls under {names}")];
    if loss(input)? == 0.0 {
        score *= 0.5;
        reasons.push("no running work is interrupted".to_owned());
    }
    for step in &input.plan.steps {
        if info(step)?.backend == Backend::Node {
            score += 0.3;
            reasons.push(format!("{} leaves Medic's own reach", step.action.name));
            break;
        }
    }
    if input.plan.steps.iter().any(|step| step.action.name.starts_with("config.")) {
        score += 0.1;
        reasons.push("changes configuration".to_owned());
    }
    Ok(Scored { score, reasons })
}
