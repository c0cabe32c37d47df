//! Predictions that open an incident before anything broke, so that preventive playbooks can act.
//!
//! Limits that a trend will reach are told of by the entity itself, within `detection.lead`. The rest is told
//! of here: within the lead a leak known from former lives of the process, a value that falls to its floor
//! and a latency that rises to its limit; within the horizon, where the configuration opens them, a failure
//! of a component that keeps failing, an error budget that will be spent, a certificate that ends. What
//! was foreseen and has come to pass, and is told by no detector, is told of here as well.
//!
//! A prediction opens when it is likely, as corrected by the record of its tenant, and well founded; it is
//! repeated while it stands, and cleared when it was no longer likely for a while. A new owner makes it out
//! anew before it clears: until then what the law holds is left alone. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Millis, Ppm,
    symptom::{Fingerprint, Severity, Signal, Symptom, Target},
};

use crate::detection::{
    ensemble::Kind,
    entity::{Now, fingerprint_of},
    predict::forecast::{Fact, Forecast, ForecastKind, Opening, Opens},
};

/// It opens when it is this likely, as corrected by the record.
const OPEN_PROBABILITY: f64 = 0.8;
/// And when the evidence is worth this much.
const OPEN_CONFIDENCE: f64 = 0.5;
/// It stands while it is this likely.
const KEEP_PROBABILITY: f64 = 0.5;
/// It is looked for this often: what it foretells is hours away.
const EVERY_MS: u64 = 5_000;
/// It is told again after this time, so that a silence that ends does not swallow it.
const REPEAT_MS: u64 = 60_000;

/// What is told of here: one symptom each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// A certificate has ended.
    Expired,
    /// A value is below its floor.
    Depleted,
    /// A component will fail.
    Failure,
    /// A bound will be reached.
    Capacity,
    /// An error budget will be spent.
    Budget,
    /// A latency will reach its limit.
    Latency,
    /// A certificate will end.
    Certificate,
}

impl Topic {
    /// What has come to pass first.
    const ALL: [Self; 7] = [
        Self::Expired,
        Self::Depleted,
        Self::Failure,
        Self::Capacity,
        Self::Budget,
        Self::Latency,
        Self::Certificate,
    ];

    /// Kind of its symptom.
    pub(super) const fn symptom(self) -> &'static str {
        match self {
            Self::Expired => "certificate-expired",
            Self::Depleted => "depleted",
            Self::Failure => "failure-predicted",
            Self::Capacity => "capacity-predicted",
            Self::Budget => "budget-predicted",
            Self::Latency => "latency-predicted",
            Self::Certificate => "security-predicted",
        }
    }

    /// Of a forecast; `None`: it is not told of here, but by the detector of its limit.
    const fn of(kind: ForecastKind, opening: Opening) -> Option<Self> {
        match (opening, kind) {
            (Opening::Elsewhere, _) => None,
            (_, ForecastKind::Failure) => Some(Self::Failure),
            (_, ForecastKind::Capacity) => Some(Self::Capacity),
            (_, ForecastKind::SecurityRisk) => Some(Self::Certificate),
            (Opening::WithinLead, ForecastKind::Performance) => Some(Self::Latency),
            (Opening::WithinHorizon, ForecastKind::Performance) => Some(Self::Budget),
        }
    }

    /// Of a fact.
    const fn of_fact(fact: &Fact) -> Self {
        match fact {
            Fact::Expired { .. } => Self::Expired,
            Fact::Depleted { .. } => Self::Depleted,
        }
    }

    /// Whether it opens an incident, as configured: what has come to pass, and bounds, always do.
    const fn opens(self, opens: Opens) -> bool {
        match self {
            Self::Expired | Self::Depleted | Self::Capacity => true,
            Self::Failure => opens.failure,
            Self::Budget | Self::Latency => opens.performance,
            Self::Certificate => opens.security_risk,
        }
    }

    /// Time without it before it is cleared: what a new owner needs to make it out anew. A certificate and
    /// a floor are read with one scrape or two; a trend and an error budget are watched for a while first.
    const fn patience_ms(self) -> u64 {
        match self {
            Self::Certificate | Self::Expired | Self::Depleted => 120_000,
            Self::Failure | Self::Budget | Self::Capacity | Self::Latency => 1_200_000,
        }
    }

    const fn says(self) -> &'static str {
        match self {
            Self::Failure => "it will fail again",
            Self::Capacity => "it will run out",
            Self::Budget => "its error budget will be spent",
            Self::Latency => "it will be too slow",
            Self::Certificate => "a certificate of its ends",
            Self::Expired => "a certificate of its has ended",
            Self::Depleted => "it has run out",
        }
    }
}

/// Kind of the symptom that tells of a forecast, or would, were it likely and near enough: what is done about
/// it follows from that, and whoever shows a forecast asks here.
pub(in crate::detection) const fn symptom_of(kind: ForecastKind, opening: Opening) -> &'static str {
    match Topic::of(kind, opening) {
        Some(topic) => topic.symptom(),
        None => Kind::SaturationPredicted.as_str(),
    }
}

/// What the law should be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// This is foreseen, or has come to pass.
    Foreseen(Topic, Box<Symptom>),
    /// It is so no longer.
    Past(Topic, Fingerprint),
}

/// Whether a symptom of this kind is told of here.
pub(super) fn is_ours(symptom: &str) -> bool {
    Topic::ALL.into_iter().any(|topic| topic.symptom() == symptom)
}

/// The fingerprints of all that may be told of a target.
pub(super) fn fingerprints(target: &Target) -> Vec<(Topic, Fingerprint)> {
    let topics = Topic::ALL.into_iter();
    topics.map(|topic| (topic, fingerprint_of(target, topic.symptom()))).collect()
}

/// Of limits that the entity would tell of, those that the record speaks against.
pub(super) fn doubted(limits: &[Forecast]) -> BTreeSet<String> {
    let unlikely = limits.iter().filter(|one| one.probability < OPEN_PROBABILITY);
    unlikely.map(|one| one.subject.clone()).collect()
}

/// Puts the corrected figures of a prediction into the labels of its symptom.
pub(super) fn relabel(symptom: &mut Symptom, limits: &[Forecast]) {
    if !symptom.predicted() {
        return;
    }
    let named = symptom.labels.get("indicator");
    if let Some(one) = limits.iter().find(|one| named == Some(&one.subject)) {
        symptom.labels.extend(labels(one));
    }
}

/// What was told of one instance.
#[derive(Debug)]
pub(super) struct Foretelling {
    opens: Opens,
    lead_s: f64,
    due_ms: u64,
    told_ms: BTreeMap<Topic, u64>,
    /// When each was last likely enough to stand; before that, when the watch began.
    stood_ms: BTreeMap<Topic, u64>,
    begun_ms: u64,
}

impl Foretelling {
    pub(super) const fn new((opens, lead): (Opens, Millis), begun_ms: u64) -> Self {
        let lead_s = lead.as_duration().as_secs_f64();
        Self {
            opens,
            lead_s,
            due_ms: 0,
            told_ms: BTreeMap::new(),
            stood_ms: BTreeMap::new(),
            begun_ms,
        }
    }

    /// Whether it is time to look.
    pub(super) fn due(&mut self, now: Now) -> bool {
        let due = now.mono_ms >= self.due_ms;
        if due {
            self.due_ms = now.mono_ms + EVERY_MS;
        }
        due
    }

    /// What to tell, if anything. `held`: what open incidents hold of it.
    pub(super) fn next(
        &mut self,
        about: (&Target, &str),
        (forecasts, facts): (&[Forecast], &[Fact]),
        held: &BTreeSet<Topic>,
        now: Now,
    ) -> Option<Word> {
        Topic::ALL.into_iter().find_map(|topic| {
            let holds = held.contains(&topic);
            let opens = topic.opens(self.opens);
            let fact = facts.iter().find(|fact| Topic::of_fact(fact) == topic);
            let stands = match fact {
                Some(fact) => Some(of_fact(fact, about, now)),
                None if opens => self
                    .stands(topic, forecasts, holds)
                    .map(|one| of_forecast(one, topic, about, now)),
                None => None,
            };
            if let Some(symptom) = stands {
                self.stood_ms.insert(topic, now.mono_ms);
                let again = self.told_ms.get(&topic).map_or(0, |told| told + REPEAT_MS);
                let due = now.mono_ms >= again;
                return due.then(|| Word::Foreseen(topic, Box::new(symptom)));
            }
            let stood = self.stood_ms.get(&topic).copied().unwrap_or(self.begun_ms);
            // What the configuration opens no longer is not kept open either.
            let waited = now.mono_ms.saturating_sub(stood) >= topic.patience_ms();
            let over = holds && (waited || !opens);
            over.then(|| Word::Past(topic, fingerprint_of(about.0, topic.symptom())))
        })
    }

    /// The likeliest forecast of a topic, when it is likely, well founded and near enough.
    fn stands<'f>(
        &self,
        topic: Topic,
        forecasts: &'f [Forecast],
        holds: bool,
    ) -> Option<&'f Forecast> {
        let near = |one: &&Forecast| {
            holds || one.opening != Opening::WithinLead || one.seconds <= self.lead_s
        };
        let likeliest = forecasts
            .iter()
            .filter(|one| Topic::of(one.kind, one.opening) == Some(topic))
            .filter(near)
            .max_by(|a, b| a.probability.total_cmp(&b.probability))?;
        let bar = if holds { KEEP_PROBABILITY } else { OPEN_PROBABILITY };
        let founded = holds || likeliest.confidence >= OPEN_CONFIDENCE;
        (likeliest.probability >= bar && founded).then_some(likeliest)
    }

    /// The law has taken it in.
    pub(super) fn told(&mut self, topic: Topic, now: Now) {
        self.told_ms.insert(topic, now.mono_ms);
    }

    /// The law knows of it no longer.
    pub(super) fn cleared(&mut self, topic: Topic) {
        self.told_ms.remove(&topic);
    }
}

fn labels(one: &Forecast) -> [(String, String); 6] {
    [
        ("prediction", one.kind.as_str().to_owned()),
        ("indicator", one.subject.clone()),
        ("probability", format!("{:.2}", one.probability)),
        ("prediction_confidence", format!("{:.2}", one.confidence)),
        ("earliest_s", format!("{:.0}", one.earliest)),
        ("latest_s", format!("{:.0}", one.latest)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

fn of_forecast(
    one: &Forecast,
    topic: Topic,
    (target, source): (&Target, &str),
    now: Now,
) -> Symptom {
    let summary = format!(
        "{} in {} ({:.0} %): {}",
        topic.says(),
        hours(one.seconds),
        one.probability * 100.0,
        one.factors.join("; ")
    );
    // That nothing comes of it stands in for the p-value that a forecast does not have.
    let p_value = Ppm(((1.0 - one.probability).clamp(0.0, 1.0) * 1e6) as u32);
    Symptom {
        target: target.clone(),
        kind: topic.symptom().to_owned(),
        severity: Severity::Warning,
        summary,
        p_value,
        signals: vec![Signal {
            name: format!("prediction.{}", one.subject),
            value: format!("{:.2}", one.probability),
            expected: format!("< {OPEN_PROBABILITY}"),
            detector: "forecast".to_owned(),
            p_value,
        }],
        since: now.wall,
        time_to_event: Some(Millis((one.seconds * 1e3) as u64)),
        labels: labels(one).into(),
        source: source.to_owned(),
    }
}

fn of_fact(fact: &Fact, (target, source): (&Target, &str), now: Now) -> Symptom {
    let topic = Topic::of_fact(fact);
    let (subject, value, expected, how) = match fact {
        Fact::Expired { subject, since } => {
            let (value, expected) = (format!("{:.0}", -since), "> 0".to_owned());
            (subject, value, expected, format!("{subject} says: {} ago", hours(*since)))
        }
        Fact::Depleted { subject, value, floor } => {
            let how = format!("{subject} is {value}, below its floor of {floor}");
            (subject, value.to_string(), format!(">= {floor}"), how)
        }
    };
    Symptom {
        target: target.clone(),
        kind: topic.symptom().to_owned(),
        severity: Severity::Critical,
        summary: format!("{}: {how}", topic.says()),
        p_value: Ppm(0),
        signals: vec![Signal {
            name: format!("metric.{subject}"),
            value,
            expected,
            detector: "limit".to_owned(),
            p_value: Ppm(0),
        }],
        since: now.wall,
        time_to_event: None,
        labels: BTreeMap::from([("indicator".to_owned(), subject.clone())]),
        source: source.to_owned(),
    }
}

fn hours(seconds: f64) -> String {
    match seconds {
        ..5_400.0 => format!("{:.0} min", seconds / 60.0),
        5_400.0..259_200.0 => format!("{:.1} h", seconds / 3_600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests;
