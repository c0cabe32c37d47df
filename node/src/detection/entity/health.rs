//! What each source says of how the instance does, for the monitors.

use std::collections::BTreeSet;

use medic_state::{
    manifest::{IndicatorSource, ServiceSpec, SloSpec},
    symptom::Severity,
};

use super::{Entity, Now, silence::Said, votes::hard};
use crate::detection::{
    beside::names_host,
    detector::Role,
    ensemble::{Kind, Vote, Voter},
    health::{Burn, Burning, InstanceHealth, Monitor, Sign, Word, of_instance},
    predict::budget::Objective,
    probe::{CERTIFICATE, Outcome},
};

/// The error budget of the instance, where its service has an objective.
#[derive(Debug)]
pub(super) struct BudgetWatch {
    pub(super) indicator: String,
    pub(super) allowed: f64,
    pub(super) burn: Burn,
    noted_ms: Option<u64>,
    /// When more than is allowed failed last.
    failed_ms: Option<u64>,
}

impl BudgetWatch {
    /// Of a service's objective; nothing where that is about no indicator of it: nothing would be heard of it, and
    /// that is no silence.
    pub(super) fn of(service: &ServiceSpec) -> Option<Self> {
        let declared = |slo: &&SloSpec| service.indicators.iter().any(|i| i.name == slo.indicator);
        let slo = service.slo.as_ref().filter(declared)?;
        let (indicator, allowed) = (slo.indicator.clone(), Objective::of(slo).allowed);
        Some(Self { indicator, allowed, burn: Burn::default(), noted_ms: None, failed_ms: None })
    }

    pub(super) fn note(&mut self, failures: f64, now: Now) {
        let before = self.noted_ms.replace(now.mono_ms).unwrap_or(now.mono_ms);
        if failures > self.allowed {
            self.failed_ms = Some(now.mono_ms);
        }
        self.burn.note(failures, now.mono_ms.saturating_sub(before) as f64 / 1e3);
    }

    /// The fact that it burns too fast, as long as it does: windows remember what is over.
    pub(super) fn vote(&self, now: Now) -> Option<Vote> {
        let burning = self.burn.burning(self.allowed)?;
        let since_ms = now.mono_ms.saturating_sub(self.failed_ms?) as f64;
        (since_ms / 1e3 <= burning.lasts()).then(|| Vote {
            text: self.says(&burning),
            value: format!("{:.1}", burning.rate),
            expected: format!("< {}", burning.most),
            detector: "burn",
            ..hard(Voter::Budget, Kind::Errors, burning.severity)
        })
    }

    fn says(&self, burning: &Burning) -> String {
        format!(
            "the error budget of {} burns {:.1} times as fast as it may, over {:.0} h",
            self.indicator,
            burning.rate,
            burning.window / 3_600.0
        )
    }

    /// Whether its indicator has had a value in this watch.
    pub(super) const fn fed(&self) -> bool {
        self.noted_ms.is_some()
    }

    fn burns(&self) -> Option<Word> {
        let burning = self.burn.burning(self.allowed)?;
        Some(Word::Bad(burning.severity, 2, self.says(&burning)))
    }
}

/// Indicators whose figures are those of a host, by the names of the series.
pub(super) fn of_host(service: &ServiceSpec) -> BTreeSet<String> {
    let all = service.indicators.iter().filter(|indicator| match &indicator.source {
        IndicatorSource::Gauge(one) | IndicatorSource::Rate(one) => names_host(one),
        IndicatorSource::Ratio { of, .. } => names_host(of),
        IndicatorSource::Quantile { histogram, .. } => names_host(histogram),
    });
    all.map(|indicator| indicator.name.clone()).collect()
}

impl Entity {
    /// How it does, by each of the five monitors.
    #[must_use]
    pub fn health(&self, now: Now) -> InstanceHealth {
        of_instance(&self.target.instance, &self.signs(now), self.at_rest())
    }

    fn signs(&self, now: Now) -> Vec<Sign> {
        // The budget's word lasts for as long as its windows say.
        let mut votes = self.votes(now);
        votes.retain(|vote| vote.voter != Voter::Budget);
        let bad = |vote: &Vote| Sign {
            monitor: match vote.detector {
                CERTIFICATE => Monitor::Security,
                _ => self.monitor_of(&vote.voter),
            },
            source: vote.voter.to_string(),
            word: Word::Bad(vote.severity, vote.weight, vote.text.clone()),
        };
        let mut signs: Vec<Sign> = votes.iter().map(bad).collect();
        let voted = |voter: &Voter| votes.iter().any(|vote| vote.voter == *voter);
        let sources = self.has_process.then_some(Voter::Process).into_iter();
        let sources = sources.chain(self.probes.keys().cloned().map(Voter::Probe));
        for voter in sources.chain(self.series.keys().cloned().map(Voter::Series)) {
            if !voted(&voter) {
                signs.push(Sign {
                    monitor: self.monitor_of(&voter),
                    source: voter.to_string(),
                    word: self.word(&voter, now),
                });
            }
        }
        signs.extend(self.budget_signs(now));
        signs.extend(self.guard_signs(now));
        signs
    }

    /// That the budget burns, and that nobody tells whether it does: either, both, or that all is well.
    fn budget_signs(&self, now: Now) -> Vec<Sign> {
        let Some(budget) = &self.budget else { return Vec::new() };
        let (burns, word) = (budget.burns(), self.word(&Voter::Budget, now));
        let word = Some(word).filter(|word| burns.is_none() || *word != Word::Good);
        let sign = |word| Sign { monitor: Monitor::Performance, source: "budget".to_owned(), word };
        burns.into_iter().chain(word).map(sign).collect()
    }

    /// Whose word somebody's is.
    pub(super) fn monitor_of(&self, voter: &Voter) -> Monitor {
        let role = |name: &str| self.series.get(name).map_or(Role::Other, |series| series.role);
        Monitor::of_voter(voter, |name| (role(name), self.of_host.contains(name)))
    }

    /// What somebody says who does not vote.
    pub(super) fn word(&self, voter: &Voter, now: Now) -> Word {
        match self.said(voter, now) {
            Said::Idle => Word::Waiting,
            Said::Nothing(_) if self.young(now) => Word::Waiting,
            Said::Nothing(why) => Word::Silent(why),
            Said::Word => match voter {
                Voter::Probe(name) => match self.probes.get(name).map(|track| &track.last) {
                    // One that fails for the first time, or of which the process says all that is to be said.
                    Some(Some(Outcome::Bad(failure))) => {
                        Word::Bad(Severity::Info, 1, failure.to_string())
                    }
                    _ => Word::Good,
                },
                Voter::Process | Voter::Series(_) | Voter::Together => Word::Good,
                Voter::Agent | Voter::Guard(_) | Voter::Budget => Word::Good,
            },
        }
    }
}
