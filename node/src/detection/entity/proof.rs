//! Findings that rest on detectors alone are held back until they are proven: see [`crate::detection::lord`].
//!
//! A test lasts as long as its votes do: its p-value is the least since it began, and each further minute
//! through which they are cast counts as one more piece of the same evidence, up to four (as in a streak
//! of odd values). So what lasts is found, and what flickers is tested once.

use std::collections::BTreeMap;

use medic_state::{Ppm, weight::Detector};

use super::{Entity, Now};
use crate::detection::{
    ensemble::{Kind, Vote},
    lord::{PROPOSED, Stream},
};

/// Votes that have been absent for this long end their test.
const OVER_MS: u64 = 60_000;
/// Through so long a time votes count as one more piece of evidence.
const PIECE_MS: u64 = 60_000;
/// Votes are looked at every second or oftener; absent for longer than this, they were not cast through.
const BROKEN_MS: u64 = 5_000;
/// Pieces at most: what follows is hardly independent.
const PIECES_MAX: u64 = 4;

/// The stream of a shard, and the level it is kept at.
#[derive(Debug)]
pub struct Prover<'s> {
    /// Shared by the entities of a shard.
    pub stream: &'s mut Stream,
    /// Share of false findings among all that rest on detectors alone; 1: all are believed.
    pub level: Ppm,
}

/// A test under way.
#[derive(Clone, Debug)]
struct Test {
    alpha: f64,
    least: f64,
    /// Cast through since.
    since_ms: u64,
    seen_ms: u64,
}

/// Tests under way, at most one of a kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Proofs(BTreeMap<Kind, Test>);

impl Proofs {
    /// Whether what these votes say may be told. Facts need no proof.
    pub(super) fn proven(
        &mut self,
        kind: Kind,
        (votes, tested): (&[Vote], f64),
        prover: &mut Prover<'_>,
        now: Now,
    ) -> bool {
        self.0.retain(|_, test| now.mono_ms.saturating_sub(test.seen_ms) < OVER_MS);
        let Some(p) = p_value(votes, tested) else {
            self.0.remove(&kind);
            return true;
        };
        if prover.level >= Ppm::ONE {
            return true;
        }
        let test = self.0.entry(kind).or_insert_with(|| Test {
            alpha: prover.stream.begin(prover.level, now.wall),
            least: 1.0,
            since_ms: now.mono_ms,
            seen_ms: now.mono_ms,
        });
        if now.mono_ms.saturating_sub(test.seen_ms) > BROKEN_MS {
            test.since_ms = now.mono_ms;
        }
        test.seen_ms = now.mono_ms;
        test.least = test.least.min((p / PROPOSED).min(1.0));
        let pieces = 1 + now.mono_ms.saturating_sub(test.since_ms) / PIECE_MS;
        let evidence = test.least.powf(pieces.min(PIECES_MAX) as f64);
        let proven = evidence <= test.alpha;
        if proven {
            prover.stream.discover();
            self.0.remove(&kind);
        }
        proven
    }

    /// When time alone adds a piece to the evidence of a test whose votes are cast now.
    fn next_piece_ms(&self, now: Now) -> Option<u64> {
        let cast = self.0.values().filter(|test| test.seen_ms == now.mono_ms);
        let next = |test: &Test| {
            let pieces = 1 + now.mono_ms.saturating_sub(test.since_ms) / PIECE_MS;
            (pieces < PIECES_MAX).then(|| test.since_ms + pieces * PIECE_MS)
        };
        cast.filter_map(next).min()
    }

    /// The votes that are cast now were cast through until then.
    fn stood(&mut self, now: Now, until_ms: u64) {
        for test in self.0.values_mut().filter(|test| test.seen_ms == now.mono_ms) {
            test.seen_ms = until_ms;
        }
    }
}

/// For whoever goes through a history, in which nobody looks between two rows.
impl Entity {
    /// When more speaks for a finding that is held back, although nothing new is seen.
    #[must_use]
    pub fn more_proof_ms(&self, now: Now) -> Option<u64> {
        self.proofs.next_piece_ms(now)
    }

    /// What is voted for now is voted for until then.
    pub fn votes_stood(&mut self, now: Now, until_ms: u64) {
        self.proofs.stood(now, until_ms);
    }
}

/// The entity's p-value (Bonferroni, over what was tested) where all votes are detectors'; `None` where a
/// fact is among them.
fn p_value(votes: &[Vote], tested: f64) -> Option<f64> {
    let mut least = 1.0_f64;
    for vote in votes {
        Detector::parse(vote.detector)?;
        least = least.min(vote.p_value);
    }
    Some((least * tested.max(1.0)).min(1.0))
}

#[cfg(test)]
mod tests {
    use medic_state::{Timestamp, symptom::Severity};

    use super::*;
    use crate::detection::{ensemble::Voter, lord::LEVEL};

    fn vote(detector: &'static str, p_value: f64) -> Vote {
        Vote {
            voter: Voter::Series(format!("of-{detector}")),
            kind: Kind::Anomaly,
            weight: 1,
            severity: Severity::Info,
            p_value,
            text: String::new(),
            value: String::new(),
            expected: String::new(),
            detector,
            time_to_event: None,
            rests_on: None,
        }
    }

    struct Bench {
        proofs: Proofs,
        stream: Stream,
        level: Ppm,
        second: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { proofs: Proofs::default(), stream: Stream::default(), level: LEVEL, second: 0 }
        }

        /// These votes, for so many seconds; gives after how many it was proven.
        fn lasts(&mut self, votes: &[Vote], seconds: u64) -> Option<u64> {
            let begun = self.second;
            for _ in 0..seconds {
                let mono_ms = self.second * 1_000;
                let now = Now { mono_ms, wall: Timestamp(1_700_000_000_000 + mono_ms) };
                let mut prover = Prover { stream: &mut self.stream, level: self.level };
                if self.proofs.proven(Kind::Anomaly, (votes, 10.0), &mut prover, now) {
                    return Some(self.second - begun);
                }
                self.second += 1;
            }
            None
        }
    }

    #[test]
    fn facts_need_no_proof_and_strong_evidence_little_time() {
        let mut bench = Bench::new();
        assert_eq!(bench.lasts(&[vote("limit", 0.0), vote("cusum", 1e-3)], 5), Some(0));
        assert_eq!(bench.lasts(&[vote("probe", 0.01), vote("level", 1e-3)], 5), Some(0));
        assert_eq!(bench.stream.tests(), 0);
        assert_eq!(bench.lasts(&[vote("level", 1e-8), vote("panel", 1e-2)], 5), Some(0));
        assert_eq!(bench.stream.tests(), 1);
    }

    #[test]
    fn what_is_weak_must_last_and_what_flickers_is_tested_once() {
        let mut bench = Bench::new();
        let weak = [vote("cusum", 1e-3), vote("panel", 1e-3)];
        for _ in 0..50 {
            assert_eq!(bench.lasts(&weak, 1), None);
            bench.second += 30;
        }
        assert_eq!(bench.stream.tests(), 1, "one test, however often it is looked at");
        let mut bench = Bench::new();
        let strong = [vote("cusum", 2e-3), vote("panel", 5e-4)];
        let after = bench.lasts(&strong, 600);
        assert!(after.is_some_and(|after| (60..=240).contains(&after)), "{after:?}");
    }

    /// The same votes with rows so many seconds apart, looked at when rows come and when time proves more.
    fn through_rows(votes: &[Vote], every: u64) -> (Option<u64>, Bench) {
        let mut bench = Bench::new();
        for row in (0..3_600).step_by(every as usize) {
            bench.second = row;
            let mut now = Now { mono_ms: row * 1_000, wall: Timestamp(0) };
            loop {
                if bench.lasts(votes, 1).is_some() {
                    return (Some(bench.second), bench);
                }
                let next_ms = (row + every) * 1_000;
                let more = bench.proofs.next_piece_ms(now).filter(|at| *at < next_ms);
                bench.proofs.stood(now, more.unwrap_or(next_ms));
                let Some(more) = more else { break };
                now.mono_ms = more;
                bench.second = more / 1_000;
            }
        }
        (None, bench)
    }

    #[test]
    fn whoever_goes_through_a_history_proves_as_soon_as_who_looked_each_second() {
        let strong = [vote("cusum", 2e-3), vote("panel", 5e-4)];
        let weak = [vote("cusum", 9e-2), vote("panel", 9e-2)];
        for (votes, every) in [(&strong, 300), (&strong, 45), (&strong, 7), (&weak, 300)] {
            let live = Bench::new().lasts(votes, 3_600);
            let (found, bench) = through_rows(votes, every);
            assert_eq!(found, live, "rows {every} s apart");
            assert_eq!(bench.stream.tests(), 1);
        }
        assert!(Bench::new().lasts(&strong, 3_600).is_some_and(|after| after >= 60));
    }

    #[test]
    fn many_mistakes_make_it_harder_to_convince_until_something_is_found() {
        let mut bench = Bench::new();
        let middling = [vote("level", 6.5e-6)];
        assert_eq!(bench.lasts(&middling, 1), Some(0));
        let mut bench = Bench::new();
        for _ in 0..60 {
            // What nobody would believe, over and over: each time another test.
            assert_eq!(bench.lasts(&[vote("cusum", 9e-3)], 2), None);
            bench.second += 120;
        }
        assert_eq!(bench.lasts(&middling, 1), None);
        bench.second += 120;
        assert_eq!(bench.lasts(&[vote("level", 1e-12)], 1), Some(0));
        assert_eq!(bench.lasts(&middling, 1), Some(0), "a discovery pays for others");
        bench.level = Ppm::ONE;
        assert_eq!(bench.lasts(&[vote("cusum", 9e-3)], 1), Some(0), "no control was asked for");
    }
}
