//! Where a proposal goes: alone, to people for approval, or to people altogether. Thresholds come
//! from the tenant's policy; the deciding node's environment may replace those of auto-execute.

use crate::{
    decision::{Proposal, Route},
    ids::Ppm,
    law::safety::{Candidate, never},
    manifest::{Mode, PlaybookSpec, PolicySpec, Thresholds},
    plan::Plan,
    planted::{Planted, planted},
    state::State,
};

/// The route and its reasons, in words.
pub(super) struct Routed {
    /// Where to.
    pub route: Route,
    /// Why.
    pub reasons: Vec<String>,
}

impl Routed {
    fn to(route: Route, reason: impl Into<String>) -> Self {
        Self { route, reasons: vec![reason.into()] }
    }
}

/// Routes a proposal whose plan, if any, is sound and of this playbook.
pub(super) fn route(
    state: &State,
    tenant: &str,
    proposal: &Proposal,
    planned: Option<(&Plan, &PlaybookSpec)>,
    attempts: usize,
) -> Routed {
    let Some((plan, playbook)) = planned else {
        return Routed::to(Route::EscalateToHuman, "no playbook fits");
    };
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    if attempts >= plan.scope.max_attempts && !planted(Planted::AttemptsUncapped) {
        let text = format!("{attempts} of {} attempts are used up", plan.scope.max_attempts);
        return Routed::to(Route::EscalateToHuman, text);
    }
    let candidate = Candidate { id: None, tenant, plan };
    if let Some(why) = never(state, &candidate) {
        return Routed::to(Route::EscalateToHuman, why);
    }
    let policy = state.policy(tenant);
    let mut routed = by_thresholds(&policy, proposal);
    match (routed.route, playbook.mode) {
        (Route::EscalateToHuman, _) => {}
        (_, Mode::Shadow) => {
            routed.route = Route::Shadow;
            // What settled it comes first, the scores after it.
            routed.reasons.insert(0, format!("playbook {} is in shadow mode", plan.playbook));
        }
        (_, Mode::Approve | Mode::Auto) => {
            let asks = asks_for_approval(state, tenant, &policy, proposal, plan, playbook);
            if !asks.is_empty() {
                routed.route = Route::RecommendWithApproval;
                routed.reasons.splice(0..0, asks);
            }
        }
    }
    routed
}

fn by_thresholds(policy: &PolicySpec, proposal: &Proposal) -> Routed {
    let auto = Thresholds {
        confidence: proposal.overrides.confidence.unwrap_or(policy.auto_execute.confidence),
        risk: proposal.overrides.risk.unwrap_or(policy.auto_execute.risk),
    };
    let (confidence, risk) = (proposal.confidence, proposal.risk);
    let against = |bounds: &Thresholds| {
        format!(
            "confidence {} (above {} wanted), risk {} (below {} wanted)",
            beside(confidence, bounds.confidence),
            bounds.confidence,
            beside(risk, bounds.risk),
            bounds.risk
        )
    };
    if auto.admit(confidence, risk) {
        Routed::to(Route::AutoExecute, against(&auto))
    } else if policy.recommend.admit(confidence, risk) {
        let text = format!("to act alone: {}", against(&auto));
        Routed::to(Route::RecommendWithApproval, text)
    } else {
        let text = format!("to ask for approval: {}", against(&policy.recommend));
        Routed::to(Route::EscalateToHuman, text)
    }
}

/// A score as people read it beside a bound: in hundredths, unless those would hide on which side of
/// the bound it lies.
fn beside(score: Ppm, bound: Ppm) -> Ppm {
    const HUNDREDTH: u32 = 10_000;
    let rounded = Ppm(score.0.saturating_add(HUNDREDTH / 2) / HUNDREDTH * HUNDREDTH);
    if rounded.cmp(&bound) == score.cmp(&bound) { rounded } else { score }
}

/// Rules that ask people whatever the thresholds say.
fn asks_for_approval(
    state: &State,
    tenant: &str,
    policy: &PolicySpec,
    proposal: &Proposal,
    plan: &Plan,
    playbook: &PlaybookSpec,
) -> Vec<String> {
    let mut asks = Vec::new();
    if playbook.mode == Mode::Approve {
        asks.push(format!("playbook {} acts only after approval", plan.playbook));
    }
    if let Some(bound) = plan.approval.when_risk.filter(|bound| proposal.risk >= bound.0) {
        asks.push(format!("risk {} is {bound}", beside(proposal.risk, bound.0)));
    }
    let services: std::collections::BTreeSet<&str> =
        plan.steps.iter().map(|step| step.target.service.as_str()).collect();
    for service in services {
        let regimes = state.service(tenant, service).map(|found| found.compliance.as_slice());
        let bound = regimes
            .unwrap_or_default()
            .iter()
            .find(|regime| policy.approval_for_compliance.contains(regime));
        if let Some(regime) = bound {
            asks.push(format!("{service} falls under {regime}"));
        }
    }
    asks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_short_unless_that_would_mislead() {
        for (score, bound, shown) in [
            (869_030, 800_000, "0.87"),
            (199_328, 300_000, "0.20"),
            (800_400, 800_000, "0.8004"),
            (799_999, 800_000, "0.799999"),
            (800_000, 800_000, "0.80"),
            (1_000_000, 300_000, "1.00"),
        ] {
            assert_eq!(beside(Ppm(score), Ppm(bound)).to_string(), shown);
        }
    }
}
