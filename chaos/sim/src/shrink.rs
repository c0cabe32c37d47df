//! Cuts a failing run's faults down to those it needs: delta debugging over the list.
//!
//! (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002: `ddmin`, over
//! complements.) What counts as the same failure is the same checker.

use std::collections::BTreeSet;

use crate::run::Plan;

/// What a run of a plan came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The checkers that found something, the first finding first.
    pub checkers: Vec<String>,
    /// How many faults there were.
    pub faults: usize,
}

/// Runs a plan: here, or in a process of its own.
pub type Try<'a> = &'a dyn Fn(&Plan) -> std::io::Result<Tried>;

/// A failure with no fault that it does not need.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The positions that are left.
    pub keep: BTreeSet<usize>,
    /// Of how many.
    pub of: usize,
    /// Runs that it took.
    pub runs: u32,
}

/// Cuts down; `None`: the plan does not fail. `told` hears of every success.
///
/// # Errors
/// When a run cannot be had.
pub fn shrink(plan: &Plan, run: Try<'_>, told: &dyn Fn(usize)) -> std::io::Result<Option<Shrunk>> {
    let whole = run(plan)?;
    let Some(first) = whole.checkers.first() else { return Ok(None) };
    let of = whole.faults;
    let all: Vec<usize> = match &plan.keep {
        Some(keep) => keep.iter().copied().collect(),
        None => (0..of).collect(),
    };
    let mut runs = 1;
    let keep = minimize(all, &mut |keep| {
        runs += 1;
        let tried = Plan { keep: Some(keep.iter().copied().collect()), ..plan.clone() };
        let fails = run(&tried)?.checkers.contains(first);
        if fails {
            told(keep.len());
        }
        Ok(fails)
    })?;
    Ok(Some(Shrunk { keep: keep.into_iter().collect(), of, runs }))
}

/// The smallest sublist found that still fails.
fn minimize(
    mut list: Vec<usize>,
    fails: &mut dyn FnMut(&[usize]) -> std::io::Result<bool>,
) -> std::io::Result<Vec<usize>> {
    if fails(&[])? {
        return Ok(Vec::new());
    }
    let mut parts = 2;
    while list.len() > 1 {
        let size = list.len().div_ceil(parts);
        let mut smaller = None;
        for at in (0..list.len()).step_by(size) {
            let end = (at + size).min(list.len());
            let rest: Vec<usize> = [&list[..at], &list[end..]].concat();
            if !rest.is_empty() && fails(&rest)? {
                smaller = Some(rest);
                break;
            }
        }
        match smaller {
            Some(rest) => {
                list = rest;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(list.len()),
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_needed_goes() {
        let mut tries = 0;
        let left = minimize((0..40).collect(), &mut |list| {
            tries += 1;
            Ok(list.contains(&7) && list.contains(&31))
        });
        assert_eq!(left.unwrap(), [7, 31]);
        assert!(tries < 80, "{tries}");
    }

    #[test]
    fn a_run_that_fails_otherwise_does_not_count() {
        let run = |plan: &Plan| {
            let keep: Vec<usize> = match &plan.keep {
                Some(keep) => keep.iter().copied().collect(),
                None => (0..10).collect(),
            };
            let mut checkers = Vec::new();
            if keep.contains(&3) && keep.contains(&8) {
                checkers.push("linearizability".to_owned());
            }
            if keep.contains(&5) {
                checkers.push("liveness".to_owned());
            }
            Ok(Tried { checkers, faults: keep.len() })
        };
        let shrunk = shrink(&Plan::default(), &run, &|_| {}).unwrap().unwrap();
        assert_eq!((shrunk.keep, shrunk.of), (BTreeSet::from([3, 8]), 10));
        let calm = |_: &Plan| Ok(Tried { checkers: Vec::new(), faults: 1 });
        assert!(shrink(&Plan::default(), &calm, &|_| {}).unwrap().is_none());
    }

    #[test]
    fn a_failure_that_needs_no_fault_keeps_none() {
        assert!(minimize((0..9).collect(), &mut |_| Ok(true)).unwrap().is_empty());
    }
}
