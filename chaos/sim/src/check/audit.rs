//! Invariant 8: one link per entry (idle ticks excepted), without a gap, equal on all nodes.

use std::collections::BTreeMap;

use medic_state::{AuditRecord, Command, Digest, Record, Reply, codec};

use super::{Findings, Violation};
use crate::history::{Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(8, "audit");
    let mut records: BTreeMap<u64, Digest> = BTreeMap::new();
    let mut last: Option<AuditRecord> = None;
    for Event { ms, what } in events {
        match what {
            What::Committed(commit) => {
                records.insert(commit.index, Digest::of(&[&codec::encode(&commit.records)]));
                let idle = commit.entry.command == Command::Tick
                    && matches!(commit.answer, Ok(Reply::Noted(_)));
                let links: Vec<&AuditRecord> = commit.records.iter().filter_map(link).collect();
                if links.len() != usize::from(!idle) {
                    let (index, count) = (commit.index, links.len());
                    found.add(*ms, format!("entry {index} has {count} links of the audit chain"));
                }
                for link in links {
                    if let Some(why) = broken(last.as_ref(), link) {
                        found.add(*ms, why);
                    }
                    last = Some(link.clone());
                }
            }
            What::Applied { node, index, records: here, .. }
                if records.get(index).is_some_and(|there| there != here) =>
            {
                found.add(*ms, format!("{node} has other records of entry {index}"));
            }
            _ => {}
        }
    }
    found.done()
}

fn link(record: &Record) -> Option<&AuditRecord> {
    match record {
        Record::Audit(link) => Some(link),
        Record::Closed(_) => None,
    }
}

fn broken(last: Option<&AuditRecord>, link: &AuditRecord) -> Option<String> {
    let seq = link.seq;
    let (before, hash) = last.map_or((0, Digest::default()), |last| (last.seq, last.hash));
    if seq != before + 1 {
        return Some(format!("link {seq} of the audit chain follows link {before}"));
    }
    if link.previous != hash || link.hash != link.link() {
        return Some(format!("link {seq} of the audit chain does not hold"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn a_whole_chain_is_fine_and_a_missing_link_is_found() {
        let mut lab = Lab::new();
        lab.linked(1).linked(2).linked(3);
        assert_eq!(check(&lab.events), []);
        lab.events.remove(1);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn another_nodes_records_are_compared() {
        let mut lab = Lab::new();
        lab.linked(1).applied(2, 1, Digest::default());
        assert_eq!(check(&lab.events).len(), 1);
    }
}
