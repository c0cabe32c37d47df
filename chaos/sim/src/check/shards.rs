//! Invariant 10: one owner per shard and epoch, nobody else is listened to, and what lasts is
//! reported in time.

use std::collections::BTreeMap;

use medic_state::{
    Command, Epoch, NodeId, ShardId,
    rbac::Principal,
    symptom::{Fingerprint, Target},
};

use super::{Findings, Violation};
use crate::history::{Commit, Event, What};

/// Beyond the bound of what broke: the time in which a dead owner is found and replaced.
pub(crate) const FAILOVER_MS: u64 = 5_000;

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(10, "shards");
    let mut owners: BTreeMap<ShardId, (NodeId, Epoch)> = BTreeMap::new();
    let mut reported: BTreeMap<Fingerprint, Target> = BTreeMap::new();
    let mut healed = false;
    for (place, Event { ms, what }) in events.iter().enumerate() {
        match what {
            What::Committed(commit) => {
                if let Some(text) = take(commit, &mut owners) {
                    found.add(*ms, text);
                }
                follow(commit, &mut reported);
            }
            What::Lasted { target } if !reported.values().any(|known| known == target) => {
                found
                    .add(*ms, format!("{target} has been broken for long, and nobody has said so"));
            }
            What::Healed => healed = true,
            What::Broke { target, report_within_ms } if healed => {
                let until = ms + report_within_ms + FAILOVER_MS;
                let reported = events[place..].iter().take_while(|e| e.ms <= until).any(|event| {
                    matches!(&event.what, What::Committed(commit) if commit.answer.is_ok()
                        && matches!(&commit.entry.command, Command::ReportSymptom(report)
                            if report.symptom.target == *target))
                });
                if !reported && events.last().is_some_and(|last| last.ms > until) {
                    let within = report_within_ms + FAILOVER_MS;
                    found
                        .add(*ms, format!("{target} broke, and nobody said so within {within} ms"));
                }
            }
            _ => {}
        }
    }
    found.done()
}

/// What has been reported and not taken back.
fn follow(commit: &Commit, reported: &mut BTreeMap<Fingerprint, Target>) {
    match &commit.entry.command {
        _ if commit.answer.is_err() => {}
        Command::ReportSymptom(report) => {
            reported.insert(report.symptom.fingerprint(), report.symptom.target.clone());
        }
        Command::ClearSymptom(clear) => {
            reported.remove(&clear.fingerprint);
        }
        _ => {}
    }
}

fn take(commit: &Commit, owners: &mut BTreeMap<ShardId, (NodeId, Epoch)>) -> Option<String> {
    let (shard, epoch) = match &commit.entry.command {
        _ if commit.answer.is_err() => return None,
        Command::AssignShards(assign) => {
            for (shard, node) in &assign.moves {
                let (owner, epoch) = owners.get(shard).copied().unwrap_or_default();
                if owner != *node || epoch == Epoch(0) {
                    owners.insert(*shard, (*node, Epoch(epoch.0 + 1)));
                }
            }
            return None;
        }
        Command::ReportSymptom(report) => (report.shard, report.epoch),
        Command::ClearSymptom(clear) => (clear.shard, clear.epoch),
        _ => return None,
    };
    let (owner, current) = owners.get(&shard).copied().unwrap_or_default();
    let by = &commit.entry.principal;
    (epoch != current || *by != Principal::node(owner)).then(|| {
        format!(
            "{by} was listened to about {shard} under {epoch}, which is {owner}'s under {current}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn the_owner_is_heard_and_nobody_else() {
        let mut lab = Lab::new();
        lab.assign(3, 1).report(1, 3, 1).assign(3, 2).report(2, 3, 2);
        assert_eq!(check(&lab.events), []);
        lab.report(1, 3, 1);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn what_lasts_must_stand_reported() {
        let mut lab = Lab::new();
        lab.assign(3, 1).report(1, 3, 1).lasted("z");
        assert_eq!(check(&lab.events), []);
        lab.clear(1, 3, 1).lasted("z");
        assert_eq!(check(&lab.events).len(), 1);
        let mut silent = Lab::new();
        silent.assign(3, 1).report(1, 3, 1).lasted("a");
        assert_eq!(check(&silent.events).len(), 1);
    }

    #[test]
    fn silence_about_what_broke_is_found() {
        let mut lab = Lab::new();
        lab.assign(3, 1).healed().broke();
        lab.later(60_000).healed();
        assert_eq!(check(&lab.events).len(), 1);
    }
}
