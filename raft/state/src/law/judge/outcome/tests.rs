//! What outcomes teach, and everything that keeps them from it.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    applied::Record,
    command::{Command, NoteTold, ToldOn},
    ids::PlanId,
    incident::IncidentStatus,
    law::{
        hush,
        judge::tests::{judge, lab, odd, weight, weights},
        tests::lab::*,
    },
    manifest::{ChannelSpec, MaintenanceWindowSpec, Spec},
    notice::{Delivery, NoticeKind},
    plan::Direction,
    saga::VerdictValue,
    symptom::{ALTHOUGH_USUAL, LIMIT, Signal, Symptom},
    weight::{LEAST, STEP},
};

mod missed;

/// A report about `api/a`.
fn about(kind: &str, signals: Vec<Signal>) -> Symptom {
    Symptom { signals, ..symptom("api", "a", kind) }
}

/// `level` finds the latency odd.
fn level() -> Symptom {
    about("latency", vec![odd("latency", "level")])
}

/// The latency has crossed its limit; whether its detectors find it usual.
fn limit(usual: bool) -> Signal {
    let expected = if usual { format!("<= 0.5{ALTHOUGH_USUAL}") } else { "<= 0.5".to_owned() };
    Signal { expected, ..odd("latency", LIMIT) }
}

fn crossed(usual: bool) -> Symptom {
    about("latency", vec![limit(usual)])
}

/// The symptom goes away, and so does its incident.
fn ends(lab: &mut Lab) {
    lab.clear("api", "a", "latency").unwrap();
    lab.wait(20);
}

/// Opens an incident that detectors alone call, has something happen meanwhile, lets it end by itself and
/// stay away; gives whether it was said to be a false alarm.
fn cries(lab: &mut Lab, meanwhile: impl FnOnce(&mut Lab, IncidentId)) -> bool {
    let id = lab.report_with(level());
    meanwhile(lab, id);
    ends(lab);
    lab.wait(300);
    let judged = lab.incident(id).judged.as_ref();
    judged.is_some_and(|judged| judged.by == LAW && judged.opinion == Opinion::FalseAlarm)
}

fn false_alarm(meanwhile: impl FnOnce(&mut Lab, IncidentId)) -> bool {
    let mut lab = lab();
    let said = cries(&mut lab, meanwhile);
    let expected: &[_] =
        if said { &[weight("latency", Detector::Level, -STEP_BY_OUTCOME)] } else { &[] };
    assert_eq!(weights(&lab), expected);
    said
}

#[test]
fn what_nobody_heeded_and_was_over_takes_a_little_belief_once_it_has_stayed_away() {
    let mut lab = lab();
    let id = lab.report_with(level());
    ends(&mut lab);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    assert_eq!(weights(&lab), [], "it may come back");
    assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 300_000)));
    lab.records.clear();
    lab.wait(300);
    assert_eq!(weights(&lab), [weight("latency", Detector::Level, -STEP_BY_OUTCOME)]);
    let kept = lab.state.weights.all.values().next().unwrap();
    assert_eq!((kept.by.as_str(), kept.incident, kept.version), (LAW, id, 1));
    let told = &lab.incident(id).timeline.last().unwrap().text;
    assert!(
        told.starts_with("judged a false alarm (weights moved: level of latency -50)"),
        "{told}"
    );
    assert!(told.contains("nobody acted"), "{told}");
    let [Record::Audit(link), Record::Closed(closed)] = &lab.records[..] else { panic!() };
    assert_eq!((link.command.as_str(), closed.incident.id), ("Tick", id));
    assert_eq!(closed.incident.judged, lab.incident(id).judged);
    lab.records.clear();
    lab.wait(1_000);
    assert_eq!((lab.state.weights.version, lab.records.len(), lab.state.next_due()), (1, 0, None));
}

#[test]
fn facts_speak_against_a_false_alarm_whenever_they_spoke() {
    assert!(false_alarm(|_, _| {}));
    let panel = || vec![odd("together", "panel"), odd("latency", "level")];
    let more = false_alarm(|lab, _| {
        lab.report_with(level());
        lab.clear("api", "a", "latency").unwrap();
        lab.report_with(level());
    });
    assert!(more, "it repeats, and relapses");
    let earlier = false_alarm(|lab, _| {
        lab.report_with(crossed(true));
        lab.report_with(level());
    });
    assert!(!earlier, "on its way back a limit's value is merely odd");
    let of_another_kind = false_alarm(|lab, _| {
        lab.report_with(about("down", vec![odd("http", "probe")]));
        lab.clear("api", "a", "down").unwrap();
    });
    assert!(!of_another_kind);
    let felt = false_alarm(|lab, id| {
        let felt = Symptom { signals: panel(), ..symptom("web", "w", "latency") };
        assert_eq!(lab.report_with(felt), id, "grouped");
    });
    assert!(!felt, "those who depend on it felt it");
    let hurt = false_alarm(|lab, _| {
        lab.report_with(Symptom { severity: Severity::Critical, ..level() });
        lab.report_with(level());
    });
    assert!(!hurt, "a quarter of all requests failing is none");
    let nothing = false_alarm(|lab, _| {
        lab.report_with(about("latency", Vec::new()));
    });
    assert!(!nothing, "what names no signals is somebody's word");
}

#[test]
fn a_human_who_had_a_hand_in_it_speaks_against_a_false_alarm() {
    for touch in [Command::Acknowledge, Command::AddNote] {
        assert!(!false_alarm(|lab, id| {
            lab.root(touch(Lab::note(id))).unwrap();
        }));
    }
    let escalated = |lab: &mut Lab, id| {
        lab.propose(id, lab.proposal(None)).unwrap();
    };
    assert!(false_alarm(escalated), "that Medic asked for one is no hand");
    let mut lab = self::lab();
    let id = lab.report_with(level());
    ends(&mut lab);
    lab.root(Command::AddNote(Lab::note(id))).unwrap();
    lab.wait(300);
    assert_eq!(weights(&lab), [], "afterwards, too");
    let id = lab.report_with(level());
    lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
    lab.wait(300);
    assert_eq!(weights(&lab), [], "they closed it");
}

#[test]
fn who_was_told_of_what_lasted_may_have_mended_it() {
    let told = |lab: &mut Lab, id: IncidentId, secs: u64| {
        let url = "http://there/".to_owned();
        lab.apply("pager", Spec::Channel(ChannelSpec::Webhook { url, rules: None }));
        lab.propose(id, lab.proposal(None)).unwrap();
        let telling = lab.state.tellings(&|_, _, _| false).next.pop().unwrap();
        let (kind, text) = (NoticeKind::NeedsHuman, telling.notices[0].digest());
        let on =
            ToldOn { channel: "pager".into(), kind, delivery: Delivery::Delivered, also: vec![] };
        lab.node(1, Command::NoteTold(NoteTold { incident: id, text, on: Some(on) })).unwrap();
        lab.wait(secs);
    };
    assert!(false_alarm(|lab, id| told(lab, id, 600)));
    assert!(!false_alarm(|lab, id| told(lab, id, 601)));
    assert!(false_alarm(|lab, _| lab.wait(10_000)), "nobody was told");
}

#[test]
fn what_was_acted_upon_here_or_next_to_it_was_no_false_alarm() {
    let acted = false_alarm(|lab, id| {
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, failed(false));
    });
    assert!(!acted);
    let not_begun = false_alarm(|lab, id| {
        lab.adopt(id, vec![step(&target("api", "a"))]);
    });
    assert!(not_begun, "a plan that was dropped has done nothing");
    let act = |lab: &mut Lab, service: &str, instance: &str| {
        let id = lab.report(service, instance, "down");
        let plan = lab.adopt(id, vec![step(&target(service, instance))]);
        lab.run(plan, 0, done());
        lab.verdict(plan, VerdictValue::Passed).unwrap();
    };
    assert!(!false_alarm(|lab, _| act(lab, "web", "w")), "one that depends on it");
    let of_its_cause = false_alarm(|lab, id| {
        // Decided, it is not merged.
        lab.propose(id, lab.proposal(None)).unwrap();
        act(lab, "db", "d");
    });
    assert!(!of_its_cause);
    let elsewhere = false_alarm(|lab, _| {
        lab.apply("lone", Spec::Service(service(&["l"], &[])));
        act(lab, "lone", "l");
    });
    assert!(elsewhere);
    let mut lab = self::lab();
    act(&mut lab, "web", "w");
    lab.now += 1_000;
    assert!(cries(&mut lab, |_, _| {}), "before it began");
}

fn silence(lab: &mut Lab, secs: u64) {
    hush::tests::silence(lab, &[r#"service="api""#], secs);
}

#[test]
fn what_was_held_back_or_silenced_did_not_take_its_own_course() {
    let mut lab = self::lab();
    let window = MaintenanceWindowSpec {
        matchers: vec![r#"service="api""#.into()],
        starts_at: Timestamp(lab.now),
        duration: Millis(5_000),
        every: None,
        comment: "upgrade".into(),
        schedule: None,
        ends_at: None,
    };
    lab.apply("upgrade", Spec::MaintenanceWindow(window));
    let held = cries(&mut lab, |lab, id| {
        lab.wait(5);
        assert_eq!(lab.incident(id).held_by, None, "it is over");
    });
    assert!(!held);
    let silenced = false_alarm(|lab, _| {
        silence(lab, 5);
        lab.report_symptom(level()).unwrap();
        lab.wait(5);
    });
    assert!(!silenced);
    let another = false_alarm(|lab, _| {
        silence(lab, 5);
        lab.report_symptom(symptom("api", "a", "down")).unwrap();
        lab.wait(5);
    });
    assert!(!another, "nobody knows what was silenced");
    assert!(!false_alarm(|lab, _| silence(lab, 60)), "silenced at its end");
    assert!(false_alarm(|lab, _| {
        silence(lab, 5);
        lab.wait(5);
    }));
}

#[test]
fn what_flaps_is_real() {
    let mut lab = lab();
    let first = lab.report_with(level());
    ends(&mut lab);
    lab.wait(299);
    let second = lab.report_with(level());
    assert_eq!(lab.incident(second).recurs.map(|recurs| recurs.of), Some(first));
    ends(&mut lab);
    lab.wait(10_000);
    assert_eq!(weights(&lab), []);
}

#[test]
fn what_went_on_as_something_else_was_no_false_alarm() {
    let goes_on = |after: u64, service: &str| {
        let mut lab = lab();
        let id = lab.report_with(level());
        ends(&mut lab);
        lab.wait(after);
        lab.report_with(Symptom {
            signals: vec![limit(true)],
            ..symptom(service, "a", "saturation")
        });
        lab.wait(300);
        lab.incident(id).judged.is_none()
    };
    assert!(goes_on(60, "api"), "what was foreseen has come");
    assert!(!goes_on(400, "api"), "that is another story");
    assert!(!goes_on(60, "web"), "and so is this");
}

#[test]
fn below_its_cluster_version_outcomes_form_no_opinion_and_nothing_is_kept_for_one() {
    let older = |lab: &mut Lab| lab.state.cluster_version = OUTCOMES_SINCE - 1;
    let mut lab = self::lab();
    older(&mut lab);
    assert!(!cries(&mut lab, |lab, id| {
        let voices = |lab: &Lab| lab.incident(id).symptoms.values().next().unwrap().voices.clone();
        lab.report_with(level());
        silence(lab, 1);
        lab.report_symptom(level()).unwrap();
        assert!(voices(lab).is_empty());
        lab.wait(1);
    }));
    treat(&mut lab, &[crossed(true)]);
    assert_eq!((weights(&lab).len(), lab.state.weights.version), (0, 0));
    // Switched on in between: what was said before is not known.
    let mut lab = self::lab();
    older(&mut lab);
    let mid = |lab: &mut Lab, _: IncidentId| {
        lab.state.cluster_version = OUTCOMES_SINCE;
        lab.report_with(level());
    };
    assert!(!cries(&mut lab, mid));
    older(&mut lab);
    lab.report_with(crossed(true));
    mid(&mut lab, IncidentId(0));
    treat(&mut lab, &[crossed(true)]);
    assert_eq!(weights(&lab), []);
}

#[test]
fn a_human_replaces_what_the_outcome_said_exactly() {
    let level_of_latency = |millinats| [weight("latency", Detector::Level, millinats)];
    for (opinion, then) in [(Opinion::FalseAlarm, -STEP), (Opinion::Genuine, 0)] {
        let mut lab = lab();
        assert!(cries(&mut lab, |_, _| {}));
        let id = *lab.state.incidents.keys().last().unwrap();
        lab.root(judge(id, opinion)).unwrap();
        assert_eq!(weights(&lab), level_of_latency(then));
        let judged = lab.incident(id).judged.clone().unwrap();
        assert_eq!((judged.by.as_str(), judged.opinion), (ROOT, opinion));
        lab.wait(1_000);
        assert_eq!(weights(&lab), level_of_latency(then), "and has the last word");
    }
}

#[test]
fn what_a_human_reopens_was_no_false_alarm_and_its_treatment_says_so() {
    let mut lab = lab();
    assert!(cries(&mut lab, |_, _| {}) && cries(&mut lab, |_, _| {}));
    let id = *lab.state.incidents.keys().last().unwrap();
    lab.root(Command::ReopenIncident(Lab::note(id))).unwrap();
    let back = [weight("latency", Detector::Level, -STEP_BY_OUTCOME)];
    assert_eq!((weights(&lab).as_slice(), &lab.incident(id).judged), (&back[..], &None));
    let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
    verify(&mut lab, plan, VerdictValue::Passed);
    assert_eq!(weights(&lab), [weight("latency", Detector::Level, 0)]);
    let judged = lab.incident(id).judged.clone();
    // What was verified stays so.
    lab.root(Command::ReopenIncident(Lab::note(id))).unwrap();
    assert_eq!(lab.incident(id).judged, judged);
}

fn verify(lab: &mut Lab, plan: PlanId, value: VerdictValue) {
    lab.start(plan, 0, Direction::Forward).unwrap();
    lab.finish(plan, 0, Direction::Forward, done()).unwrap();
    lab.verdict(plan, value).unwrap();
}

/// An incident with these reports, one after the other, whose treatment is verified.
fn treat(lab: &mut Lab, reports: &[Symptom]) -> IncidentId {
    // Beyond every rate.
    lab.now += 4_000_000;
    let id = lab.report_with(reports[0].clone());
    for report in &reports[1..] {
        lab.now += 1_000;
        assert_eq!(lab.report_with(report.clone()), id);
    }
    let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
    verify(lab, plan, VerdictValue::Passed);
    id
}

fn missed_by(step: i32) -> [(String, Detector, i32); 2] {
    [weight("latency", Detector::Level, step), weight("latency", Detector::Cusum, step)]
}

#[test]
fn outcomes_alone_leave_a_detector_its_voice_and_its_reserve() {
    let mut lab = lab();
    let id = treat(&mut lab, &[level()]);
    lab.now += 400_000;
    let steps = -LEAST_BY_OUTCOME / STEP_BY_OUTCOME;
    for _ in 0..steps + 3 {
        assert!(cries(&mut lab, |_, _| {}), "said, and moving nothing at the last");
        lab.now += 400_000;
    }
    assert_eq!(weights(&lab), [weight("latency", Detector::Level, LEAST_BY_OUTCOME)]);
    // One that humans have taken further down stays there.
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    assert!(cries(&mut lab, |_, _| {}));
    let low = LEAST_BY_OUTCOME - STEP;
    assert_eq!(weights(&lab), [weight("latency", Detector::Level, low)]);
    assert!(low > LEAST);
    // Two false alarms are outweighed by one that was verified.
    treat(&mut lab, &[level()]);
    assert_eq!(weights(&lab), [weight("latency", Detector::Level, low + 2 * STEP_BY_OUTCOME)]);
    let mut lab = self::lab();
    for _ in 0..MOST_BY_OUTCOME / STEP_BY_OUTCOME + 2 {
        treat(&mut lab, &[crossed(true)]);
    }
    assert_eq!(weights(&lab), missed_by(MOST_BY_OUTCOME));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_of_alarms_outcomes_stay_within_their_bounds(
        turns in proptest::collection::vec((0..5_u8, 1..12_usize), 1..6),
    ) {
        let mut lab = lab();
        for (kind, times) in turns {
            for _ in 0..times {
                match kind {
                    0 | 1 => drop(cries(&mut lab, |_, _| {})),
                    2 => drop(treat(&mut lab, &[level()])),
                    3 => drop(treat(&mut lab, &[crossed(true)])),
                    _ => drop(treat(&mut lab, &[crossed(false), level()])),
                }
                lab.now += 400_000;
                for weight in lab.state.weights.all.values() {
                    prop_assert!((LEAST_BY_OUTCOME..=MOST_BY_OUTCOME).contains(&weight.millinats));
                }
            }
        }
        let mut replayed = crate::State::new();
        for (entry, index) in lab.log.iter().zip(1..) {
            replayed.apply(index, entry);
        }
        prop_assert_eq!(replayed.hash(), lab.state.hash());
    }
}
