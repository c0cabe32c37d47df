//! What a campaign is to do: the schedule of its seed, less what cannot be had here.

use std::time::Duration;

use anyhow::Context as _;

use super::{CampaignArgs, say, seconds, stage};
use crate::{
    nemesis::{Capabilities, Fault, Round, disk, rounds},
    report::FULL_MINUTES,
};

/// What a round's recovery is reckoned with in the schedule.
const REST_MS: u64 = 2_000;
/// Where much cannot be had, rounds of so many times the length are drawn at most to fill it.
const DRAWN_MAX: u64 = 64;

/// What is to be done.
pub(super) struct Plan {
    pub(super) can: Capabilities,
    pub(super) total_ms: u64,
    pub(super) schedule: Vec<Round>,
    /// Whether all that a campaign can reach must be reached.
    pub(super) full: bool,
}

impl Plan {
    /// For this process as it is: with disks only where it has a mount namespace of its own.
    pub(super) fn draw(args: &CampaignArgs) -> anyhow::Result<Self> {
        Self::with(args, disk::available())
    }

    /// As the campaign would be, from a process that has not gone private.
    pub(super) fn foresee(args: &CampaignArgs) -> anyhow::Result<Self> {
        Self::with(args, disk::reason().is_none())
    }

    fn with(args: &CampaignArgs, disks: bool) -> anyhow::Result<Self> {
        let failpoints = stage::has_failpoints(&stage::medic(args.medic.as_deref()));
        let can = Capabilities { disks, ..Capabilities::look(failpoints) };
        let length =
            Duration::try_from_secs_f64(args.minutes * 60.0).context("reading --minutes")?;
        let total_ms = u64::try_from(length.as_millis())?;
        let schedule = schedule(args.seed, total_ms, args.nodes, &can);
        let full = args.minutes >= FULL_MINUTES && failpoints;
        Ok(Self { can, total_ms, schedule, full })
    }

    /// Faults that cannot be had here, with why.
    pub(super) fn absent(&self) -> Vec<String> {
        let why = |fault| Some(format!("{fault}: {}", self.can.missing(fault)?));
        Fault::ALL.into_iter().filter_map(why).collect()
    }

    /// Says what would be done, and when.
    pub(super) fn tell(&self) {
        say(&kinds());
        for absent in self.absent() {
            say(&format!("not here: {absent}"));
        }
        for (number, round) in self.schedule.iter().enumerate() {
            say(&format!("round {}: {}", number + 1, describe(round)));
        }
    }
}

/// Every kind of fault there is, whichever of them are drawn.
fn kinds() -> String {
    let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    format!("{} kinds of faults: {}", names.len(), names.join(", "))
}

/// The rounds of a seed are the same everywhere; what a machine cannot do is left out of them. Rounds
/// of which nothing is left are left out too, and later ones take their time.
fn schedule(seed: u64, total_ms: u64, nodes: u64, can: &Capabilities) -> Vec<Round> {
    let (mut times, all) = (1, Capabilities::everything());
    loop {
        let drawn = rounds(seed, total_ms.saturating_mul(times), REST_MS, nodes, &all);
        let mut used = 0;
        let mut left = Vec::new();
        for round in drawn.into_iter().map(|round| without(round, can)) {
            if used >= total_ms || round.faults.is_empty() {
                continue;
            }
            used += round.length_ms + REST_MS;
            left.push(round);
        }
        if used >= total_ms || times >= DRAWN_MAX {
            return left;
        }
        times *= 2;
    }
}

/// A round without what cannot be had, as short as the rest of it.
fn without(mut round: Round, can: &Capabilities) -> Round {
    round.faults.retain(|(fault, ..)| can.missing(*fault).is_none());
    round.steps.retain(|timed| can.missing(timed.fault).is_none());
    round.length_ms = round.faults.iter().map(|(.., end)| *end).max().unwrap_or(0);
    round
}

/// Its faults with their times.
pub(super) fn describe(round: &Round) -> String {
    let faults: Vec<String> = round
        .faults
        .iter()
        .map(|(fault, from, to)| {
            format!("{fault} ({:.1} s to {:.1} s)", seconds(*from), seconds(*to))
        })
        .collect();
    faults.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: u64 = 600_000;

    #[test]
    fn every_kind_is_named_and_the_manual_counts_them() {
        let told = kinds();
        for fault in Fault::ALL {
            assert!(told.contains(fault.name()), "{fault}: {told}");
        }
        let manual = include_str!("../../../docs/OPERATIONS.md");
        let (count, _) = told.split_once(':').unwrap_or_default();
        assert!(manual.contains(count), "the manual does not speak of {count}");
    }

    #[test]
    fn a_machine_that_can_do_less_plays_the_same_rounds_without_what_it_cannot() {
        let all = Capabilities::everything();
        let whole = schedule(7, TEN_MINUTES, 3, &all);
        assert_eq!(whole, rounds(7, TEN_MINUTES, REST_MS, 3, &all), "the seed's own schedule");
        let can = Capabilities { disks: false, clocks: false, ..all };
        let less = schedule(7, TEN_MINUTES, 3, &can);
        let length =
            |rounds: &[Round]| -> u64 { rounds.iter().map(|r| r.length_ms + REST_MS).sum() };
        assert!(length(&less) >= TEN_MINUTES, "it is filled all the same");
        let faults = |rounds: &[Round]| -> Vec<(Fault, u64, u64)> {
            let faults = rounds.iter().flat_map(|round| round.faults.clone());
            faults.filter(|(fault, ..)| can.missing(*fault).is_none()).collect()
        };
        let (expected, found) = (faults(&whole), faults(&less));
        assert_eq!(found[..expected.len()], expected[..]);
        let steps = less.iter().flat_map(|round| &round.steps);
        assert_eq!(steps.filter(|timed| can.missing(timed.fault).is_some()).count(), 0);
        let present = whole.iter().flat_map(|round| &round.faults);
        assert!(
            present.clone().any(|(fault, ..)| can.missing(*fault).is_some()),
            "nothing was cut"
        );
    }
}
