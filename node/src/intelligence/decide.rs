//! The decision: wait for the picture to settle, or propose.

use medic_state::{
    Millis, Ppm, Timestamp,
    decision::{Proposal, Recommendation},
    incident::IncidentStatus,
    symptom::Severity,
};

use super::{
    Conclusion, DecideError, DecisionInput,
    classify::{Classification, classify},
    confidence::confidence,
    plan::plan,
    recommend::{self, rank},
    risk::{self, RiskInput},
    rules::candidates,
    scene::{Scene, ppm},
};
use crate::topology;

/// Errors and latency of a service that calls others wait so long for the cause to show itself; those of
/// one that calls nobody wait [`SETTLE_QUIET`] for their siblings.
const SETTLE: Millis = Millis(4_000);
/// …and so long after the last new symptom.
const SETTLE_QUIET: Millis = Millis(2_000);
/// …but never longer than this in all.
const SETTLE_MAX: Millis = Millis(12_000);
/// A process that runs and refuses connections waits so long: its agent looks every second whether
/// its configuration has changed.
const SETTLE_CONFIG: Millis = Millis(1_500);
/// How long an effect waits for its cause, known to be in trouble, to be treated.
const CAUSE_MAX: Millis = Millis(60_000);
/// Between two looks at what hurts nobody.
const WATCH: Millis = Millis(10_000);
/// Between two looks while waiting.
const AGAIN: Millis = Millis(2_000);

/// See [`super::decide`].
pub(super) fn decide(input: &DecisionInput<'_>) -> Result<Conclusion, DecideError> {
    let incident = input
        .state
        .incidents
        .get(&input.incident)
        .ok_or(DecideError::NoIncident(input.incident))?;
    if incident.status == IncidentStatus::Resolved {
        return Err(DecideError::Closed(incident.id));
    }
    let scene = Scene {
        state: input.state,
        incident,
        service: topology::service(input.state, &incident.tenant, &incident.target.service),
        observations: input.observations,
        now: input.now.max(input.state.now),
    };
    if scene.own().is_empty() {
        let reason = "its symptoms have cleared; it closes by itself unless they return".to_owned();
        return Ok(Conclusion::Wait { until: scene.now.plus(AGAIN), reason });
    }
    if let Some(wait) = settle(&scene) {
        return Ok(wait);
    }
    let class = classify(&scene);
    if let Some(wait) = cause_first(&scene, &class) {
        return Ok(wait);
    }
    let proposal = propose(&scene, class, input);
    if proposal.plan.is_none()
        && let Some(wait) = treated_beside(&scene)
    {
        return Ok(wait);
    }
    let harmless = scene.own().iter().all(|s| s.symptom.severity == Severity::Info);
    if proposal.plan.is_none() && harmless && incident.attempts.is_empty() {
        let reason = "nothing hurts and nothing is known to help: it is watched".to_owned();
        return Ok(wait(scene.now.plus(WATCH), reason));
    }
    Ok(Conclusion::Propose(Box::new(proposal)))
}

fn wait(until: Timestamp, reason: String) -> Conclusion {
    Conclusion::Wait { until, reason }
}

/// Symptoms that trouble elsewhere can cause wait a moment for the picture to be complete.
fn settle(scene: &Scene<'_>) -> Option<Conclusion> {
    let own = scene.own();
    let refusing =
        own.iter().any(|s| s.symptom.kind == "down" && Scene::label(s, "process") == "running");
    let until = scene.incident.opened_at.plus(SETTLE_CONFIG);
    if refusing && scene.now < until {
        let reason = "its process runs: its configuration may have just changed".to_owned();
        return Some(wait(until, reason));
    }
    let decisive = own.iter().any(|s| {
        let process = Scene::label(s, "process");
        s.symptom.kind == "down"
            || s.symptom.kind == "agent-lost"
            || s.symptom.predicted()
            || matches!(process, "dead" | "paused")
    });
    let calls = scene.service.is_some_and(|service| !service.depends_on.is_empty());
    if decisive {
        return None;
    }
    let opened = scene.incident.opened_at;
    let newest = scene.incident.symptoms.values().map(|s| s.first_at).max().unwrap_or(opened);
    let (until, why) = if calls {
        let until = opened.plus(SETTLE).max(newest.plus(SETTLE_QUIET)).min(opened.plus(SETTLE_MAX));
        (until, "calls others: the cause may yet show itself there")
    } else if scene.affected().len() < scene.instances().len() {
        (opened.plus(SETTLE_QUIET), "has more instances: they may be about to show the same")
    } else {
        return None;
    };
    (scene.now < until).then(|| wait(until, format!("{} {why}", scene.name())))
}

/// Nothing fits while an instance of the same service is being treated: what is left of it then is
/// another picture.
fn treated_beside(scene: &Scene<'_>) -> Option<Conclusion> {
    let beside = scene.state.incidents.values().find(|other| {
        other.id != scene.incident.id
            && other.tenant == scene.incident.tenant
            && other.target.service == scene.name()
            && matches!(other.status, IncidentStatus::Remediating | IncidentStatus::Verifying)
    })?;
    let give_up = scene.incident.opened_at.plus(CAUSE_MAX);
    let reason = format!("{} is treated now, and nothing fits meanwhile", beside.target);
    (scene.now < give_up).then(|| wait(scene.now.plus(AGAIN).min(give_up), reason))
}

/// An effect is not treated while its cause is.
fn cause_first(scene: &Scene<'_>, class: &Classification) -> Option<Conclusion> {
    let cause = class.cause.as_ref()?;
    if class.class != "dependency/failure" {
        return None;
    }
    let give_up = scene.incident.opened_at.plus(CAUSE_MAX);
    let reason = format!("{cause} is in trouble and {} depends on it", scene.name());
    (scene.now < give_up).then(|| wait(scene.now.plus(AGAIN).min(give_up), reason))
}

fn propose(scene: &Scene<'_>, class: Classification, input: &DecisionInput<'_>) -> Proposal {
    let mut recommendations: Vec<Recommendation> = Vec::new();
    let mut chosen = None;
    for (candidate, mut recommendation) in rank(scene, class.class, candidates(scene, class.class))
    {
        if chosen.is_none() && recommendation.eligible {
            match plan(scene, &candidate) {
                Ok(plan) => chosen = Some((plan, candidate.by_symptom)),
                Err(error) => {
                    recommendation.eligible = false;
                    recommendation.reason = error.to_string();
                }
            }
        }
        recommendations.push(recommendation);
    }
    recommendations.sort_by_key(|r| std::cmp::Reverse(r.eligible));
    let mut proposal = Proposal {
        class: class.class.to_owned(),
        class_confidence: ppm(class.confidence),
        class_reasons: class.reasons.clone(),
        root_cause: class.cause.clone(),
        recommendations,
        risks: Vec::new(),
        risk: Ppm::ZERO,
        confidence: Ppm::ZERO,
        confidence_reasons: vec![no_playbook(scene, &class)],
        plan: None,
        overrides: input.overrides,
    };
    if let Some((plan, by_symptom)) = chosen {
        let (risks, risk) = risk::assess(&RiskInput { scene, plan: &plan });
        let record = recommend::record(scene, class.class, &plan.playbook);
        (proposal.confidence, proposal.confidence_reasons) =
            confidence(scene, &class, &record, &plan, by_symptom);
        (proposal.risks, proposal.risk) = (risks, risk);
        proposal.plan = Some(plan);
    }
    proposal
}

fn no_playbook(scene: &Scene<'_>, class: &Classification) -> String {
    let tried = scene.incident.attempts.len();
    if scene.service.is_none() {
        return format!("service {} is not declared any more", scene.name());
    }
    match tried {
        0 => format!("no playbook fits class {} of {}", class.class, scene.name()),
        _ => format!("no further playbook fits class {} after {tried} attempt(s)", class.class),
    }
}
