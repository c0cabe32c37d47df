//! Append-only lists: every acknowledged element is there once, in log order, from then on.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Act, Call, Outcome};

use super::Violation;

/// Checks the calls of one list. Gives how many were checked, and what is wrong.
#[must_use]
pub fn check(calls: &[Call]) -> (usize, Vec<Violation>) {
    let mut violations = Vec::new();
    let mut checked = 0;
    let mut seen_at: BTreeMap<u64, u64> = BTreeMap::new();
    for call in calls {
        let Outcome::Listed(items) = &call.outcome else {
            checked += usize::from(call.outcome == Outcome::Done);
            continue;
        };
        checked += 1;
        violations.extend(one_list(call, items));
        violations.extend(lost(calls, call, items));
        violations.extend(unsent(calls, call, items));
        for (value, index) in items {
            let before = *seen_at.entry(*value).or_insert(*index);
            if before != *index {
                let text = format!("{}: {value} stood at {before}, then at {index}", call.key);
                violations.push(Violation::new(text).with([super::linear::line(call)]));
            }
        }
    }
    (checked, violations)
}

/// Nothing twice, in log order, and nothing from beyond the index it was read at.
fn one_list(read: &Call, items: &[(u64, u64)]) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let values: BTreeSet<u64> = items.iter().map(|(value, _)| *value).collect();
    if values.len() < items.len() {
        wrong.push("an element stands in it twice: it was applied twice");
    }
    if !items.is_sorted_by_key(|(_, index)| *index) {
        wrong.push("it is not in log order");
    }
    let beyond = |(_, index): &(u64, u64)| read.index.is_some_and(|at| *index > at);
    if items.iter().any(beyond) {
        wrong.push("it shows what was committed after the index it was read at");
    }
    wrong
        .into_iter()
        .map(|text| {
            Violation::new(format!("{}: {text}", read.key)).with([super::linear::line(read)])
        })
        .collect()
}

/// What was acknowledged before the read began, or seen by a read that ended before, is in it.
fn lost(calls: &[Call], read: &Call, items: &[(u64, u64)]) -> Vec<Violation> {
    let there: BTreeSet<u64> = items.iter().map(|(value, _)| *value).collect();
    let before = calls.iter().filter(|c| c.end_us.is_some_and(|end| end < read.start_us));
    let mut violations = Vec::new();
    for call in before {
        let missing: Vec<u64> = match (call.act, &call.outcome) {
            (Act::Append(value), Outcome::Done) => vec![value],
            (Act::Read, Outcome::Listed(items)) => items.iter().map(|(v, _)| *v).collect(),
            _ => continue,
        };
        if let Some(value) = missing.into_iter().find(|value| !there.contains(value)) {
            let text = format!("{}: {value} was there or acknowledged, and is not seen", read.key);
            let lines = [super::linear::line(call), super::linear::line(read)];
            violations.push(Violation::new(text).with(lines));
        }
    }
    violations
}

/// Nothing that had not been sent by then, and what was acknowledged stands where that was said.
fn unsent(calls: &[Call], read: &Call, items: &[(u64, u64)]) -> Vec<Violation> {
    let appends = calls.iter().filter_map(|call| match call.act {
        Act::Append(value) => Some((value, call)),
        _ => None,
    });
    let sent: BTreeMap<u64, &Call> = appends.collect();
    let mut violations = Vec::new();
    for (value, index) in items {
        let call = sent.get(value).filter(|c| read.end_us.is_none_or(|end| c.start_us <= end));
        let (text, lines) = match call {
            None => (
                format!("{value} stands at {index}, and nobody had sent it"),
                vec![super::linear::line(read)],
            ),
            Some(call) => match (&call.outcome, call.index) {
                (Outcome::Done, Some(acked)) if acked != *index => (
                    format!("{value} was acknowledged at {acked}, and stands at {index}"),
                    vec![super::linear::line(call), super::linear::line(read)],
                ),
                _ => continue,
            },
        };
        violations.push(Violation::new(format!("{}: {text}", read.key)).with(lines));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::{at, call};

    fn append(value: u64, start: u64) -> Call {
        call(Act::Append(value), Outcome::Done, start, start + 1)
    }

    fn list(items: &[(u64, u64)], start: u64) -> Call {
        at(100, call(Act::Read, Outcome::Listed(items.to_vec()), start, start + 1))
    }

    #[test]
    fn a_list_that_only_grows_passes() {
        let open = call(Act::Append(9), Outcome::Open, 1, 0);
        let calls = [open, append(1, 2), list(&[(1, 10)], 5), list(&[(1, 10), (9, 12)], 7)];
        assert_eq!(check(&calls), (3, Vec::new()));
    }

    #[test]
    fn a_lost_a_doubled_and_a_stale_element_are_found() {
        assert_eq!(check(&[append(1, 1), list(&[], 5)]).1.len(), 1);
        assert_eq!(check(&[append(1, 1), list(&[(1, 10), (1, 11)], 5)]).1.len(), 2);
        let both = [append(1, 1), append(2, 1)];
        let after = |reads: &[Call]| both.iter().chain(reads).cloned().collect::<Vec<_>>();
        let stale = after(&[list(&[(1, 10), (2, 11)], 3), list(&[(1, 10)], 5)]);
        assert_eq!(check(&stale).1.len(), 2, "acknowledged, and seen before");
        assert_eq!(check(&after(&[list(&[(2, 11), (1, 10)], 5)])).1.len(), 1);
        assert_eq!(check(&after(&[list(&[(1, 10), (2, 101)], 5)])).1.len(), 1);
    }

    #[test]
    fn what_nobody_sent_and_what_stands_elsewhere_is_found() {
        assert_eq!(check(&[list(&[(7, 11)], 5)]).1.len(), 1);
        assert_eq!(
            check(&[list(&[(7, 11)], 5), append(7, 9)]).1.len(),
            1,
            "sent after it was seen"
        );
        let acked = at(10, append(1, 1));
        assert_eq!(check(&[acked.clone(), list(&[(1, 10)], 5)]), (2, Vec::new()));
        assert_eq!(check(&[acked, list(&[(1, 12)], 5)]).1.len(), 1);
    }
}
