//! `FinishStep`: an act has an outcome.
//!
//! Under the fence in force it moves the step. Under an older one it is written down as evidence and
//! moves nothing: the leader in office resolves that step itself.

use std::collections::BTreeMap;

use crate::{
    applied::{Answer, Refusal, Reply},
    command::FinishStep,
    law::{
        context::{Context, MAX_NAME_BYTES, clip, clip_to},
        incidents::tell,
        saga::{
            self, record_event,
            step::{StepEvent, next},
        },
    },
    plan::Direction,
    planted::{Planted, planted},
    saga::{Outcome, SagaStatus, StepState},
    state::State,
};

/// Evidence kept per step.
const MAX_EVIDENCE: usize = 32;

pub(super) fn apply(state: &mut State, context: &mut Context<'_>, command: &FinishStep) -> Answer {
    let current = state.fence.fence;
    if command.fence > current {
        return Err(Refusal::StaleFence { given: command.fence, current });
    }
    let plan = command.plan;
    let saga = state.sagas.get_mut(&plan).ok_or_else(|| Refusal::NotFound(plan.to_string()))?;
    let at = usize::try_from(command.step).unwrap_or(usize::MAX);
    let count = saga.steps.len();
    let unwinding = saga.status == SagaStatus::Unwinding;
    let (step, planned) =
        saga.steps.get_mut(at).zip(saga.plan.steps.get(at)).ok_or_else(|| {
            Refusal::Invalid(format!("{plan} has {count} steps, and no step {at}"))
        })?;
    if command.fence < current && !planted(Planted::LateOutcomeMoves) {
        let seen = step.history.iter().any(|event| event.fence == command.fence);
        if !seen {
            let text = format!("step {at} of {plan} was never started under {}", command.fence);
            return Err(Refusal::IllegalState(text));
        }
        let text = format!("late, moves nothing: {}", in_words(&command.outcome));
        record_event(step, context, command.fence, &text);
        return Ok(Reply::Noted(format!(
            "{} has passed ({current} is in force): {text}",
            command.fence
        )));
    }
    let own = step.intent.as_ref().is_some_and(|intent| {
        (intent.fence == command.fence || planted(Planted::LateOutcomeMoves))
            && intent.direction == command.direction
    });
    if !own {
        let done = step.intent.is_none() && step.history.iter().any(|e| e.fence == command.fence);
        return if done {
            Ok(Reply::Noted(format!("step {at} of {plan} has its outcome already")))
        } else {
            let text = format!("step {at} of {plan} has no intent of {}", command.fence);
            Err(Refusal::IllegalState(text))
        };
    }
    if *context.principal != crate::rbac::Principal::node(state.fence.node)
        && !planted(Planted::LateOutcomeMoves)
    {
        let text =
            format!("{} is {}'s, not {}'s", command.fence, state.fence.node, context.principal);
        return Err(Refusal::Invalid(text));
    }
    let retries = planned.retries;
    let (name, target) = (planned.name.clone(), planned.target.clone());
    settle(step, context, command, retries, unwinding)?;
    let status = step.status;
    let incident = saga.incident;
    let undo = command.direction == Direction::Undo;
    let text = format!(
        "{plan} step {at} {}{name} ({target}): {}",
        if undo { "undo of " } else { "" },
        in_words(&command.outcome)
    );
    if let Ok(incident) = state.incident_mut(incident) {
        tell(incident, context, &text);
    }
    context.touched.insert(incident);
    consequences(state, context, command, status, &target, &text);
    Ok(Reply::Done)
}

/// Moves the step.
fn settle(
    step: &mut StepState,
    context: &Context<'_>,
    command: &FinishStep,
    retries: u32,
    unwinding: bool,
) -> Result<(), Refusal> {
    let forward = command.direction == Direction::Forward;
    let ended = if forward { step.forward_attempts } else { step.undo_attempts };
    let event = match &command.outcome {
        Outcome::Done(_) => StepEvent::Done,
        Outcome::Failed { retryable, .. } => {
            // A forward step of a plan that turned around meanwhile is not tried again.
            let again = *retryable && ended < retries && !(forward && unwinding);
            StepEvent::Failed { again }
        }
        Outcome::Unknown { .. } if planted(Planted::UnknownAssumed) => StepEvent::Done,
        Outcome::Unknown { .. } => StepEvent::Unknown,
    };
    step.status = next(step.status, command.direction, event)
        .map_err(|illegal| Refusal::IllegalState(illegal.to_string()))?;
    if forward {
        step.forward_attempts = step.forward_attempts.saturating_add(1);
    } else {
        step.undo_attempts = step.undo_attempts.saturating_add(1);
    }
    step.intent = None;
    step.ended_at = Some(context.now);
    if let Outcome::Done(evidence) = &command.outcome {
        keep(&mut step.evidence, evidence);
    }
    let words = in_words(&command.outcome);
    let words = if forward { words } else { format!("undo {words}") };
    record_event(step, context, command.fence, words);
    Ok(())
}

/// Merges evidence, bounded; later values win.
fn keep(known: &mut BTreeMap<String, String>, more: &BTreeMap<String, String>) {
    for (name, value) in more {
        let name = clip_to(name, MAX_NAME_BYTES);
        if known.len() < MAX_EVIDENCE || known.contains_key(&name) {
            known.insert(name, clip(value));
        }
    }
}

/// What the movement of the step means for the plan.
fn consequences(
    state: &mut State,
    context: &mut Context<'_>,
    command: &FinishStep,
    status: crate::saga::StepStatus,
    target: &crate::symptom::Target,
    text: &str,
) {
    use crate::saga::StepStatus::{
        Done, Failed, Pending, Running, UndoFailed, Undoing, Undone, Unknown,
    };
    let plan = command.plan;
    match status {
        Done | Undone | Pending | Running | Undoing => saga::advance(state, context, plan),
        Failed => {
            let unwinding =
                state.sagas.get(&plan).is_some_and(|saga| saga.status == SagaStatus::Unwinding);
            if unwinding {
                saga::advance(state, context, plan);
            } else {
                saga::unwind(state, context, plan, text);
            }
        }
        UndoFailed => saga::end_failed(state, context, plan, text),
        Unknown => saga::end_unknown(state, context, plan, target, text),
    }
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(_) => "done".to_owned(),
        Outcome::Failed { reason, .. } => format!("failed: {reason}"),
        Outcome::Unknown { reason } => format!("unknown: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::Command, ids::*, incident::IncidentStatus, law::tests::lab::*, saga::StepStatus,
        state::FreezeScope,
    };

    fn one_step(retries: u32) -> (Lab, IncidentId, PlanId) {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let mut step = step(&target("api", "a"));
        step.retries = retries;
        let plan = lab.adopt(id, vec![step]);
        (lab, id, plan)
    }

    #[test]
    fn an_outcome_under_an_old_fence_is_evidence_and_moves_nothing() {
        let (mut lab, _, plan) = one_step(0);
        let old = lab.state.fence.fence;
        lab.start(plan, 0, Direction::Forward).unwrap();
        lab.fence(2);
        let late = FinishStep {
            plan,
            step: 0,
            direction: Direction::Forward,
            fence: old,
            outcome: done(),
        };
        assert!(matches!(lab.node(1, Command::FinishStep(late)), Ok(Reply::Noted(_))));
        let step = &lab.saga(plan).steps[0];
        assert_eq!(step.status, StepStatus::Running);
        assert_eq!(step.history.last().unwrap().text, "late, moves nothing: done");
        // An outcome nobody's intent belongs to is no evidence.
        assert!(lab.finish(plan, 0, Direction::Forward, done()).is_err());
    }

    #[test]
    fn a_failed_attempt_is_tried_again_after_a_pause() {
        let (mut lab, id, plan) = one_step(1);
        lab.run(plan, 0, failed(true));
        assert_eq!(lab.saga(plan).steps[0].status, StepStatus::Pending);
        assert!(held(&lab.start(plan, 0, Direction::Forward)).contains("due at"));
        lab.now += 1_000;
        lab.start(plan, 0, Direction::Forward).unwrap();
        assert_eq!(lab.saga(plan).steps[0].intent.as_ref().unwrap().attempt, 2);
        lab.finish(plan, 0, Direction::Forward, failed(true)).unwrap();
        assert_eq!(lab.saga(plan).status, SagaStatus::RolledBack);
        assert_eq!(lab.status(id), IncidentStatus::Open);
        assert_eq!(lab.incident(id).attempts.len(), 1);
    }

    #[test]
    fn evidence_is_kept_for_the_undo() {
        let (mut lab, _, plan) = one_step(0);
        let evidence = [("undo.hash".to_owned(), "abc".to_owned())].into();
        lab.run(plan, 0, Outcome::Done(evidence));
        assert_eq!(lab.saga(plan).steps[0].evidence["undo.hash"], "abc");
    }

    #[test]
    fn an_unknown_outcome_freezes_the_target_and_keeps_the_lock_until_a_human_looked() {
        let (mut lab, id, plan) = one_step(0);
        lab.run(plan, 0, unknown());
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        let scope = FreezeScope::Target(target("api", "a"));
        assert!(lab.state.freezes.contains_key(&scope));
        assert_eq!(lab.state.locks.get(&target("api", "a")), Some(&plan));
        lab.clear("api", "a", "down").unwrap();
        lab.wait(60);
        assert_eq!(lab.status(id), IncidentStatus::Escalated, "it does not close by itself");
        lab.root(Command::Unfreeze(scope)).unwrap();
        assert!(lab.state.locks.is_empty());
        lab.wait(0);
        assert_eq!(lab.status(id), IncidentStatus::Resolved);
    }
}
