//! `StartStep`: the driver is about to act. Only an intent that was admitted here may be acted on.
//!
//! A step without intent starts in the one order that is legal; before a first step everything is
//! asked again that was asked at adoption. A step with an intent of an earlier fence is taken over
//! (`resume`), whatever its safety class: what may be done about it is the hands' rule, and an
//! opaque one is taken over to record what became of it. Unwinding is never held back.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::StartStep,
    ids::PlanId,
    incident::IncidentStatus,
    law::{
        adopt::{needs_approval, unchanged},
        context::Context,
        incidents::tell,
        safety::{self, Candidate},
        saga::{
            self, next_move, not_before, record_event,
            step::{StepEvent, next},
        },
    },
    plan::Direction,
    planted::{Planted, planted},
    saga::{Intent, Saga, SagaStatus},
    state::State,
};

pub(super) fn apply(state: &mut State, context: &mut Context<'_>, command: &StartStep) -> Answer {
    state.check_fence(context, command.fence)?;
    let plan = command.plan;
    let saga = state.sagas.get(&plan).ok_or_else(|| Refusal::NotFound(plan.to_string()))?;
    let at = usize::try_from(command.step).unwrap_or(usize::MAX);
    let step = saga.steps.get(at).ok_or_else(|| {
        Refusal::Invalid(format!("{plan} has {} steps, and no step {at}", saga.steps.len()))
    })?;
    let event = match &step.intent {
        Some(intent) if intent.direction != command.direction => {
            let text = format!("step {at} of {plan} is under way the other way");
            return Err(Refusal::IllegalState(text));
        }
        Some(intent) if intent.fence == command.fence => {
            let text = format!("step {at} of {plan} was started under this fence already");
            return Err(Refusal::IllegalState(text));
        }
        Some(intent) if !command.resume => {
            let text = format!("step {at} of {plan} has an intent of {}: resume it", intent.fence);
            return Err(Refusal::IllegalState(text));
        }
        Some(_) => StepEvent::Resumed,
        None if command.resume => {
            let text = format!("step {at} of {plan} has no intent to resume");
            return Err(Refusal::IllegalState(text));
        }
        None => {
            check_order(saga, at, command.direction)?;
            StepEvent::Started
        }
    };
    if event == StepEvent::Started
        && let Some(reply) = admit(state, context, plan, at, command.direction)?
    {
        return Ok(reply);
    }
    begin(state, context, command, at, event)
}

/// Only the next step, and only the way the plan goes.
fn check_order(saga: &Saga, at: usize, direction: Direction) -> Result<(), Refusal> {
    if next_move(saga) == Some((at, direction)) {
        return Ok(());
    }
    let next = match next_move(saga) {
        Some((at, direction)) => format!("step {at} ({direction:?}) is next"),
        None => "no step is due".to_owned(),
    };
    let text =
        format!("{} is {}: step {at} ({direction:?}) is not due, {next}", saga.id, saga.status);
    Err(Refusal::IllegalState(text))
}

/// Asks whether the step may start now. `Some`: it is not wanted any more, and why.
fn admit(
    state: &mut State,
    context: &mut Context<'_>,
    plan: PlanId,
    at: usize,
    direction: Direction,
) -> Result<Option<Reply>, Refusal> {
    let Some(saga) = state.sagas.get(&plan).cloned() else { return Ok(None) };
    let due = not_before(&saga, (at, direction));
    if state.now < due {
        let text = format!("step {at} of {plan} is due at {}", crate::time::format_rfc3339(due));
        return Err(Refusal::HeldBack(text));
    }
    if direction == Direction::Undo {
        return Ok(None);
    }
    let first = saga.started_at.is_none();
    let target = saga.plan.steps.get(at).map(|step| &step.target);
    let frozen = target.and_then(|target| state.frozen(target, Some(&saga.plan.playbook)));
    if let Some(why) = frozen.or_else(|| if first { in_window(state, &saga) } else { None }) {
        // A human's hold: the clock of what waits too long stands still.
        state.held_since.remove(&plan);
        return Err(Refusal::HeldBack(why));
    }
    if first && let Some(why) = not_wanted(state, context, &saga) {
        return Ok(Some(Reply::Noted(why)));
    }
    let candidate = Candidate { id: Some(plan), tenant: &saga.tenant, plan: &saga.plan };
    let why = if first { safety::not_yet(state, &candidate) } else { None };
    if let Some(why) = why.or_else(|| safety::unavailable(state, &candidate, at)) {
        if !first {
            state.held_since.entry(plan).or_insert(context.now);
        }
        return Err(Refusal::HeldBack(why));
    }
    if first {
        start_plan(state, context, &saga);
    }
    Ok(None)
}

fn in_window(state: &State, saga: &Saga) -> Option<String> {
    state.incidents.get(&saga.incident).and_then(|incident| state.in_maintenance(incident))
}

/// Reasons to give a plan up before its first step; the incident goes where it belongs then.
fn not_wanted(state: &mut State, context: &mut Context<'_>, saga: &Saga) -> Option<String> {
    let (plan, id) = (saga.id, saga.incident);
    if unchanged(state, &saga.tenant, &saga.plan).is_none() {
        let why = format!("playbook {} has changed since {plan} was made", saga.plan.playbook);
        saga::drop_plan(state, context, plan, &why);
        state.back_to_open(context, id, &why);
        return Some(why);
    }
    let (given, needed) = state.approvals_of(saga);
    if needs_approval(saga) && given < needed && !planted(Planted::ApprovalNotRechecked) {
        let why = format!("{given} of {needed} approvals of {plan} count any more: asking again");
        ask_again(state, context, saga, &why);
        return Some(why);
    }
    let candidate = Candidate { id: Some(plan), tenant: &saga.tenant, plan: &saga.plan };
    let why = safety::never(state, &candidate)?;
    saga::drop_plan(state, context, plan, &why);
    state.escalate(context, id, &why);
    Some(why)
}

/// Approvers lost their authority: back to the question, with a new time to live.
fn ask_again(state: &mut State, context: &mut Context<'_>, saga: &Saga, why: &str) {
    let plan = saga.id;
    let counting: Vec<String> = saga
        .approvals
        .keys()
        .filter(|user| state.may_approve(saga, user).is_ok())
        .cloned()
        .collect();
    state.locks.retain(|_, holder| *holder != plan);
    if let Some(saga) = state.sagas.get_mut(&plan) {
        saga.status = SagaStatus::AwaitingApproval;
        saga.approval_until = Some(context.now.plus(saga.plan.approval.ttl));
        saga.approvals.retain(|user, _| counting.contains(user));
    }
    if let Ok(incident) = state.incident_mut(saga.incident) {
        incident.status = IncidentStatus::AwaitingApproval;
        tell(incident, context, why);
    }
    context.touched.insert(saga.incident);
}

/// The first step of a plan: it is in flight from here at the latest.
fn start_plan(state: &mut State, context: &mut Context<'_>, saga: &Saga) {
    safety::lock(state, saga.id);
    safety::count_start(state, saga.id);
    state.totals.attempted = state.totals.attempted.saturating_add(1);
    if let Some(saga) = state.sagas.get_mut(&saga.id) {
        saga.started_at = Some(context.now);
    }
    if let Ok(incident) = state.incident_mut(saga.incident) {
        incident.held_by = None;
    }
}

/// Commits the intent.
fn begin(
    state: &mut State,
    context: &mut Context<'_>,
    command: &StartStep,
    at: usize,
    event: StepEvent,
) -> Answer {
    let Some(saga) = state.sagas.get_mut(&command.plan) else { return Ok(Reply::Done) };
    let incident = saga.incident;
    let Some(step) = saga.steps.get_mut(at) else { return Ok(Reply::Done) };
    step.status = next(step.status, command.direction, event)
        .map_err(|illegal| Refusal::IllegalState(illegal.to_string()))?;
    let ended = match command.direction {
        Direction::Forward => step.forward_attempts,
        Direction::Undo => step.undo_attempts,
    };
    step.intent = Some(Intent {
        direction: command.direction,
        fence: command.fence,
        index: context.index,
        at: context.now,
        attempt: ended.saturating_add(1),
    });
    step.started_at.get_or_insert(context.now);
    let what = match event {
        StepEvent::Resumed => "resumed",
        StepEvent::Started | StepEvent::Done | StepEvent::Failed { .. } | StepEvent::Unknown => {
            "started"
        }
    };
    let text = match command.direction {
        Direction::Forward => what.to_owned(),
        Direction::Undo => format!("undo {what}"),
    };
    record_event(step, context, command.fence, text);
    state.held_since.remove(&command.plan);
    context.touched.insert(incident);
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        applied::Effect, command::Command, ids::*, law::tests::lab::*, state::FreezeScope,
    };

    fn two_steps() -> (Lab, crate::ids::IncidentId, PlanId) {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let mut second = step(&target("api", "b"));
        second.action.name = "process.start".into();
        second.pause_before = Millis(2_000);
        let plan = lab.adopt(id, vec![step(&target("api", "a")), second]);
        (lab, id, plan)
    }

    #[test]
    fn only_the_next_step_starts() {
        let (mut lab, _, plan) = two_steps();
        assert!(matches!(lab.start(plan, 1, Direction::Forward), Err(Refusal::IllegalState(_))));
        assert!(matches!(lab.start(plan, 0, Direction::Undo), Err(Refusal::IllegalState(_))));
        assert!(matches!(lab.start(plan, 7, Direction::Forward), Err(Refusal::Invalid(_))));
        assert!(matches!(lab.start(PlanId(1), 0, Direction::Forward), Err(Refusal::NotFound(_))));
        lab.start(plan, 0, Direction::Forward).unwrap();
        assert!(matches!(lab.start(plan, 0, Direction::Forward), Err(Refusal::IllegalState(_))));
        assert!(matches!(lab.start(plan, 1, Direction::Forward), Err(Refusal::IllegalState(_))));
        assert_eq!(lab.state.totals.attempted, 1);
    }

    #[test]
    fn a_pause_is_kept() {
        let (mut lab, _, plan) = two_steps();
        lab.run(plan, 0, done());
        let not_before = Timestamp(lab.now + 2_000);
        let direction = Direction::Forward;
        let owed = Effect::RunStep { plan, step: 1, direction, resume: None, not_before };
        assert_eq!(lab.owed(), [owed]);
        assert!(held(&lab.start(plan, 1, Direction::Forward)).contains("due at"));
        lab.now += 2_000;
        lab.start(plan, 1, Direction::Forward).unwrap();
    }

    #[test]
    fn a_deposed_leader_starts_nothing_and_the_next_resumes() {
        let (mut lab, _, plan) = two_steps();
        let old = lab.state.fence.fence;
        lab.start(plan, 0, Direction::Forward).unwrap();
        assert!(lab.owed().is_empty(), "the step is in its driver's hands");
        let new = lab.fence(2);
        let direction = Direction::Forward;
        let again = StartStep { plan, step: 0, direction, fence: old, resume: true };
        let answer = lab.node(1, Command::StartStep(again));
        assert_eq!(answer, Err(Refusal::StaleFence { given: old, current: new }));
        let not_before = Timestamp(0);
        let owed = Effect::RunStep { plan, step: 0, direction, resume: Some(old), not_before };
        assert_eq!(lab.owed(), [owed]);
        assert!(lab.start(plan, 0, direction).is_err(), "not without saying that it resumes");
        lab.start_or_resume(plan, 0, direction, true).unwrap();
        let intent = lab.saga(plan).steps[0].intent.clone().unwrap();
        assert_eq!((intent.fence, intent.attempt), (new, 1));
        let story: Vec<_> =
            lab.saga(plan).steps[0].history.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(story, ["started", "resumed"]);
    }

    #[test]
    fn a_freeze_between_steps_holds_the_next_one_for_as_long_as_it_lasts() {
        let (mut lab, id, plan) = two_steps();
        lab.run(plan, 0, done());
        lab.freeze(FreezeScope::Global);
        lab.now += 5_000;
        assert!(lab.owed().is_empty());
        assert!(held(&lab.start(plan, 1, Direction::Forward)).contains("frozen"));
        lab.wait(3_600);
        assert_eq!(lab.status(id), IncidentStatus::Remediating);
        lab.root(Command::Unfreeze(FreezeScope::Global)).unwrap();
        lab.start(plan, 1, Direction::Forward).unwrap();
    }

    #[test]
    fn unwinding_goes_on_in_a_freeze() {
        let (mut lab, id, plan) = two_steps();
        lab.run(plan, 0, done());
        lab.freeze(FreezeScope::Global);
        lab.root(Command::CancelRemediation(Lab::note(id))).unwrap();
        assert_eq!(lab.owed().len(), 1);
        lab.start(plan, 0, Direction::Undo).unwrap();
        lab.finish(plan, 0, Direction::Undo, done()).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
    }

    #[test]
    fn a_plan_held_back_before_its_first_step_goes_out_of_date() {
        let (mut lab, id, plan) = two_steps();
        lab.freeze(FreezeScope::Global);
        lab.start(plan, 0, Direction::Forward).unwrap_err();
        lab.wait(900);
        assert_eq!(lab.saga(plan).status, SagaStatus::Dropped);
        assert_eq!(lab.status(id), IncidentStatus::Open);
        assert!(lab.state.locks.is_empty());
    }
}
