//! How sagas move. Steps move by [`step::next`] alone; this file says what the movement of a step
//! means for its plan, and what the end of a plan means for its incident.
//!
//! ```text
//!            approvals        last step done          passed
//!  Awaiting ──────────► Running ────────► Verifying ─────────► Succeeded
//!     │                  │  │                │  │ inconclusive
//!     │ rejected,        │  │ step failed,   │  └────────────► Failed     (kept, a human looks)
//!     ▼ expired          │  │ cancelled      │ failed
//!  Dropped ◄── unstarted ┘  └──► Unwinding ◄─┘
//!                                  │   │ undo failed: Failed
//!                                  ▼   └ outcome unknown (any time): Unknown
//!                               RolledBack
//! ```
//!
//! Invariants: unwinding goes in reverse over steps that are `Done`; a step that was begun ends in
//! `Done`, `Failed`, `Undone`, `UndoFailed` or `Unknown`; a plan holds its locks from its admission
//! (adoption when it may act alone, last approval or first step otherwise) to its end, and when it
//! ended `Unknown` until a human settles it (resolves the incident by hand, or lifts the freeze of
//! the target).

mod end;
pub(super) mod step;

use crate::{
    ids::{Fence, Millis, PlanId, Timestamp},
    law::context::{Context, clip},
    plan::Direction,
    planted::{Planted, planted},
    saga::{Saga, SagaStatus, StepEventRecord, StepState, StepStatus},
    state::State,
};

pub(super) use end::{
    drop_plan, end_failed, end_inconclusive, end_succeeded, end_unknown, settle_unknown,
};

/// Events kept per step: eleven attempts each way, with some changes of leader.
const MAX_HISTORY: usize = 64;
/// Wait before the second attempt; grows by as much with each further one.
const BACK_OFF: Millis = Millis::from_secs(1);

/// A step and which way.
pub(super) type Move = (usize, Direction);

/// What is to be done next in a plan: the step that has an intent, else the next one due.
pub(super) fn next_move(saga: &Saga) -> Option<Move> {
    let under_way = saga
        .steps
        .iter()
        .zip(0..)
        .find_map(|(step, at)| step.intent.as_ref().map(|intent| (at, intent.direction)));
    if under_way.is_some() {
        return under_way;
    }
    match saga.status {
        SagaStatus::Running => saga
            .steps
            .iter()
            .position(|step| step.status == StepStatus::Pending)
            .map(|at| (at, Direction::Forward)),
        SagaStatus::Unwinding => next_undo(saga).map(|at| (at, Direction::Undo)),
        SagaStatus::AwaitingApproval
        | SagaStatus::Verifying
        | SagaStatus::Succeeded
        | SagaStatus::RolledBack
        | SagaStatus::Failed
        | SagaStatus::Unknown
        | SagaStatus::Dropped => None,
    }
}

/// The last step that was done and can be undone.
fn next_undo(saga: &Saga) -> Option<usize> {
    let steps = saga.steps.iter().zip(&saga.plan.steps);
    let done = steps
        .zip(0..)
        .filter(|((step, planned), _)| step.status == StepStatus::Done && planned.undo.is_some());
    let mut done = done.map(|(_, at)| at);
    if planted(Planted::UndoSkipped) {
        return None;
    }
    if planted(Planted::UndoInOrder) { done.next() } else { done.last() }
}

/// Not before this time: a pause the plan asks for, or the back-off after a failed attempt.
pub(super) fn not_before(saga: &Saga, (at, direction): Move) -> Timestamp {
    let Some((step, planned)) = saga.steps.get(at).zip(saga.plan.steps.get(at)) else {
        return Timestamp::default();
    };
    let attempts = match direction {
        Direction::Forward => step.forward_attempts,
        Direction::Undo => step.undo_attempts,
    };
    let back_off = Millis(BACK_OFF.0.saturating_mul(u64::from(attempts)));
    match (attempts, step.ended_at, direction) {
        (1.., Some(ended), _) => ended.plus(back_off),
        (0, _, Direction::Forward) | (_, None, Direction::Forward) => {
            let before = at.checked_sub(1).and_then(|at| saga.steps.get(at)?.ended_at);
            before.unwrap_or(saga.created_at).plus(planned.pause_before)
        }
        (0, _, Direction::Undo) | (_, None, Direction::Undo) => Timestamp::default(),
    }
}

/// Writes a line of a step's story.
pub(super) fn record_event(
    step: &mut StepState,
    context: &Context<'_>,
    fence: Fence,
    text: impl AsRef<str>,
) {
    if step.history.len() >= MAX_HISTORY {
        step.history.remove(1);
    }
    step.history.push(StepEventRecord {
        index: context.index,
        at: context.now,
        fence,
        node: context.principal.name.clone(),
        text: clip(text.as_ref()),
    });
}

/// After a step moved: goes on, verifies, or ends the unwinding.
pub(super) fn advance(state: &mut State, context: &mut Context<'_>, plan: PlanId) {
    let Some(saga) = state.sagas.get_mut(&plan) else { return };
    context.touched.insert(saga.incident);
    if next_move(saga).is_some() {
        return;
    }
    match saga.status {
        SagaStatus::Running => {
            saga.status = SagaStatus::Verifying;
            saga.verifying_since = Some(context.now);
            let incident = saga.incident;
            if let Ok(incident) = state.incident_mut(incident) {
                incident.status = crate::incident::IncidentStatus::Verifying;
                incident.remediated_at = Some(context.now);
                super::incidents::tell(incident, context, format!("{plan}: all steps done"));
            }
        }
        SagaStatus::Unwinding => end::end_rolled_back(state, context, plan),
        SagaStatus::AwaitingApproval
        | SagaStatus::Verifying
        | SagaStatus::Succeeded
        | SagaStatus::RolledBack
        | SagaStatus::Failed
        | SagaStatus::Unknown
        | SagaStatus::Dropped => {}
    }
}

/// Turns a begun plan around. A step under way comes to its outcome first.
pub(super) fn unwind(state: &mut State, context: &mut Context<'_>, plan: PlanId, reason: &str) {
    let Some(saga) = state.sagas.get_mut(&plan) else { return };
    saga.status = SagaStatus::Unwinding;
    saga.reason = Some(clip(reason));
    for step in &mut saga.steps {
        // An attempt that provably failed and waits for its retry: it will have none.
        if step.status == StepStatus::Pending && step.started_at.is_some() {
            step.status = StepStatus::Failed;
        }
    }
    let incident = saga.incident;
    state.held_since.remove(&plan);
    if let Ok(incident) = state.incident_mut(incident) {
        incident.status = crate::incident::IncidentStatus::RollingBack;
        super::incidents::tell(incident, context, format!("{plan} is rolled back: {reason}"));
    }
    advance(state, context, plan);
}
