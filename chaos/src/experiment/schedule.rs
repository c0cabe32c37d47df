//! When what is done: a pure function of the experiment, its seed included.

use medic_api::manifest::Finding;
use medic_state::Millis;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::manifest::ExperimentSpec;

/// Faults of one experiment, repetitions included: more is no experiment, but a campaign.
const TURNS_MAX: usize = 10_000;

/// One fault, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// From the first moment of the fault phase.
    pub at: Millis,
    /// How long it is in force; zero: it is done and over.
    pub lasts: Millis,
    /// Which of the experiment's faults.
    pub fault: usize,
}

impl Turn {
    /// When it is over.
    #[must_use]
    pub const fn end(&self) -> Millis {
        Millis(self.at.0.saturating_add(self.lasts.0))
    }
}

/// All turns, in the order of their beginnings.
#[must_use]
pub fn turns(spec: &ExperimentSpec) -> Vec<Turn> {
    let until = spec.duration.unwrap_or(Millis(u64::MAX));
    let mut turns = Vec::new();
    for (index, fault) in spec.faults.iter().enumerate() {
        let turn = |at| Turn { at, lasts: fault.in_force(), fault: index };
        if let Some(rate) = fault.rate {
            let mut chance = StdRng::seed_from_u64(spec.seed ^ (index as u64).rotate_right(8));
            let middle = rate.per.0 / u64::from(rate.count.max(1));
            let mut at = fault.at;
            loop {
                at = Millis(at.0.saturating_add(gap(&mut chance, middle)));
                if turn(at).end() > until || turns.len() > TURNS_MAX {
                    break;
                }
                turns.push(turn(at));
                at = turn(at).end();
            }
            continue;
        }
        let every = fault.every.unwrap_or_default();
        let times = if every == Millis(0) { 1 } else { fault.times.unwrap_or(u32::MAX) };
        let mut at = fault.at;
        for _ in 0..times {
            if turn(at).end() > until || turns.len() > TURNS_MAX {
                break;
            }
            turns.push(turn(at));
            at = Millis(at.0.saturating_add(every.0));
        }
    }
    turns.sort_by_key(|turn| (turn.at, turn.fault));
    turns
}

/// Time to the next of events that come at random, so long apart in the middle (exponential).
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "milliseconds of an experiment"
)]
fn gap(chance: &mut StdRng, middle_ms: u64) -> u64 {
    let uniform: f64 = chance.random_range(f64::EPSILON..1.0);
    (-uniform.ln() * middle_ms as f64).max(1.0) as u64
}

/// How long the fault phase is.
#[must_use]
pub fn length(spec: &ExperimentSpec, turns: &[Turn]) -> Millis {
    spec.duration.unwrap_or_else(|| turns.iter().map(Turn::end).max().unwrap_or_default())
}

/// What is wrong with the times.
pub(super) fn check(spec: &ExperimentSpec) -> Vec<Finding> {
    let turns = turns(spec);
    if turns.len() > TURNS_MAX {
        return vec![Finding::new("spec.faults", format!("more than {TURNS_MAX} faults"))];
    }
    let mut found = Vec::new();
    for (index, fault) in spec.faults.iter().enumerate() {
        if fault.rate.is_none() && !turns.iter().any(|turn| turn.fault == index) {
            let message = format!("it would end after the duration of {}", length(spec, &turns));
            found.push(Finding::new(format!("spec.faults[{index}]"), message));
        }
    }
    if turns.is_empty() && found.is_empty() && !spec.faults.is_empty() {
        let (seed, length) = (spec.seed, length(spec, &turns));
        let message = format!(
            "seed {seed} draws none of them within {length}: a longer `duration`, a greater `rate` or \
             another `seed`"
        );
        found.push(Finding::new("spec.faults", message));
    }
    for (n, later) in turns.iter().enumerate() {
        let kind = |turn: &Turn| {
            let fault = &spec.faults[turn.fault];
            (fault.target.as_str(), fault.inject.kind())
        };
        let before = turns[..n].iter().find(|earlier| {
            kind(earlier) == kind(later)
                && (earlier.end() > later.at
                    || (earlier.at == later.at && earlier.fault != later.fault))
        });
        if let Some(earlier) = before {
            let (target, kind) = kind(later);
            let message = format!(
                "{kind} of `{target}` at {} overlaps the one from {} to {}: change times or seed",
                later.at,
                earlier.at,
                earlier.end()
            );
            found.push(Finding::new(format!("spec.faults[{}]", later.fault), message));
            break;
        }
    }
    found
}
