//! Leaders that died in the middle of a remediation, by the log: an intent under the dead leader's
//! fence that had no outcome when the next leader took office, or a plan that was being undone.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::Chain;

/// The end of a process, as it was seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub node: u64,
    /// Whether it is sure to have led: the others said so, or it died doing what only leaders do.
    pub led: bool,
    /// The newest fence that was heard of.
    pub fence: u64,
    /// Whether a plan was being undone.
    pub unwinding: bool,
}

/// A leader that died in the middle of a remediation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposed {
    /// Which of the ends.
    pub at: usize,
    /// Its fence.
    pub fence: u64,
    /// Acts that were begun and had no outcome.
    pub open: Vec<String>,
}

/// Those among the ends that were leaders in the middle of a remediation, each fence once.
#[must_use]
pub fn deposed(ends: &[Ended], chain: &Chain) -> Vec<Deposed> {
    let mut counted = BTreeSet::new();
    let mut found = Vec::new();
    for (at, end) in ends.iter().enumerate() {
        let Some(fence) = fence_of(end, chain).filter(|fence| counted.insert(*fence)) else {
            continue;
        };
        let open = open_at(chain, next_fence(chain, fence));
        if !open.is_empty() || end.unwinding {
            found.push(Deposed { at, fence, open });
        }
    }
    found
}

/// The fence that a node held when it ended: the newest one, or, when it had just taken office and
/// nobody had heard of it, the one after.
fn fence_of(end: &Ended, chain: &Chain) -> Option<u64> {
    let holder = format!("node-{}", end.node);
    let mut known = chain.fences.range(end.fence..);
    let newest = known.next()?;
    if *newest.1 == holder {
        return Some(*newest.0);
    }
    known.next().filter(|(_, node)| end.led && **node == holder).map(|(fence, _)| *fence)
}

fn next_fence(chain: &Chain, fence: u64) -> u64 {
    chain.fences.range(fence + 1..).next().map_or(u64::MAX, |(next, _)| *next)
}

/// Acts with an intent and no outcome before an index.
fn open_at(chain: &Chain, before: u64) -> Vec<String> {
    let mut open: BTreeMap<&str, u64> = BTreeMap::new();
    for start in chain.starts.iter().filter(|mark| mark.index < before) {
        open.insert(&start.key, start.index);
    }
    for end in chain.ends.iter().filter(|mark| mark.index < before) {
        if open.get(end.key.as_str()).is_some_and(|start| *start < end.index) {
            open.remove(end.key.as_str());
        }
    }
    open.into_keys().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::chain::{self, fixture::link},
        *,
    };

    fn chain() -> Chain {
        chain::read(&[
            link(3, "Fence", "node-1 (b)", "ok: fence-3"),
            link(5, "AdoptDecision", "INC-4", "ok: auto_execute, PLAN-5"),
            link(6, "StartStep", "PLAN-5: Forward of step 0", "ok"),
            link(7, "FinishStep", "PLAN-5: Forward of step 0", "ok"),
            link(8, "StartStep", "PLAN-5: Forward of step 1", "ok"),
            link(9, "Fence", "node-2 (b)", "ok: fence-9"),
            link(10, "StartStep", "PLAN-5: Forward of step 1", "ok"),
            link(11, "FinishStep", "PLAN-5: Forward of step 1", "ok"),
            link(12, "Fence", "node-3 (b)", "ok: fence-12"),
        ])
    }

    fn end(node: u64, led: bool, fence: u64) -> Ended {
        Ended { node, led, fence, unwinding: false }
    }

    #[test]
    fn an_intent_without_an_outcome_counts_once_for_its_leader() {
        let ends = [end(1, true, 3), end(1, true, 3), end(2, true, 9)];
        let found = deposed(&ends, &chain());
        assert_eq!(found.len(), 1, "the second had finished what it began: {found:?}");
        assert_eq!((found[0].at, found[0].fence), (0, 3));
        assert_eq!(found[0].open, ["PLAN-5/1/do"]);
    }

    #[test]
    fn a_follower_is_no_leader_and_one_that_just_took_office_is() {
        assert!(deposed(&[end(2, false, 3)], &chain()).is_empty());
        let unwinding = Ended { unwinding: true, ..end(2, true, 3) };
        assert_eq!(deposed(&[unwinding], &chain())[0].fence, 9);
        assert!(deposed(&[end(3, true, 3)], &chain()).is_empty(), "two fences away");
    }
}
