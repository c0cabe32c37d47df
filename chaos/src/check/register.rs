//! Linearizability of one register with compare-and-swap: a search over all orders that the times
//! of the calls allow (Wing and Gong), with a memo of what was tried (Lowe).
//!
//! A call without an end may come at any point after its start, or never. The search ends at a
//! deadline: [`Found::Undecided`] is not a pass.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::history::{Act, Call, Outcome};

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is an order.
    Linearizable,
    /// There is none; the position (by start) of the first call that cannot be placed.
    Not(usize),
    /// The time was up.
    Undecided,
}

/// What a value is after a call, if the call can stand at this point. `None`: it cannot.
fn step(value: Option<u64>, call: &Call) -> Option<Option<u64>> {
    let open = call.outcome == Outcome::Open;
    match (call.act, &call.outcome) {
        (Act::Read, Outcome::Saw(seen)) => (*seen == value).then_some(value),
        (Act::Write(new), Outcome::Done | Outcome::Open) => Some(Some(new)),
        (Act::Swap(old, new), Outcome::Done) => (old == value).then_some(Some(new)),
        (Act::Swap(old, new), Outcome::Open) => Some(if old == value { Some(new) } else { value }),
        (Act::Swap(old, _), Outcome::Missed) => (old != value).then_some(value),
        (Act::Delete, Outcome::Done) => value.is_some().then_some(None),
        (Act::Delete, Outcome::Open) => Some(None),
        (Act::Delete, Outcome::Missed) => value.is_none().then_some(value),
        // Not calls of a register: they constrain nothing here, and stand nowhere if they ended.
        _ => open.then_some(value),
    }
}

/// Searches for an order of the calls of one key.
#[must_use]
pub fn check(calls: &[Call], patience: Duration) -> Found {
    let deadline = Instant::now() + patience;
    match search(calls, deadline) {
        Some(true) => Found::Linearizable,
        None => Found::Undecided,
        Some(false) => first_misfit(calls, deadline),
    }
}

/// A prefix of a linearizable history is one too: the shortest prefix that is not ends with the
/// call that cannot be placed.
fn first_misfit(calls: &[Call], deadline: Instant) -> Found {
    let mut ends: Vec<(u64, usize)> =
        calls.iter().enumerate().filter_map(|(at, call)| Some((call.end_us?, at))).collect();
    ends.sort_unstable();
    let (mut good, mut bad) = (0, ends.len());
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        let Some((until, _)) = ends.get(middle - 1) else { break };
        match search(&cut(calls, *until), deadline) {
            Some(true) => good = middle,
            Some(false) => bad = middle,
            None => return Found::Undecided,
        }
    }
    Found::Not(bad.checked_sub(1).and_then(|at| ends.get(at)).map_or(0, |(_, at)| *at))
}

/// What was known at a moment: later calls had not begun, unfinished ones were open.
fn cut(calls: &[Call], until: u64) -> Vec<Call> {
    calls
        .iter()
        .filter(|call| call.start_us <= until)
        .filter(|call| call.act != Act::Read || call.end_us.is_some_and(|end| end <= until))
        .map(|call| {
            let mut call = call.clone();
            if call.end_us.is_some_and(|end| end > until) {
                call.end_us = None;
                call.outcome = Outcome::Open;
            }
            call
        })
        .collect()
}

/// One word of 64 calls each.
type Placed = Vec<u64>;

fn has(placed: &Placed, at: usize) -> bool {
    placed.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
}

fn with(placed: &Placed, at: usize) -> Placed {
    let mut placed = placed.clone();
    if let Some(word) = placed.get_mut(at / 64) {
        *word |= 1 << (at % 64);
    }
    placed
}

/// `None`: out of time.
fn search(calls: &[Call], deadline: Instant) -> Option<bool> {
    let mut tried: HashSet<(Placed, Option<u64>)> = HashSet::new();
    let mut stack: Vec<(Placed, Option<u64>)> = vec![(vec![0; calls.len().div_ceil(64)], None)];
    let mut steps = 0_u32;
    while let Some((placed, value)) = stack.pop() {
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(1_024) && Instant::now() > deadline {
            return None;
        }
        let waiting = || calls.iter().enumerate().filter(|(at, _)| !has(&placed, *at));
        // Whatever comes next began before the first of those that are still to be placed ended.
        let Some(limit) = waiting().filter_map(|(_, call)| call.end_us).min() else {
            return Some(true);
        };
        // Those that ended go on top: they have to be placed, open ones need not.
        let mut next: Vec<(bool, usize, Option<u64>)> = waiting()
            .filter(|(_, call)| call.start_us <= limit)
            .filter_map(|(at, call)| Some((call.end_us.is_some(), at, step(value, call)?)))
            .collect();
        next.sort_unstable();
        for (_, at, after) in next {
            let state = (with(&placed, at), after);
            if tried.insert(state.clone()) {
                stack.push(state);
            }
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::call;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn read(seen: u64, start: u64, end: u64) -> Call {
        call(Act::Read, Outcome::Saw((seen > 0).then_some(seen)), start, end)
    }

    fn write(value: u64, start: u64, end: u64) -> Call {
        let outcome = if end == 0 { Outcome::Open } else { Outcome::Done };
        call(Act::Write(value), outcome, start, end)
    }

    #[test]
    fn overlapping_calls_may_come_in_either_order() {
        let calls = [write(1, 1, 10), write(2, 2, 9), read(1, 11, 12), read(1, 13, 14)];
        assert_eq!(check(&calls, PATIENCE), Found::Linearizable);
        let calls = [write(1, 1, 10), read(0, 2, 3), read(1, 4, 5), read(1, 11, 12)];
        assert_eq!(check(&calls, PATIENCE), Found::Linearizable);
    }

    #[test]
    fn a_stale_read_is_found() {
        let calls = [write(1, 1, 2), write(2, 3, 4), read(1, 5, 6), read(2, 7, 8)];
        assert_eq!(check(&calls, PATIENCE), Found::Not(2));
        // Once seen, it cannot be unseen, though the write is still under way.
        let calls = [write(1, 1, 2), write(2, 3, 20), read(2, 4, 5), read(1, 6, 7)];
        assert_eq!(check(&calls, PATIENCE), Found::Not(3));
    }

    #[test]
    fn a_lost_write_is_found() {
        let calls = [write(1, 1, 2), write(2, 3, 4), read(1, 5, 6), read(1, 7, 8)];
        assert_eq!(check(&calls, PATIENCE), Found::Not(2));
        let calls = [write(1, 1, 2), read(0, 3, 4)];
        assert_eq!(check(&calls, PATIENCE), Found::Not(1));
    }

    #[test]
    fn a_duplicate_act_is_found() {
        // 1 was overwritten by 2, and is there again although it was sent once.
        let calls = [write(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)];
        assert_eq!(check(&calls, PATIENCE), Found::Not(3));
        // Two swaps from the same value both say that they won.
        let swap = |new, start, end| call(Act::Swap(Some(1), new), Outcome::Done, start, end);
        let calls = [write(1, 1, 2), swap(2, 3, 9), swap(3, 4, 8)];
        assert!(matches!(check(&calls, PATIENCE), Found::Not(_)));
        let delete = |start, end| call(Act::Delete, Outcome::Done, start, end);
        assert!(matches!(
            check(&[write(1, 1, 2), delete(3, 9), delete(4, 8)], PATIENCE),
            Found::Not(_)
        ));
    }

    #[test]
    fn an_open_call_may_come_late_or_never() {
        let calls = [write(1, 1, 2), write(2, 3, 0), read(1, 5, 6), read(2, 50, 51)];
        assert_eq!(check(&calls, PATIENCE), Found::Linearizable);
        let calls = [write(1, 1, 2), write(2, 3, 0), read(1, 50, 51)];
        assert_eq!(check(&calls, PATIENCE), Found::Linearizable);
        // But once.
        let calls = [write(1, 1, 2), write(2, 3, 0), read(2, 5, 6), write(3, 7, 8), read(2, 9, 10)];
        assert_eq!(check(&calls, PATIENCE), Found::Not(4));
        // And not before it was sent.
        let calls = [write(1, 1, 2), read(2, 3, 4), write(2, 5, 0)];
        assert_eq!(check(&calls, PATIENCE), Found::Not(1));
    }

    #[test]
    fn conditions_count_when_they_fail_too() {
        let missed = call(Act::Swap(Some(1), 2), Outcome::Missed, 3, 4);
        assert_eq!(check(&[write(1, 1, 2), missed.clone()], PATIENCE), Found::Not(1));
        let delete = call(Act::Delete, Outcome::Done, 3, 4);
        let mut calls = vec![write(1, 1, 2), delete];
        let mut late = missed;
        (late.start_us, late.end_us) = (5, Some(6));
        calls.push(late);
        assert_eq!(check(&calls, PATIENCE), Found::Linearizable);
    }

    #[test]
    fn what_cannot_be_decided_in_time_is_no_pass() {
        // Many open writes and a read of none of them: every subset would have to be tried.
        let mut calls: Vec<Call> = (1..=40).map(|n| write(n, n, 0)).collect();
        calls.push(write(100, 41, 42));
        calls.push(read(99, 50, 51));
        assert_eq!(check(&calls, Duration::from_millis(50)), Found::Undecided);
    }
}
