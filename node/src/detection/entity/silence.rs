//! Who falls silent: a monitor without data is a finding of its own, for what it would say nobody knows.
//!
//! ```text
//!   looks at each source ─► quiet (since, looks) ── a minute, 3 looks ──► monitor-silent ── 2 good looks ──► clear
//! ```
//!
//! What it must not mistake for silence:
//! * the start of a watch (a restart, a handover): clocks begin with the watch, and whoever was never heard
//!   in it gets five minutes, not one; a finding that the law holds from an earlier owner is cleared only
//!   when everybody was heard here;
//! * idleness: a ratio or a quantile over no requests is a word, and counters that a process has not made
//!   yet are none missed;
//! * what another finding explains (the process is dead, it does not answer, its agent is lost), and
//!   treatment: clocks begin anew after it;
//! * a stop on purpose, or a standby nobody says runs: nobody is expected to speak;
//! * an agent that never spoke of safety, or a host that never counted logins: see [`super::guard`].
//!
//! The error budget is as silent as the indicator that it is of, and has a word once that had a value.
//!
//! Its severity is the least: it hurts nobody, explains nothing that others feel, and nothing is restarted for
//! it. Deliberately absent: silence of this node itself, which then tells nobody anything.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Ppm,
    manifest::{IndicatorSource, ServiceSpec},
    symptom::{MAX_SIGNALS, Severity, Signal},
};

use super::{Circumstances, Entity, Now, SILENT_MS};
use crate::detection::{
    ensemble::{Finding, Kind, Voter},
    health::Monitor,
    indicator,
    probe::{Liveness, Outcome},
};

/// Silent for so long: a restart of an exporter takes seconds, and nothing is lost by waiting.
const OPENS_MS: u64 = 60_000;
/// The same for whoever was never heard in this watch.
const NEVER_OPENS_MS: u64 = 300_000;
/// And for so many looks: one failed look at a long interval is no silence.
const OPENS_LOOKS: u16 = 3;
/// Looks in a row at which it speaks, after which it is silent no more.
const BACK_LOOKS: u16 = 2;

/// What a source says, if anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Something, good or bad.
    Word,
    /// That there was nothing to measure.
    Idle,
    /// Nothing, for this reason.
    Nothing(String),
}

/// Somebody who says nothing.
#[derive(Clone, Debug)]
struct Quiet {
    since_ms: u64,
    looks: u16,
    /// Looks in a row at which it spoke.
    back: u16,
    why: String,
}

/// Who was heard, and who is silent.
#[derive(Debug, Default)]
pub(super) struct Silences {
    /// Indicators of counted events: their series begin with the first event.
    counted: BTreeSet<String>,
    /// Those of them with a value since the process began.
    valued: BTreeSet<String>,
    heard: BTreeSet<Voter>,
    quiet: BTreeMap<Voter, Quiet>,
}

impl Silences {
    /// Nobody was heard yet.
    pub(super) fn new(service: &ServiceSpec) -> Self {
        let counted = service
            .indicators
            .iter()
            .filter(|indicator| !matches!(indicator.source, IndicatorSource::Gauge(_)));
        Self { counted: counted.map(|one| one.name.clone()).collect(), ..Self::default() }
    }

    /// An indicator has a value.
    pub(super) fn valued(&mut self, name: &str) {
        if self.counted.contains(name) && !self.valued.contains(name) {
            self.valued.insert(name.to_owned());
        }
    }

    /// The process is another: its counters begin with its first events.
    pub(super) fn process_changed(&mut self) {
        self.valued.clear();
    }

    /// Whether an indicator without series has merely nothing to count yet.
    pub(super) fn not_begun(&self, name: &str, why: &str) -> bool {
        indicator::no_series(why) && self.counted.contains(name) && !self.valued.contains(name)
    }

    fn note(&mut self, voter: &Voter, said: Said, now: Now) {
        let Said::Nothing(why) = said else {
            if !self.heard.contains(voter) {
                self.heard.insert(voter.clone());
            }
            if let Some(quiet) = self.quiet.get_mut(voter) {
                quiet.back = quiet.back.saturating_add(1);
                if quiet.back >= BACK_LOOKS {
                    self.quiet.remove(voter);
                }
            }
            return;
        };
        let fresh = Quiet { since_ms: now.mono_ms, looks: 0, back: 0, why: String::new() };
        let quiet = self.quiet.entry(voter.clone()).or_insert(fresh);
        quiet.looks = quiet.looks.saturating_add(1);
        (quiet.back, quiet.why) = (0, why);
    }

    fn ripe(&self, voter: &Voter, quiet: &Quiet, now: Now) -> bool {
        let patience = match (self.heard.contains(voter), voter) {
            (true, _) => OPENS_MS,
            (false, Voter::Guard(_)) => return false,
            (false, _) => NEVER_OPENS_MS,
        };
        let lasted = now.mono_ms.saturating_sub(quiet.since_ms);
        quiet.back == 0 && quiet.looks >= OPENS_LOOKS && lasted >= patience
    }
}

impl Entity {
    /// Takes note of who says something at a look.
    pub(super) fn heed(&mut self, voter: &Voter, now: Now) {
        let said = self.said(voter, now);
        self.silences.note(voter, said, now);
    }

    /// The same, of all indicators and the budget.
    pub(super) fn heed_indicators(&mut self, now: Now) {
        let names: Vec<Voter> = self.series.keys().cloned().map(Voter::Series).collect();
        let budget = self.budget.as_ref().map(|_| Voter::Budget);
        names.iter().chain(&budget).for_each(|voter| self.heed(voter, now));
    }

    /// Whether the watch began so short a time ago that nobody can be missed.
    pub(super) const fn young(&self, now: Now) -> bool {
        now.mono_ms.saturating_sub(self.begun_ms) < SILENT_MS
    }

    /// What somebody says now.
    pub(super) fn said(&self, voter: &Voter, now: Now) -> Said {
        let nothing = |why: &str| Said::Nothing(why.to_owned());
        match voter {
            Voter::Process => match self.process.liveness {
                Liveness::Unknown => nothing("its agent does not speak of it"),
                _ => Said::Word,
            },
            Voter::Probe(name) => match self.probes.get(name).map(|track| &track.last) {
                Some(Some(Outcome::NoData(why))) => Said::Nothing(why.clone()),
                Some(None) => nothing("it was never looked at"),
                Some(Some(_)) | None => Said::Word,
            },
            Voter::Series(name) => self.said_series(name),
            Voter::Budget => match &self.budget {
                Some(budget) => match self.said_series(&budget.indicator) {
                    Said::Idle if budget.fed() => Said::Word,
                    said => said,
                },
                None => Said::Word,
            },
            Voter::Guard(_) => self.said_guard(now),
            Voter::Together | Voter::Agent => Said::Word,
        }
    }

    fn said_series(&self, name: &str) -> Said {
        let value = self.series.get(name).and_then(|series| series.last.as_ref());
        let told = self.silence.get(name);
        // That there is no series says less than the agent of its host.
        let less = told.is_none_or(|why| indicator::no_series(why) || indicator::needs_second(why));
        let unread = self.unread.why(name).filter(|_| less);
        match (value, unread.or(told)) {
            (Some(_), _) => Said::Word,
            (None, Some(why)) if indicator::idle(why) => Said::Idle,
            (None, Some(why)) if self.silences.not_begun(name, why) => Said::Idle,
            (None, Some(why)) => Said::Nothing(why.clone()),
            (None, None) => Said::Nothing("no value has come".to_owned()),
        }
    }

    /// Whether nobody is expected to speak: stopped on purpose, or a standby nobody says runs.
    pub(super) fn at_rest(&self) -> bool {
        self.process.liveness == Liveness::Stopped
            || (self.standby && self.process.liveness == Liveness::Unknown)
    }

    /// Forgets silence at rest, and begins its clocks anew while something else explains it.
    pub(super) fn excuse_silence(&mut self, circumstances: &Circumstances, now: Now) {
        if self.at_rest() {
            self.silences.quiet.clear();
        }
        let explained = self.active.keys().any(|kind| kind.outranks(Kind::MonitorSilent));
        if explained || circumstances.treated {
            self.silences.quiet.values_mut().for_each(|quiet| quiet.since_ms = now.mono_ms);
        }
    }

    /// Those who have said nothing for long enough to tell.
    pub(super) fn silent(&self, now: Now) -> Option<Finding> {
        let quiet = self.silences.quiet.iter();
        let ripe: Vec<(&Voter, &Quiet)> =
            quiet.filter(|(voter, quiet)| self.silences.ripe(voter, quiet, now)).collect();
        if ripe.is_empty() {
            return None;
        }
        let monitors: BTreeSet<Monitor> =
            ripe.iter().map(|(voter, _)| self.monitor_of(voter)).collect();
        let monitors: Vec<&str> = monitors.into_iter().map(Monitor::as_str).collect();
        let reasons: BTreeSet<&str> = ripe.iter().map(|(_, quiet)| quiet.why.as_str()).collect();
        let reasons: Vec<&str> = reasons.into_iter().take(3).collect();
        let signal = |(voter, quiet): &(&Voter, &Quiet)| Signal {
            name: voter.to_string(),
            value: format!("no data: {}", quiet.why),
            expected: "data".to_owned(),
            detector: "silence".to_owned(),
            p_value: Ppm(0),
        };
        let (kind, who) = (Kind::MonitorSilent, monitors.join(", "));
        Some(Finding {
            kind,
            severity: Severity::Info,
            summary: format!("{}: {who} ({})", kind.says(), reasons.join("; ")),
            p_value: Ppm(0),
            signals: ripe.iter().take(MAX_SIGNALS).map(signal).collect(),
            time_to_event: None,
            voters: ripe.iter().map(|(voter, _)| (*voter).clone()).collect(),
            facts: BTreeSet::new(),
            indicator: None,
        })
    }

    /// Whether everybody who was silent speaks, or is declared no longer.
    pub(super) fn all_speak(&self, voters: &BTreeSet<Voter>, now: Now) -> bool {
        voters.iter().all(|voter| {
            let gone = match voter {
                Voter::Process => !self.has_process,
                Voter::Probe(name) => !self.probes.contains_key(name),
                Voter::Series(name) => !self.series.contains_key(name),
                Voter::Guard(sign) => {
                    // Who never spoke in this watch cannot have been missed by it.
                    let untold = !self.young(now) && self.guard.heard_ms().is_none();
                    untold || !self.guard.watches(sign)
                }
                Voter::Budget => self.budget.is_none(),
                Voter::Together | Voter::Agent => true,
            };
            gone || (self.silences.heard.contains(voter)
                && !self.silences.quiet.contains_key(voter))
        })
    }
}
