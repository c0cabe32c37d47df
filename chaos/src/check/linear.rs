//! Invariant 1: every call of every client, key by key.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::history::{Act, Call, Outcome};

use super::{
    Verdict, Violation, lists,
    register::{self, Found},
    replay,
};

/// Time for the search over one key. A key has some fifty calls, of which few are open.
const PATIENCE: Duration = Duration::from_secs(20);
/// Calls shown before the one that does not fit.
const SHOWN: usize = 8;

/// Checks a whole history; `file` is where it was written.
#[must_use]
pub fn check(calls: &[Call], file: &Path) -> Verdict {
    check_within(calls, file, PATIENCE)
}

/// The same, with so much time for each key.
fn check_within(calls: &[Call], file: &Path, patience: Duration) -> Verdict {
    let mut keys: BTreeMap<&str, Vec<Call>> = BTreeMap::new();
    for call in calls {
        keys.entry(&call.key).or_default().push(call.clone());
    }
    let (mut checked, mut violations) = (0, Vec::new());
    for (key, mut calls) in keys {
        // A read that was not answered says nothing.
        calls.retain(|call| call.act != Act::Read || call.outcome != Outcome::Open);
        calls.sort_by_key(|call| call.start_us);
        let list = calls.iter().any(|call| {
            matches!(call.act, Act::Append(_)) || matches!(call.outcome, Outcome::Listed(_))
        });
        if list {
            let (count, wrong) = lists::check(&calls);
            checked += count;
            violations.extend(wrong);
            continue;
        }
        checked += calls.len();
        violations.extend(replay::check(&calls).1);
        match register::check(&calls, patience) {
            Found::Linearizable => {}
            Found::Not(at) => violations.push(misfit(key, &calls, at)),
            Found::Undecided => {
                let text = format!("{key}: could not be decided within {patience:?}");
                violations.push(Violation::new(text).with(calls.iter().take(SHOWN).map(line)));
            }
        }
    }
    let violations = violations.into_iter().map(|violation| violation.see(file)).collect();
    Verdict::new(1, checked, "calls", violations)
}

fn misfit(key: &str, calls: &[Call], at: usize) -> Violation {
    let Some(misfit) = calls.get(at) else { return Violation::new(format!("{key}: no order")) };
    let until = misfit.end_us.unwrap_or(u64::MAX);
    let before: Vec<&Call> =
        calls.iter().filter(|call| call.start_us <= until && *call != misfit).collect();
    let shown = before.iter().skip(before.len().saturating_sub(SHOWN)).map(|call| line(call));
    Violation::new(format!("{key}: no order of its calls explains the last of these"))
        .with(shown)
        .with([line(misfit)])
}

/// A call in one line.
#[must_use]
pub fn line(call: &Call) -> String {
    let end = call.end_us.map_or_else(|| "open".to_owned(), seconds);
    let index = call.index.map(|index| format!(" at index {index}")).unwrap_or_default();
    format!(
        "{} to {end}: client {} on node-{}: {:?} of {} -> {:?}{index}",
        seconds(call.start_us),
        call.client,
        call.node,
        call.act,
        call.key,
        call.outcome
    )
}

fn seconds(us: u64) -> String {
    format!("{}.{:06} s", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::call;

    #[test]
    fn the_evidence_ends_with_the_call_that_does_not_fit() {
        let mut calls: Vec<Call> =
            (1..=20).map(|n| call(Act::Write(n), Outcome::Done, 10 * n, 10 * n + 1)).collect();
        calls.push(call(Act::Read, Outcome::Saw(Some(19)), 300, 301));
        calls.push(call(Act::Read, Outcome::Saw(Some(20)), 302, 303));
        let verdict = check(&calls, Path::new("history.jsonl"));
        assert_eq!((verdict.checked, verdict.violations.len()), (22, 1));
        let evidence = &verdict.violations[0].evidence;
        assert_eq!(evidence.len(), SHOWN + 1);
        assert!(evidence[SHOWN].contains("Saw(Some(19))"), "{evidence:#?}");
    }

    fn read(seen: u64, start: u64, end: u64) -> Call {
        call(Act::Read, Outcome::Saw((seen > 0).then_some(seen)), start, end)
    }

    fn write(value: u64, start: u64, end: u64) -> Call {
        let outcome = if end == 0 { Outcome::Open } else { Outcome::Done };
        call(Act::Write(value), outcome, start, end)
    }

    fn swap(old: u64, new: u64, start: u64, end: u64) -> Call {
        call(Act::Swap(Some(old), new), Outcome::Done, start, end)
    }

    fn holds(calls: &[Call]) -> bool {
        check(calls, Path::new("h")).holds()
    }

    #[test]
    fn a_history_that_has_everything_and_is_right_passes() {
        // An overwritten swap, a write nobody answered that took effect, a read during a write, a
        // deletion, and a list beside them.
        let mut calls = vec![
            write(1, 1, 4),
            read(0, 2, 3),
            swap(1, 2, 5, 6),
            write(3, 7, 0),
            read(2, 8, 12),
            read(3, 9, 14),
            call(Act::Swap(Some(2), 9), Outcome::Missed, 15, 16),
            call(Act::Delete, Outcome::Done, 17, 18),
            read(0, 19, 20),
        ];
        let mut noted = call(Act::Append(7), Outcome::Done, 1, 2);
        let mut listed = call(Act::Read, Outcome::Listed(vec![(7, 10)]), 3, 4);
        (noted.key, listed.key) = ("notes".to_owned(), "notes".to_owned());
        calls.extend([noted, listed]);
        let verdict = check(&calls, Path::new("h"));
        assert!(verdict.holds() && verdict.checked == 11, "{verdict:#?}");
    }

    #[test]
    fn one_stale_read_one_lost_write_one_duplicate_act_are_each_found() {
        // Twenty calls that are right, and each time one more that is not.
        let good: Vec<Call> = (1..=10)
            .flat_map(|n| [write(n, 10 * n, 10 * n + 1), read(n, 10 * n + 2, 10 * n + 3)])
            .collect();
        assert!(holds(&good));
        let with = |more: &[Call]| [&good[..], more].concat();
        assert!(!holds(&with(&[read(9, 200, 201)])), "a stale read");
        assert!(!holds(&with(&[write(11, 200, 201), read(10, 202, 203)])), "a lost write");
        assert!(!holds(&with(&[swap(10, 11, 200, 203), swap(10, 12, 201, 204)])), "two swaps won");
        let again = [write(11, 200, 201), read(10, 202, 203), read(11, 204, 205)];
        assert!(!holds(&with(&again)), "an overwritten value comes back");
        let mut twice = call(Act::Read, Outcome::Listed(vec![(7, 10), (7, 11)]), 200, 201);
        twice.key = "notes".to_owned();
        assert!(!holds(&with(&[twice])), "a note that was sent once stands there twice");
    }

    #[test]
    fn what_could_not_be_decided_is_a_violation() {
        let mut calls: Vec<Call> = (1..=40).map(|n| write(n, n, 0)).collect();
        calls.extend([write(100, 41, 42), read(99, 50, 51)]);
        let verdict = check_within(&calls, Path::new("h"), Duration::from_millis(20));
        assert_eq!(verdict.violations.len(), 1);
        assert!(verdict.violations[0].what.contains("could not be decided"), "{verdict:#?}");
    }

    #[test]
    fn keys_are_judged_apart() {
        let mut other = call(Act::Read, Outcome::Saw(None), 5, 6);
        other.key = "other".to_owned();
        let calls = [call(Act::Write(1), Outcome::Done, 1, 2), other];
        assert!(check(&calls, Path::new("h")).holds());
    }
}
