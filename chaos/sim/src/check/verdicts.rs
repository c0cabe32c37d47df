//! No data is never "passed": a verdict that passes has a check for it, and none that could not be
//! told. Counted to invariant 4: what is unknown is never assumed.

use medic_state::{Command, saga::VerdictValue};

use super::{Findings, Violation};
use crate::history::{Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(4, "verdicts");
    for Event { ms, what } in events {
        let What::Committed(commit) = what else { continue };
        let Command::RecordVerdict(record) = &commit.entry.command else { continue };
        let verdict = &record.verdict;
        if verdict.value != VerdictValue::Passed || commit.answer.is_err() {
            continue;
        }
        let functional = |check: &&medic_state::saga::Check| check.kind == "functional";
        let told = verdict.checks.iter().filter(functional);
        let told: Vec<VerdictValue> = told.map(|check| check.value).collect();
        if told.is_empty() || told.iter().any(|value| *value != VerdictValue::Passed) {
            found.add(*ms, format!("{} passed its verification on {told:?}", record.plan));
        }
    }
    found.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn a_verdict_from_nothing_is_found() {
        let mut lab = Lab::new();
        lab.verdict(7, VerdictValue::Passed, Some(VerdictValue::Passed));
        lab.verdict(7, VerdictValue::Inconclusive, None);
        assert_eq!(check(&lab.events), []);
        lab.verdict(7, VerdictValue::Passed, Some(VerdictValue::Inconclusive));
        lab.verdict(7, VerdictValue::Passed, None);
        assert_eq!(check(&lab.events).len(), 2);
    }
}
