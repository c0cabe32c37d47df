//! Invariants 2, 3, 4, 11 and 12: what agents did, against what was committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use medic_proto::v1 as pb;

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

/// 4: every start of a process but its first is the work of one key, and no key has two.
///
/// A start is the work of the key whose outcome names its process. An act that its agent was killed
/// in the middle of has none: so many starts may be nobody's.
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
        violations.extend(doubled(name, &acts, pids).into_iter().map(files));
    }
    Verdict::new(4, checked, "keys of acts", violations)
}

fn doubled(name: &str, acts: &Acts, pids: &[u64]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut said: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for (key, act) in &acts.keys {
        for pid in &act.left {
            said.entry(*pid).or_default().insert(key);
        }
        if act.left.len() > 1 {
            let text = format!("{name}: {key} says that it left processes {:?}", act.left);
            violations.push(Violation::new(text).with(acts.lines.clone()));
        }
    }
    let nobodys = pids.iter().skip(1).filter(|pid| !said.contains_key(pid)).count();
    let open = acts.keys.values().filter(|act| act.left.is_empty()).count();
    if nobodys > open {
        let text = format!(
            "{name} was started {nobodys} times by no act that says so, and {open} have no outcome: \
             some act was applied twice"
        );
        violations.push(Violation::new(text).with(acts.lines.clone()));
    }
    for (pid, keys) in &said {
        let lines = || keys.iter().map(ToString::to_string);
        // The system gives numbers of dead processes out again: a number may be several starts.
        let starts = pids.iter().filter(|start| *start == pid).count();
        // Restoring leaves a process that runs already as it is.
        let restarts = keys.iter().filter(|key| acts.keys.get(**key).is_some_and(|a| a.restarts));
        if restarts.count() > starts.max(1) {
            let text = format!("{name}: process {pid} is the work of several restarts");
            violations.push(Violation::new(text).with(lines()));
        }
        if starts > keys.len().max(1) {
            let text =
                format!("{name}: number {pid} was given to {starts} starts of {} acts", keys.len());
            violations.push(Violation::new(text).with(lines()));
        }
        if starts == 0 {
            let text = format!("{name}: process {pid} is said to run, and never started");
            violations.push(Violation::new(text).with(lines()));
        }
    }
    violations
}

/// What was ordered of one instance.
#[derive(Default)]
struct Acts {
    /// By key, those under which something may have been started.
    keys: BTreeMap<String, ActSeen>,
    lines: Vec<String>,
}

#[derive(Default)]
struct ActSeen {
    /// It always starts a process.
    restarts: bool,
    /// The processes that its outcomes say run after it.
    left: BTreeSet<u64>,
}

fn acts_on(journals: &[Journal], name: &str) -> Acts {
    let mut acts = Acts::default();
    for line in journals.iter().flat_map(|journal| &journal.lines) {
        match line {
            Line::Begin { key, action, target, .. } if instance(target) == name => {
                acts.lines.push(format!("{line:?}"));
                if let "process.restart" | "process.start" | "process.restore" = action.as_str() {
                    acts.keys.entry(key.clone()).or_default().restarts |=
                        action == "process.restart";
                }
            }
            Line::Outcome { key, outcome, .. } => {
                if let Some(act) = acts.keys.get_mut(key) {
                    acts.lines.push(format!("{line:?}"));
                    act.left.extend(pid_of(outcome));
                }
            }
            _ => {}
        }
    }
    acts
}

/// 5: what a plan says of a step is what its agent says: done where it was begun, with the agent's
/// outcome; failed only where nothing was done.
#[must_use]
pub fn recorded(plans: &BTreeMap<String, pb::Remediation>, journals: &[Journal]) -> Verdict {
    let mut done: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut begun: BTreeSet<&str> = BTreeSet::new();
    for line in journals.iter().flat_map(|journal| &journal.lines) {
        match line {
            Line::Begin { key, .. } => {
                begun.insert(key);
            }
            Line::Outcome { key, outcome, .. }
                if outcome.get("is").is_some_and(|i| i == "done") =>
            {
                done.entry(key).or_default().extend(pid_of(outcome));
            }
            _ => {}
        }
    }
    let (mut checked, mut violations) = (0, Vec::new());
    for (id, plan) in plans {
        for step in &plan.steps {
            use pb::StepStatus as S;
            let key = format!("{id}/{}/do", step.index);
            let found = done.get(key.as_str());
            let pid = step.evidence.get("pid").and_then(|pid| pid.parse::<u64>().ok());
            let problem = match (step.status(), found) {
                // Begun and without an outcome: what had become of it was looked up in the world.
                (S::Done, None) if !begun.contains(key.as_str()) => {
                    "is done, and its agent never began it"
                }
                (S::Done, Some(pids)) if pid.is_some_and(|pid| !pids.contains(&pid)) => {
                    "is done with another outcome than its agent's"
                }
                (S::Failed, Some(_)) => "failed, and its agent did it",
                (S::Done | S::Failed, _) => {
                    checked += 1;
                    continue;
                }
                _ => continue,
            };
            checked += 1;
            let lines = [format!("{:?}", step.evidence), format!("the agent left {found:?}")];
            violations.push(Violation::new(format!("{key} {problem}")).with(lines));
        }
    }
    Verdict::new(5, checked, "steps held against journals", violations)
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

/// 12: plans in flight never outnumber the budget. One is in flight at least from its first step to
/// the last word on a step or its verdict; an outcome that is not known ends nothing.
#[must_use]
pub fn budget(chain: &Chain, bound: usize) -> Verdict {
    let mut marks: Vec<(u64, bool, &str)> = Vec::new();
    for (plan, (first, last)) in &chain.spans {
        marks.extend([(*first, true, plan.as_str()), (*last, false, plan.as_str())]);
    }
    marks.sort_unstable();
    let (mut open, mut violations): (BTreeSet<&str>, Vec<Violation>) = Default::default();
    for (index, start, plan) in &marks {
        if *start {
            open.insert(plan);
        } else {
            open.remove(plan);
        }
        if open.len() > bound {
            let text =
                format!("{} plans were in flight at index {index}, {bound} may be", open.len());
            violations.push(Violation::new(text).with(open.iter().map(ToString::to_string)));
        }
    }
    Verdict::new(12, chain.spans.len(), "plans", violations)
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
    fn restores_that_start_nothing_hide_no_duplicate() {
        let mut acts = journal(vec![begin("PLAN-5/0/do", 3, 0), done("PLAN-5/0/do", 3, 11)]);
        for plan in 6..9 {
            let key = format!("PLAN-{plan}/0/undo");
            let Line::Begin { attempt, fence, at_ms, target, .. } = begin(&key, 3, 0) else {
                return;
            };
            let action = "process.restore".to_owned();
            acts[0].lines.push(Line::Begin {
                key: key.clone(),
                attempt,
                fence,
                at_ms,
                action,
                target,
            });
            acts[0].lines.push(done(&key, 3, 11));
        }
        assert!(effects(&acts, &starts(&[10, 11])).holds());
        assert!(!effects(&acts, &starts(&[10, 12, 11])).holds(), "a start that nobody owns up to");
        let mut two = acts.clone();
        two[0].lines.push(done("PLAN-5/0/do", 3, 12));
        assert!(!effects(&two, &starts(&[10, 11, 12])).holds(), "one key left two processes");
        // An act whose agent was killed in the middle may have started one, and said nothing.
        acts[0].lines.push(begin("PLAN-9/0/do", 3, 0));
        assert!(effects(&acts, &starts(&[10, 11, 12])).holds());
        assert!(!effects(&acts, &starts(&[10, 11, 12, 13])).holds());
    }

    #[test]
    fn a_step_that_is_recorded_as_it_was_not_is_found() {
        let plans = |status: pb::StepStatus, pid: &str| {
            let step = pb::Step {
                status: status.into(),
                evidence: [("pid".to_owned(), pid.to_owned())].into(),
                ..pb::Step::default()
            };
            let plan = pb::Remediation { steps: vec![step], ..pb::Remediation::default() };
            BTreeMap::from([("PLAN-5".to_owned(), plan)])
        };
        let acted = journal(vec![begin("PLAN-5/0/do", 3, 0), done("PLAN-5/0/do", 3, 11)]);
        let begun = journal(vec![begin("PLAN-5/0/do", 3, 0)]);
        assert!(recorded(&plans(pb::StepStatus::Done, "11"), &acted).holds());
        assert!(recorded(&plans(pb::StepStatus::Failed, ""), &begun).holds());
        assert!(!recorded(&plans(pb::StepStatus::Done, "12"), &acted).holds());
        assert!(recorded(&plans(pb::StepStatus::Done, "11"), &begun).holds());
        assert!(!recorded(&plans(pb::StepStatus::Done, "11"), &journal(Vec::new())).holds());
        assert!(!recorded(&plans(pb::StepStatus::Failed, ""), &acted).holds());
    }

    #[test]
    fn an_act_of_a_node_without_quorum_is_found() {
        let acts = journal(vec![begin("PLAN-5/0/do", 3, 500)]);
        assert!(without_quorum(&acts, &chain(), &[(600, 900, 1), (400, 600, 2)]).holds());
        assert!(!without_quorum(&acts, &chain(), &[(400, 600, 1)]).holds());
    }

    #[test]
    fn a_budget_that_was_exceeded_is_found() {
        let both = [
            link(6, "StartStep", "PLAN-5: Forward of step 0", "ok"),
            link(7, "FinishStep", "PLAN-5: Forward of step 0", "ok"),
            link(8, "StartStep", "PLAN-6: Forward of step 0", "ok"),
            link(9, "RecordVerdict", "PLAN-5: Passed", "ok"),
            link(10, "FinishStep", "PLAN-6: Forward of step 0", "ok"),
        ];
        assert!(budget(&chain::read(&both), 2).holds());
        assert!(!budget(&chain::read(&both), 1).holds(), "a plan counts until its verdict");
        assert!(budget(&chain::read(&both[..2]), 1).holds());
    }
}
