//! `AdoptDecision`: judgement has concluded; the law says where that goes.
//!
//! Refused: what was based on an older revision or comes from a deposed leader, an unsound plan.
//! Held back (the leader tries again): freezes, windows, a playbook changed meanwhile, controls that
//! pass with time. Escalated: everything a human should look at.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::AdoptDecision,
    decision::{Decision, Proposal, Route},
    ids::{IncidentId, PlanId},
    incident::IncidentStatus,
    law::{
        context::{Context, clip},
        incidents::tell,
        routing::{Routed, route},
        safety::{self, Candidate},
        saga, soundness,
        topology::as_playbook,
    },
    manifest::{Kind, PlaybookSpec, Stored},
    plan::Plan,
    planted::{Planted, planted},
    saga::{Saga, SagaStatus, StepState},
    state::State,
    symptom::Target,
};

/// Ended plans kept with an open incident.
const MAX_ENDED_SAGAS: usize = 16;

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &AdoptDecision,
) -> Answer {
    state.check_fence(context, command.fence)?;
    let id = command.incident;
    let incident = state.incidents.get(&id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
    if command.based_on != incident.revision {
        let (given, current) = (command.based_on, incident.revision);
        return Err(Refusal::StaleRevision { given, current });
    }
    if incident.status != IncidentStatus::Open {
        return Err(Refusal::IllegalState(format!("{id} is {}", incident.status)));
    }
    let tenant = incident.tenant.clone();
    let proposal = &command.proposal;
    soundness::check(&tenant, proposal)?;
    let playbook = match &proposal.plan {
        Some(plan) => {
            soundness::check_plan(state, &tenant, plan)?;
            Some(pinned(state, &tenant, plan)?)
        }
        None => None,
    };
    if let Some(why) = outside_hold(state, id, proposal) {
        return hold_back(state, id, why);
    }
    let planned = proposal.plan.as_ref().zip(playbook.as_ref().map(|(spec, _)| spec));
    let attempts = state.incidents.get(&id).map_or(0, |incident| incident.attempts.len());
    let routed = route(state, &tenant, proposal, planned, attempts);
    if let (Route::AutoExecute, Some(plan)) = (routed.route, &proposal.plan) {
        let candidate = Candidate { id: None, tenant: &tenant, plan };
        let why = safety::not_yet(state, &candidate)
            .or_else(|| safety::unavailable(state, &candidate, 0));
        if let Some(why) = why {
            return hold_back(state, id, why);
        }
    }
    let author = playbook.map(|(_, author)| author);
    Ok(decide(state, context, id, proposal, routed, author))
}

/// Leaves the reason where people see it. No revision: nothing a decision should know has changed.
fn hold_back(state: &mut State, id: IncidentId, why: String) -> Answer {
    if let Some(incident) = state.incidents.get_mut(&id) {
        incident.held_by = Some(clip(&why));
    }
    Err(Refusal::HeldBack(why))
}

/// The playbook the plan was made from, if it is still the same, and who applied it.
fn pinned(state: &State, tenant: &str, plan: &Plan) -> Result<(PlaybookSpec, String), Refusal> {
    let stored = unchanged(state, tenant, plan).ok_or_else(|| {
        let name = &plan.playbook;
        Refusal::HeldBack(format!("playbook {name} has changed or gone since: decide again"))
    })?;
    match as_playbook(&stored.manifest.spec) {
        Some(playbook) if playbook.approval != plan.approval || playbook.scope != plan.scope => {
            let text = format!("the plan has other rules than its playbook {}", plan.playbook);
            Err(Refusal::Invalid(text))
        }
        Some(playbook) => Ok((playbook.clone(), stored.by.clone())),
        None => Err(Refusal::Invalid(format!("{} is no playbook", plan.playbook))),
    }
}

/// The stored playbook, if it is the one that the plan was made from.
pub(super) fn unchanged<'a>(state: &'a State, tenant: &str, plan: &Plan) -> Option<&'a Stored> {
    state.stored(Kind::Playbook, tenant, &plan.playbook).filter(|stored| {
        stored.digest == plan.playbook_digest || planted(Planted::PlaybookNotPinned)
    })
}

/// What holds the decision back from outside: of the incident, or of anything the plan touches.
fn outside_hold(state: &State, id: IncidentId, proposal: &Proposal) -> Option<String> {
    let of_incident = || state.incidents.get(&id).and_then(|incident| state.hold(incident));
    let of_plan = || {
        let plan = proposal.plan.as_ref()?;
        plan.targets().into_iter().find_map(|target| state.frozen(target, Some(&plan.playbook)))
    };
    of_incident().or_else(of_plan)
}

/// Commits the decision.
fn decide(
    state: &mut State,
    context: &mut Context<'_>,
    id: IncidentId,
    proposal: &Proposal,
    routed: Routed,
    author: Option<String>,
) -> Reply {
    let Routed { route, reasons } = routed;
    forget_old_sagas(state, id);
    let reopened_by = state.reopened.get(&id).cloned();
    let Some(incident) = state.incidents.get_mut(&id) else { return Reply::Done };
    let mut kept = proposal.clone();
    let plan = kept.plan.take();
    incident.decision = Some(Decision {
        index: context.index,
        at: context.now,
        by: context.actor(),
        proposal: kept,
        route,
        route_reasons: reasons.clone(),
    });
    incident.decided_at.get_or_insert(context.now);
    incident.held_by = None;
    if let Some(cause) = &proposal.root_cause {
        move_target(incident, context, cause);
    }
    let why = reasons.join("; ");
    tell(incident, context, format!("decided: {} → {route}: {why}", proposal.class));
    incident.plan = None;
    match (route, plan) {
        (Route::AutoExecute | Route::RecommendWithApproval, Some(plan)) => {
            let saga =
                new_saga(context, incident.tenant.clone(), id, plan, route, reopened_by.or(author));
            let plan = saga.id;
            incident.plan = Some(plan);
            let acts_alone = route == Route::AutoExecute;
            incident.status = if acts_alone {
                IncidentStatus::Remediating
            } else {
                IncidentStatus::AwaitingApproval
            };
            state.sagas.insert(plan, saga);
            if acts_alone {
                safety::lock(state, plan);
            }
            context.touched.insert(id);
            Reply::Decided { plan: Some(plan), route }
        }
        (Route::Shadow, Some(plan)) => {
            let would = format!("{why}; it would have done: {}", in_words(&plan));
            state.escalate(context, id, &would);
            Reply::Decided { plan: None, route }
        }
        (Route::EscalateToHuman, Some(plan)) => {
            let proposed = format!("{why}; proposed was {}: {}", plan.playbook, in_words(&plan));
            state.escalate(context, id, &proposed);
            Reply::Decided { plan: None, route }
        }
        (_, None) => {
            state.escalate(context, id, &why);
            Reply::Decided { plan: None, route }
        }
    }
}

/// The cause is treated instead of the target at which the fault showed.
fn move_target(incident: &mut crate::incident::Incident, context: &Context<'_>, cause: &Target) {
    if incident.target == *cause {
        return;
    }
    tell(incident, context, format!("the cause is {cause}, not {}", incident.target));
    incident.target = cause.clone();
    for known in incident.symptoms.values_mut() {
        known.grouped = known.symptom.target.service != cause.service;
    }
}

fn new_saga(
    context: &Context<'_>,
    tenant: String,
    incident: IncidentId,
    plan: Plan,
    route: Route,
    requested_by: Option<String>,
) -> Saga {
    let asks = route == Route::RecommendWithApproval;
    Saga {
        id: PlanId(context.index),
        incident,
        tenant,
        digest: plan.digest(),
        status: if asks { SagaStatus::AwaitingApproval } else { SagaStatus::Running },
        steps: vec![StepState::default(); plan.steps.len()],
        approvals: std::collections::BTreeMap::new(),
        approval_until: asks.then(|| context.now.plus(plan.approval.ttl)),
        requested_by,
        created_at: context.now,
        started_at: None,
        verifying_since: None,
        ended_at: None,
        reason: None,
        verdict: None,
        plan,
    }
}

/// `restart: process.restart api/a, …`; the first few steps.
fn in_words(plan: &Plan) -> String {
    const SHOWN: usize = 5;
    let steps = plan.steps.iter().take(SHOWN);
    let mut text = steps
        .map(|step| format!("{} {}", step.action.name, step.target))
        .collect::<Vec<_>>()
        .join(", ");
    if plan.steps.len() > SHOWN {
        text.push_str(&format!(" and {} more", plan.steps.len() - SHOWN));
    }
    text
}

/// Keeps the number of an incident's ended plans bounded. What became of the oldest is on the
/// timeline, among the attempts and in the audit chain.
fn forget_old_sagas(state: &mut State, id: IncidentId) {
    let mut ended: Vec<PlanId> = state
        .sagas
        .values()
        .filter(|saga| saga.incident == id && saga.status.ended())
        .filter(|saga| !state.locks.values().any(|holder| *holder == saga.id))
        .map(|saga| saga.id)
        .collect();
    while ended.len() > MAX_ENDED_SAGAS {
        state.sagas.remove(&ended.remove(0));
    }
}

/// Whether people were asked about a plan.
pub(super) const fn needs_approval(saga: &Saga) -> bool {
    saga.approval_until.is_some()
}

/// An approved plan may run: it takes its locks now if nothing is in the way, else before its first
/// step.
pub(super) fn admit_approved(state: &mut State, context: &mut Context<'_>, plan: PlanId) {
    let Some(saga) = state.sagas.get_mut(&plan) else { return };
    saga.status = SagaStatus::Running;
    let (tenant, planned, id) = (saga.tenant.clone(), saga.plan.clone(), saga.incident);
    let candidate = Candidate { id: Some(plan), tenant: &tenant, plan: &planned };
    if safety::not_yet(state, &candidate).is_none() {
        safety::lock(state, plan);
    }
    if let Ok(incident) = state.incident_mut(id) {
        incident.status = IncidentStatus::Remediating;
        tell(incident, context, format!("{plan} is approved"));
    }
    saga::advance(state, context, plan);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{command::Command, ids::*, law::tests::lab::*, manifest::*, state::FreezeScope};

    fn route_of(answer: &Answer) -> Route {
        match answer {
            Ok(Reply::Decided { route, .. }) => *route,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn thresholds_route() {
        for (confidence, risk, expected) in [
            (810_000, 290_000, Route::AutoExecute),
            (800_000, 290_000, Route::RecommendWithApproval),
            (810_000, 300_000, Route::RecommendWithApproval),
            (600_000, 100_000, Route::EscalateToHuman),
            (900_000, 500_000, Route::EscalateToHuman),
        ] {
            let mut lab = Lab::new();
            let id = lab.report("api", "a", "down");
            let plan = lab.plan(vec![step(&target("api", "a"))]);
            let mut proposal = lab.proposal(Some(plan));
            proposal.confidence = Ppm(confidence);
            proposal.risk = Ppm(risk);
            let answer = lab.propose(id, proposal);
            assert_eq!(route_of(&answer), expected, "{confidence} {risk}");
        }
    }

    #[test]
    fn the_environment_replaces_the_bounds_of_auto_execute() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let mut proposal = lab.proposal(Some(lab.plan(vec![step(&target("api", "a"))])));
        proposal.overrides.confidence = Some(Ppm(950_000));
        assert_eq!(route_of(&lab.propose(id, proposal)), Route::RecommendWithApproval);
    }

    #[test]
    fn mode_risk_and_compliance_ask_people() {
        type Case = (&'static str, fn(&mut Lab));
        let ask: [Case; 3] = [
            ("acts only after approval", |lab| {
                lab.apply(
                    "restart",
                    Spec::Playbook(PlaybookSpec { mode: Mode::Approve, ..playbook() }),
                );
            }),
            ("is >= 0.10", |lab| {
                let mut playbook = playbook();
                playbook.approval.when_risk = Some(">= 0.1".parse().unwrap());
                lab.apply("restart", Spec::Playbook(playbook));
            }),
            ("falls under pci", |lab| {
                let mut api = service(&["a", "b", "c"], &["db"]);
                api.compliance = vec!["pci".into()];
                lab.apply("api", Spec::Service(api));
                let policy = PolicySpec {
                    approval_for_compliance: vec!["pci".into()],
                    ..PolicySpec::default()
                };
                lab.apply("default", Spec::Policy(policy));
            }),
        ];
        for (why, prepare) in ask {
            let mut lab = Lab::new();
            prepare(&mut lab);
            let id = lab.report("api", "a", "down");
            let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
            assert_eq!(lab.status(id), IncidentStatus::AwaitingApproval);
            assert!(lab.state.locks.is_empty());
            assert!(lab.saga(plan).approval_until.is_some());
            assert!(lab.owed().is_empty());
            let reasons = &lab.incident(id).decision.as_ref().unwrap().route_reasons;
            assert!(reasons[0].contains(why), "what asks for people comes first: {reasons:?}");
            assert!(reasons[1].starts_with("confidence "), "{reasons:?}");
        }
    }

    #[test]
    fn a_shadow_says_what_it_would_have_done() {
        let mut lab = Lab::new();
        lab.apply("restart", Spec::Playbook(PlaybookSpec { mode: Mode::Shadow, ..playbook() }));
        let id = lab.report("api", "a", "down");
        let plan = lab.plan(vec![step(&target("api", "a"))]);
        let answer = lab.propose(id, lab.proposal(Some(plan)));
        assert_eq!(route_of(&answer), Route::Shadow);
        let why = lab.incident(id).escalation.clone().unwrap();
        assert!(why.starts_with("playbook restart is in shadow mode; "), "{why}");
        assert!(why.ends_with("it would have done: process.restart api/a"), "{why}");
        assert!(lab.state.sagas.is_empty());
    }

    #[test]
    fn what_is_not_current_is_refused() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "errors");
        let plan = lab.plan(vec![step(&target("api", "a"))]);
        let proposal = lab.proposal(Some(plan));
        let fence = lab.state.fence.fence;
        let adopt = |based_on, fence| {
            let proposal = proposal.clone();
            Command::AdoptDecision(Box::new(AdoptDecision {
                incident: id,
                based_on,
                fence,
                proposal,
            }))
        };
        let answer = lab.node(1, adopt(Revision(9), fence));
        assert_eq!(
            answer,
            Err(Refusal::StaleRevision { given: Revision(9), current: Revision(1) })
        );
        let answer = lab.node(1, adopt(Revision(1), Fence(1)));
        assert_eq!(answer, Err(Refusal::StaleFence { given: Fence(1), current: fence }));
        assert!(lab.node(2, adopt(Revision(1), fence)).is_err(), "the fence is another node's");
        lab.apply("restart", Spec::Playbook(PlaybookSpec { preventive: true, ..playbook() }));
        assert!(held(&lab.node(1, adopt(Revision(1), fence))).contains("has changed"));
    }

    #[test]
    fn unsound_plans_are_refused() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let good = || step(&target("api", "a"));
        let spoil: [fn(&mut crate::plan::PlannedStep); 6] = [
            |step| step.target.tenant = "other".into(),
            |step| step.target.service = "gone".into(),
            |step| step.target.instance = "gone".into(),
            |step| step.action.name = "rm.rf".into(),
            |step| step.timeout = Millis(0),
            |step| step.retries = 11,
        ];
        for spoil in spoil {
            let mut step = good();
            spoil(&mut step);
            let plan = lab.plan(vec![step]);
            let answer = lab.propose(id, lab.proposal(Some(plan)));
            assert!(matches!(answer, Err(Refusal::Invalid(_))), "{answer:?}");
        }
        for steps in [0, crate::plan::MAX_STEPS + 1] {
            let plan = lab.plan(vec![good(); steps]);
            assert!(lab.propose(id, lab.proposal(Some(plan))).is_err());
        }
    }

    #[test]
    fn a_freeze_of_anything_it_touches_holds_it_back() {
        let tenant = || TENANT.to_owned();
        for scope in [
            FreezeScope::Global,
            FreezeScope::Tenant(tenant()),
            FreezeScope::Region("eu".into()),
            FreezeScope::Service { tenant: tenant(), service: "api".into() },
            FreezeScope::Playbook { tenant: tenant(), playbook: "restart".into() },
            FreezeScope::Target(target("api", "a")),
        ] {
            let mut lab = Lab::new();
            let id = lab.report("api", "a", "down");
            lab.freeze(scope.clone());
            let plan = lab.plan(vec![step(&target("api", "a"))]);
            let answer = lab.propose(id, lab.proposal(Some(plan.clone())));
            assert!(held(&answer).contains("is frozen by root"), "{scope}");
            assert!(lab.incident(id).held_by.is_some());
            lab.root(Command::Unfreeze(scope)).unwrap();
            lab.propose(id, lab.proposal(Some(plan))).unwrap();
            assert_eq!(lab.incident(id).held_by, None);
        }
    }

    #[test]
    fn the_cause_is_treated() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "errors");
        let mut proposal = lab.proposal(Some(lab.plan(vec![step(&target("db", "d"))])));
        proposal.root_cause = Some(target("db", "d"));
        lab.propose(id, proposal).unwrap();
        assert_eq!(lab.incident(id).target, target("db", "d"));
        assert!(lab.incident(id).symptoms.values().all(|known| known.grouped));
        assert!(lab.state.locks.contains_key(&target("db", "d")));
    }
}
