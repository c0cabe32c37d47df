//! When something was, by the log, and what went on then: log indices are the one clock that skewed
//! wall clocks do not touch.

use medic_proto::v1 as pb;

use super::Report;
use crate::{
    campaign::{seconds, watch::Sample},
    check::Violation,
};

/// A fault counts as being around when it ended so long before, or begins so long after.
const AROUND_MS: u64 = 2_000;
/// Moments shown of one violation.
const MOMENTS: usize = 3;
/// Words before the number of a log entry.
const BEFORE_INDEX: [&str; 5] = ["INC-", "PLAN-", "fence-", "fence ", "index "];
/// Words before a time of the campaign in milliseconds.
const BEFORE_MS: &str = "healed at ";

/// When log entries were applied, and what the law's clock said.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    /// Applied index, and the first millisecond of the campaign at which a node had come so far.
    applied: Vec<(u64, u64)>,
    /// The law's time of each link of the chain (milliseconds), and its index.
    law: Vec<(i64, u64)>,
}

impl LogClock {
    /// From what nodes said of themselves, and the longest chain.
    #[must_use]
    pub fn new(samples: &[Sample], chain: &[pb::AuditRecord]) -> Self {
        let mut applied: Vec<(u64, u64)> =
            samples.iter().map(|sample| (sample.applied, sample.at_ms)).collect();
        applied.sort_unstable();
        // Whoever had come further had come so far, too.
        let mut first = u64::MAX;
        for (_, at_ms) in applied.iter_mut().rev() {
            first = first.min(*at_ms);
            *at_ms = first;
        }
        let law =
            chain.iter().filter_map(|record| Some((millis(record.at.as_ref()?), record.index)));
        Self { applied, law: law.collect() }
    }

    /// When the first node was seen to have applied it, milliseconds of the campaign.
    #[must_use]
    pub fn of_index(&self, index: u64) -> Option<u64> {
        let at = self.applied.partition_point(|(applied, _)| *applied < index);
        self.applied.get(at).map(|(_, at_ms)| *at_ms)
    }

    /// The same of a time that the law's clock said.
    #[must_use]
    pub fn of_law(&self, time: &prost_types::Timestamp) -> Option<u64> {
        let at = self.law.partition_point(|(law, _)| *law < millis(time));
        self.of_index(self.law.get(at)?.1)
    }
}

fn millis(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000)
}

/// What a violation speaks of: times of the campaign, with the log index where there is one.
fn moments(report: &Report, violation: &Violation) -> Vec<(u64, Option<u64>)> {
    let mut found = Vec::new();
    for text in std::iter::once(&violation.what).chain(&violation.evidence) {
        for word in BEFORE_INDEX {
            for index in numbers_after(text, word) {
                if let Some(at_ms) = report.clock.of_index(index) {
                    found.push((at_ms, Some(index)));
                }
            }
        }
        found.extend(numbers_after(text, BEFORE_MS).map(|at_ms| (at_ms, None)));
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|moment| seen.insert(*moment));
    found
}

fn numbers_after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.match_indices(word).filter_map(move |(at, _)| {
        let rest = text.get(at + word.len()..)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    })
}

/// When it was, who led, and which faults and ends of nodes were around; a line for each moment.
pub(super) fn lines(report: &Report, violation: &Violation) -> Vec<String> {
    let moments = moments(report, violation);
    moments.into_iter().take(MOMENTS).map(|(at_ms, index)| line(report, at_ms, index)).collect()
}

fn line(report: &Report, at_ms: u64, index: Option<u64>) -> String {
    let near = |from: u64, to: u64| from <= at_ms + AROUND_MS && at_ms <= to + AROUND_MS;
    let faults = report.faults.iter().filter(|(_, from, to)| near(*from, *to));
    let faults: Vec<String> = faults
        .map(|(fault, from, to)| {
            format!("{fault} ({:.1} to {:.1} s)", seconds(*from), seconds(*to))
        })
        .collect();
    let ends = report.deaths.iter().filter(|death| near(death.at_ms, death.at_ms));
    let ends: Vec<String> = ends
        .map(|death| {
            let role = if death.led { ", the leader," } else { "" };
            format!("node-{}{role} ended at {:.1} s", death.node, seconds(death.at_ms))
        })
        .collect();
    let leader = report.samples.iter().rev().find(|s| s.at_ms <= at_ms && s.leader != 0);
    let leader = leader.map(|sample| format!("node-{} led", sample.leader));
    let index = index.map(|index| format!(" (index {index})")).unwrap_or_default();
    let faults = if faults.is_empty() { vec!["no fault".to_owned()] } else { faults };
    let around: Vec<String> = leader.into_iter().chain(faults).chain(ends).collect();
    format!("around {:.1} s{index}: {}", seconds(at_ms), around.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Fault;

    fn sample(at_ms: u64, node: u64, applied: u64) -> Sample {
        Sample { at_ms, node, leader: 2, term: 1, applied, hash: String::new(), fence: 1 }
    }

    #[test]
    fn a_violation_is_told_with_what_was_around_it() {
        // Node 3 was ahead of what node 1 said later.
        let samples = vec![sample(100, 1, 10), sample(2_000, 3, 60), sample(9_000, 1, 55)];
        let mut report = Report { samples, ..Report::default() };
        report.clock = LogClock::new(&report.samples, &[]);
        report.faults = vec![(Fault::KillLeader, 1_000, 3_000), (Fault::Split, 8_000, 9_000)];
        assert_eq!(report.clock.of_index(57), Some(2_000));
        assert_eq!(report.clock.of_index(61), None, "nobody was seen there");
        let violation = Violation::new("PLAN-57 was seen and is lost")
            .with(["the act PLAN-57/0/do under fence 99".to_owned()]);
        assert_eq!(
            lines(&report, &violation),
            ["around 2.0 s (index 57): node-2 led; kill-leader (1.0 to 3.0 s)"]
        );
        let late = Violation::new("healed at 6000 ms of the campaign; never");
        let told = lines(&report, &late);
        assert_eq!(told, ["around 6.0 s: node-2 led; split (8.0 to 9.0 s)"]);
    }

    #[test]
    fn the_laws_time_is_found_by_the_log_however_wrong_wall_clocks_were() {
        let at = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
        let link = |index, seconds| pb::AuditRecord {
            index,
            at: Some(at(seconds)),
            ..pb::AuditRecord::default()
        };
        // The second link was stamped by a node whose clock was an hour ahead.
        let chain = [link(5, 1_000), link(50, 4_600), link(58, 4_600)];
        let clock = LogClock::new(&[sample(100, 1, 10), sample(2_000, 3, 60)], &chain);
        assert_eq!(clock.of_law(&at(1_000)), Some(100));
        assert_eq!(clock.of_law(&at(4_600)), Some(2_000));
        assert_eq!(clock.of_law(&at(9_000)), None);
    }
}
