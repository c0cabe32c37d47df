//! Predictions that open an incident before anything broke, so that preventive playbooks can act.
//!
//! Limits that will be reached are told of by the entity itself, within `detection.lead`. The other kinds
//! are told of here, within the horizon, where the configuration opens them: a failure of a component
//! that keeps failing, an error budget that will be spent, a certificate that ends.
//!
//! A prediction opens when it is likely and well founded; it is repeated while it stands, and cleared
//! when it was no longer likely for a while. A new owner makes it out anew before it clears: until then
//! what the law holds is left alone. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Millis, Ppm,
    symptom::{Fingerprint, Severity, Signal, Symptom, Target},
};

use crate::detection::{
    entity::{Now, fingerprint_of},
    predict::forecast::{Forecast, ForecastKind, Opens},
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

/// What the law should be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// This is foreseen.
    Foreseen(ForecastKind, Box<Symptom>),
    /// It is foreseen no longer.
    Past(ForecastKind, Fingerprint),
}

/// Kind of the symptom of a prediction; `None` for limits, which the entity tells of.
pub(super) const fn symptom_kind(kind: ForecastKind) -> Option<&'static str> {
    match kind {
        ForecastKind::Failure => Some("failure-predicted"),
        ForecastKind::Performance => Some("budget-predicted"),
        ForecastKind::SecurityRisk => Some("security-predicted"),
        ForecastKind::Capacity => None,
    }
}

/// Whether a symptom of this kind is told of here.
pub(super) fn is_ours(symptom: &str) -> bool {
    ForecastKind::ALL.into_iter().any(|kind| symptom_kind(kind) == Some(symptom))
}

/// The fingerprints of all that may be told of a target.
pub(super) fn fingerprints(target: &Target) -> Vec<(ForecastKind, Fingerprint)> {
    let kinds = ForecastKind::ALL.into_iter();
    kinds.filter_map(|kind| Some((kind, fingerprint_of(target, symptom_kind(kind)?)))).collect()
}

/// Time without it before it is cleared: what a new owner needs to make it out anew. A certificate is
/// read with one scrape; an error budget is watched for a quarter of an hour first.
const fn patience_ms(kind: ForecastKind) -> u64 {
    match kind {
        ForecastKind::SecurityRisk => 120_000,
        ForecastKind::Failure | ForecastKind::Performance | ForecastKind::Capacity => 1_200_000,
    }
}

/// What was told of one instance.
#[derive(Debug)]
pub(super) struct Foretelling {
    opens: Opens,
    due_ms: u64,
    told_ms: BTreeMap<ForecastKind, u64>,
    /// When each was last likely enough to stand; before that, when the watch began.
    stood_ms: BTreeMap<ForecastKind, u64>,
    begun_ms: u64,
}

impl Foretelling {
    pub(super) const fn new(opens: Opens, begun_ms: u64) -> Self {
        Self { opens, due_ms: 0, told_ms: BTreeMap::new(), stood_ms: BTreeMap::new(), begun_ms }
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
        (target, source): (&Target, &str),
        forecasts: &[Forecast],
        held: &BTreeSet<ForecastKind>,
        now: Now,
    ) -> Option<Word> {
        ForecastKind::ALL.into_iter().find_map(|kind| {
            let symptom = symptom_kind(kind)?;
            let opens = self.opens.opens(kind);
            let likeliest = forecasts
                .iter()
                .filter(|one| one.kind == kind)
                .max_by(|a, b| a.probability.total_cmp(&b.probability));
            let holds = held.contains(&kind);
            let bar = if holds { KEEP_PROBABILITY } else { OPEN_PROBABILITY };
            let stands = likeliest.filter(|one| {
                opens && one.probability >= bar && (holds || one.confidence >= OPEN_CONFIDENCE)
            });
            if let Some(one) = stands {
                self.stood_ms.insert(kind, now.mono_ms);
                let again = self.told_ms.get(&kind).map_or(0, |told| told + REPEAT_MS);
                return (now.mono_ms >= again).then(|| {
                    Word::Foreseen(kind, Box::new(as_symptom(one, symptom, target, source, now)))
                });
            }
            let stood = self.stood_ms.get(&kind).copied().unwrap_or(self.begun_ms);
            // What the configuration opens no longer is not kept open either.
            let waited = now.mono_ms.saturating_sub(stood) >= patience_ms(kind);
            let over = holds && (waited || !opens);
            over.then(|| Word::Past(kind, fingerprint_of(target, symptom)))
        })
    }

    /// The law has taken it in.
    pub(super) fn told(&mut self, kind: ForecastKind, now: Now) {
        self.told_ms.insert(kind, now.mono_ms);
    }

    /// The law knows of it no longer.
    pub(super) fn cleared(&mut self, kind: ForecastKind) {
        self.told_ms.remove(&kind);
    }
}

fn as_symptom(one: &Forecast, kind: &str, target: &Target, source: &str, now: Now) -> Symptom {
    let summary = format!(
        "{} in {} ({:.0} %): {}",
        says(one.kind),
        hours(one.seconds),
        one.probability * 100.0,
        one.factors.join("; ")
    );
    let labels = [
        ("prediction", one.kind.as_str().to_owned()),
        ("indicator", one.subject.clone()),
        ("probability", format!("{:.2}", one.probability)),
        ("prediction_confidence", format!("{:.2}", one.confidence)),
        ("earliest_s", format!("{:.0}", one.earliest)),
        ("latest_s", format!("{:.0}", one.latest)),
    ];
    // That nothing comes of it stands in for the p-value that a forecast does not have.
    let p_value = Ppm(((1.0 - one.probability).clamp(0.0, 1.0) * 1e6) as u32);
    Symptom {
        target: target.clone(),
        kind: kind.to_owned(),
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
        labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
        source: source.to_owned(),
    }
}

const fn says(kind: ForecastKind) -> &'static str {
    match kind {
        ForecastKind::Failure => "it will fail again",
        ForecastKind::Capacity => "it will be full",
        ForecastKind::Performance => "its error budget will be spent",
        ForecastKind::SecurityRisk => "a certificate of its ends",
    }
}

fn hours(seconds: f64) -> String {
    if seconds < 5_400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3_600.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::detection::predict::forecast::When;

    const ALL: Opens = Opens { failure: true, performance: true, security_risk: true };

    fn at(seconds: u64) -> Now {
        Now { mono_ms: seconds * 1_000, ..Now::default() }
    }

    fn target() -> Target {
        let [tenant, service, instance] = ["default", "web", "web-1"].map(str::to_owned);
        Target { tenant, service, instance }
    }

    fn forecast(kind: ForecastKind, probability: f64, confidence: f64) -> Forecast {
        let when = When { seconds: 7_200.0, earliest: 3_600.0, latest: 9_000.0 };
        let factors = vec!["it failed 6 times in 1.0 h".to_owned()];
        Forecast::new((kind, "process"), probability, confidence, when, factors).unwrap()
    }

    /// What is said of one forecast; the law takes everything in.
    fn hear(
        telling: &mut Foretelling,
        held: &mut BTreeSet<ForecastKind>,
        forecasts: &[Forecast],
        now: Now,
    ) -> Option<Word> {
        let word = telling.next((&target(), "shard-1"), forecasts, held, now);
        match &word {
            Some(Word::Foreseen(kind, _)) => {
                held.insert(*kind);
                telling.told(*kind, now);
            }
            Some(Word::Past(kind, _)) => {
                held.remove(kind);
                telling.cleared(*kind);
            }
            None => {}
        }
        word
    }

    #[test]
    fn what_is_likely_and_well_founded_opens_is_repeated_and_cleared() {
        let (mut telling, mut held) = (Foretelling::new(ALL, 0), BTreeSet::new());
        let failure = |p, c| [forecast(ForecastKind::Failure, p, c)];
        assert_eq!(hear(&mut telling, &mut held, &failure(0.7, 0.9), at(1)), None);
        assert_eq!(hear(&mut telling, &mut held, &failure(0.9, 0.3), at(2)), None);
        let first = hear(&mut telling, &mut held, &failure(0.9, 0.6), at(3));
        let Some(Word::Foreseen(ForecastKind::Failure, symptom)) = first else {
            panic!("{first:?}")
        };
        assert!(symptom.predicted() && is_ours(&symptom.kind));
        assert_eq!(symptom.time_to_event, Some(Millis(7_200_000)));
        let expected = "it will fail again in 2.0 h (90 %): it failed 6 times in 1.0 h";
        assert_eq!(symptom.summary, expected);
        assert!(fingerprints(&target()).contains(&(ForecastKind::Failure, symptom.fingerprint())));
        // What stands is kept at less, and repeated now and then.
        assert_eq!(hear(&mut telling, &mut held, &failure(0.6, 0.3), at(30)), None);
        assert!(hear(&mut telling, &mut held, &failure(0.6, 0.3), at(63)).is_some());
        // Then it is gone for long enough.
        assert_eq!(hear(&mut telling, &mut held, &failure(0.4, 0.9), at(1_262)), None);
        let past = Word::Past(ForecastKind::Failure, symptom.fingerprint());
        assert_eq!(hear(&mut telling, &mut held, &[], at(1_263)), Some(past));
        assert_eq!(hear(&mut telling, &mut held, &[], at(9_999)), None);
    }

    #[test]
    fn a_new_owner_leaves_what_is_held_alone_until_it_could_know_better() {
        let mut held = BTreeSet::from([ForecastKind::SecurityRisk]);
        let mut telling = Foretelling::new(ALL, 50_000);
        assert_eq!(hear(&mut telling, &mut held, &[], at(51)), None);
        let still = [forecast(ForecastKind::SecurityRisk, 0.9, 1.0)];
        assert!(hear(&mut telling, &mut held, &still, at(60)).is_some());
        assert_eq!(hear(&mut telling, &mut held, &[], at(179)), None);
        assert!(matches!(
            hear(&mut telling, &mut held, &[], at(180)),
            Some(Word::Past(ForecastKind::SecurityRisk, _))
        ));
    }

    #[test]
    fn only_what_is_configured_opens_and_limits_never_do_here() {
        let mut telling = Foretelling::new(Opens::default(), 0);
        let likely = ForecastKind::ALL.map(|kind| forecast(kind, 0.95, 1.0));
        let mut held = BTreeSet::new();
        while hear(&mut telling, &mut held, &likely, at(1)).is_some() {}
        assert_eq!(held, BTreeSet::from([ForecastKind::SecurityRisk]));
        let mut telling = Foretelling::new(ALL, 0);
        while hear(&mut telling, &mut held, &likely, at(1)).is_some() {}
        assert_eq!((held.len(), held.contains(&ForecastKind::Capacity)), (3, false));
        let nothing = Opens { security_risk: false, ..Opens::default() };
        let mut quiet = Foretelling::new(nothing, 0);
        while hear(&mut quiet, &mut held, &likely, at(1)).is_some() {}
        assert!(held.is_empty(), "what was opened by another configuration is cleared");
        assert!(telling.due(at(100)) && !telling.due(at(104)) && telling.due(at(105)));
    }
}
