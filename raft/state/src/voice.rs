//! Voices: who has spoken in the reports of a symptom, from the first to the last.
//!
//! A report replaces the one before it, so that people and judgement see what is so now. What an outcome
//! teaches depends on all of them: latency that crossed its limit, and is merely unusual while it goes
//! back to normal, was no false alarm of whoever finds it unusual; and whoever spoke a minute before
//! the limit was crossed has missed nothing.
//!
//! Invariant: voices are only added. Where they cannot all be told, [`Voice::Obscured`] is among them, and
//! the law draws no conclusion. Empty: nobody kept them, as before command set 9.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::{
    symptom::{ALTHOUGH_USUAL, LIMIT, MAX_SIGNALS, Signal, Symptom},
    weight::{Detector, family_of},
};

/// Voices kept of a symptom: of four reports with as many signals as a report has, none twice.
pub const MAX_VOICES: usize = 4 * MAX_SIGNALS;

/// Somebody who has spoken of a symptom, or a reason not to conclude anything from who has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Voice {
    /// Something that is no test: a probe, a process, an agent, an alert.
    #[n(0)]
    Fact,
    /// Who else has spoken cannot be told, or it did not take its own course: it was silenced, or held
    /// back by a freeze or a maintenance window.
    #[n(1)]
    Obscured,
    /// A detector, of a family of metrics.
    #[n(2)]
    Detector(#[n(0)] String, #[n(1)] Detector),
    /// A limit of a family of metrics; whether the detectors of that indicator found the value usual.
    #[n(3)]
    Limit(#[n(0)] String, #[n(1)] bool),
}

impl Voice {
    /// Whose signal it is.
    #[must_use]
    pub fn of(signal: &Signal) -> Self {
        let family = || family_of(&signal.name).to_owned();
        match Detector::parse(&signal.detector) {
            Some(detector) => Self::Detector(family(), detector),
            None if signal.detector == LIMIT => {
                Self::Limit(family(), signal.expected.ends_with(ALTHOUGH_USUAL))
            }
            None => Self::Fact,
        }
    }

    /// Whether it states what is so, and not how likely it is.
    #[must_use]
    pub const fn is_fact(&self) -> bool {
        matches!(self, Self::Fact | Self::Limit(..))
    }
}

/// Those of a first report.
#[must_use]
pub fn first(symptom: &Symptom) -> BTreeSet<Voice> {
    let mut voices = BTreeSet::new();
    add(&mut voices, symptom);
    voices
}

/// Those of a further report, beside those of the earlier ones.
pub fn further(voices: &mut BTreeSet<Voice>, symptom: &Symptom) {
    if voices.is_empty() {
        voices.insert(Voice::Obscured);
    }
    add(voices, symptom);
}

fn add(voices: &mut BTreeSet<Voice>, symptom: &Symptom) {
    // What rests on nothing that it names is somebody's word.
    if symptom.signals.is_empty() {
        voices.insert(Voice::Fact);
    }
    // There may have been more of them.
    if symptom.signals.len() >= MAX_SIGNALS {
        voices.insert(Voice::Obscured);
    }
    for voice in symptom.signals.iter().map(Voice::of) {
        let room = voices.len() < MAX_VOICES || voices.contains(&voice);
        voices.insert(if room { voice } else { Voice::Obscured });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::Ppm, law::tests::lab::symptom};

    fn signal(name: &str, detector: &str, expected: &str) -> Signal {
        let (name, detector, expected) = (name.into(), detector.into(), expected.into());
        Signal { name, value: "1".into(), expected, detector, p_value: Ppm(0) }
    }

    fn report(signals: Vec<Signal>) -> Symptom {
        Symptom { signals, ..symptom("api", "a", "latency") }
    }

    #[test]
    fn signals_have_voices() {
        let usual = format!("<= 1{ALTHOUGH_USUAL}");
        for (detector, expected, voice) in [
            ("level", "about 1", Voice::Detector("load".into(), Detector::Level)),
            ("limit", "<= 1", Voice::Limit("load".into(), false)),
            ("limit", &usual, Voice::Limit("load".into(), true)),
            ("probe", &usual, Voice::Fact),
        ] {
            assert_eq!(Voice::of(&signal("metric.load", detector, expected)), voice);
            assert_eq!(voice.is_fact(), detector != "level");
        }
    }

    #[test]
    fn what_was_said_stays_said_within_bounds() {
        let level = || report(vec![signal("metric.load", "level", "about 1")]);
        let said = Voice::Detector("load".into(), Detector::Level);
        let mut voices = first(&level());
        further(&mut voices, &report(vec![signal("probe.http", "probe", "1")]));
        assert_eq!(voices, BTreeSet::from([Voice::Fact, said.clone()]));
        let mut late = BTreeSet::new();
        further(&mut late, &level());
        assert_eq!(late, BTreeSet::from([Voice::Obscured, said]), "earlier reports were not kept");
        assert_eq!(first(&report(Vec::new())), BTreeSet::from([Voice::Fact]));

        let many = |from: usize, count: usize| {
            let name = |n: usize| format!("metric.m{n}");
            report((from..from + count).map(|n| signal(&name(n), "level", "0")).collect())
        };
        assert!(first(&many(0, MAX_SIGNALS)).contains(&Voice::Obscured), "it may be cut short");
        for n in 0..3 * MAX_VOICES {
            further(&mut voices, &many(n, 1));
        }
        assert!(voices.len() <= MAX_VOICES + 1 && voices.contains(&Voice::Obscured));
    }
}
