//! `RecordVerdict`: verification has an answer. Three-valued: see [`super::saga`] for what follows.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::RecordVerdict,
    ids::Ppm,
    law::{
        context::{Context, clip},
        incidents::tell,
        judge::outcome,
        saga,
    },
    saga::{SagaStatus, Verdict, VerdictValue},
    state::State,
};

/// What a verdict that passed scores more than.
const PASSED_ABOVE: Ppm = Ppm(800_000);
/// Checks kept per verdict: six kinds for every instance of a large plan.
const MAX_CHECKS: usize = 256;

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &RecordVerdict,
) -> Answer {
    state.check_fence(context, command.fence)?;
    let plan = command.plan;
    if command.verdict.value == VerdictValue::Passed && command.verdict.score <= PASSED_ABOVE {
        let score = command.verdict.score;
        let text = format!("a verdict that passed scores above {PASSED_ABOVE}, not {score}");
        return Err(Refusal::Invalid(text));
    }
    let saga = state.sagas.get_mut(&plan).ok_or_else(|| Refusal::NotFound(plan.to_string()))?;
    if saga.status != SagaStatus::Verifying {
        return Err(Refusal::IllegalState(format!("{plan} is {}", saga.status)));
    }
    let id = saga.incident;
    let verdict = bounded(&command.verdict);
    let text = in_words(&verdict);
    let value = verdict.value;
    saga.verdict = Some(verdict);
    if let Ok(incident) = state.incident_mut(id) {
        tell(incident, context, &text);
    }
    match value {
        VerdictValue::Passed => {
            outcome::verified(state, context, id);
            saga::end_succeeded(state, context, plan);
        }
        VerdictValue::Failed => saga::unwind(state, context, plan, &text),
        VerdictValue::Inconclusive => saga::end_inconclusive(state, context, plan, &text),
    }
    Ok(Reply::Done)
}

fn bounded(verdict: &Verdict) -> Verdict {
    let mut verdict = verdict.clone();
    verdict.checks.truncate(MAX_CHECKS);
    for check in &mut verdict.checks {
        check.kind = clip(&check.kind);
        check.detail = clip(&check.detail);
    }
    verdict
}

/// `verification failed (score 0.40): functional: …`, naming what did not pass.
fn in_words(verdict: &Verdict) -> String {
    let value = match verdict.value {
        VerdictValue::Passed => "passed",
        VerdictValue::Failed => "failed",
        VerdictValue::Inconclusive => "is inconclusive",
    };
    let not_passed: Vec<String> = verdict
        .checks
        .iter()
        .filter(|check| check.value != VerdictValue::Passed)
        .map(|check| format!("{}: {}", check.kind, check.detail))
        .collect();
    let mut text = format!("verification {value} (score {})", verdict.score);
    if !not_passed.is_empty() {
        text.push_str(": ");
        text.push_str(&not_passed.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{applied::Record, ids::*, incident::*, law::tests::lab::*, plan::Direction};

    fn verifying() -> (Lab, IncidentId, PlanId) {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, done());
        assert_eq!(lab.owed(), [crate::Effect::Verify(plan)]);
        (lab, id, plan)
    }

    #[test]
    fn passed_resolves() {
        let (mut lab, id, plan) = verifying();
        lab.verdict(plan, VerdictValue::Passed).unwrap();
        assert_eq!(lab.incident(id).resolution, Some(Resolution::Remediated));
        assert!(!lab.incident(id).manual);
        assert_eq!((lab.state.totals.successful, lab.state.totals.manual), (1, 0));
        assert!(lab.state.locks.is_empty());
        let closed = lab.records.iter().any(|record| match record {
            Record::Closed(closed) => closed.incident.id == id && closed.sagas.len() == 1,
            Record::Audit(_) => false,
        });
        assert!(closed);
        assert!(matches!(lab.verdict(plan, VerdictValue::Failed), Err(Refusal::IllegalState(_))));
    }

    #[test]
    fn failed_rolls_back_decides_again_and_at_last_asks() {
        let (mut lab, id, plan) = verifying();
        lab.verdict(plan, VerdictValue::Failed).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::RollingBack);
        lab.start(plan, 0, Direction::Undo).unwrap();
        let before = lab.incident(id).revision;
        lab.finish(plan, 0, Direction::Undo, done()).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Open);
        assert!(lab.incident(id).revision > before);
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, done());
        lab.verdict(plan, VerdictValue::Failed).unwrap();
        lab.start(plan, 0, Direction::Undo).unwrap();
        lab.finish(plan, 0, Direction::Undo, done()).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        let why = lab.incident(id).escalation.clone().unwrap();
        assert!(why.starts_with("2 of 2 attempts did not help"), "{why}");
        assert_eq!(lab.state.totals.rolled_back, 2);
    }

    #[test]
    fn inconclusive_keeps_what_was_done_and_asks() {
        let (mut lab, id, plan) = verifying();
        lab.verdict(plan, VerdictValue::Inconclusive).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        assert_eq!(lab.saga(plan).status, SagaStatus::Failed);
        assert_eq!(lab.saga(plan).steps[0].status, crate::saga::StepStatus::Done);
        assert!(lab.state.locks.is_empty() && lab.state.breakers.is_empty());
    }

    #[test]
    fn closed_incidents_leave_memory_oldest_first() {
        let mut lab = Lab::new();
        let mut first = None;
        for _ in 0..crate::state::MAX_CLOSED + 2 {
            lab.now += 1;
            let id = lab.report("api", "a", "down");
            first.get_or_insert(id);
            lab.root(crate::Command::ResolveIncident(Lab::note(id))).unwrap();
        }
        assert_eq!(lab.state.incidents.len(), crate::state::MAX_CLOSED);
        assert!(!lab.state.incidents.contains_key(&first.unwrap()));
    }
}
