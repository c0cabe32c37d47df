//! How much of the topology the plan can reach: instances it touches, services that call those.

use std::collections::BTreeSet;

use super::{RiskError, RiskInput, Scored, loss, share};
use crate::topology;

#[allow(clippy::cast_precision_loss, reason = "counts of services and instances")]
pub(super) fn score(input: &RiskInput<'_>) -> Result<Scored, RiskError> {
    let scene = input.scene;
    let tenant = scene.tenant();
    let touched = input.plan.targets();
    let services: BTreeSet<&str> = touched.iter().map(|target| target.service.as_str()).collect();
    if let Some(gone) =
        services.iter().find(|name| topology::service(scene.state, tenant, name).is_none())
    {
        return Err(RiskError::NoService((*gone).to_owned()));
    }
    let all: Vec<_> = topology::services(scene.state, tenant).collect();
    let instances: usize = all.iter().map(|(_, spec)| topology::running(spec).count()).sum();
    let callers: BTreeSet<&str> = services
        .iter()
        .flat_map(|name| topology::dependents(scene.state, tenant, name))
        .filter(|caller| !services.contains(caller))
        .collect();
    let others = all.len().saturating_sub(services.len());
    let reach = if others == 0 { 0.0 } else { callers.len() as f64 / others as f64 };
    let part = if instances == 0 { 1.0 } else { touched.len() as f64 / instances as f64 };
    let loss = loss(input)?;
    let mut reasons = vec![format!("touches {} of {instances} instances", touched.len())];
    if callers.is_empty() {
        reasons.push("no other service depends on them".to_owned());
    } else {
        let names = callers.iter().copied().take(8).collect::<Vec<_>>().join(", ");
        reasons
            .push(format!("{} of {others} other services depend on them: {names}", callers.len()));
    }
    reasons.push(if loss > 0.0 {
        format!("{} of the service's good answers stop meanwhile", share(loss))
    } else {
        "no good answer is lost meanwhile".to_owned()
    });
    let score = 0.05 + 0.15 * part.min(1.0) + 0.1 * reach + loss * (0.15 + 0.35 * reach);
    Ok(Scored { score, reasons })
}
