//! What the audit chain says happened: fences, intents, outcomes, by log index.

use std::collections::{BTreeMap, BTreeSet};

use medic_proto::v1::AuditRecord;

/// An intent or its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Log index.
    pub index: u64,
    /// The key of the act: `PLAN-7/0/do`.
    pub key: String,
    /// Fence in force.
    pub fence: u64,
}

/// The chain, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Fences that were committed, with the node that holds each.
    pub fences: BTreeMap<u64, String>,
    /// Steps started, and taken over, in order.
    pub starts: Vec<Mark>,
    /// Steps that ended, in order.
    pub ends: Vec<Mark>,
    /// Plans, with the index of the decision that made each.
    pub plans: BTreeMap<String, u64>,
    /// Every index that has a link.
    pub indexes: BTreeSet<u64>,
    /// What was admitted: command and subject, by index.
    pub admitted: BTreeMap<u64, (String, String)>,
    /// From the first step of each plan to the last that is known of it, by index.
    pub spans: BTreeMap<String, (u64, u64)>,
}

/// Reads what was admitted.
#[must_use]
pub fn read(records: &[AuditRecord]) -> Chain {
    let mut chain = Chain::default();
    let mut fence = 0;
    for record in records {
        chain.indexes.insert(record.index);
        if !record.outcome.starts_with("ok") {
            continue;
        }
        let change = (record.command.clone(), record.subject.clone());
        chain.admitted.insert(record.index, change);
        if matches!(record.command.as_str(), "StartStep" | "FinishStep" | "RecordVerdict")
            && let Some((plan, _)) = record.subject.split_once(": ")
        {
            let fresh = (record.index, record.index);
            chain.spans.entry(plan.to_owned()).or_insert(fresh).1 = record.index;
        }
        match record.command.as_str() {
            "Fence" => {
                fence = record.index;
                let node = record.subject.split_whitespace().next().unwrap_or_default();
                chain.fences.insert(fence, node.to_owned());
            }
            "StartStep" | "FinishStep" => {
                let Some(key) = key(&record.subject) else { continue };
                let mark = Mark { index: record.index, key, fence };
                let start = record.command == "StartStep";
                if start { &mut chain.starts } else { &mut chain.ends }.push(mark);
            }
            "AdoptDecision" => {
                if let Some(plan) = record.outcome.split(", ").find(|w| w.starts_with("PLAN-")) {
                    chain.plans.insert(plan.to_owned(), record.index);
                }
            }
            _ => {}
        }
    }
    chain
}

/// `PLAN-57: Forward of step 0` as the key of the act.
fn key(subject: &str) -> Option<String> {
    let (plan, rest) = subject.split_once(": ")?;
    let (direction, step) = rest.split_once(" of step ")?;
    let way = if direction == "Undo" { "undo" } else { "do" };
    Some(format!("{plan}/{step}/{way}"))
}

#[cfg(test)]
pub(super) mod fixture {
    use super::AuditRecord;

    /// A link of the chain.
    pub(crate) fn link(index: u64, command: &str, subject: &str, outcome: &str) -> AuditRecord {
        AuditRecord {
            index,
            seq: index,
            command: command.to_owned(),
            subject: subject.to_owned(),
            outcome: outcome.to_owned(),
            ..AuditRecord::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fixture::link, *};

    #[test]
    fn starts_stand_under_the_fence_in_force() {
        let chain = read(&[
            link(3, "Fence", "node-1 (boot)", "ok: fence-3"),
            link(5, "AdoptDecision", "INC-4: class x", "ok: auto_execute, PLAN-5"),
            link(6, "StartStep", "PLAN-5: Forward of step 0", "ok"),
            link(7, "StartStep", "PLAN-5: Forward of step 1", "refused: no"),
            link(8, "Fence", "node-2 (boot)", "ok: fence-8"),
            link(9, "StartStep", "PLAN-5: Undo of step 0", "ok"),
        ]);
        assert_eq!(chain.fences.keys().copied().collect::<Vec<_>>(), [3, 8]);
        assert_eq!(chain.plans.get("PLAN-5"), Some(&5));
        let starts: Vec<_> = chain.starts.iter().map(|s| (s.key.as_str(), s.fence)).collect();
        assert_eq!(starts, [("PLAN-5/0/do", 3), ("PLAN-5/0/undo", 8)]);
    }
}
