//! What is done when: faults, kills of Medic's nodes, and the noise of a quiet fleet. A function of
//! the seed.
//!
//! Kinds are drawn from a bag that is emptied before it is filled again, so that a run of some
//! minutes has had them all. Two faults never share an instance within a while of each other;
//! they overlap in time as they come.

use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Serialize;

use super::kinds::{Kind, Reach};
use crate::fleet::SampleFleet;

/// Between the beginnings of two faults, milliseconds: one is often still being healed when the next
/// comes.
const GAP_MS: std::ops::Range<u64> = 6_000..30_000;
/// An instance is left alone for so long after a fault of its own began …
const REST_MS: u64 = 60_000;
/// … and its service for so long, so that its siblings are well and there is something to compare.
const REST_SERVICE_MS: u64 = 25_000;
/// Between kills of Medic's nodes.
const KILL_GAP_MS: std::ops::Range<u64> = 35_000..75_000;
/// A killed node stays away for so long.
const KILL_AWAY_MS: std::ops::Range<u64> = 3_000..9_000;
/// How often it is the leader that is killed, percent.
const LEADER_PERCENT: u32 = 70;
/// Between two pieces of noise.
const NOISE_GAP_MS: std::ops::Range<u64> = 5_000..14_000;

/// One fault that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// What.
    pub kind: Kind,
    /// Of which service.
    pub service: String,
    /// Which instances.
    pub instances: Vec<String>,
}

/// A node of Medic's that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// The leader; else one that does not lead.
    pub leader: bool,
    /// Milliseconds until it is started again.
    pub away_ms: u64,
}

impl Kill {
    /// Who dies, for people.
    #[must_use]
    pub const fn who(self) -> &'static str {
        if self.leader { "the leader" } else { "a follower" }
    }
}

/// What happens to a fleet on a quiet day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// A good configuration is rolled out, instance by instance.
    Deploy,
    /// Somebody has a process execute itself anew.
    Restart,
    /// Twice the traffic for some seconds.
    Burst,
    /// One instance is a little slow for a moment.
    Hiccup,
    /// A few requests of one instance fail.
    Blip,
}

impl Noise {
    const ALL: [Self; 5] = [Self::Deploy, Self::Restart, Self::Burst, Self::Hiccup, Self::Blip];
}

/// A piece of noise that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quiet {
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// What.
    pub noise: Noise,
    /// Of which service.
    pub service: String,
    /// Which instances, in turn.
    pub instances: Vec<String>,
}

/// Faults over `total_ms`, of these kinds.
#[must_use]
pub fn faults(seed: u64, total_ms: u64, kinds: &[Kind], fleet: &SampleFleet) -> Vec<Planned> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut rested: BTreeMap<String, u64> = BTreeMap::new();
    let mut bag: Vec<Kind> = Vec::new();
    let mut planned = Vec::new();
    let mut at_ms = chance.random_range(500..2_000);
    while at_ms < total_ms && !kinds.is_empty() {
        if bag.is_empty() {
            bag = kinds.to_vec();
            bag.shuffle(&mut chance);
        }
        // The first kind of the bag for which somebody is well rested.
        let found = bag.iter().enumerate().rev().find_map(|(position, kind)| {
            let (service, instances) = targets(*kind, at_ms, &rested, fleet, &mut chance)?;
            Some((position, *kind, service, instances))
        });
        let Some((position, kind, service, instances)) = found else {
            at_ms += 1_000;
            continue;
        };
        bag.remove(position);
        rested.insert(service.clone(), at_ms + REST_SERVICE_MS);
        for instance in &instances {
            rested.insert(instance.clone(), at_ms + REST_MS);
        }
        planned.push(Planned { at_ms, kind, service, instances });
        at_ms += chance.random_range(GAP_MS);
    }
    planned
}

fn targets(
    kind: Kind,
    at_ms: u64,
    rested: &BTreeMap<String, u64>,
    fleet: &SampleFleet,
    chance: &mut StdRng,
) -> Option<(String, Vec<String>)> {
    let is_rested = |name: &str| rested.get(name).is_none_or(|until| *until <= at_ms);
    let (Reach::One(services) | Reach::All(services)) = kind.reach();
    let mut services = services.to_vec();
    services.shuffle(chance);
    services.into_iter().filter(|service| is_rested(service)).find_map(|service| {
        let mut names: Vec<String> = fleet.of(service).map(|one| one.name.clone()).collect();
        match kind.reach() {
            Reach::One(_) => {
                names.shuffle(chance);
                let one = names.into_iter().find(|name| is_rested(name))?;
                Some((service.to_owned(), vec![one]))
            }
            Reach::All(_) => {
                let all = names.iter().all(|name| is_rested(name));
                all.then(|| (service.to_owned(), names))
            }
        }
    })
}

/// Kills of nodes over `total_ms`.
#[must_use]
pub fn kills(seed: u64, total_ms: u64) -> Vec<Kill> {
    let mut chance = StdRng::seed_from_u64(seed ^ 0x6b69_6c6c);
    let mut kills = Vec::new();
    let mut at_ms = chance.random_range(15_000..30_000);
    while at_ms < total_ms {
        let leader = chance.random_ratio(LEADER_PERCENT, 100);
        let away_ms = chance.random_range(KILL_AWAY_MS);
        kills.push(Kill { at_ms, leader, away_ms });
        at_ms += away_ms + chance.random_range(KILL_GAP_MS);
    }
    kills
}

/// A quiet day over `total_ms`.
#[must_use]
pub fn quiet(seed: u64, total_ms: u64, fleet: &SampleFleet) -> Vec<Quiet> {
    let mut chance = StdRng::seed_from_u64(seed ^ 0x7175_6965);
    let services: Vec<&str> = ["gateway", "orders", "users", "catalog", "datastore"].to_vec();
    let mut bag: Vec<Noise> = Vec::new();
    let mut planned = Vec::new();
    let mut at_ms = chance.random_range(2_000..6_000);
    while at_ms < total_ms {
        if bag.is_empty() {
            bag = Noise::ALL.to_vec();
            bag.shuffle(&mut chance);
        }
        let Some(noise) = bag.pop() else { break };
        let service = services[chance.random_range(0..services.len())];
        let mut instances: Vec<String> = fleet.of(service).map(|one| one.name.clone()).collect();
        instances.shuffle(&mut chance);
        if noise != Noise::Deploy {
            instances.truncate(1);
        }
        planned.push(Quiet { at_ms, noise, service: service.to_owned(), instances });
        at_ms += chance.random_range(NOISE_GAP_MS);
    }
    planned
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::fleet::Layout;

    fn fleet() -> SampleFleet {
        let agents: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let ports: Vec<u16> = (1..=20).collect();
        let program = Path::new("/bin/true");
        SampleFleet::laid_out(Layout::Redundant, Path::new("/x"), &agents, &ports, program, &[])
    }

    #[test]
    fn a_seed_is_one_schedule_and_ten_minutes_have_every_kind() {
        let fleet = fleet();
        for seed in 1..20 {
            let planned = faults(seed, 600_000, Kind::ALL, &fleet);
            assert_eq!(planned, faults(seed, 600_000, Kind::ALL, &fleet));
            let kinds: BTreeSet<Kind> = planned.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "seed {seed}: {} faults", planned.len());
            assert!(planned.windows(2).all(|two| two[0].at_ms < two[1].at_ms));
        }
        assert_ne!(faults(1, 60_000, Kind::ALL, &fleet), faults(2, 60_000, Kind::ALL, &fleet));
    }

    #[test]
    fn an_instance_is_left_alone_after_a_fault() {
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for fault in faults(3, 1_200_000, Kind::ALL, &fleet()) {
            for name in &fault.instances {
                let before = last.insert(name.clone(), fault.at_ms);
                assert!(before.is_none_or(|before| fault.at_ms >= before + REST_MS), "{fault:?}");
            }
        }
    }

    #[test]
    fn leaders_die_most_and_a_quiet_day_has_everything() {
        let kills = kills(1, 3_600_000);
        let leaders = kills.iter().filter(|kill| kill.leader).count();
        assert!(kills.len() > 30 && leaders * 2 > kills.len());
        let planned = quiet(1, 120_000, &fleet());
        let seen: BTreeSet<Noise> = planned.iter().map(|one| one.noise).collect();
        assert_eq!(seen.len(), Noise::ALL.len());
    }
}
