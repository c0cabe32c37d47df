//! What each observer of an instance votes for.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Millis, Timestamp,
    symptom::{ALTHOUGH_USUAL, LIMIT, Severity, Symptom},
};

use super::{AGENT_LOST_MS, Entity, GRACE_MS, Now, Track, prognosis::of_series, text::shown};
use crate::detection::{
    detector::{Reading, Role, Series},
    ensemble::{Finding, Kind, Vote, Voter},
    predict::forecast::Forecast,
    probe::{CERTIFICATE, Failure, Liveness, Outcome},
};

/// From this many bad outcomes in a row a probe suffices alone.
const HARD_AFTER: u16 = 2;
/// An odd streak less likely than this suffices alone.
pub(super) const HARD_P: f64 = 1e-6;
/// The weight of a vote that suffices alone.
const ALONE: u8 = 2;
/// What odd values say at the most before it is known that they last.
const HICCUP_P: f64 = 1e-3;
/// Streak of an odd value that counts as a soft vote.
const SOFT_AFTER: u16 = 2;
/// A configuration change this recent is named in the labels, and worth a look where nobody ordered it.
pub(super) const CONFIG_RECENT: Millis = Millis::from_secs(600);

impl Entity {
    /// All present votes.
    pub(super) fn votes(&self, now: Now) -> Vec<Vote> {
        let liveness = self.process.liveness;
        let mut votes = Vec::new();
        votes.extend(self.agent_vote(now));
        let meant_to_run = match liveness {
            Liveness::Stopped => false,
            Liveness::Unknown => !self.standby,
            Liveness::Running | Liveness::Paused | Liveness::Dead => true,
        };
        if !meant_to_run {
            return votes;
        }
        votes.extend(self.process_vote());
        let young = self.process.incarnation.is_some()
            && now.mono_ms.saturating_sub(self.process.since_ms) < GRACE_MS;
        if !young {
            votes.extend(self.probes.iter().filter_map(|(name, track)| probe_vote(name, track)));
        }
        let lasts = |series: &Series| self.lasting.lasts(series);
        votes.extend(self.series.values().filter_map(|one| series_vote(one, lasts(one))));
        votes.extend(self.together_vote());
        votes.extend(self.guard.votes());
        votes.extend(self.budget.as_ref().and_then(|budget| budget.vote(now)));
        votes
    }

    /// Who could vote for a kind.
    pub(super) fn eligible(&self, kind: Kind) -> BTreeSet<Voter> {
        let series = |roles: &[Role]| {
            let fitting = self.series.values().filter(|series| roles.contains(&series.role));
            fitting.map(|series| Voter::Series(series.name.clone())).collect::<Vec<_>>()
        };
        let probes = || self.probes.keys().map(|name| Voter::Probe(name.clone()));
        match kind {
            Kind::Down | Kind::Unresponsive => {
                probes().chain(self.has_process.then_some(Voter::Process)).collect()
            }
            Kind::Errors => {
                let budget = self.budget.as_ref().map(|_| Voter::Budget);
                series(&[Role::Errors]).into_iter().chain(probes()).chain(budget).collect()
            }
            Kind::Latency => series(&[Role::Latency]).into_iter().collect(),
            Kind::Saturation | Kind::SaturationPredicted => {
                let limited = self.series.values().filter(|series| {
                    series.limit.is_some() && matches!(series.role, Role::Resource | Role::Other)
                });
                let guard = self.guard.voters().filter(|_| kind == Kind::Saturation);
                limited.map(|series| Voter::Series(series.name.clone())).chain(guard).collect()
            }
            Kind::AgentLost => BTreeSet::from([Voter::Agent]),
            Kind::MonitorSilent => {
                let series = self.series.keys().cloned().map(Voter::Series);
                let process = self.has_process.then_some(Voter::Process).into_iter();
                let budget = self.budget.as_ref().map(|_| Voter::Budget);
                let others = process.chain(self.guard.voters()).chain(budget);
                probes().chain(series).chain(others).collect()
            }
            Kind::Anomaly => series(&[Role::Errors, Role::Latency, Role::Resource, Role::Other])
                .into_iter()
                .chain((self.series.len() > 1).then_some(Voter::Together))
                .collect(),
        }
    }

    /// The finding in the law's form.
    pub(super) fn symptom(&self, finding: Finding, since: Timestamp, now: Now) -> Symptom {
        let mut labels =
            BTreeMap::from([("process".to_owned(), self.process.liveness.as_str().to_owned())]);
        let changed = self.process.config_changed;
        if changed.0 > 0 && now.wall.since(changed) <= CONFIG_RECENT {
            let ago = now.wall.since(changed).0;
            labels.insert("config_changed_ms".to_owned(), ago.to_string());
        }
        if !self.process.previous_config.is_empty() {
            labels.insert("previous_config".to_owned(), self.process.previous_config.clone());
        }
        if finding.kind == Kind::SaturationPredicted {
            let named = finding.indicator.as_ref().and_then(|name| self.series.get(name));
            labels.extend(named.and_then(of_series).iter().flat_map(told));
        }
        if let Some(indicator) = finding.indicator {
            labels.insert("indicator".to_owned(), indicator);
        }
        Symptom {
            target: self.target.clone(),
            kind: finding.kind.as_str().to_owned(),
            severity: finding.severity,
            summary: finding.summary,
            p_value: finding.p_value,
            signals: finding.signals,
            since,
            time_to_event: finding.time_to_event,
            labels,
            source: self.source.clone(),
        }
    }

    fn together_vote(&self) -> Option<Vote> {
        let (odd, p_value) = self.together.odd()?;
        let alone = self.together.blamed().and_then(|at| self.series.keys().nth(at));
        Some(Vote {
            weight: 1,
            rests_on: alone.cloned(),
            p_value,
            text: format!("its indicators together are {odd:.1} times as odd as is worth telling"),
            value: plain(odd),
            expected: "< 1".to_owned(),
            detector: "panel",
            ..hard(Voter::Together, Kind::Anomaly, Severity::Info)
        })
    }

    fn agent_vote(&self, now: Now) -> Option<Vote> {
        let away = now.mono_ms.saturating_sub(self.agent_away_ms?);
        (away >= AGENT_LOST_MS).then(|| Vote {
            text: format!("its agent has been away from every node for {} s", away / 1000),
            value: "0".to_owned(),
            expected: "1".to_owned(),
            detector: "agents",
            ..hard(Voter::Agent, Kind::AgentLost, Severity::Warning)
        })
    }

    fn process_vote(&self) -> Option<Vote> {
        let (kind, text) = match self.process.liveness {
            Liveness::Dead if self.process.last_exit.is_empty() => {
                (Kind::Down, "the process has died".to_owned())
            }
            Liveness::Dead => {
                (Kind::Down, format!("the process has died ({})", self.process.last_exit))
            }
            Liveness::Paused if self.process.track.bad >= HARD_AFTER => {
                (Kind::Unresponsive, "the process is paused".to_owned())
            }
            Liveness::Paused | Liveness::Running | Liveness::Stopped | Liveness::Unknown => {
                return None;
            }
        };
        Some(Vote {
            text,
            value: self.process.liveness.to_string(),
            expected: Liveness::Running.to_string(),
            detector: "process",
            ..hard(Voter::Process, kind, Severity::Critical)
        })
    }
}

/// A forecast in the form that incidents carry.
fn told(forecast: &Forecast) -> [(String, String); 5] {
    [
        ("prediction", forecast.kind.as_str().to_owned()),
        ("probability", format!("{:.2}", forecast.probability)),
        ("prediction_confidence", format!("{:.2}", forecast.confidence)),
        ("earliest_s", format!("{:.0}", forecast.earliest)),
        ("latest_s", format!("{:.0}", forecast.latest)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

pub(super) fn hard(voter: Voter, kind: Kind, severity: Severity) -> Vote {
    Vote {
        voter,
        kind,
        weight: 2,
        severity,
        p_value: 0.0,
        text: String::new(),
        value: String::new(),
        expected: String::new(),
        detector: "",
        time_to_event: None,
        rests_on: None,
    }
}

/// Whether it has failed, and not often enough to suffice alone.
pub(super) fn first_failure(track: &Track) -> bool {
    matches!(track.last, Some(Outcome::Bad(_))) && track.bad < HARD_AFTER
}

fn probe_vote(name: &str, track: &Track) -> Option<Vote> {
    let Some(Outcome::Bad(failure)) = &track.last else { return None };
    let (kind, severity) = match failure {
        Failure::Refused => (Kind::Down, Severity::Critical),
        Failure::Timeout | Failure::Unreachable(_) | Failure::Broken(_) => {
            (Kind::Unresponsive, Severity::Critical)
        }
        Failure::Status(status) if *status < 500 => (Kind::Errors, Severity::Warning),
        Failure::Status(_) | Failure::NotServing(_) => (Kind::Errors, Severity::Critical),
        Failure::Certificate(_) => (Kind::Errors, Severity::Critical),
        // A declared process probe says what `process_vote` says already.
        Failure::Process(_) => return None,
    };
    let times =
        if track.bad > 1 { format!(", {} times in a row", track.bad) } else { String::new() };
    let certain = track.bad >= HARD_AFTER;
    Some(Vote {
        weight: if certain { 2 } else { 1 },
        p_value: if certain { 0.0 } else { 0.01 },
        text: format!("probe {name}: {failure}{times}"),
        value: match failure {
            Failure::Certificate(flaw) => flaw.as_str().to_owned(),
            _ => "0".to_owned(),
        },
        expected: "1".to_owned(),
        detector: if matches!(failure, Failure::Certificate(_)) { CERTIFICATE } else { "probe" },
        ..hard(Voter::Probe(name.to_owned()), kind, severity)
    })
}

/// `lasts`: its oddness is no hiccup.
fn series_vote(series: &Series, lasts: bool) -> Option<Vote> {
    let reading = series.last.as_ref()?;
    limit_vote(series, reading)
        .or_else(|| trend_vote(series, reading))
        .or_else(|| odd_vote(series, reading, lasts))
}

fn limit_vote(series: &Series, reading: &Reading) -> Option<Vote> {
    let limit = series.limit.filter(|_| reading.crossed)?;
    let severity = match series.role {
        Role::Errors | Role::Resource => Severity::Critical,
        Role::Latency if reading.value >= 2.0 * limit => Severity::Critical,
        Role::Latency | Role::Other => Severity::Warning,
    };
    let kind = match series.role {
        Role::Errors => Kind::Errors,
        Role::Latency => Kind::Latency,
        Role::Resource | Role::Other => Kind::Saturation,
    };
    let (value, limit_shown) = (shown(series, reading.value), shown(series, limit));
    Some(Vote {
        text: format!("{} is {value}, above its limit of {limit_shown}", series.name),
        value: plain(reading.value),
        expected: format!("<= {}{}", plain(limit), silence_of_others(reading)),
        detector: LIMIT,
        ..hard(Voter::Series(series.name.clone()), kind, severity)
    })
}

/// What the limit's vote says of the detectors whose votes it hides: that there are none, for they have
/// learnt enough to judge and find the value usual. Where they find it odd, or do not know, nothing.
fn silence_of_others(reading: &Reading) -> &'static str {
    let silent = reading.judged.usual() && reading.prediction.is_none();
    if silent { ALTHOUGH_USUAL } else { "" }
}

/// The weight of odd values: unlikely enough, they suffice alone, unless nobody can tell what for, nor has
/// been told that it was `missed` before.
pub(super) fn strength(kind: Kind, p_value: f64, missed: bool) -> u8 {
    if p_value < HARD_P && (kind != Kind::Anomaly || missed) { ALONE } else { 1 }
}

fn odd_vote(series: &Series, reading: &Reading, lasts: bool) -> Option<Vote> {
    let judged = &reading.judged;
    let odd = judged.streak >= SOFT_AFTER || judged.shifted;
    if !odd || !reading.matters {
        return None;
    }
    let kind = match series.role {
        Role::Errors => Kind::Errors,
        Role::Latency => Kind::Latency,
        Role::Resource | Role::Other => Kind::Anomaly,
    };
    // What may be a hiccup counts for nothing yet.
    let weight = match (lasts, judged.shifted) {
        (true, _) => strength(kind, judged.p_value, false),
        (false, true) => 1,
        (false, false) => 0,
    };
    let severity = match kind {
        Kind::Errors if reading.value >= 0.25 => Severity::Critical,
        Kind::Anomaly => Severity::Info,
        _ => Severity::Warning,
    };
    let (value, usual) = (shown(series, reading.value), shown(series, judged.expected));
    Some(Vote {
        weight,
        p_value: if lasts { judged.p_value } else { judged.p_value.max(HICCUP_P) },
        text: format!("{} is {value}, usually {usual}", series.name),
        value: plain(reading.value),
        expected: format!("about {}", plain(judged.expected)),
        detector: if judged.streak > 0 { "level" } else { "cusum" },
        ..hard(Voter::Series(series.name.clone()), kind, severity)
    })
}

fn trend_vote(series: &Series, reading: &Reading) -> Option<Vote> {
    let prediction = reading.prediction?;
    let limit = series.limit?;
    let (value, limit_shown) = (shown(series, reading.value), shown(series, limit));
    let rise = shown(series, prediction.slope);
    Some(Vote {
        p_value: prediction.p_value,
        text: format!(
            "{} is {value} and rises by {rise}/s, reaching its limit of {limit_shown} in about {:.0} s",
            series.name, prediction.seconds,
        ),
        value: plain(reading.value),
        expected: format!("no trend towards {}", plain(limit)),
        detector: "trend",
        time_to_event: Some(Millis((prediction.seconds * 1e3).max(0.0) as u64)),
        ..hard(Voter::Series(series.name.clone()), Kind::SaturationPredicted, Severity::Warning)
    })
}

/// A number for programs: six significant digits, no unit.
fn plain(value: f64) -> String {
    if value == 0.0 || (1e-4..1e15).contains(&value.abs()) {
        let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
        let decimals = (5.0 - magnitude).clamp(0.0, 9.0) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') {
            return text.trim_end_matches('0').trim_end_matches('.').to_owned();
        }
        return text;
    }
    format!("{value:e}")
}
