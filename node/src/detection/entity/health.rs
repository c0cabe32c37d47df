//! What each source says of how the instance does, for the monitors.

use medic_state::{manifest::SloSpec, symptom::Severity};

use super::{Entity, Now, SILENT_MS, silence::Said};
use crate::detection::{
    detector::Role,
    ensemble::{Vote, Voter},
    health::{Burn, InstanceHealth, Monitor, Sign, Word, of_instance},
    predict::budget::Objective,
    probe::Outcome,
};

/// The error budget of the instance, where its service has an objective.
#[derive(Debug)]
pub(super) struct BudgetWatch {
    pub(super) indicator: String,
    pub(super) allowed: f64,
    pub(super) burn: Burn,
    noted_ms: Option<u64>,
}

impl BudgetWatch {
    pub(super) fn new(slo: &SloSpec) -> Self {
        let (indicator, allowed) = (slo.indicator.clone(), Objective::of(slo).allowed);
        Self { indicator, allowed, burn: Burn::default(), noted_ms: None }
    }

    pub(super) fn note(&mut self, failures: f64, now: Now) {
        let before = self.noted_ms.replace(now.mono_ms).unwrap_or(now.mono_ms);
        self.burn.note(failures, now.mono_ms.saturating_sub(before) as f64 / 1e3);
    }

    fn sign(&self) -> Sign {
        let word = self.burn.burning(self.allowed).map_or(Word::Good, |burning| {
            let hours = burning.window / 3_600.0;
            let text = format!(
                "the error budget burns {:.1} times as fast as it may, over {hours:.0} h",
                burning.rate
            );
            Word::Bad(burning.severity, 2, text)
        });
        Sign { monitor: Monitor::Performance, source: "budget".to_owned(), word }
    }
}

impl Entity {
    /// How it does, by each of the five monitors.
    #[must_use]
    pub fn health(&self, now: Now) -> InstanceHealth {
        of_instance(&self.target.instance, &self.signs(now), self.at_rest())
    }

    fn signs(&self, now: Now) -> Vec<Sign> {
        let role = |name: &str| self.series.get(name).map_or(Role::Other, |series| series.role);
        let votes = self.votes(now);
        let bad = |vote: &Vote| Sign {
            monitor: Monitor::of_voter(&vote.voter, role),
            source: vote.voter.to_string(),
            word: Word::Bad(vote.severity, vote.weight, vote.text.clone()),
        };
        let mut signs: Vec<Sign> = votes.iter().map(bad).collect();
        let voted = |voter: &Voter| votes.iter().any(|vote| vote.voter == *voter);
        let sources = self.has_agent.then_some(Voter::Process).into_iter();
        let sources = sources.chain(self.probes.keys().cloned().map(Voter::Probe));
        for voter in sources.chain(self.series.keys().cloned().map(Voter::Series)) {
            if !voted(&voter) {
                let monitor = Monitor::of_voter(&voter, role);
                signs.push(Sign {
                    monitor,
                    source: voter.to_string(),
                    word: self.word(&voter, now),
                });
            }
        }
        signs.extend(self.budget.as_ref().map(BudgetWatch::sign));
        signs
    }

    /// What somebody says who does not vote.
    fn word(&self, voter: &Voter, now: Now) -> Word {
        let young = now.mono_ms.saturating_sub(self.begun_ms) < SILENT_MS;
        match self.said(voter) {
            Said::Idle => Word::Waiting,
            Said::Nothing(_) if young => Word::Waiting,
            Said::Nothing(why) => Word::Silent(why),
            Said::Word => match voter {
                Voter::Probe(name) => match self.probes.get(name).map(|track| &track.last) {
                    // One that fails for the first time, or of which the process says all that is to be said.
                    Some(Some(Outcome::Bad(failure))) => {
                        Word::Bad(Severity::Info, 1, failure.to_string())
                    }
                    _ => Word::Good,
                },
                Voter::Process | Voter::Series(_) | Voter::Together | Voter::Agent => Word::Good,
            },
        }
    }
}
