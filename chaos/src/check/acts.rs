//! Invariants 2, 3, 4, 11 and 12: what agents did, against what was committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    Verdict, Violation,
    chain::Chain,
    journal::{Journal, Line, instance, pid_of},
};

/// What the services of the fleet noted themselves: the process id of each of their starts.
pub type Starts = BTreeMap<String, (PathBuf, Vec<u64>)>;

/// A time in which a node was cut off from its peers for longer than its lease: from, to (wall
/// clock, milliseconds), who.
pub type CutOff = (u64, u64, u64);

/// 2: fences of each journal never decrease, and each is a committed one.
#[must_use]
pub fn fences(journals: &[Journal], chain: &Chain) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for journal in journals {
        let mut highest = 0;
        for line in &journal.lines {
            let (fence, accepts) = match line {
                Line::Fence { fence } => (*fence, true),
                Line::Begin { fence, .. } => (*fence, false),
                Line::Header { .. } | Line::Outcome { .. } => continue,
            };
            checked += 1;
            if fence < highest {
                let text = format!("{}: fence {fence} was accepted after {highest}", journal.agent);
                violations.push(
                    Violation::new(text).with([format!("{line:?}")]).see(journal.path.clone()),
                );
            }
            if accepts && !chain.fences.contains_key(&fence) {
                let text = format!("{}: fence {fence} was never committed", journal.agent);
                violations.push(Violation::new(text).see(journal.path.clone()));
            }
            highest = highest.max(fence);
        }
    }
    Verdict::new(2, checked, "fences", violations)
}

/// 3: each act has a committed intent under its fence, and its plan was committed before.
#[must_use]
pub fn intents(journals: &[Journal], chain: &Chain) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for journal in journals {
        for line in &journal.lines {
            let Line::Begin { key, fence, .. } = line else { continue };
            checked += 1;
            let intent = chain.starts.iter().find(|m| m.key == *key && m.fence == *fence);
            let plan = chain.plans.get(key.split('/').next().unwrap_or_default());
            let problem = match (intent, plan) {
                (None, _) => "has no committed StartStep under its fence",
                (_, None) => "belongs to no committed plan",
                (Some(intent), Some(plan)) if *plan >= intent.index => "was begun before its plan",
                (Some(_), Some(_)) => continue,
            };
            let text = format!("{}: the act {key} under fence {fence} {problem}", journal.agent);
            violations
                .push(Violation::new(text).with([format!("{line:?}")]).see(journal.path.clone()));
        }
    }
    Verdict::new(3, checked, "acts", violations)
}

/// 4: every start of a process that was not its first belongs to one key, and no key has two.
#[must_use]
pub fn effects(journals: &[Journal], starts: &Starts) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for (name, (path, pids)) in starts {
        let acts = acts_on(journals, name);
        checked += acts.keys.len();
        let files = |violation: Violation| {
            let journals = journals.iter().filter(|journal| {
                journal.lines.iter().any(
                    |line| matches!(line, Line::Begin { target, .. } if instance(target) == name),
                )
            });
            journals.fold(violation.see(path.clone()), |v, journal| v.see(journal.path.clone()))
        };
        let restarts = pids.len().saturating_sub(1);
        if restarts > acts.keys.len() {
            let text = format!(
                "{name} was restarted {restarts} times under {} keys: some act was applied twice",
                acts.keys.len()
            );
            violations.push(files(Violation::new(text).with(acts.lines.clone())));
        }
        for (pid, keys) in &acts.said {
            // The system gives numbers of dead processes out again: a number may be several starts.
            let starts = pids.iter().filter(|start| *start == pid).count();
            if keys.len() > starts.max(1) {
                let text = format!("{name}: process {pid} is the work of several restarts");
                violations.push(files(Violation::new(text).with(keys.iter().cloned())));
            }
            if !pids.contains(pid) {
                let text = format!("{name}: process {pid} is said to run, and never started");
                violations.push(files(Violation::new(text).with(keys.iter().cloned())));
            }
        }
    }
    Verdict::new(4, checked, "keys of acts", violations)
}

/// What was ordered of one instance.
#[derive(Default)]
struct Acts {
    /// Keys under which something may have been started.
    keys: BTreeSet<String>,
    /// Restarts that were done, by the process each says it left.
    said: BTreeMap<u64, BTreeSet<String>>,
    lines: Vec<String>,
}

fn acts_on(journals: &[Journal], name: &str) -> Acts {
    let mut acts = Acts::default();
    for journal in journals {
        let mut restarts = BTreeSet::new();
        for line in &journal.lines {
            match line {
                Line::Begin { key, action, target, .. } if instance(target) == name => {
                    acts.lines.push(format!("{line:?}"));
                    if matches!(
                        action.as_str(),
                        "process.restart" | "process.start" | "process.restore"
                    ) {
                        acts.keys.insert(key.clone());
                    }
                    if action == "process.restart" {
                        restarts.insert(key.clone());
                    }
                }
                Line::Outcome { key, outcome, .. } if restarts.contains(key) => {
                    acts.lines.push(format!("{line:?}"));
                    if let Some(pid) = pid_of(outcome) {
                        acts.said.entry(pid).or_default().insert(key.clone());
                    }
                }
                _ => {}
            }
        }
    }
    acts
}

/// 11: while a node was cut off beyond its lease, nothing was begun under its fence.
#[must_use]
pub fn without_quorum(journals: &[Journal], chain: &Chain, cut_off: &[CutOff]) -> Verdict {
    let mut violations = Vec::new();
    for (from, to, node) in cut_off {
        let holder = format!("node-{node}");
        for journal in journals {
            for line in &journal.lines {
                let Line::Begin { key, fence, at_ms, .. } = line else { continue };
                if (from..to).contains(&at_ms) && chain.fences.get(fence) == Some(&holder) {
                    let text = format!("{holder} was cut off and had {key} begun");
                    let line = format!("cut off from {from} to {to}: {line:?}");
                    violations.push(Violation::new(text).with([line]).see(journal.path.clone()));
                }
            }
        }
    }
    Verdict::new(11, cut_off.len(), "isolations beyond the lease", violations)
}

/// 12: intents without an end never outnumber the budget.
#[must_use]
pub fn budget(chain: &Chain, bound: usize) -> Verdict {
    let mut marks: Vec<(u64, &str, bool)> =
        chain.starts.iter().map(|mark| (mark.index, mark.key.as_str(), true)).collect();
    marks.extend(chain.ends.iter().map(|mark| (mark.index, mark.key.as_str(), false)));
    marks.sort_unstable();
    let (mut open, mut violations): (BTreeSet<&str>, Vec<Violation>) = Default::default();
    for (index, key, start) in &marks {
        if *start {
            open.insert(key);
        } else {
            open.remove(key);
        }
        if open.len() > bound {
            let text =
                format!("{} acts were in flight at index {index}, {bound} may be", open.len());
            violations.push(Violation::new(text).with(open.iter().map(ToString::to_string)));
        }
    }
    Verdict::new(12, marks.len(), "starts and ends of steps", violations)
}

#[cfg(test)]
mod tests {
    use super::{
        super::chain::{self, fixture::link},
        *,
    };

    fn begin(key: &str, fence: u64, at_ms: u64) -> Line {
        let (action, target) = ("process.restart".to_owned(), "default/o/o-1".to_owned());
        Line::Begin { key: key.to_owned(), attempt: 1, fence, at_ms, action, target }
    }

    fn done(key: &str, fence: u64, pid: u64) -> Line {
        let outcome = serde_json::json!({"is": "done", "evidence": {"pid": pid.to_string()}});
        Line::Outcome { key: key.to_owned(), attempt: 1, fence, at_ms: 0, outcome }
    }

    fn journal(lines: Vec<Line>) -> Vec<Journal> {
        vec![Journal { agent: "a".to_owned(), path: PathBuf::from("j"), lines }]
    }

    fn chain() -> Chain {
        chain::read(&[
            link(3, "Fence", "node-1 (b)", "ok: fence-3"),
            link(5, "AdoptDecision", "INC-4", "ok: auto_execute, PLAN-5"),
            link(6, "StartStep", "PLAN-5: Forward of step 0", "ok"),
            link(7, "FinishStep", "PLAN-5: Forward of step 0", "ok"),
            link(8, "Fence", "node-2 (b)", "ok: fence-8"),
            link(9, "StartStep", "PLAN-5: Forward of step 1", "ok"),
        ])
    }

    fn starts(pids: &[u64]) -> Starts {
        Starts::from([("o-1".to_owned(), (PathBuf::from("s"), pids.to_vec()))])
    }

    #[test]
    fn a_fence_that_fell_or_was_never_committed_is_found() {
        let good = vec![Line::Fence { fence: 3 }, begin("k", 3, 0), Line::Fence { fence: 8 }];
        assert!(fences(&journal(good), &chain()).holds());
        let fell = vec![Line::Fence { fence: 8 }, begin("k", 3, 0)];
        assert!(!fences(&journal(fell), &chain()).holds());
        assert!(!fences(&journal(vec![Line::Fence { fence: 4 }]), &chain()).holds());
    }

    #[test]
    fn an_act_without_intent_is_found() {
        assert!(intents(&journal(vec![begin("PLAN-5/0/do", 3, 0)]), &chain()).holds());
        assert!(!intents(&journal(vec![begin("PLAN-5/0/do", 8, 0)]), &chain()).holds());
        assert!(!intents(&journal(vec![begin("PLAN-5/2/do", 3, 0)]), &chain()).holds());
    }

    #[test]
    fn a_duplicate_act_is_found() {
        let once = journal(vec![begin("PLAN-5/0/do", 3, 0), done("PLAN-5/0/do", 3, 11)]);
        assert!(effects(&once, &starts(&[10, 11])).holds());
        assert!(!effects(&once, &starts(&[10, 11, 12])).holds(), "two starts under one key");
        assert!(!effects(&once, &starts(&[10, 13])).holds(), "said to be done, and was not");
        let mut both = once;
        both[0].lines.extend([begin("PLAN-5/1/do", 8, 0), done("PLAN-5/1/do", 8, 11)]);
        assert!(!effects(&both, &starts(&[10, 11])).holds(), "one start for two keys");
        let again = effects(&both, &starts(&[10, 11, 11]));
        assert!(again.holds(), "the number of a dead process was given out again: {again:?}");
    }

    #[test]
    fn an_act_of_a_node_without_quorum_is_found() {
        let acts = journal(vec![begin("PLAN-5/0/do", 3, 500)]);
        assert!(without_quorum(&acts, &chain(), &[(600, 900, 1), (400, 600, 2)]).holds());
        assert!(!without_quorum(&acts, &chain(), &[(400, 600, 1)]).holds());
    }

    #[test]
    fn a_budget_that_was_exceeded_is_found() {
        assert!(budget(&chain(), 1).holds());
        let mut chain = chain();
        chain.ends.clear();
        assert!(!budget(&chain, 1).holds());
    }
}
