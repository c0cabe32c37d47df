//! What an agent says of the safety of an instance, as votes that nobody need declare.
//!
//! | sign | said of | it is |
//! |---|---|---|
//! | `unexpected_listeners` | its process | it or a child listens on a port that nothing declares |
//! | `executable_modified` | its process | the file behind it, or its command, is another than at its start |
//! | `privilege_changes` | its process | it, or a child, may do what it could not at its start |
//! | `auth_failures` | the host of an instance without a process | [`STORM`] failed logins within a minute |
//!
//! Each is a fact, and so suffices alone; classes go by these names. An indicator of the same name takes the
//! place of a sign: its limit, or none, is what counts then. A configuration that others changed makes the
//! security monitor degraded while that is recent, is told among its causes for as long as it stands, and opens
//! nothing by itself: to roll one out behind Medic's back is what most roll-outs do.
//!
//! Who looked once and looks no more is silent ([`super::silence`]), and so is an agent of which nothing is heard
//! at all. An agent that speaks of the instance and never spoke of its safety is an older one: that is not watched. What a
//! host never counted and cannot (it has no such file) is in error, and no incident: nothing ended. Of a process
//! that does not run, or began a moment ago, nobody is expected to speak.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use medic_proto::fleet::v1::ProcessGuard;
use medic_state::{
    manifest::{InstanceSpec, ServiceSpec},
    symptom::Severity,
};

use super::{
    Entity, Now, SILENT_MS,
    silence::Said,
    votes::{CONFIG_RECENT, hard},
};
use crate::detection::{
    ensemble::{Kind, Vote, Voter},
    health::{Monitor, Sign, Word},
    probe::Liveness,
};

const LISTENERS: &str = "unexpected_listeners";
const EXECUTABLE: &str = "executable_modified";
const PRIVILEGES: &str = "privilege_changes";
const FAILURES: &str = "auth_failures";
/// Failed logins on a host within [`WITHIN_MS`] that are a storm. Whoever stands open to the internet sees
/// some every minute; one a second is no forgotten password.
const STORM: f64 = 60.0;
const WITHIN_MS: u64 = 60_000;
/// Counts that are remembered: agents look at their hosts every five seconds.
const COUNTS_MAX: usize = 64;

/// What was last said.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Signs that are looked at.
    on: BTreeSet<&'static str>,
    /// Those that speak of trouble, in words, with a figure.
    bad: BTreeMap<&'static str, (String, f64)>,
    good: u16,
    heard_ms: Option<u64>,
    config: String,
    /// When that was first heard.
    config_ms: u64,
    /// Why the host does not count failed logins.
    uncounted: Option<String>,
    /// Failed logins that the host has counted, and when.
    counts: VecDeque<(u64, f64)>,
}

impl Guard {
    pub(super) fn new(service: &ServiceSpec, instance: &InstanceSpec) -> Self {
        let all: &[&'static str] = match (&service.process, &instance.agent) {
            (_, None) => &[],
            (Some(_), Some(_)) => &[LISTENERS, EXECUTABLE, PRIVILEGES],
            (None, Some(_)) => &[FAILURES],
        };
        let replaced = |sign: &str| service.indicators.iter().any(|one| one.name == sign);
        let on = all.iter().copied().filter(|sign| !replaced(sign)).collect();
        Self { on, ..Self::default() }
    }

    /// Who may vote.
    pub(super) fn voters(&self) -> impl Iterator<Item = Voter> {
        self.on.iter().map(|sign| Voter::Guard((*sign).to_owned()))
    }

    pub(super) fn watches(&self, sign: &str) -> bool {
        self.on.contains(sign)
    }

    /// Looks in a row at which a sign spoke of no trouble.
    pub(super) fn good(&self, sign: &str) -> u16 {
        if self.bad.contains_key(sign) { 0 } else { self.good }
    }

    pub(super) const fn heard_ms(&self) -> Option<u64> {
        self.heard_ms
    }

    /// An agent spoke of the process that runs.
    pub(super) fn note(&mut self, said: &ProcessGuard, now: Now) {
        let mut bad = BTreeMap::new();
        if said.unexpected_listeners > 0 {
            let more = (said.unexpected_listeners as usize).saturating_sub(said.listeners.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let text = format!("it listens at {}{more}, undeclared", said.listeners.join(", "));
            bad.insert(LISTENERS, (text, f64::from(said.unexpected_listeners)));
        }
        if !said.executable.is_empty() {
            bad.insert(EXECUTABLE, (format!("{} since it was started", said.executable), 1.0));
        }
        if said.privilege_changes > 0 {
            let text = format!("its rights changed: {}", said.privileges);
            bad.insert(PRIVILEGES, (text, said.privilege_changes as f64));
        }
        if self.config != said.config {
            self.config.clone_from(&said.config);
            self.config_ms = now.mono_ms;
        }
        self.take(bad, now);
    }

    /// Its process is another, or runs no longer: what was said is of the past.
    pub(super) fn forget(&mut self) {
        self.config.clear();
        self.bad.retain(|sign, _| *sign == FAILURES);
        self.good = 0;
    }

    /// Nobody counts failed logins, for a reason that the agent gives; `ended`: what that is, where there is none and
    /// they were counted before.
    pub(super) fn uncounted(&mut self, why: Option<String>, ended: &str) {
        let ended = || self.heard_ms.map(|_| ended.to_owned());
        self.uncounted = why.or_else(ended).or(self.uncounted.take());
    }

    /// So many logins have failed on the host since anybody counts.
    pub(super) fn count(&mut self, failures: f64, now: Now) {
        if !self.watches(FAILURES) {
            return;
        }
        self.uncounted = None;
        let lately = |at: u64| now.mono_ms.saturating_sub(at) <= WITHIN_MS;
        // What came while nobody counted came at no rate that is known.
        if self.heard_ms.is_some_and(|at| !lately(at)) {
            self.counts.clear();
        }
        // The file was rotated.
        if self.counts.back().is_some_and(|(_, last)| failures < *last) {
            self.counts.clear();
        }
        if self.counts.back().is_none_or(|(_, last)| failures > *last || self.counts.len() < 2) {
            self.counts.push_back((now.mono_ms, failures));
        }
        while self.counts.len() > COUNTS_MAX
            || self.counts.get(1).is_some_and(|(at, _)| !lately(*at))
        {
            self.counts.pop_front();
        }
        // The first is what had failed when the minute began.
        let before = self.counts.front().map_or(failures, |(_, count)| *count);
        let more = failures - before;
        let text = format!("{more:.0} logins failed on its host within a minute");
        let bad = (more >= STORM).then_some((FAILURES, (text, more)));
        self.take(bad.into_iter().collect(), now);
    }

    fn take(&mut self, mut bad: BTreeMap<&'static str, (String, f64)>, now: Now) {
        bad.retain(|sign, _| self.on.contains(sign));
        // Good anew after any change for the better.
        let ended = self.bad.keys().any(|sign| !bad.contains_key(sign));
        self.good = if ended { 1 } else { self.good.saturating_add(1) };
        self.bad = bad;
        self.heard_ms = Some(now.mono_ms);
    }

    /// What speaks of trouble.
    pub(super) fn votes(&self) -> impl Iterator<Item = Vote> {
        self.bad.iter().map(|(sign, (text, value))| Vote {
            text: text.clone(),
            value: format!("{value:.0}"),
            expected: "0".to_owned(),
            detector: "limit",
            ..hard(Voter::Guard((*sign).to_owned()), Kind::Saturation, Severity::Warning)
        })
    }
}

impl Entity {
    /// For the security monitor, beside the votes.
    pub(super) fn guard_signs(&self, now: Now) -> impl Iterator<Item = Sign> {
        let monitor = Monitor::Security;
        let watched = self.guard.voters().next().filter(|_| !self.guard_untold(now));
        let watched = watched.map(|voter| Sign {
            monitor,
            source: "guard".to_owned(),
            word: self.word(&voter, now),
        });
        let config = (!self.guard.config.is_empty()).then(|| {
            let recent = self.config_recent(now);
            let (severity, weight) =
                if recent { (Severity::Warning, 2) } else { (Severity::Info, 1) };
            let word = Word::Bad(severity, weight, self.guard.config.clone());
            Sign { monitor, source: "guard.config".to_owned(), word }
        });
        watched.into_iter().chain(config)
    }

    /// Whether its configuration was changed a moment ago, by its host's clock if that is told.
    fn config_recent(&self, now: Now) -> bool {
        let changed = self.process.config_changed;
        if changed.0 > 0 {
            return now.wall.since(changed) <= CONFIG_RECENT;
        }
        now.mono_ms.saturating_sub(self.guard.config_ms) <= CONFIG_RECENT.0
    }

    /// What those say who watch over its safety.
    pub(super) fn said_guard(&self, now: Now) -> Said {
        let nothing = |why: &str| Said::Nothing(why.to_owned());
        if let Some(why) = &self.guard.uncounted {
            return Said::Nothing(why.clone());
        }
        if self.has_process {
            match self.process.liveness {
                Liveness::Running => {}
                Liveness::Unknown => return nothing("its agent does not speak of it"),
                Liveness::Dead | Liveness::Paused | Liveness::Stopped => return Said::Idle,
            }
        }
        match self.guard.heard_ms {
            None if self.agent_away_ms.is_some() => nothing("its agent is away"),
            None => Said::Idle,
            Some(heard) if self.has_process => {
                let since = heard.max(self.process.since_ms).max(self.agent_back_ms);
                if now.mono_ms.saturating_sub(since) >= SILENT_MS {
                    return nothing("its agent no longer says whether it is what was started");
                }
                // Of this process it has not spoken yet.
                if self.guard.good == 0 { Said::Idle } else { Said::Word }
            }
            Some(_) => Said::Word,
        }
    }

    /// Whether nobody ever spoke of its safety, nor is expected to.
    pub(super) fn guard_untold(&self, now: Now) -> bool {
        self.guard.heard_ms.is_none() && self.said_guard(now) == Said::Idle
    }

    /// Takes note of whether somebody watches over its safety.
    pub(super) fn heed_guard(&mut self, now: Now) {
        if self.guard.on.is_empty() || self.said_guard(now) == Said::Idle {
            return;
        }
        let voters: Vec<Voter> = self.guard.voters().collect();
        voters.iter().for_each(|voter| self.heed(voter, now));
    }
}
