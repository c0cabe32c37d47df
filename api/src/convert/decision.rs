//! Decisions.

use medic_proto::v1 as pb;
use medic_state::{
    decision::{Decision, Recommendation, RiskKind, RiskScore, Route},
    incident::Incident,
};

use super::{fraction, target, text, time};

/// Where a decision went.
#[must_use]
pub const fn route(route: Route) -> pb::Route {
    match route {
        Route::AutoExecute => pb::Route::AutoExecute,
        Route::RecommendWithApproval => pb::Route::RecommendWithApproval,
        Route::EscalateToHuman => pb::Route::EscalateToHuman,
        Route::Shadow => pb::Route::Shadow,
    }
}

/// A decision about an incident.
#[must_use]
pub fn decision(incident: &Incident, decision: &Decision) -> pb::Decision {
    let proposal = &decision.proposal;
    pb::Decision {
        index: decision.index,
        at: Some(time(decision.at)),
        by: decision.by.clone(),
        incident: incident.id.to_string(),
        tenant: incident.tenant.clone(),
        target: Some(target(&incident.target)),
        class: proposal.class.clone(),
        class_confidence: fraction(proposal.class_confidence),
        class_reasons: proposal.class_reasons.clone(),
        root_cause: proposal.root_cause.as_ref().map(target),
        recommendations: proposal.recommendations.iter().map(recommendation).collect(),
        risks: proposal.risks.iter().map(risk).collect(),
        risk: fraction(proposal.risk),
        confidence: fraction(proposal.confidence),
        confidence_reasons: proposal.confidence_reasons.clone(),
        route: route(decision.route).into(),
        route_reasons: decision.route_reasons.clone(),
        plan: text(incident.plan.filter(|plan| plan.0 == decision.index).as_ref()),
        confidence_override: proposal.overrides.confidence.map(fraction),
        risk_override: proposal.overrides.risk.map(fraction),
    }
}

fn recommendation(one: &Recommendation) -> pb::Recommendation {
    pb::Recommendation {
        playbook: one.playbook.clone(),
        score: fraction(one.score),
        by: one.by.clone(),
        reason: one.reason.clone(),
        eligible: one.eligible,
    }
}

fn risk(risk: &RiskScore) -> pb::Risk {
    let kind = match risk.kind {
        RiskKind::BlastRadius => pb::RiskKind::BlastRadius,
        RiskKind::BusinessImpact => pb::RiskKind::BusinessImpact,
        RiskKind::Technical => pb::RiskKind::Technical,
        RiskKind::Compliance => pb::RiskKind::Compliance,
        RiskKind::Rollback => pb::RiskKind::Rollback,
    };
    pb::Risk { kind: kind.into(), score: fraction(risk.score), reasons: risk.reasons.clone() }
}
