//! When the law is told of a finding, told again, and told that it is over.

use super::{
    AGAIN_MS, Active, Change, Circumstances, Entity, GRACE_MS, Now, REPEAT_MS, SILENT_MS, Track,
};
use crate::detection::{
    detector::GOOD_AFTER,
    ensemble::{Finding, Kind, Voter},
    probe::Liveness,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodness {
    Good,
    NotYet,
    /// No data for long.
    Silent,
    /// No longer declared.
    Gone,
}

impl Entity {
    /// Whether a finding of this kind would be raised, being neither active, outranked nor treated.
    pub(super) fn news(&self, kind: Kind, circumstances: &Circumstances) -> bool {
        let outranked = self.active.keys().any(|active| *active == kind || active.outranks(kind));
        !(circumstances.treated || outranked)
    }

    pub(super) fn raise(&mut self, finding: Finding, circumstances: &Circumstances, now: Now) {
        if let Some(active) = self.active.get_mut(&finding.kind) {
            active.voters.extend(finding.voters);
            return;
        }
        if !self.news(finding.kind, circumstances) {
            return;
        }
        let since = self.suspected.unwrap_or(now.wall);
        let (voters, facts) = (finding.voters, finding.facts);
        let active = Active { voters, facts, since, told: None, tried_ms: None };
        self.active.insert(finding.kind, active);
    }

    /// A report, when one is due. `unheld`: no open incident holds it, so one that did has ended
    /// while the fault is still there, or there again: if that is known from after what ended it.
    pub(super) fn report(&mut self, finding: Finding, unheld: bool, now: Now) -> Option<Change> {
        if unheld && !finding.voters.iter().any(|voter| self.fresh(voter)) {
            return None;
        }
        let (process, previous) = (self.process.liveness, &self.process.previous_config);
        let active = self.active.get_mut(&finding.kind)?;
        active.voters.extend(finding.voters.iter().cloned());
        active.facts.extend(finding.facts.iter().cloned());
        let rested = active.tried_ms.is_none_or(|at| now.mono_ms.saturating_sub(at) >= AGAIN_MS);
        let due = active.told.as_ref().is_none_or(|told| {
            now.mono_ms.saturating_sub(told.at_ms) >= REPEAT_MS
                || (told.held && unheld)
                || finding.severity > told.severity
                || active.voters != told.voters
                || active.facts != told.facts
                || process != told.process
                || *previous != told.previous_config
        });
        if !(due && rested) {
            return None;
        }
        active.tried_ms = Some(now.mono_ms);
        let since = active.since;
        Some(Change::Report(finding.kind, Box::new(self.symptom(finding, since, now))))
    }

    pub(super) fn clear(&mut self, kind: Kind, now: Now) -> Option<Change> {
        let fingerprint = self.fingerprint(kind);
        let active = self.active.get_mut(&kind)?;
        let rested = active.tried_ms.is_none_or(|at| now.mono_ms.saturating_sub(at) >= AGAIN_MS);
        if !rested {
            return None;
        }
        active.tried_ms = Some(now.mono_ms);
        Some(Change::Clear(kind, fingerprint))
    }

    /// Whether a finding that nobody votes for is over.
    pub(super) fn over(&self, kind: Kind, now: Now) -> bool {
        if self.process.liveness == Liveness::Stopped {
            // Stopped on purpose: `good` counts these reports too.
            return self.process.track.good >= GOOD_AFTER;
        }
        let Some(active) = self.active.get(&kind) else { return false };
        if kind == Kind::MonitorSilent {
            return self.all_speak(&active.voters, now);
        }
        let (mut good, mut waiting) = (0, 0);
        for voter in &active.voters {
            match self.goodness(voter, now) {
                Goodness::Good => good += 1,
                Goodness::NotYet => waiting += 1,
                Goodness::Silent | Goodness::Gone => {}
            }
        }
        let nobody_left =
            active.voters.iter().all(|voter| self.goodness(voter, now) == Goodness::Gone);
        waiting == 0 && (good > 0 || nobody_left)
    }

    fn goodness(&self, voter: &Voter, now: Now) -> Goodness {
        let of_track = |track: &Track| {
            if track.good >= GOOD_AFTER {
                Goodness::Good
            } else if now.mono_ms.saturating_sub(track.heard_ms.max(self.begun_ms)) >= SILENT_MS {
                Goodness::Silent
            } else {
                Goodness::NotYet
            }
        };
        match voter {
            Voter::Process => of_track(&self.process.track),
            Voter::Probe(name) => self.probes.get(name).map_or(Goodness::Gone, of_track),
            Voter::Series(name) => match self.series.get(name) {
                None => Goodness::Gone,
                Some(series) if series.good >= GOOD_AFTER => Goodness::Good,
                Some(_) => Goodness::NotYet,
            },
            Voter::Guard(sign) if !self.guard.watches(sign) => Goodness::Gone,
            Voter::Guard(sign) if self.guard.good(sign) >= GOOD_AFTER => Goodness::Good,
            Voter::Guard(_) => {
                let heard = self.guard.heard_ms().unwrap_or_default().max(self.begun_ms);
                let silent = now.mono_ms.saturating_sub(heard) >= SILENT_MS;
                if silent { Goodness::Silent } else { Goodness::NotYet }
            }
            Voter::Budget => match &self.budget {
                None => Goodness::Gone,
                Some(budget) if budget.vote(now).is_none() => Goodness::Good,
                Some(_) => Goodness::NotYet,
            },
            Voter::Together if self.together.good() => Goodness::Good,
            Voter::Together => Goodness::NotYet,
            Voter::Agent => {
                let back = now.mono_ms.saturating_sub(self.agent_back_ms) >= GRACE_MS;
                if self.agent_away_ms.is_none() && back { Goodness::Good } else { Goodness::NotYet }
            }
        }
    }
}
