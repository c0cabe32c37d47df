//! Rounds of faults, drawn from a seed.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use super::{Aim, Capabilities, Fault, Skew, Step, Weather, Whom};

/// A round's faults begin within this long.
const ONSET_MS: u64 = 2_500;
/// A fault lasts at least this long: beyond the greatest election timeout.
const LEAST_MS: u64 = 1_800;
/// And at most this long.
const MOST_MS: u64 = 6_000;
/// A node that was killed stays down this long at least.
const DOWN_MS: u64 = 500;
/// From one kill in the middle of a remediation to the next: an election, and some work.
const AGAIN_MS: u64 = 2_600;
/// A certificate is good for some two seconds more before it ends under way.
const EXPIRED_AFTER_MS: u64 = 4_000;

/// A step and when it is done, milliseconds from the beginning of its round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timed {
    /// When.
    pub at_ms: u64,
    /// Of which fault.
    pub fault: Fault,
    /// What.
    pub step: Step,
}

/// Faults that overlap; at its end everything is undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Round {
    /// What was drawn, with when it begins and ends.
    pub faults: Vec<(Fault, u64, u64)>,
    /// What is done, by time.
    pub steps: Vec<Timed>,
    /// When everything is undone.
    pub length_ms: u64,
}

/// As many rounds as fill `total_ms`, if recovery takes `rest_ms` after each.
#[must_use]
pub fn rounds(
    seed: u64,
    total_ms: u64,
    rest_ms: u64,
    nodes: u64,
    can: &Capabilities,
) -> Vec<Round> {
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut rounds, mut used) = (Vec::new(), 0);
    while used < total_ms {
        let round = round(&mut chance, nodes, can);
        used += round.length_ms + rest_ms;
        rounds.push(round);
    }
    rounds
}

fn round(chance: &mut StdRng, nodes: u64, can: &Capabilities) -> Round {
    // One to four at a time, mostly three.
    let count = [1, 2, 3, 3, 3, 4][chance.random_range(0..6)];
    let mut round = Round::default();
    // Most rounds kill leaders at work: whatever else goes wrong, plans have to outlive it.
    let mut first = chance.random_ratio(2, 3).then_some(Fault::MidRemediation);
    while round.faults.len() < count {
        let fault = first.take().unwrap_or_else(|| draw(chance));
        if can.missing(fault).is_some() || round.faults.iter().any(|(f, ..)| f.clashes(fault)) {
            continue;
        }
        let begin = chance.random_range(0..ONSET_MS);
        let end = begin + chance.random_range(LEAST_MS..MOST_MS);
        let end = end.max(steps(chance, fault, (begin, end), nodes, &mut round.steps));
        round.faults.push((fault, begin, end));
    }
    round.steps.sort_by_key(|timed| timed.at_ms);
    round.length_ms = round.faults.iter().map(|(.., end)| *end).max().unwrap_or(0);
    round
}

fn draw(chance: &mut StdRng) -> Fault {
    let all: u32 = Fault::ALL.iter().map(|fault| fault.weight()).sum();
    let mut number = chance.random_range(0..all);
    for fault in Fault::ALL {
        match number.checked_sub(fault.weight()) {
            Some(left) => number = left,
            None => return fault,
        }
    }
    Fault::KillLeader
}

/// Two times in three in the middle of a remediation.
fn aim(chance: &mut StdRng, pick: u64) -> Aim {
    if chance.random_ratio(2, 3) { Aim::MidRemediation(pick) } else { Aim::LeastHit(pick) }
}

/// Adds the steps of a fault; gives when its last one is.
fn steps(
    chance: &mut StdRng,
    fault: Fault,
    (begin, end): (u64, u64),
    nodes: u64,
    into: &mut Vec<Timed>,
) -> u64 {
    let pick: u64 = chance.random();
    let leader_biased = if chance.random_ratio(2, 3) { Whom::Leader } else { Whom::Follower(pick) };
    let mut last = end;
    let mut at = |at_ms, step| {
        last = last.max(at_ms);
        into.push(Timed { at_ms, fault, step });
    };
    let mut weather = |weather| {
        at(begin, Step::Weather(weather));
        at(end, Step::Fair);
    };
    match fault {
        Fault::MidRemediation => {
            let kills = chance.random_range(2..=3);
            for kill in 0..kills {
                let from = begin + kill * AGAIN_MS;
                at(from, Step::KillMid);
                at(from + AGAIN_MS / 2, Step::StartDead);
            }
        }
        Fault::PowerCut | Fault::PowerCutAll => {
            let cut =
                if fault == Fault::PowerCut { Step::Cut(leader_biased) } else { Step::CutAll };
            at(begin, cut);
            at(begin + DOWN_MS + chance.random_range(0..end - begin), Step::StartDead);
        }
        Fault::FullDisk => {
            at(begin, Step::Fill(leader_biased));
            at(end, Step::MakeRoom);
            at(end, Step::StartDead);
        }
        Fault::BitFlips => {
            at(begin, Step::Flip(leader_biased, chance.random()));
            at(begin + DOWN_MS, Step::StartDead);
        }
        Fault::ClockStep => {
            at(begin, Step::Clock(leader_biased, Skew::draw_step(chance)));
            at(end, Step::TrueClocks);
        }
        Fault::ClockSkew => {
            at(begin, Step::Clocks(pick));
            at(end, Step::TrueClocks);
        }
        Fault::CertRotation => at(begin, Step::Rotate),
        Fault::CertExpiry => {
            at(begin, Step::Expire(leader_biased));
            at(end.max(begin + EXPIRED_AFTER_MS), Step::Renew);
        }
        Fault::Membership => at(begin, Step::Replace(leader_biased)),
        Fault::SourceLoss => {
            at(begin, Step::Silence(pick));
            at(end, Step::Speak);
        }
        Fault::AgentAtFailpoint => {
            at(begin, Step::ArmAgent(pick));
            at(end, Step::Agents);
        }
        Fault::IsolateLeader => weather(Weather::IsolateLeader),
        Fault::Split => weather(Weather::Split(pick)),
        Fault::LeaderMute => weather(Weather::LeaderMute),
        Fault::LeaderDeaf => weather(Weather::LeaderDeaf),
        Fault::Bridge => weather(Weather::Bridge(pick)),
        Fault::BadWeather => weather(Weather::Bad {
            delay: chance.random_range(5..80),
            jitter: chance.random_range(0..120),
            loss: chance.random_range(0..80),
        }),
        Fault::KillLeader | Fault::KillLeaderTwice | Fault::KillFollower => {
            let whom =
                if fault == Fault::KillFollower { Whom::Follower(pick) } else { Whom::Leader };
            at(begin, Step::Kill(whom));
            if fault == Fault::KillLeaderTwice {
                at(begin + chance.random_range(1_200..2_000), Step::Kill(whom));
            }
            at(begin + DOWN_MS + chance.random_range(0..end - begin), Step::StartDead);
        }
        Fault::KillAtFailpoint => {
            at(begin, Step::Arm(aim(chance, pick)));
            at(end, Step::Disarm);
            at(end, Step::StartDead);
        }
        Fault::KillAll => {
            at(begin, Step::KillAll);
            at(begin + DOWN_MS, Step::StartDead);
        }
        Fault::PauseLeader | Fault::PauseFollower => {
            let leader = fault == Fault::PauseLeader;
            at(begin, Step::Pause(if leader { Whom::Leader } else { Whom::Follower(pick) }));
            at(end, Step::Resume);
        }
        Fault::RollingRestart => {
            for node in 1..=nodes {
                let from = begin + (node - 1) * 1_600;
                at(from, Step::Stop(node));
                at(from + 1_200, Step::StartDead);
            }
        }
        Fault::AgentLoss => {
            at(begin, Step::KillAgent(pick));
            at(end, Step::Agents);
        }
        Fault::TelemetryLoss => {
            at(begin, Step::PauseAgent(pick));
            at(end, Step::Agents);
        }
        Fault::Transfer => at(begin, Step::Transfer(pick)),
        Fault::SlowDisk => {
            at(begin, Step::SlowDisk(leader_biased, chance.random_range(20..200)));
            at(end, Step::FastDisk);
        }
        Fault::FailingSync => {
            at(begin, Step::FailSync(leader_biased));
            at(end, Step::StartDead);
        }
        Fault::NoDescriptors => {
            at(begin, Step::Descriptors(leader_biased, chance.random_range(0..4)));
            at(end, Step::Unlimited);
        }
        Fault::NoMemory => {
            at(begin, Step::Memory(leader_biased, chance.random_range(0..8)));
            at(end, Step::Unlimited);
            at(end, Step::StartDead);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_schedule_is_a_function_of_the_seed() {
        let can = Capabilities::everything();
        let one = rounds(7, 600_000, 3_000, 3, &can);
        assert_eq!(one, rounds(7, 600_000, 3_000, 3, &can));
        assert_ne!(one, rounds(8, 600_000, 3_000, 3, &can));
    }

    #[test]
    fn every_fault_is_drawn_single_and_overlapping_and_its_end_lies_within_the_round() {
        let rounds = rounds(1, 3_600_000, 3_000, 5, &Capabilities::everything());
        let drawn: BTreeSet<Fault> =
            rounds.iter().flat_map(|round| round.faults.iter().map(|(fault, ..)| *fault)).collect();
        assert_eq!(drawn, Fault::ALL.into_iter().collect());
        for size in 1..=4 {
            assert!(rounds.iter().any(|round| round.faults.len() == size));
        }
        for round in &rounds {
            assert!(round.steps.is_sorted_by_key(|timed| timed.at_ms));
            assert!(round.steps.iter().all(|timed| timed.at_ms <= round.length_ms), "{round:#?}");
        }
    }

    #[test]
    fn what_the_machine_cannot_do_is_not_drawn() {
        let rounds = rounds(1, 3_600_000, 3_000, 3, &Capabilities::default());
        let names = |fault| rounds.iter().any(|r| r.faults.iter().any(|(f, ..)| *f == fault));
        assert!(names(Fault::KillLeader));
        assert!(!names(Fault::NoMemory) && !names(Fault::FailingSync) && !names(Fault::SlowDisk));
        assert!(!names(Fault::ClockStep) && !names(Fault::PowerCut) && names(Fault::BitFlips));
    }

    #[test]
    fn one_node_at_a_time_is_damaged_or_replaced() {
        for round in rounds(3, 3_600_000, 3_000, 3, &Capabilities::everything()) {
            let risky = [Fault::BitFlips, Fault::Membership];
            assert!(round.faults.iter().filter(|(fault, ..)| risky.contains(fault)).count() <= 1);
        }
    }
}
