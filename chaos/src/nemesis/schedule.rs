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

/// One fault that was drawn, and the steps it is made of.
struct Drawn<'a> {
    chance: &'a mut StdRng,
    into: &'a mut Vec<Timed>,
    fault: Fault,
    begin: u64,
    end: u64,
    /// For whatever has to be chosen when it strikes.
    pick: u64,
    /// Two times in three the leader.
    whom: Whom,
    last: u64,
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
    let whom = if chance.random_ratio(2, 3) { Whom::Leader } else { Whom::Follower(pick) };
    let mut drawn = Drawn { chance, into, fault, begin, end, pick, whom, last: end };
    match fault {
        Fault::IsolateLeader => drawn.weather(Weather::IsolateLeader),
        Fault::Split => drawn.weather(Weather::Split(pick)),
        Fault::LeaderMute => drawn.weather(Weather::LeaderMute),
        Fault::LeaderDeaf => drawn.weather(Weather::LeaderDeaf),
        Fault::Bridge => drawn.weather(Weather::Bridge(pick)),
        Fault::BadWeather => {
            let weather = Weather::Bad {
                delay: drawn.chance.random_range(5..80),
                jitter: drawn.chance.random_range(0..120),
                loss: drawn.chance.random_range(0..80),
            };
            drawn.weather(weather);
        }
        Fault::KillLeader
        | Fault::KillLeaderTwice
        | Fault::KillFollower
        | Fault::KillAtFailpoint
        | Fault::KillAll
        | Fault::MidRemediation => drawn.killing(),
        Fault::PauseLeader
        | Fault::PauseFollower
        | Fault::RollingRestart
        | Fault::Transfer
        | Fault::Membership
        | Fault::CertRotation
        | Fault::CertExpiry => drawn.upsetting(nodes),
        Fault::AgentLoss | Fault::TelemetryLoss | Fault::SourceLoss | Fault::AgentAtFailpoint => {
            drawn.blinding()
        }
        Fault::SlowDisk
        | Fault::FailingSync
        | Fault::NoDescriptors
        | Fault::NoMemory
        | Fault::ClockStep
        | Fault::ClockSkew
        | Fault::PowerCut
        | Fault::PowerCutAll
        | Fault::FullDisk
        | Fault::BitFlips => drawn.depriving(),
    }
    drawn.last
}

impl Drawn<'_> {
    fn at(&mut self, at_ms: u64, step: Step) {
        self.last = self.last.max(at_ms);
        self.into.push(Timed { at_ms, fault: self.fault, step });
    }

    /// Something, and at the end what takes it back.
    fn during(&mut self, step: Step, back: Step) {
        self.at(self.begin, step);
        self.at(self.end, back);
    }

    fn weather(&mut self, weather: Weather) {
        self.during(Step::Weather(weather), Step::Fair);
    }

    /// So long after the beginning that a dead node was missed, at the longest as long as the fault.
    fn later(&mut self) -> u64 {
        self.begin + DOWN_MS + self.chance.random_range(0..self.end - self.begin)
    }

    /// Processes of nodes end.
    fn killing(&mut self) {
        let (begin, pick) = (self.begin, self.pick);
        match self.fault {
            Fault::KillAtFailpoint => {
                // Two times in three in the middle of a remediation.
                let mid = self.chance.random_ratio(2, 3);
                let aim = if mid { Aim::MidRemediation(pick) } else { Aim::LeastHit(pick) };
                self.during(Step::Arm(aim), Step::Disarm);
                self.at(self.end, Step::StartDead);
            }
            Fault::KillAll => {
                self.at(begin, Step::KillAll);
                self.at(begin + DOWN_MS, Step::StartDead);
            }
            Fault::MidRemediation => {
                let kills = self.chance.random_range(2..=3);
                for kill in 0..kills {
                    let from = begin + kill * AGAIN_MS;
                    self.at(from, Step::KillMid);
                    self.at(from + AGAIN_MS / 2, Step::StartDead);
                }
            }
            fault => {
                let follower = fault == Fault::KillFollower;
                let whom = if follower { Whom::Follower(pick) } else { Whom::Leader };
                self.at(begin, Step::Kill(whom));
                if fault == Fault::KillLeaderTwice {
                    let again = begin + self.chance.random_range(1_200..2_000);
                    self.at(again, Step::Kill(whom));
                }
                let back = self.later();
                self.at(back, Step::StartDead);
            }
        }
    }

    /// Who leads, who belongs, and who may speak changes.
    fn upsetting(&mut self, nodes: u64) {
        let (begin, pick, whom) = (self.begin, self.pick, self.whom);
        match self.fault {
            Fault::PauseFollower => self.during(Step::Pause(Whom::Follower(pick)), Step::Resume),
            Fault::RollingRestart => {
                for node in 1..=nodes {
                    let from = begin + (node - 1) * 1_600;
                    self.at(from, Step::Stop(node));
                    self.at(from + 1_200, Step::StartDead);
                }
            }
            Fault::Transfer => self.at(begin, Step::Transfer(pick)),
            Fault::Membership => self.at(begin, Step::Replace(whom)),
            Fault::CertRotation => self.at(begin, Step::Rotate),
            Fault::CertExpiry => {
                self.at(begin, Step::Expire(whom));
                self.at(self.end.max(begin + EXPIRED_AFTER_MS), Step::Renew);
            }
            _ => self.during(Step::Pause(Whom::Leader), Step::Resume),
        }
    }

    /// Agents and services are not there, or say nothing.
    fn blinding(&mut self) {
        let pick = self.pick;
        match self.fault {
            Fault::AgentLoss => self.during(Step::KillAgent(pick), Step::Agents),
            Fault::AgentAtFailpoint => self.during(Step::ArmAgent(pick), Step::Agents),
            Fault::SourceLoss => self.during(Step::Silence(pick), Step::Speak),
            _ => self.during(Step::PauseAgent(pick), Step::Agents),
        }
    }

    /// Time, disk, memory, descriptors are not what a node takes them for.
    fn depriving(&mut self) {
        let (begin, end, whom) = (self.begin, self.end, self.whom);
        match self.fault {
            Fault::PowerCut | Fault::PowerCutAll => {
                let one = self.fault == Fault::PowerCut;
                self.at(begin, if one { Step::Cut(whom) } else { Step::CutAll });
                let back = self.later();
                self.at(back, Step::StartDead);
            }
            Fault::FullDisk => {
                self.during(Step::Fill(whom), Step::MakeRoom);
                self.at(end, Step::StartDead);
            }
            Fault::BitFlips => {
                let pick = self.chance.random();
                self.at(begin, Step::Flip(whom, pick));
                self.at(begin + DOWN_MS, Step::StartDead);
            }
            Fault::ClockStep => {
                let skew = Skew::draw_step(self.chance);
                self.during(Step::Clock(whom, skew), Step::TrueClocks);
            }
            Fault::ClockSkew => self.during(Step::Clocks(self.pick), Step::TrueClocks),
            Fault::SlowDisk => {
                let ms = self.chance.random_range(20..200);
                self.during(Step::SlowDisk(whom, ms), Step::FastDisk);
            }
            Fault::FailingSync => self.during(Step::FailSync(whom), Step::StartDead),
            Fault::NoDescriptors => {
                let more = self.chance.random_range(0..4);
                self.during(Step::Descriptors(whom, more), Step::Unlimited);
            }
            _ => {
                let more = self.chance.random_range(0..8);
                self.during(Step::Memory(whom, more), Step::Unlimited);
                self.at(end, Step::StartDead);
            }
        }
    }
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
