//! What an outage of the touched services costs: criticality, lessened by redundancy.

use medic_state::manifest::Criticality;

use super::{RiskError, RiskInput, Scored, interrupts, loss, share};
use crate::{
    intelligence::scene::{criticality, fraction},
    topology,
};

pub(super) fn score(input: &RiskInput<'_>) -> Result<Scored, RiskError> {
    let scene = input.scene;
    let mut worst: Option<(f64, String)> = None;
    let mut reasons = Vec::new();
    for target in input.plan.targets() {
        let spec = topology::service(scene.state, &target.tenant, &target.service)
            .ok_or_else(|| RiskError::NoService(target.service.clone()))?;
        let base = match spec.criticality {
            Criticality::Low => 0.1,
            Criticality::Medium => 0.25,
            Criticality::High => 0.4,
            Criticality::Critical => 0.55,
        };
        if worst.as_ref().is_none_or(|(score, _)| base > *score) {
            let level = criticality(spec.criticality);
            worst = Some((base, format!("the criticality of {} is {level}", target.service)));
        }
    }
    let (base, reason) = worst.unwrap_or_default();
    reasons.push(reason);
    let mut interrupting = false;
    for step in &input.plan.steps {
        interrupting |= interrupts(step)?;
    }
    let loss = loss(input)?;
    let factor = if !interrupting {
        reasons.push("nothing is interrupted".to_owned());
        0.3
    } else if loss == 0.0 {
        reasons.push("what is interrupted serves nothing now".to_owned());
        0.5
    } else {
        let all = scene.instances();
        let left = all.iter().filter(|target| scene.serving(target).is_some()).count();
        reasons.push(format!(
            "{left} of {} instances serve now; {} of the good answers stop for a moment",
            all.len(),
            share(loss)
        ));
        0.5 + 0.5 * loss
    };
    let mut score = base * factor;
    if let Some(slo) = scene.service.and_then(|spec| spec.slo.as_ref()) {
        let strict = fraction(slo.availability) >= 0.999;
        if strict && loss > 0.0 {
            score += 0.05 * loss;
            reasons.push(format!("its objective of {} leaves little budget", slo.availability));
        }
    }
    Ok(Scored { score, reasons })
}
