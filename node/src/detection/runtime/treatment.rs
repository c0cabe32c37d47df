//! Whether an instance is treated: what a treatment does looks like a fault.

use medic_state::{State, Timestamp, symptom::Target};

/// Reports of agents are this old at the most; right after a step they may still tell of before it.
pub(super) const AFTERMATH_MS: u64 = 1_500;

/// What the law knows of treatment of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Treatment {
    /// A step of a plan runs on it. A plan that waits touches nothing, whether for approval, for its verdict, or
    /// for a safety control to let its next step begin: what is seen then is news. A control that holds a step
    /// back because of an instance that died must not keep its death from being told.
    pub(super) running: bool,
    /// When a step last ended, by the law's time; only compared with itself.
    ended: Timestamp,
}

impl Treatment {
    /// Of a target, by the state.
    pub(super) fn of(state: &State, target: &Target) -> Self {
        let ended = state.target_ends.get(target).copied().unwrap_or_default();
        let plan = state.locks.get(target).and_then(|plan| state.sagas.get(plan));
        let mut treatment = Self { running: false, ended };
        for step in plan.iter().flat_map(|saga| &saga.steps) {
            treatment.running |= step.intent.is_some();
            treatment.ended = treatment.ended.max(step.ended_at.unwrap_or_default());
        }
        treatment
    }
}

#[cfg(test)]
mod tests {
    use medic_state::{
        Fence, PlanId,
        plan::Direction,
        saga::{Intent, SagaStatus, StepState, StepStatus},
    };

    use super::*;
    use crate::{
        fixture::{T0, at},
        validation::tests::restart,
    };

    /// A restarted instance died while its plan was held back, since two would have been out with it: the
    /// plan was under way, so nobody said so, and so it stayed.
    #[test]
    fn a_plan_that_is_held_back_between_its_steps_hides_nothing() {
        let mut saga = restart(&["orders-1", "orders-2"], "true", &[]);
        saga.status = SagaStatus::Running;
        saga.verifying_since = None;
        saga.steps = vec![StepState::default(); 2];
        let (plan, mut state) = (PlanId(57), State::default());
        state.locks.extend([(at("orders-1"), plan), (at("orders-2"), plan)]);
        let mut seen = |saga: &_| {
            state.sagas.insert(plan, Clone::clone(saga));
            (Treatment::of(&state, &at("orders-1")), Treatment::of(&state, &at("orders-2")))
        };
        let (before, _) = seen(&saga);
        assert!(!before.running, "its first step may be held back for long");
        let intent =
            Intent { direction: Direction::Forward, fence: Fence(3), index: 9, at: T0, attempt: 1 };
        saga.steps[0] = StepState {
            status: StepStatus::Running,
            intent: Some(intent),
            started_at: Some(T0),
            ..StepState::default()
        };
        let (one, other) = seen(&saga);
        assert!(one.running && other.running, "what a step does to one is felt by the others");
        saga.steps[0].status = StepStatus::Done;
        saga.steps[0].intent = None;
        saga.steps[0].ended_at = Some(T0);
        let (after, _) = seen(&saga);
        assert!(
            !after.running && after != before,
            "its aftermath is told from the quiet before it"
        );
    }
}
