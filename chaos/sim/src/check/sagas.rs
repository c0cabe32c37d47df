//! Invariant 5: every started step ends in exactly one way, and unwinding goes in reverse over
//! started steps only. What was begun is not under way for ever.

use std::collections::BTreeMap;

use medic_state::{
    Command, PlanId, Reply,
    command::{FinishStep, StartStep},
    plan::{Direction, Plan},
    saga::{Outcome, SagaStatus},
};

use super::{Findings, Violation};
use crate::history::{Commit, Event, What};

/// A plan that began longer than this before the end, with nothing broken any more, must have ended.
const ENDS_WITHIN_MS: u64 = 80_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Pending,
    Running,
    Done,
    Failed,
    Undoing,
    Undone,
}

#[derive(Debug)]
struct Known {
    plan: Plan,
    steps: Vec<Step>,
    begun_ms: Option<u64>,
    status: SagaStatus,
}

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(5, "sagas");
    let mut plans: BTreeMap<PlanId, Known> = BTreeMap::new();
    let mut healed = false;
    for Event { ms, what } in events {
        match what {
            What::Committed(commit) if !commit.repeated => {
                take(commit, *ms, &mut plans, &mut found)
            }
            What::Healed => healed = true,
            _ => {}
        }
    }
    let end = events.last().map_or(0, |event| event.ms);
    for (id, known) in plans.iter().filter(|_| healed) {
        let old = known.begun_ms.is_some_and(|at| at + ENDS_WITHIN_MS < end);
        if old && !known.status.ended() {
            found.add(end, format!("{id} is still {} long after all faults", known.status));
        }
    }
    found.done()
}

fn take(commit: &Commit, ms: u64, plans: &mut BTreeMap<PlanId, Known>, found: &mut Findings) {
    match (&commit.entry.command, &commit.answer) {
        (Command::AdoptDecision(adopt), Ok(Reply::Decided { plan: Some(id), .. })) => {
            if let Some(plan) = adopt.proposal.plan.clone() {
                let steps = vec![Step::Pending; plan.steps.len()];
                let status = SagaStatus::Running;
                plans.insert(*id, Known { plan, steps, begun_ms: None, status });
            }
        }
        (Command::StartStep(start), Ok(Reply::Done)) => {
            if let Some(known) = plans.get_mut(&start.plan)
                && let Err(why) = started(known, start, ms)
            {
                found.add(ms, format!("{}: {why}", start.plan));
            }
        }
        (Command::FinishStep(finish), Ok(Reply::Done)) => {
            if let Some(known) = plans.get_mut(&finish.plan)
                && let Err(why) = finished(known, finish)
            {
                found.add(ms, format!("{}: {why}", finish.plan));
            }
        }
        _ => {}
    }
    for (id, status) in &commit.moved {
        let Some(known) = plans.get_mut(id) else { continue };
        if known.status.ended() && known.status != *status {
            found.add(ms, format!("{id} was {} and is {status}", known.status));
        }
        known.status = *status;
        let left = known.steps.iter().zip(&known.plan.steps);
        let left = left.filter(|(step, planned)| **step == Step::Done && planned.undo.is_some());
        if *status == SagaStatus::RolledBack && left.count() > 0 {
            found.add(ms, format!("{id} counts as rolled back with steps that are not undone"));
        }
    }
}

fn started(known: &mut Known, start: &StartStep, ms: u64) -> Result<(), String> {
    known.begun_ms.get_or_insert(ms);
    let at = usize::try_from(start.step).unwrap_or(usize::MAX);
    let steps = known.steps.iter().zip(&known.plan.steps);
    let last_done = steps
        .enumerate()
        .filter(|(_, (step, planned))| **step == Step::Done && planned.undo.is_some())
        .map(|(at, _)| at)
        .next_back();
    let before_done = known.steps.iter().take(at).all(|step| *step == Step::Done);
    let step = known.steps.get_mut(at).ok_or_else(|| format!("there is no step {at}"))?;
    let expected = match (start.direction, start.resume) {
        (Direction::Forward, true) => *step == Step::Running,
        (Direction::Undo, true) => *step == Step::Undoing,
        (Direction::Forward, false) => *step == Step::Pending && before_done,
        (Direction::Undo, false) => last_done == Some(at),
    };
    if !expected {
        return Err(format!(
            "step {at} started ({:?}) while it was {step:?}, out of its order",
            start.direction
        ));
    }
    *step = if start.direction == Direction::Forward { Step::Running } else { Step::Undoing };
    Ok(())
}

fn finished(known: &mut Known, finish: &FinishStep) -> Result<(), String> {
    let at = usize::try_from(finish.step).unwrap_or(usize::MAX);
    let retries = known.plan.steps.get(at).map_or(0, |step| step.retries);
    let step = known.steps.get_mut(at).ok_or_else(|| format!("there is no step {at}"))?;
    let next = match (*step, finish.direction, &finish.outcome) {
        (Step::Running, Direction::Forward, Outcome::Done(_)) => Step::Done,
        // Whether there is another attempt is the law's; both are an end of this one.
        (Step::Running, Direction::Forward, Outcome::Failed { retryable, .. }) => {
            if *retryable && retries > 0 { Step::Pending } else { Step::Failed }
        }
        (Step::Running, Direction::Forward, Outcome::Unknown { .. }) => Step::Failed,
        (Step::Undoing, Direction::Undo, Outcome::Done(_)) => Step::Undone,
        (Step::Undoing, Direction::Undo, Outcome::Failed { .. }) => Step::Done,
        (Step::Undoing, Direction::Undo, Outcome::Unknown { .. }) => Step::Undone,
        (was, direction, _) => {
            return Err(format!("step {at} ended ({direction:?}) while it was {was:?}"));
        }
    };
    *step = next;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn in_order_and_back_is_fine() {
        let mut lab = Lab::new();
        lab.adopt(7, 2).start(7, 0, 5).finish(7, 0, 5).start(7, 1, 5).finish(7, 1, 5);
        lab.undo(7, 1, 5).undone(7, 1, 5).undo(7, 0, 5).undone(7, 0, 5);
        assert_eq!(check(&lab.events), []);
    }

    #[test]
    fn a_repeated_request_is_one() {
        let mut lab = Lab::new();
        lab.adopt(7, 1).start(7, 0, 5).again();
        assert_eq!(check(&lab.events), []);
    }

    #[test]
    fn undo_in_order_of_doing_is_found() {
        let mut lab = Lab::new();
        lab.adopt(7, 2).start(7, 0, 5).finish(7, 0, 5).start(7, 1, 5).finish(7, 1, 5);
        lab.undo(7, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn an_outcome_without_a_start_and_a_plan_that_never_ends_are_found() {
        let mut lab = Lab::new();
        lab.adopt(7, 1).finish(7, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
        let mut lab = Lab::new();
        lab.adopt(7, 1).start(7, 0, 5).healed();
        lab.later(100_000).healed();
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn rolled_back_means_undone() {
        let mut lab = Lab::new();
        lab.adopt(7, 1).start(7, 0, 5).finish(7, 0, 5).moved(7, SagaStatus::RolledBack);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
