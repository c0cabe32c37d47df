//! Invariant 10, its second half: whatever lasts is noticed, whoever watched it meanwhile died.

use std::collections::BTreeMap;

use medic_proto::v1::AuditRecord;

use super::{
    Verdict, Violation,
    journal::{Journal, Line, instance},
    nodes::Recovery,
};

/// Instances that were killed: when (milliseconds of the campaign), and which.
pub type Kills = [(u64, String)];

/// When symptoms of each instance were first seen to be applied, milliseconds of the campaign.
///
/// `seen_ms`: when a node was first seen to have applied an index. Stamps of the chain are no use: wall clocks of
/// nodes were wrong.
#[must_use]
pub fn symptoms(
    records: &[AuditRecord],
    seen_ms: impl Fn(u64) -> Option<u64>,
) -> BTreeMap<String, Vec<u64>> {
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records {
        let admitted = record.command == "ReportSymptom" && record.outcome.starts_with("ok");
        let Some((_, target)) = record.subject.split_once(" of ").filter(|_| admitted) else {
            continue;
        };
        if let Some(at_ms) = seen_ms(record.index) {
            seen.entry(instance(target).to_owned()).or_default().push(at_ms);
        }
    }
    seen
}

/// How soon something that lasts must have been reported, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    /// Two intervals and one failover.
    pub bound_ms: u64,
    /// One more failover, for each leader that ends within the bound: the next faults do not wait for it.
    pub failover_ms: u64,
}

/// 10: of each instance that was killed there is a symptom, or an act on it, within the bound from
/// when the faults of that time had healed. `ends`: when leaders ended. `until_ms`: when the campaign did.
#[must_use]
pub fn lasting(
    kills: &Kills,
    symptoms: &BTreeMap<String, Vec<u64>>,
    (journals, wall_began_ms): (&[Journal], u64),
    recoveries: &[Recovery],
    within: Within,
    (ends, until_ms): (&[u64], u64),
) -> Verdict {
    let mut acts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for line in journals.iter().flat_map(|journal| &journal.lines) {
        if let Line::Begin { target, at_ms, .. } = line {
            acts.entry(instance(target)).or_default().push(at_ms.saturating_sub(wall_began_ms));
        }
    }
    let (mut checked, mut violations) = (0, Vec::new());
    for (at_ms, name) in kills {
        let well = recoveries.iter().find_map(|(heal, took)| {
            let end = heal + (*took)?;
            (end >= *at_ms).then_some(end)
        });
        let from = well.unwrap_or(*at_ms);
        let bound = from..=from.saturating_add(within.bound_ms);
        let failovers = (ends.iter().filter(|end| bound.contains(end)))
            .fold(0_u64, |sum, _| sum.saturating_add(within.failover_ms));
        let deadline = bound.end().saturating_add(failovers);
        if deadline > until_ms {
            continue;
        }
        checked += 1;
        let among = |times: Option<&Vec<u64>>| {
            times.is_some_and(|times| times.iter().any(|t| (*at_ms..=deadline).contains(t)))
        };
        if !among(symptoms.get(name)) && !among(acts.get(name.as_str())) {
            let text = format!(
                "{name} was killed at {at_ms} ms of the campaign; until {deadline} ms nobody had said so"
            );
            violations.push(Violation::new(text));
        }
    }
    Verdict::new(10, checked, "killed instances", violations)
}

#[cfg(test)]
mod tests {
    use super::{super::chain::fixture::link, *};

    #[test]
    fn a_kill_that_nobody_reports_is_found() {
        let records = [
            link(5, "ReportSymptom", "down of users/users-1", "ok: INC-5"),
            link(9, "ReportSymptom", "down of users/users-2", "refused: no"),
        ];
        let symptoms =
            symptoms(&records, |index| (index <= 9).then_some(if index <= 7 { 200 } else { 400 }));
        assert_eq!(symptoms, BTreeMap::from([("users-1".to_owned(), vec![200])]));
        let within = Within { bound_ms: 50, failover_ms: 10 };
        let judged = |at: u64, name: &str, recoveries: &[Recovery], ends: &[u64], until| {
            let kills = [(at, name.to_owned())];
            let verdict = lasting(&kills, &symptoms, (&[], 0), recoveries, within, (ends, until));
            (verdict.checked, verdict.holds())
        };
        let holds = |at: u64, name: &str, recoveries: &[Recovery], until| {
            judged(at, name, recoveries, &[], until)
        };
        assert_eq!(holds(160, "users-1", &[], 1_000), (1, true));
        assert_eq!(holds(140, "users-1", &[], 1_000), (1, false), "too late");
        assert_eq!(judged(140, "users-1", &[], &[190], 1_000), (1, true), "a leader ended then");
        assert_eq!(
            judged(140, "users-1", &[], &[130, 191], 1_000),
            (1, false),
            "before, and after"
        );
        assert_eq!(holds(140, "users-1", &[(150, Some(10))], 1_000), (1, true), "after the heal");
        assert_eq!(holds(160, "users-2", &[], 1_000), (1, false), "refused");
        assert_eq!(holds(980, "users-2", &[], 1_000), (0, true), "the campaign was over");
    }

    #[test]
    fn an_act_on_it_says_that_it_was_noticed() {
        let line = Line::Begin {
            key: "PLAN-5/0/do".to_owned(),
            attempt: 1,
            fence: 3,
            at_ms: 1_170,
            action: "process.restart".to_owned(),
            target: "default/users/users-2".to_owned(),
        };
        let journals = [Journal { lines: vec![line], ..Journal::default() }];
        let kills = [(160, "users-2".to_owned())];
        let within = Within { bound_ms: 50, failover_ms: 10 };
        let none = BTreeMap::new();
        let verdict = lasting(&kills, &none, (&journals, 1_000), &[], within, (&[], 1_000));
        assert!(verdict.checked == 1 && verdict.holds());
    }
}
