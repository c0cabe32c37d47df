//! What opinions move, what they do not, and that neither time nor repetition moves more.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    applied::Record,
    command::{Command, IncidentNote, WEIGHTS_SINCE},
    ids::Ppm,
    incident::IncidentStatus,
    law::tests::lab::*,
    manifest::{IndicatorSource, IndicatorSpec, ServiceSpec, Spec},
    plan::Direction,
    saga::VerdictValue,
    symptom::{Signal, Symptom},
    weight::STEP_VERIFIED,
};

/// What must hold of weights in every state.
pub(in crate::law) fn check(state: &State) {
    assert!(state.weights.all.len() <= MAX_WEIGHTS);
    for (key, weight) in &state.weights.all {
        assert!((LEAST..=MOST).contains(&weight.millinats), "{key:?}: {weight:?}");
        assert!(weight.version <= state.weights.version && weight.index <= state.applied);
    }
}

/// A signal of a detector about an indicator.
pub(in crate::law) fn odd(indicator: &str, detector: &str) -> Signal {
    Signal {
        name: format!("metric.{indicator}"),
        value: "1".into(),
        expected: "0".into(),
        detector: detector.into(),
        p_value: Ppm(1),
    }
}

pub(in crate::law) fn indicator(name: &str) -> IndicatorSpec {
    let source = IndicatorSource::Gauge(name.to_owned());
    IndicatorSpec { name: name.to_owned(), source, limit: None, upward_only: true }
}

/// A lab whose `api` has three indicators.
pub(super) fn lab() -> Lab {
    let mut lab = Lab::new();
    let indicators = ["errors", "latency", "load"].map(indicator).to_vec();
    let api = ServiceSpec { indicators, ..service(&["a", "b", "c"], &["db"]) };
    lab.apply("api", Spec::Service(api));
    lab
}

/// An incident of `api` that these signals called.
fn called(lab: &mut Lab, signals: &[(&str, &str)]) -> IncidentId {
    let signals = signals.iter().map(|(name, detector)| odd(name, detector)).collect();
    lab.report_with(Symptom { signals, ..symptom("api", "a", "latency") })
}

pub(super) fn judge(incident: IncidentId, opinion: Opinion) -> Command {
    Command::JudgeIncident(JudgeIncident {
        incident,
        opinion,
        families: Vec::new(),
        note: String::new(),
    })
}

fn missed(incident: IncidentId, families: &[&str]) -> Command {
    let families = families.iter().map(ToString::to_string).collect();
    let (opinion, note) = (Opinion::Missed, "users called".into());
    Command::JudgeIncident(JudgeIncident { incident, opinion, families, note })
}

pub(super) fn weights(lab: &Lab) -> Vec<(String, Detector, i32)> {
    let all = lab.state.weights.of_tenant(TENANT);
    all.map(|(key, weight)| (key.family.clone(), key.detector, weight.millinats)).collect()
}

pub(super) fn weight(family: &str, detector: Detector, millinats: i32) -> (String, Detector, i32) {
    (family.to_owned(), detector, millinats)
}

#[test]
fn a_false_alarm_is_held_against_the_detectors_that_called_it_once() {
    let mut lab = lab();
    let id = called(&mut lab, &[("latency", "level"), ("latency", "limit"), ("load", "cusum")]);
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    let once = [weight("latency", Detector::Level, -STEP), weight("load", Detector::Cusum, -STEP)];
    assert_eq!(weights(&lab), once, "a limit is no test");
    assert_eq!(lab.state.weights.version, 1);
    let kept = lab.state.weights.all.values().next().unwrap();
    assert_eq!((kept.incident, kept.by.as_str(), kept.version), (id, ROOT, 1));
    let line = &lab.incident(id).timeline.last().unwrap().text;
    assert!(line.contains("a false alarm") && line.contains("level of latency -700"), "{line}");
    let again = lab.root(judge(id, Opinion::FalseAlarm));
    assert!(matches!(&again, Ok(Reply::Noted(why)) if why.contains("already, by root")));
    // Nor does it when the incident is over.
    lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    assert_eq!((weights(&lab).as_slice(), lab.state.weights.version), (&once[..], 1));
}

#[test]
fn a_detector_is_neither_silenced_nor_made_to_shout() {
    let mut lab = lab();
    for n in 1..=9 {
        let id = called(&mut lab, &[("latency", "level")]);
        lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        let expected = (-STEP * n).max(LEAST);
        assert_eq!(weights(&lab), [weight("latency", Detector::Level, expected)]);
    }
    for _ in 0..12 {
        let id = lab.report("api", "a", "down");
        lab.root(missed(id, &["latency"])).unwrap();
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
    }
    let ends = [weight("latency", Detector::Level, MOST), weight("latency", Detector::Cusum, MOST)];
    assert_eq!(weights(&lab), ends);
}

#[test]
fn a_second_thought_takes_the_first_one_back() {
    let mut lab = lab();
    let id = called(&mut lab, &[("latency", "level")]);
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    lab.root(judge(id, Opinion::Genuine)).unwrap();
    assert_eq!(weights(&lab), [weight("latency", Detector::Level, 0)]);
    assert_eq!((lab.state.weights.version, lab.incident(id).timeline.len()), (2, 3));
    assert_eq!(lab.incident(id).judged.as_ref().unwrap().opinion, Opinion::Genuine);
}

#[test]
fn what_was_missed_is_looked_at_more_closely_by_those_who_did_not_speak() {
    let mut lab = lab();
    let id = called(&mut lab, &[("errors", "level")]);
    let wrong = lab.root(missed(id, &["latency", "speed"]));
    assert!(matches!(&wrong, Err(Refusal::Invalid(why)) if why.contains("`speed`")), "{wrong:?}");
    let spoke = lab.root(missed(id, &["errors"]));
    assert!(matches!(&spoke, Err(Refusal::Invalid(why)) if why.contains("not missed")));
    lab.root(missed(id, &["latency"])).unwrap();
    let (level, cusum) = (Detector::Level, Detector::Cusum);
    let named = [weight("latency", level, STEP), weight("latency", cusum, STEP)];
    assert_eq!(weights(&lab), named);
    // Without a name: all that nobody spoke of, and all of them together.
    lab.root(missed(id, &[])).unwrap();
    let mut all = named.to_vec();
    all.extend([weight("load", level, STEP), weight("load", cusum, STEP)]);
    all.push(weight(TOGETHER, Detector::Panel, STEP));
    assert_eq!(weights(&lab), all, "the first opinion was taken back");
    let line = &lab.incident(id).timeline.last().unwrap().text;
    assert!(line.contains("missed by detection") && line.ends_with(": users called"), "{line}");
    let nothing = lab.report("db", "d", "errors");
    let answer = lab.root(missed(nothing, &[]));
    assert!(matches!(answer, Err(Refusal::IllegalState(_))), "{answer:?}");
}

#[test]
fn hard_evidence_has_no_weight() {
    let mut lab = lab();
    let id = called(&mut lab, &[("errors", "limit"), ("http", "probe")]);
    let answer = lab.root(judge(id, Opinion::FalseAlarm));
    assert!(matches!(&answer, Ok(Reply::Noted(why)) if why.contains("no weight moves")));
    assert!(weights(&lab).is_empty() && lab.state.weights.version == 0);
    assert_eq!(lab.incident(id).judged.as_ref().unwrap().moves, []);
}

#[test]
fn a_verified_remediation_gives_back_belief_up_to_where_it_was() {
    let mut lab = lab();
    let id = called(&mut lab, &[("latency", "level")]);
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
    for n in 1..=8 {
        let id = called(&mut lab, &[("latency", "level"), ("load", "cusum")]);
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.start(plan, 0, Direction::Forward).unwrap();
        lab.finish(plan, 0, Direction::Forward, done()).unwrap();
        lab.verdict(plan, VerdictValue::Passed).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Resolved);
        let back = (STEP_VERIFIED * n - STEP).min(0);
        assert_eq!(weights(&lab), [weight("latency", Detector::Level, back)], "after {n}");
        // What a human thinks of it counts more, whenever they say it.
        assert_eq!(lab.incident(id).judged.is_some(), n <= 7);
        lab.now += 4_000_000;
    }
    let last = lab.state.weights.all.values().next().unwrap();
    assert_eq!((last.by.as_str(), last.opinion), (LAW, Opinion::Genuine));
}

#[test]
fn who_may_respond_may_judge_and_every_word_is_audited() {
    let mut lab = lab();
    let id = called(&mut lab, &[("latency", "level")]);
    let denied = lab.user("mallory", judge(id, Opinion::FalseAlarm));
    assert!(matches!(denied, Err(Refusal::Denied { .. })));
    lab.apply("r", binding("responder", &["rhea"]));
    lab.user("rhea", judge(id, Opinion::FalseAlarm)).unwrap();
    let last = lab.records.iter().rev().find_map(|record| match record {
        Record::Audit(link) => Some(link),
        Record::Closed(_) => None,
    });
    let link = last.unwrap();
    assert_eq!((link.command.as_str(), link.incident), ("JudgeIncident", Some(id)));
    assert!(link.subject.contains("false-alarm"), "{}", link.subject);
    let note = IncidentNote { incident: IncidentId(9_999), note: String::new() };
    let gone = lab.root(judge(note.incident, Opinion::FalseAlarm));
    assert!(matches!(gone, Err(Refusal::NotFound(_))));
}

#[test]
fn below_its_cluster_version_nothing_moves() {
    let mut lab = lab();
    lab.state.cluster_version = WEIGHTS_SINCE - 1;
    let id = called(&mut lab, &[("latency", "level")]);
    let early = lab.root(judge(id, Opinion::FalseAlarm));
    assert!(matches!(&early, Err(Refusal::IllegalState(why)) if why.contains("version 7")));
    let key =
        WeightKey { tenant: TENANT.into(), family: "latency".into(), detector: Detector::Level };
    let weight = Weight {
        millinats: -STEP,
        version: 0,
        index: 1,
        at: lab.state.now,
        by: ROOT.into(),
        incident: id,
        opinion: Opinion::FalseAlarm,
    };
    lab.state.weights.all.insert(key, weight);
    let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
    lab.run(plan, 0, done());
    lab.verdict(plan, VerdictValue::Passed).unwrap();
    assert_eq!(weights(&lab), [self::weight("latency", Detector::Level, -STEP)]);
    assert_eq!(lab.incident(id).judged, None, "an older build would not have said so");
}

#[test]
fn there_is_room_for_new_weights() {
    let mut lab = lab();
    for n in 0..MAX_WEIGHTS {
        let key = WeightKey {
            tenant: "elsewhere".into(),
            family: format!("family-{n}"),
            detector: Detector::Level,
        };
        let weight = Weight {
            millinats: if n == 7 { 1 } else { -STEP },
            version: 0,
            index: 0,
            at: lab.state.now,
            by: ROOT.into(),
            incident: IncidentId(1),
            opinion: Opinion::FalseAlarm,
        };
        lab.state.weights.all.insert(key, weight);
    }
    let id = called(&mut lab, &[("latency", "level")]);
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    assert_eq!(lab.state.weights.all.len(), MAX_WEIGHTS);
    let gone = lab.state.weights.all.keys().any(|key| key.family == "family-7");
    assert!(!gone, "the one that says least made room");
}

#[test]
fn no_tenant_pushes_out_the_lessons_of_one_that_holds_less() {
    let fill = |lab: &mut Lab, tenant: &str, count: usize, millinats: i32| {
        for n in 0..count {
            let (family, detector) = (format!("family-{n}"), Detector::Level);
            let key = WeightKey { tenant: tenant.into(), family, detector };
            let weight = Weight {
                millinats,
                version: 0,
                index: 0,
                at: lab.state.now,
                by: ROOT.into(),
                incident: IncidentId(1),
                opinion: Opinion::FalseAlarm,
            };
            lab.state.weights.all.insert(key, weight);
        }
    };
    let held = |lab: &Lab, tenant: &str| lab.state.weights.of_tenant(tenant).count();
    // The small one's lessons say less, and are older than what the greedy one learns.
    let mut lab = lab();
    fill(&mut lab, "small", 96, -1);
    fill(&mut lab, TENANT, MAX_WEIGHTS - 96, -STEP);
    let id = called(&mut lab, &[("latency", "level"), ("load", "cusum")]);
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    assert_eq!((held(&lab, "small"), held(&lab, TENANT)), (96, MAX_WEIGHTS - 96));

    // A newcomer gets room from the one that holds most.
    let mut lab = self::lab();
    fill(&mut lab, "small", 96, -1);
    fill(&mut lab, "greedy", MAX_WEIGHTS - 96, -STEP);
    let id = called(&mut lab, &[("latency", "level")]);
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    let counts = ["small", "greedy", TENANT].map(|tenant| held(&lab, tenant));
    assert_eq!(counts, [96, MAX_WEIGHTS - 97, 1]);
}
