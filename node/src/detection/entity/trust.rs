//! How far each detector is believed: the law's weights, as they bear on votes.
//!
//! | weight | what it does to a vote |
//! |---|---|
//! | any | its p-value is multiplied by `exp(-weight / 1000)`, before it is held against anything |
//! | below zero | it must also have stood for 10 s × (`exp(-weight / 1000)` − 1): at the least weight three minutes |
//! | above zero | of an indicator: it speaks sooner, by the share of the greatest weight ([`Eager`]), and odd values unlikely enough suffice alone even where nobody can tell what for |
//!
//! The last line is what "missed" is for: who was missed had cast no vote whose p-value could count for more.
//! So a detector that has cried wolf is slower to convince, and never silent. A weight that falls begins
//! the wait anew: what a human has just called a false alarm is not told again in the same breath.
//! Facts have no weight.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use medic_state::{
    State,
    weight::{Detector, MOST, TOGETHER},
};

use super::{Now, votes::strength};
use crate::detection::{
    detector::Eager,
    ensemble::{Vote, Voter},
};

/// What a vote must have stood for at half the belief.
const PATIENCE_MS: f64 = 10_000.0;

/// The weights of one tenant, as of a version of the law's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    version: u64,
    weights: BTreeMap<Detector, BTreeMap<String, i32>>,
}

impl Trust {
    /// Those of a tenant; the same as before while nothing has changed.
    #[must_use]
    pub fn of(state: &State, tenant: &str, before: &Arc<Self>) -> Arc<Self> {
        if before.version == state.weights.version {
            return before.clone();
        }
        let mut weights: BTreeMap<Detector, BTreeMap<String, i32>> = BTreeMap::new();
        for (key, weight) in state.weights.of_tenant(tenant) {
            let family = key.family.clone();
            weights.entry(key.detector).or_default().insert(family, weight.millinats);
        }
        Arc::new(Self { version: state.weights.version, weights })
    }

    fn weight(&self, voter: &Voter, detector: Detector) -> i32 {
        match voter {
            Voter::Series(name) => self.of_family(name, detector),
            Voter::Together => self.of_family(TOGETHER, detector),
            Voter::Process | Voter::Probe(_) | Voter::Agent => 0,
            Voter::Guard(_) | Voter::Budget => 0,
        }
    }

    fn of_family(&self, family: &str, detector: Detector) -> i32 {
        self.weights.get(&detector).and_then(|of| of.get(family)).copied().unwrap_or(0)
    }

    /// Changes whenever a weight does.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// How much sooner than usual the detectors of an indicator speak.
    pub(super) fn eager(&self, indicator: &str) -> Eager {
        let share = |detector| {
            let weight = self.of_family(indicator, detector).clamp(0, MOST);
            f64::from(weight) / f64::from(MOST)
        };
        Eager { level: share(Detector::Level), cusum: share(Detector::Cusum) }
    }

    /// The number of tests for a correction that stays right when some are believed more: each counts
    /// as often as its greatest factor says (weighted Bonferroni), and never less than once.
    pub(super) fn tests<'n>(&self, series: impl Iterator<Item = &'n String>) -> f64 {
        if self.weights.is_empty() {
            return series.count() as f64;
        }
        let most = |name: &String| {
            let of = self.weights.values().filter_map(|of| of.get(name)).copied();
            (f64::from(of.max().unwrap_or(0).max(0)) / 1e3).exp()
        };
        series.map(most).sum()
    }
}

/// A vote, since when it has stood, and at which weight.
#[derive(Clone, Copy, Debug)]
struct Stood {
    since_ms: u64,
    weight: i32,
}

/// Since when each detector has voted.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing(BTreeMap<(Voter, Detector), Stood>);

impl Standing {
    /// The votes as far as they are believed: weighted, without those that have not stood long enough.
    pub(super) fn believed(&mut self, mut votes: Vec<Vote>, trust: &Trust, now: Now) -> Vec<Vote> {
        let mut cast = BTreeSet::new();
        votes.retain_mut(|vote| {
            let Some(detector) = Detector::parse(vote.detector) else { return true };
            let weight = trust.weight(&vote.voter, detector);
            let key = (vote.voter.clone(), detector);
            cast.insert(key.clone());
            let stood = self.0.entry(key).or_insert(Stood { since_ms: now.mono_ms, weight });
            if weight < stood.weight {
                stood.since_ms = now.mono_ms;
            }
            stood.weight = weight;
            weigh(vote, detector, weight);
            now.mono_ms.saturating_sub(stood.since_ms) >= patience_ms(weight)
        });
        self.0.retain(|key, _| cast.contains(key));
        votes
    }
}

fn factor(weight: i32) -> f64 {
    (-f64::from(weight) / 1e3).exp()
}

fn patience_ms(weight: i32) -> u64 {
    if weight >= 0 { 0 } else { (PATIENCE_MS * (factor(weight) - 1.0)) as u64 }
}

fn weigh(vote: &mut Vote, detector: Detector, weight: i32) {
    if weight == 0 {
        return;
    }
    vote.p_value = (vote.p_value * factor(weight)).min(1.0);
    // What suffices alone does so for its p-value. What counts for nothing yet goes on doing so.
    let by_p = matches!(detector, Detector::Level | Detector::Cusum);
    if by_p && vote.weight > 0 {
        vote.weight = strength(vote.kind, vote.p_value, weight > 0);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use medic_state::{
        IncidentId, Timestamp,
        symptom::Severity,
        weight::{LEAST, MOST, Opinion, Weight, WeightKey},
    };

    use super::{super::votes::HARD_P, *};
    use crate::detection::ensemble::Kind;

    fn state(weights: &[(&str, Detector, i32)]) -> State {
        let mut state = State::new();
        state.weights.version = 1;
        for (family, detector, millinats) in weights {
            let (tenant, family) = ("default".to_owned(), (*family).to_owned());
            let weight = Weight {
                millinats: *millinats,
                version: 1,
                index: 1,
                at: Timestamp(1),
                by: "ann".to_owned(),
                incident: IncidentId(1),
                opinion: Opinion::FalseAlarm,
            };
            state.weights.all.insert(WeightKey { tenant, family, detector: *detector }, weight);
        }
        state
    }

    /// The weights of the tenant `default`.
    pub(in crate::detection::entity) fn trust(weights: &[(&str, Detector, i32)]) -> Arc<Trust> {
        Trust::of(&state(weights), "default", &Arc::default())
    }

    fn vote(detector: &'static str, p_value: f64) -> Vote {
        Vote {
            voter: Voter::Series("latency".to_owned()),
            kind: Kind::Latency,
            weight: if p_value < HARD_P { 2 } else { 1 },
            severity: Severity::Warning,
            p_value,
            text: String::new(),
            value: String::new(),
            expected: String::new(),
            detector,
            time_to_event: None,
            rests_on: None,
        }
    }

    fn at(second: u64) -> Now {
        Now { mono_ms: second * 1_000, ..Now::default() }
    }

    /// The vote after so many seconds of it.
    fn after(trust: &Trust, vote: &Vote, seconds: u64) -> Option<Vote> {
        let mut standing = Standing::default();
        standing.believed(vec![vote.clone()], trust, at(0));
        standing.believed(vec![vote.clone()], trust, at(seconds)).pop()
    }

    #[test]
    fn without_weights_votes_stay_as_they_are() {
        let odd = vote("level", 1e-4);
        assert_eq!(after(&Trust::default(), &odd, 0), Some(odd.clone()));
        let elsewhere =
            trust(&[("errors", Detector::Level, LEAST), ("latency", Detector::Cusum, LEAST)]);
        assert_eq!(after(&elsewhere, &odd, 0), Some(odd));
        let fact = vote("limit", 0.0);
        assert_eq!(after(&trust(&[("latency", Detector::Level, LEAST)]), &fact, 0), Some(fact));
    }

    #[test]
    fn one_that_is_believed_less_is_slower_and_never_silent() {
        let less = trust(&[("latency", Detector::Level, -700)]);
        let odd = vote("level", 9e-7);
        assert_eq!(after(&less, &odd, 9), None);
        let believed = after(&less, &odd, 11).map(|vote| (vote.weight, vote.p_value > HARD_P));
        assert_eq!(believed, Some((1, true)), "it does not suffice alone any more");
        let least = trust(&[("latency", Detector::Level, LEAST)]);
        assert_eq!(after(&least, &odd, 180), None);
        assert!(after(&least, &odd, 191).is_some(), "three minutes at the most");
        let sure = after(&least, &vote("level", 1e-12), 191).map(|vote| vote.weight);
        assert_eq!(sure, Some(2), "strong evidence is as strong");
    }

    #[test]
    fn what_may_be_a_hiccup_counts_for_nothing_however_much_it_is_believed() {
        for millinats in [LEAST, MOST] {
            let trust = trust(&[("latency", Detector::Level, millinats)]);
            let hiccup = Vote { weight: 0, ..vote("level", 1e-3) };
            assert_eq!(after(&trust, &hiccup, 191).map(|vote| vote.weight), Some(0));
        }
    }

    #[test]
    fn one_that_missed_something_needs_less() {
        let more = trust(&[("latency", Detector::Level, MOST)]);
        assert_eq!(after(&more, &vote("level", 5e-6), 0).map(|vote| vote.weight), Some(2));
        assert_eq!(after(&more, &vote("level", 1e-5), 0).map(|vote| vote.weight), Some(1));
        let names = ["latency".to_owned(), "errors".to_owned()];
        let tests = more.tests(names.iter());
        assert!((tests - (1.0 + 2_f64.exp())).abs() < 1e-9, "{tests}: what it gains others pay");
        assert!((trust(&[]).tests(names.iter()) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_lesson_begins_the_wait_anew_and_is_read_once() {
        let mut standing = Standing::default();
        let odd = || vec![vote("level", 1e-4)];
        let before: Arc<Trust> = Arc::default();
        assert_eq!(standing.believed(odd(), &before, at(0)).len(), 1);
        assert_eq!(standing.believed(odd(), &before, at(100)).len(), 1);
        let state = state(&[("latency", Detector::Level, -700)]);
        let lesson = Trust::of(&state, "default", &before);
        assert_eq!(standing.believed(odd(), &lesson, at(101)).len(), 0);
        assert_eq!(standing.believed(odd(), &lesson, at(112)).len(), 1);
        // It went away in between.
        standing.believed(Vec::new(), &lesson, at(113));
        assert_eq!(standing.believed(odd(), &lesson, at(114)).len(), 0);
        assert!(Arc::ptr_eq(&lesson, &Trust::of(&state, "default", &lesson)));
        assert_eq!(Trust::of(&state, "other", &before).weights.len(), 0);
    }
}
