//! Invariants 5 and 6: plans as they were seen while they ran, and as they are at the end.

use std::{collections::BTreeMap, path::Path};

use medic_proto::v1 as pb;

use super::{Verdict, Violation};

/// A plan that was seen while it ran: digest, and statuses in the order seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Digest.
    pub digest: String,
    /// Statuses.
    pub statuses: Vec<String>,
}

/// 5: every started step has ended; steps began in order, undo in reverse over started steps.
#[must_use]
pub fn steps(plans: &BTreeMap<String, pb::Remediation>, logs: &Path) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for (id, plan) in plans {
        let first = |step: &pb::Step, undo: bool| {
            let events = step.history.iter().filter(|e| e.text.starts_with("undo") == undo);
            events.map(|event| event.index).min()
        };
        let mut problems = Vec::new();
        for step in &plan.steps {
            let started = first(step, false).is_some();
            checked += usize::from(started);
            use pb::StepStatus as S;
            let unended = matches!(step.status(), S::Running | S::Undoing | S::Unspecified);
            if ended(plan) && started && unended {
                problems.push(format!("step {} is {:?}", step.index, step.status()));
            }
            if first(step, true).is_some() && !started {
                problems.push(format!("step {} was undone and never done", step.index));
            }
        }
        let forward: Vec<u64> = plan.steps.iter().filter_map(|step| first(step, false)).collect();
        let back: Vec<u64> = plan.steps.iter().filter_map(|step| first(step, true)).collect();
        if !forward.is_sorted() {
            problems.push(format!("its steps began at {forward:?}"));
        }
        if !back.iter().rev().is_sorted() {
            problems.push(format!("its undo began at {back:?}, which is not in reverse"));
        }
        if !problems.is_empty() {
            let text = format!("{id} ({:?}) of {}", plan.status(), plan.incident);
            violations.push(Violation::new(text).with(problems).see(logs));
        }
    }
    Verdict::new(5, checked, "started steps", violations)
}

/// Whether nothing of it is to come.
#[must_use]
pub fn ended(plan: &pb::Remediation) -> bool {
    use pb::RemediationStatus as S;
    match plan.status() {
        S::Succeeded | S::RolledBack | S::Failed | S::Unknown | S::Dropped => true,
        S::Unspecified | S::AwaitingApproval | S::Running | S::Verifying | S::Unwinding => false,
    }
}

/// 6: every plan that was seen is there at the end, is the same plan, and has come to an end.
#[must_use]
pub fn resumed(
    watched: &BTreeMap<String, Watched>,
    plans: &BTreeMap<String, pb::Remediation>,
    logs: &Path,
) -> Verdict {
    let mut violations = Vec::new();
    for (id, seen) in watched {
        let problem = match plans.get(id) {
            None => "was seen and is lost".to_owned(),
            Some(plan) if !seen.digest.is_empty() && plan.digest != seen.digest => {
                format!("had the digest {} and has {}", seen.digest, plan.digest)
            }
            Some(plan) if !ended(plan) => format!("is still {:?}", plan.status()),
            Some(_) => continue,
        };
        let statuses = format!("seen as {}", seen.statuses.join(", "));
        violations.push(Violation::new(format!("{id} {problem}")).with([statuses]).see(logs));
    }
    Verdict::new(6, watched.len(), "plans", violations)
}

/// Starts of steps that took over an intent of an earlier leader.
#[must_use]
pub fn taken_over(plans: &BTreeMap<String, pb::Remediation>) -> usize {
    let steps = plans.values().flat_map(|plan| &plan.steps);
    steps.flat_map(|step| &step.history).filter(|event| event.text.ends_with("resumed")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(index: u64, text: &str) -> pb::StepEvent {
        pb::StepEvent { index, text: text.to_owned(), ..Default::default() }
    }

    fn plan(
        status: pb::RemediationStatus,
        steps: Vec<(pb::StepStatus, Vec<pb::StepEvent>)>,
    ) -> Plans {
        let steps = steps
            .into_iter()
            .map(|(status, history)| pb::Step {
                status: status.into(),
                history,
                ..Default::default()
            })
            .collect();
        let digest = "d".to_owned();
        let plan = pb::Remediation { status: status.into(), steps, digest, ..Default::default() };
        Plans::from([("PLAN-1".to_owned(), plan)])
    }

    type Plans = BTreeMap<String, pb::Remediation>;

    #[test]
    fn an_unwinding_that_is_not_in_reverse_or_leaves_a_step_is_found() {
        use pb::{RemediationStatus as R, StepStatus as S};
        let logs = Path::new("logs");
        let one = vec![event(1, "started"), event(2, "done"), event(9, "undo started")];
        let two = vec![event(3, "started"), event(4, "done"), event(7, "undo started")];
        let good = plan(R::RolledBack, vec![(S::Undone, one.clone()), (S::Undone, two)]);
        assert!(steps(&good, logs).holds());
        let late = vec![event(3, "started"), event(4, "done"), event(11, "undo started")];
        let wrong = plan(R::RolledBack, vec![(S::Undone, one.clone()), (S::Undone, late)]);
        assert!(!steps(&wrong, logs).holds());
        assert!(!steps(&plan(R::Succeeded, vec![(S::Running, one)]), logs).holds());
        let never = vec![event(7, "undo started")];
        assert!(!steps(&plan(R::RolledBack, vec![(S::Undone, never)]), logs).holds());
    }

    #[test]
    fn a_plan_that_is_lost_changed_or_left_lying_is_found() {
        use pb::RemediationStatus as R;
        let logs = Path::new("logs");
        let watched = |digest: &str| {
            let digest = digest.to_owned();
            BTreeMap::from([("PLAN-1".to_owned(), Watched { digest, statuses: Vec::new() })])
        };
        let ended = plan(R::Succeeded, Vec::new());
        assert!(resumed(&watched("d"), &ended, logs).holds());
        assert!(!resumed(&watched("e"), &ended, logs).holds());
        assert!(!resumed(&watched("d"), &Plans::new(), logs).holds());
        assert!(!resumed(&watched("d"), &plan(R::Running, Vec::new()), logs).holds());
    }
}
