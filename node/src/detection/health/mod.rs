//! How each instance, and each service, does: the five monitors, and what they come to.
//!
//! ```text
//!   process, agent, host ──► infrastructure ┐
//!   probes, failures     ──► application    │
//!   calls to others      ──► dependencies   ├─► worst of them ──► instance ──► service
//!   logins, listeners,   ──► security       │    (score: least)     (score: mean)
//!   files, certificates                     │
//!   latency, saturation, ──► performance    ┘
//!   error budget
//! ```
//!
//! How the services do on which a service depends is added where all are known (`callees`).
//!
//! A monitor whose sources are silent is in [`Status::Error`], never healthy: not to know is a finding of its
//! own. Pure: what was seen comes from the watched entity as [`Sign`]s.

mod book;
mod burn;
mod callees;
mod monitor;
mod shown;

use std::collections::BTreeMap;

use medic_state::symptom::Severity;
use minicbor::{Decode, Encode};
use serde::Serialize;

pub use self::{
    book::{HealthBook, OwnHealth},
    burn::{Burn, Burning},
    monitor::Monitor,
};

/// How something does; the later, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Status {
    /// Nothing is declared that could be looked at.
    #[n(0)]
    NotWatched,
    /// Stopped on purpose.
    #[n(1)]
    Stopped,
    /// Nothing is wrong.
    #[n(2)]
    Healthy,
    /// Nobody has looked yet, or not for long enough to say.
    #[n(3)]
    Waiting,
    /// Something is wrong that users may notice.
    #[n(4)]
    Degraded,
    /// What should say how it does says nothing.
    #[n(5)]
    Error,
    /// It does not do its work.
    #[n(6)]
    Unhealthy,
}

impl Status {
    /// All of them, the worst last.
    pub const ALL: [Self; 7] = [
        Self::NotWatched,
        Self::Stopped,
        Self::Healthy,
        Self::Waiting,
        Self::Degraded,
        Self::Error,
        Self::Unhealthy,
    ];

    /// Its name, as in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotWatched => "not_watched",
            Self::Stopped => "stopped",
            Self::Healthy => "healthy",
            Self::Waiting => "waiting",
            Self::Degraded => "degraded",
            Self::Error => "error",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What one source says.
#[derive(Clone, Debug, PartialEq)]
pub struct Sign {
    /// Of which monitor.
    pub monitor: Monitor,
    /// `process`, `probe.http`, `metric.latency`, …
    pub source: String,
    /// What.
    pub word: Word,
}

/// A source's word.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// All is well.
    Good,
    /// It has not been looked at yet.
    Waiting,
    /// It says nothing, for this reason.
    Silent(String),
    /// Something is wrong: how bad, how sure (1: a second opinion is wanted, 2: certain), and in words.
    Bad(Severity, u8, String),
}

/// Points that are lost by what is wrong; a soft word costs what the next lesser severity costs.
const fn cost(severity: Severity, weight: u8) -> u8 {
    match (severity, weight >= 2) {
        (Severity::Critical, true) => 100,
        (Severity::Critical, false) | (Severity::Warning, true) => 40,
        (Severity::Warning, false) | (Severity::Info, true) => 15,
        (Severity::Info, false) => 5,
    }
}

/// Points of a monitor that says nothing: half of what could be known.
const SCORE_OF_SILENCE: u8 = 50;

impl Word {
    fn status(&self) -> Status {
        match self {
            Self::Good => Status::Healthy,
            Self::Waiting => Status::Waiting,
            Self::Silent(_) => Status::Error,
            Self::Bad(severity, weight, _) => match cost(*severity, *weight) {
                100 => Status::Unhealthy,
                40 => Status::Degraded,
                _ => Status::Healthy,
            },
        }
    }

    fn score(&self) -> Option<u8> {
        match self {
            Self::Good => Some(100),
            Self::Waiting => None,
            Self::Silent(_) => Some(SCORE_OF_SILENCE),
            Self::Bad(severity, weight, _) => Some(100 - cost(*severity, *weight)),
        }
    }
}

/// One monitor of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct MonitorHealth {
    /// Which.
    #[n(0)]
    pub monitor: Monitor,
    /// The worst of its sources.
    #[n(1)]
    pub status: Status,
    /// 0 (does not work) to 100; absent while nothing is known.
    #[n(2)]
    pub score: Option<u8>,
    /// What is wrong, the worst first.
    #[n(3)]
    pub causes: Vec<String>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct InstanceHealth {
    /// Its name.
    #[n(0)]
    pub instance: String,
    /// The worst of its monitors.
    #[n(1)]
    pub status: Status,
    /// The least of its monitors' scores.
    #[n(2)]
    pub score: Option<u8>,
    /// All five; none when nobody has told.
    #[n(3)]
    pub monitors: Vec<MonitorHealth>,
}

impl InstanceHealth {
    /// Whether its scores are scores: what came from elsewhere may hold anything.
    fn scored(&self) -> bool {
        let all = self.monitors.iter().map(|monitor| monitor.score).chain([self.score]);
        all.flatten().all(|score| score <= 100)
    }
}

/// A service, as far as one node watches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceHealth {
    /// Tenant.
    pub tenant: String,
    /// Service.
    pub service: String,
    /// Unhealthy when no instance works, degraded when one has trouble.
    pub status: Status,
    /// The mean of its running instances' scores.
    pub score: Option<u8>,
    /// Its instances.
    pub instances: Vec<InstanceHealth>,
}

/// Judges one instance by what its sources say. `stopped`: on purpose.
#[must_use]
pub fn of_instance(name: &str, signs: &[Sign], stopped: bool) -> InstanceHealth {
    let monitors: Vec<MonitorHealth> =
        Monitor::ALL.map(|monitor| of_monitor(monitor, signs)).into();
    let (status, score) = if stopped { (Status::Stopped, None) } else { worst(&monitors) };
    InstanceHealth { instance: name.to_owned(), status, score, monitors }
}

/// What monitors come to.
fn worst(monitors: &[MonitorHealth]) -> (Status, Option<u8>) {
    let status = monitors.iter().map(|monitor| monitor.status).max();
    let score = monitors.iter().filter_map(|monitor| monitor.score).min();
    (status.unwrap_or(Status::NotWatched), score)
}

fn of_monitor(monitor: Monitor, signs: &[Sign]) -> MonitorHealth {
    let own = || signs.iter().filter(|sign| sign.monitor == monitor);
    let status = own().map(|sign| sign.word.status()).max().unwrap_or(Status::NotWatched);
    let score = own().filter_map(|sign| sign.word.score()).min();
    let mut causes: Vec<(Status, Option<u8>, String)> = own()
        .filter_map(|sign| {
            let text = match &sign.word {
                Word::Good | Word::Waiting => return None,
                Word::Silent(why) => format!("{} says nothing: {why}", sign.source),
                Word::Bad(_, _, text) => text.clone(),
            };
            Some((sign.word.status(), sign.word.score(), text))
        })
        .collect();
    causes.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then_with(|| a.2.cmp(&b.2)));
    let causes = causes.into_iter().map(|(_, _, text)| text).collect();
    MonitorHealth { monitor, status, score, causes }
}

/// Puts instances together by service. `instances`: tenant, service, health.
#[must_use]
pub fn of_services(instances: Vec<(String, String, InstanceHealth)>) -> Vec<ServiceHealth> {
    let mut services: BTreeMap<(String, String), Vec<InstanceHealth>> = BTreeMap::new();
    for (tenant, service, health) in instances {
        services.entry((tenant, service)).or_default().push(health);
    }
    let of = |((tenant, service), instances): ((String, String), Vec<InstanceHealth>)| {
        let running = || instances.iter().filter(|one| one.status != Status::Stopped);
        let scores: Vec<u32> = running().filter_map(|one| one.score.map(u32::from)).collect();
        let count = u32::try_from(scores.len()).unwrap_or(u32::MAX);
        let mean = scores.iter().sum::<u32>().checked_div(count);
        let worst = running().map(|one| one.status).max().unwrap_or(Status::Stopped);
        let least = running().map(|one| one.status).min().unwrap_or(Status::Stopped);
        let status = if worst == Status::Unhealthy && least != Status::Unhealthy {
            Status::Degraded
        } else {
            worst
        };
        let score = mean.and_then(|mean| u8::try_from(mean).ok());
        ServiceHealth { tenant, service, status, score, instances }
    };
    services.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(monitor: Monitor, word: Word) -> Sign {
        Sign { monitor, source: "probe.http".to_owned(), word }
    }

    fn bad(severity: Severity, weight: u8) -> Word {
        Word::Bad(severity, weight, format!("{severity:?} {weight}"))
    }

    #[test]
    fn a_silent_monitor_is_in_error_and_never_healthy() {
        let silent = Word::Silent("connection refused".to_owned());
        let signs = [sign(Monitor::Application, Word::Good), sign(Monitor::Security, silent)];
        let health = of_instance("web-1", &signs, false);
        assert_eq!((health.status, health.score), (Status::Error, Some(50)));
        let security = &health.monitors[3];
        assert_eq!(security.causes, ["probe.http says nothing: connection refused"]);
        assert_eq!(health.monitors[0].status, Status::NotWatched);
        assert_eq!(of_instance("web-1", &signs, true).status, Status::Stopped);
    }

    #[test]
    fn the_worst_decides_and_a_soft_word_costs_less() {
        for (word, status, score) in [
            (bad(Severity::Critical, 2), Status::Unhealthy, 0),
            (bad(Severity::Critical, 1), Status::Degraded, 60),
            (bad(Severity::Warning, 2), Status::Degraded, 60),
            (bad(Severity::Warning, 1), Status::Healthy, 85),
            (bad(Severity::Info, 1), Status::Healthy, 95),
            (Word::Good, Status::Healthy, 100),
        ] {
            let signs = [sign(Monitor::Performance, word), sign(Monitor::Application, Word::Good)];
            let health = of_instance("web-1", &signs, false);
            assert_eq!((health.status, health.score), (status, Some(score)));
        }
        let waiting = of_instance("web-1", &[sign(Monitor::Application, Word::Waiting)], false);
        assert_eq!((waiting.status, waiting.score), (Status::Waiting, None));
    }

    #[test]
    fn a_service_is_unhealthy_only_when_nobody_works() {
        let one = |word| of_instance("i", &[sign(Monitor::Application, word)], false);
        let service = |all: Vec<InstanceHealth>| {
            let named = all.into_iter().map(|one| ("t".to_owned(), "web".to_owned(), one));
            let mut services = of_services(named.collect());
            let service = services.remove(0);
            (service.status, service.score)
        };
        let down = || one(bad(Severity::Critical, 2));
        assert_eq!(service(vec![down(), down()]), (Status::Unhealthy, Some(0)));
        assert_eq!(service(vec![down(), one(Word::Good)]), (Status::Degraded, Some(50)));
        assert_eq!(service(vec![one(Word::Good)]), (Status::Healthy, Some(100)));
        let stopped = of_instance("i", &[], true);
        assert_eq!(service(vec![stopped.clone(), one(Word::Good)]), (Status::Healthy, Some(100)));
        assert_eq!(service(vec![stopped]), (Status::Stopped, None));
    }
}
