//! The same history held against the log indexes that the server gave: an O(n log n) replay.
//!
//! The search in [`super::register`] trusts nothing but times. This one also holds the server to
//! its word: writes stand at their index, a read shows the newest write at or before the index it
//! was answered at, and an index never runs backwards in real time.

use std::collections::BTreeMap;

use crate::history::{Act, Call, Outcome};

use super::Violation;

/// A value that was set, and where; `None`: deleted.
type Sets = BTreeMap<u64, Option<u64>>;

/// Checks the calls of one key; gives how many were placed, and what does not fit.
#[must_use]
pub fn check(calls: &[Call]) -> (usize, Vec<Violation>) {
    let mut violations = real_time(calls);
    let (sets, clashes) = sets(calls);
    violations.extend(clashes);
    let mut placed = 0;
    for call in calls {
        let (Outcome::Saw(seen), Some(index)) = (&call.outcome, call.index) else { continue };
        placed += 1;
        let newest = sets.range(..=index).next_back();
        let fits = match (newest, call.set_at) {
            // What was read says itself where it was set.
            (Some((at, value)), Some(set_at)) => set_at == *at && value == seen,
            (None, Some(_)) => false,
            // Nothing was there, or (a freeze) it does not say. A write that nobody heard of may
            // have come in between.
            (newest, None) => {
                newest.and_then(|(_, value)| *value) == *seen || open_could_explain(calls, call)
            }
        };
        if !fits {
            let newest = newest.map(|(at, value)| format!("{value:?} set at {at}"));
            violations.push(
                Violation::new(format!(
                    "{}: a read at index {index} saw {seen:?}, and the newest write there is {}",
                    call.key,
                    newest.unwrap_or_else(|| "none".to_owned())
                ))
                .with([super::linear::line(call)]),
            );
        }
    }
    (placed + sets.len(), violations)
}

/// Where each value was set, by those who set it and by those who saw it.
fn sets(calls: &[Call]) -> (Sets, Vec<Violation>) {
    let (mut sets, mut violations) = (Sets::new(), Vec::new());
    let mut put = |index: u64, value: Option<u64>, call: &Call| {
        if let Some(other) = sets.insert(index, value)
            && other != value
        {
            violations.push(
                Violation::new(format!(
                    "{}: index {index} is said to have set both {other:?} and {value:?}",
                    call.key
                ))
                .with([super::linear::line(call)]),
            );
        }
    };
    for call in calls {
        // However often it was tried, the answer names the index at which it took effect.
        let written = call.index.filter(|_| call.outcome == Outcome::Done);
        match (call.act, written, &call.outcome, call.set_at) {
            (Act::Write(value) | Act::Swap(_, value), Some(index), _, _) => {
                put(index, Some(value), call);
            }
            (Act::Delete, Some(index), _, _) => put(index, None, call),
            (Act::Read, _, Outcome::Saw(Some(value)), Some(index)) => {
                put(index, Some(*value), call);
            }
            _ => {}
        }
    }
    (sets, violations)
}

/// Whether a write or deletion without an answer began before this read ended.
fn open_could_explain(calls: &[Call], read: &Call) -> bool {
    calls.iter().any(|call| {
        call.act != Act::Read
            && call.outcome == Outcome::Open
            && read.end_us.is_some_and(|end| call.start_us < end)
    })
}

/// An answer's index is at least that of every answer given before its call began.
fn real_time(calls: &[Call]) -> Vec<Violation> {
    let mut by_end: Vec<&Call> =
        calls.iter().filter(|call| call.end_us.is_some() && call.index.is_some()).collect();
    let mut by_start = by_end.clone();
    by_end.sort_by_key(|call| call.end_us);
    by_start.sort_by_key(|call| call.start_us);
    let (mut ended, mut highest): (_, Option<&Call>) = (by_end.into_iter().peekable(), None);
    let mut violations = Vec::new();
    for call in by_start {
        while let Some(before) = ended.next_if(|c| c.end_us.is_some_and(|e| e < call.start_us)) {
            if highest.is_none_or(|known| known.index < before.index) {
                highest = Some(before);
            }
        }
        if let Some(before) = highest
            && call.index < before.index
        {
            let text = format!("{}: an index ran backwards in real time", call.key);
            let lines = [super::linear::line(before), super::linear::line(call)];
            violations.push(Violation::new(text).with(lines));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::{at, call};

    fn write(index: u64, value: u64, start: u64) -> Call {
        at(index, call(Act::Write(value), Outcome::Done, start, start + 1))
    }

    fn read(index: u64, seen: u64, set_at: u64, start: u64) -> Call {
        let mut read = at(index, call(Act::Read, Outcome::Saw(Some(seen)), start, start + 1));
        read.set_at = Some(set_at);
        read
    }

    #[test]
    fn a_history_that_fits_its_indexes_passes() {
        let calls = [write(10, 1, 1), read(12, 1, 10, 3), write(15, 2, 5), read(15, 2, 15, 7)];
        assert_eq!(check(&calls), (4, Vec::new()));
    }

    #[test]
    fn a_stale_read_a_lost_write_and_a_clash_are_found() {
        let stale = [write(10, 1, 1), write(15, 2, 3), read(12, 1, 10, 5)];
        assert_eq!(check(&stale).1.len(), 1, "the index ran backwards");
        let lost = [write(10, 1, 1), write(15, 2, 3), read(20, 1, 10, 5)];
        assert_eq!(check(&lost).1.len(), 1, "15 is missing");
        let twice = [write(10, 1, 1), write(10, 2, 3)];
        assert!(!check(&twice).1.is_empty());
        let gone = [write(10, 1, 1), at(20, call(Act::Read, Outcome::Saw(None), 3, 4))];
        assert_eq!(check(&gone).1.len(), 1);
    }

    #[test]
    fn an_open_write_explains_what_it_can() {
        let open = call(Act::Delete, Outcome::Open, 2, 0);
        let gone = [write(10, 1, 1), open, at(20, call(Act::Read, Outcome::Saw(None), 3, 4))];
        assert!(check(&gone).1.is_empty());
    }
}
