//! Invariants 7 to 10 and 14: what the nodes have, compared with each other and with what was
//! promised.

use std::collections::{BTreeMap, BTreeSet};

use medic_proto::v1::AuditRecord;

use super::{Verdict, Violation, chain::Chain};
use crate::history::{Act, Call, Outcome};

/// What one node said of its state: node, applied index, hash.
pub type State<'a> = (u64, u64, &'a str);

/// 7: every acknowledged change stands in the chain of every node, where it was said to be.
#[must_use]
pub fn acknowledged(calls: &[Call], chains: &BTreeMap<u64, Chain>) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    let acked = calls
        .iter()
        .filter(|call| call.act != Act::Read && call.outcome == Outcome::Done)
        .filter_map(|call| Some((call, call.index?)));
    for (call, index) in acked {
        checked += 1;
        for (node, chain) in chains {
            let there = chain.admitted.get(&index);
            if !there.is_some_and(|(command, subject)| is_of(call, command, subject)) {
                let text = format!("what was acknowledged at index {index} is not on node-{node}");
                let found = format!("there is {there:?}");
                violations.push(Violation::new(text).with([super::linear::line(call), found]));
            }
        }
    }
    Verdict::new(7, checked, "acknowledged changes", violations)
}

/// Whether a link of the chain is the change that a client asked for.
fn is_of(call: &Call, command: &str, subject: &str) -> bool {
    let Some((kind, name)) = call.key.split_once('/') else { return false };
    match kind {
        "freeze" => {
            matches!(command, "Freeze" | "Unfreeze")
                && subject.starts_with(&format!("service {name} "))
        }
        "silence" => {
            matches!(command, "ApplyManifest" | "DeleteManifest")
                && subject.starts_with(&format!("Silence/{name} "))
        }
        "notes" => {
            let Act::Append(value) = call.act else { return false };
            command == "AddNote" && subject == format!("{name}: note {value}")
        }
        _ => false,
    }
}

/// 8: each chain is whole, and all are the same as far as they go.
#[must_use]
pub fn chains(chains: &BTreeMap<u64, Vec<AuditRecord>>) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for (node, records) in chains {
        checked += records.len();
        let first_is_first = records.first().is_none_or(|record| record.seq == 1);
        let gap = records.windows(2).find(|pair| {
            pair[1].seq != pair[0].seq + 1
                || pair[1].previous != pair[0].hash
                || pair[1].index <= pair[0].index
        });
        if let Some(pair) = gap {
            let text = format!("node-{node}: the chain breaks after link {}", pair[0].seq);
            violations.push(Violation::new(text).with(pair.iter().map(|r| format!("{r:?}"))));
        }
        if !first_is_first {
            violations.push(Violation::new(format!("node-{node}: the chain does not begin at 1")));
        }
    }
    let mut links: BTreeMap<u64, (u64, &AuditRecord)> = BTreeMap::new();
    for (node, records) in chains {
        for record in records {
            let (other, known) = *links.entry(record.seq).or_insert((*node, record));
            if known != record {
                let text = format!("link {} differs on node-{other} and node-{node}", record.seq);
                let lines = [format!("{known:?}"), format!("{record:?}")];
                violations.push(Violation::new(text).with(lines));
                break;
            }
        }
    }
    Verdict::new(8, checked, "links of all nodes", violations)
}

/// 9: whoever has applied as far has the same state.
#[must_use]
pub fn hashes(samples: &[State<'_>]) -> Verdict {
    let mut known: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
    let (mut compared, mut violations) = (0, Vec::new());
    for (node, applied, hash) in samples {
        match known.get(applied) {
            None => {
                known.insert(*applied, (*node, hash));
            }
            Some((other, found)) => {
                compared += 1;
                if found != hash {
                    let text = format!("at index {applied} the states differ");
                    let lines = [format!("node-{other}: {found}"), format!("node-{node}: {hash}")];
                    violations.push(Violation::new(text).with(lines));
                }
            }
        }
    }
    Verdict::new(9, compared, "pairs of states", violations)
}

/// 10: one owner for each shard and epoch.
#[must_use]
pub fn owners(owners: &BTreeMap<(u32, u64), BTreeSet<u64>>) -> Verdict {
    let shared = owners.iter().filter(|(_, nodes)| nodes.len() > 1);
    let violations = shared.map(|((shard, epoch), nodes)| {
        Violation::new(format!("shard {shard} in epoch {epoch} was owned by nodes {nodes:?}"))
    });
    Verdict::new(10, owners.len(), "shards and epochs", violations.collect())
}

/// A recovery: when the heal was (milliseconds of the campaign), and how long it took; `None`: it
/// did not come within the patience.
pub type Recovery = (u64, Option<u64>);

/// 14: after each heal everything was well within the bound.
#[must_use]
pub fn recoveries(recoveries: &[Recovery], bound_ms: u64, why: &BTreeMap<u64, String>) -> Verdict {
    let late = recoveries.iter().filter(|(_, took)| took.is_none_or(|took| took > bound_ms));
    let violations = late.map(|(at, took)| {
        let took = took.map_or_else(|| "never".to_owned(), |took| format!("{took} ms"));
        let text = format!("healed at {at} ms of the campaign; all was well after: {took}");
        Violation::new(text).with(why.get(at).cloned())
    });
    Verdict::new(14, recoveries.len(), "recoveries", violations.collect())
}

#[cfg(test)]
mod tests {
    use super::{
        super::chain::{self, fixture::link},
        *,
    };
    use crate::history::fixture::{at, call};

    #[test]
    fn a_change_that_a_node_has_not_is_found() {
        let calls = [Call {
            key: "freeze/x".to_owned(),
            ..at(5, call(Act::Write(1), Outcome::Done, 1, 2))
        }];
        let with = |subject, outcome| chain::read(&[link(5, "Freeze", subject, outcome)]);
        let one = with("service x (tenant t)", "ok");
        assert!(acknowledged(&calls, &BTreeMap::from([(1, one.clone())])).holds());
        let refused = with("service x (tenant t)", "refused: no");
        for bad in [Chain::default(), with("service xy (tenant t)", "ok"), refused] {
            let nodes = BTreeMap::from([(1, one.clone()), (2, bad)]);
            assert_eq!(acknowledged(&calls, &nodes).violations.len(), 1);
        }
        let of = |key: &str, act, command, subject| {
            is_of(&Call { key: key.to_owned(), act, ..calls[0].clone() }, command, subject)
        };
        let delete = "DeleteManifest";
        assert!(of("silence/a", Act::Write(1), delete, "Silence/a (tenant t)"));
        assert!(!of("silence/a", Act::Write(1), delete, "Silence/b (tenant t)"));
        assert!(of("notes/INC-3", Act::Append(4), "AddNote", "INC-3: note 4"));
        assert!(!of("notes/INC-3", Act::Append(4), "AddNote", "INC-3: note 5"));
    }

    #[test]
    fn a_chain_with_a_gap_or_two_versions_is_found() {
        let mut good = vec![link(1, "A", "", "ok"), link(2, "B", "", "ok")];
        good[0].hash = "h".to_owned();
        good[1].previous = "h".to_owned();
        assert!(chains(&BTreeMap::from([(1, good.clone()), (2, good.clone())])).holds());
        let mut other = good.clone();
        other[1].subject = "other".to_owned();
        assert!(!chains(&BTreeMap::from([(1, good.clone()), (2, other)])).holds());
        let mut gap = good.clone();
        gap[1].seq = 3;
        assert!(!chains(&BTreeMap::from([(1, gap)])).holds());
        assert!(!chains(&BTreeMap::from([(1, good[1..].to_vec())])).holds());
    }

    #[test]
    fn two_states_at_one_index_and_two_owners_are_found() {
        assert!(hashes(&[(1, 5, "a"), (2, 5, "a"), (1, 6, "b")]).holds());
        assert!(!hashes(&[(1, 5, "a"), (2, 5, "b")]).holds());
        assert!(owners(&BTreeMap::from([((1, 1), BTreeSet::from([1]))])).holds());
        assert!(!owners(&BTreeMap::from([((1, 1), BTreeSet::from([1, 2]))])).holds());
    }

    #[test]
    fn a_recovery_that_is_late_or_never_comes_is_found() {
        let why = BTreeMap::new();
        assert!(recoveries(&[(1, Some(29_999))], 30_000, &why).holds());
        assert!(!recoveries(&[(1, Some(30_001))], 30_000, &why).holds());
        assert!(!recoveries(&[(1, None)], 30_000, &why).holds());
    }
}
