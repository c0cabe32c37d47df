//! What the measure makes of faults and incidents.

#![allow(clippy::unwrap_used)]
use std::path::Path;

use super::{
    super::{
        cases::{Act, Plan, Seen},
        kinds::Kind,
        schedule::Planned,
    },
    *,
};
use crate::fleet::Layout;

fn fleet() -> SampleFleet {
    let agents: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    let ports: Vec<u16> = (1..=20).collect();
    SampleFleet::laid_out(Layout::Redundant, Path::new("/x"), &agents, &ports, Path::new("/p"), &[])
}

fn fault(kind: Kind, instance: &str, wall_ms: u64, lasted_ms: u64) -> Injected {
    let service = instance.rsplit_once('-').unwrap().0.to_owned();
    let planned = Planned { at_ms: wall_ms, kind, service, instances: vec![instance.to_owned()] };
    Injected { planned, wall_ms, gone_after_ms: Some(lasted_ms), by_hand: false, not_done: None }
}

fn act(instance: &str, began_ms: u64) -> Act {
    Act { instance: instance.to_owned(), began_ms }
}

/// Word of an instance, taken in at this time.
fn take_in(case: &mut Case, instance: &str, first_ms: u64) {
    let seen = Seen { instance: instance.to_owned(), first_ms, ..case.symptoms[0].clone() };
    case.symptoms.push(seen);
}

/// Opened at 9 s about `instance`, closed at 18 s, without a plan.
fn unusual(instance: &str) -> Case {
    let mut case = case("INC-73", instance, "", 9_000);
    case.plans.clear();
    (case.decided_ms, case.resolved_ms) = (None, Some(18_000));
    case
}

fn case(id: &str, instance: &str, class: &str, opened_ms: u64) -> Case {
    let service = instance.rsplit_once('-').unwrap().0.to_owned();
    let seen = Seen {
        service: service.clone(),
        instance: instance.to_owned(),
        kind: "down".to_owned(),
        first_ms: opened_ms,
        grouped: false,
    };
    let plan = Plan {
        id: "PLAN-1".to_owned(),
        playbook: "p".to_owned(),
        status: "succeeded".to_owned(),
        started_ms: Some(opened_ms + 500),
        ended_ms: Some(opened_ms + 5_500),
        reason: String::new(),
        acts: vec![act(instance, opened_ms + 500)],
    };
    Case {
        id: id.to_owned(),
        service,
        instance: instance.to_owned(),
        class: class.to_owned(),
        reasons: Vec::new(),
        status: "resolved".to_owned(),
        resolution: "remediated".to_owned(),
        manual: false,
        escalation: String::new(),
        merged_into: String::new(),
        opened_ms,
        decided_ms: Some(opened_ms + 200),
        resolved_ms: Some(opened_ms + 6_000),
        symptoms: vec![seen],
        plans: vec![plan],
        timeline: Vec::new(),
    }
}

#[test]
fn a_healed_fault_has_its_times() {
    let faults = [fault(Kind::Crash, "orders-1", 10_000, 4_000)];
    let cases = [case("INC-1", "orders-1", "application/crash", 11_000)];
    let (rows, figures, alarms) = measure(&faults, &cases, &BTreeMap::new(), &fleet());
    assert!(alarms.is_empty() && rows[0].healed);
    assert_eq!(rows[0].detected_ms, Some(1_000));
    assert_eq!(rows[0].decided_ms, Some(200));
    assert_eq!(rows[0].remediated_ms, Some(5_000));
    assert_eq!(rows[0].recovered_ms, Some(7_000));
    assert_eq!((figures.plans, figures.plans_good, figures.classified_right), (1, 1, 1));
}

#[test]
fn a_person_a_wrong_class_and_a_failed_plan_are_counted() {
    let faults = [fault(Kind::Crash, "orders-1", 10_000, 4_000)];
    let mut asked = case("INC-1", "orders-1", "application/hang", 11_000);
    asked.escalation = "2 of 2 attempts did not help".to_owned();
    asked.plans[0].status = "rolled-back".to_owned();
    let (rows, figures, _) = measure(&faults, &[asked], &BTreeMap::new(), &fleet());
    assert!(!rows[0].healed);
    assert_eq!((figures.healed, figures.plans_good, figures.plans), (0, 0, 1));
    assert_eq!((figures.classified, figures.classified_right), (1, 0));
    assert_eq!(figures.confusion["crash"]["application/hang"], 1);
}

#[test]
fn a_fault_nobody_saw_is_neither_detected_nor_healed() {
    let mut unseen = fault(Kind::Tampering, "orders-1", 10_000, 0);
    unseen.gone_after_ms = None;
    let (rows, figures, _) = measure(&[unseen], &[], &BTreeMap::new(), &fleet());
    assert_eq!((figures.detected, figures.healed), (0, 0));
    assert_eq!(rows[0].remarks, ["not detected"]);
    // It is in the table of classes: two faults are not to look like one.
    assert_eq!((figures.confusion["tampering"]["none"], figures.classified), (1, 0));
    // Gone by itself is not healed either.
    let alone = fault(Kind::Crash, "orders-1", 10_000, 5_000);
    assert!(!measure(&[alone], &[], &BTreeMap::new(), &fleet()).0[0].healed);
}

#[test]
fn an_effect_is_no_false_alarm_and_an_unexplained_incident_is() {
    let faults = [fault(Kind::Hang, "datastore-1", 10_000, 9_000)];
    let cases = [
        case("INC-1", "datastore-1", "application/hang", 11_000),
        case("INC-2", "orders-2", "application/errors", 12_000),
        // Long after, and on something that calls nobody who was ill.
        case("INC-3", "orders-2", "application/errors", 60_000),
    ];
    let (_, figures, alarms) = measure(&faults, &cases, &BTreeMap::new(), &fleet());
    assert_eq!((figures.effects, figures.false_alarms), (1, 1));
    assert_eq!(alarms[0].id, "INC-3");
    // A callee is nobody's effect.
    let faults = [fault(Kind::Crash, "gateway-1", 10_000, 9_000)];
    let cases = [case("INC-4", "datastore-1", "application/errors", 11_000)];
    assert_eq!(measure(&faults, &cases, &BTreeMap::new(), &fleet()).1.false_alarms, 1);
}

#[test]
fn an_incident_that_was_open_and_took_the_fault_in_is_the_faults() {
    let faults = [fault(Kind::Crash, "datastore-2", 10_000, 2_500)];
    let mut healed = case("INC-73", "datastore-2", "application/crash", 9_000);
    take_in(&mut healed, "datastore-2", 11_100);
    (healed.decided_ms, healed.resolved_ms) = (Some(11_500), Some(18_000));
    (healed.plans[0].started_ms, healed.plans[0].ended_ms) = (Some(11_600), Some(17_600));
    healed.plans[0].acts = vec![act("datastore-2", 11_600)];
    // What is left of it, seen right after.
    let mut after = case("INC-99", "datastore-2", "", 18_100);
    after.plans.clear();
    (after.decided_ms, after.resolved_ms) = (None, Some(20_000));
    let cases = [healed, after];
    let (rows, figures, alarms) = measure(&faults, &cases, &BTreeMap::new(), &fleet());
    assert!(alarms.is_empty(), "{alarms:?}");
    assert_eq!(rows[0].incidents, ["INC-73", "INC-99"]);
    assert_eq!((rows[0].class.as_str(), rows[0].healed), ("application/crash", true));
    assert_eq!((rows[0].detected_ms, rows[0].decided_ms), (Some(1_100), Some(400)));
    assert_eq!((rows[0].remediated_ms, rows[0].recovered_ms), (Some(6_000), Some(10_000)));
    assert_eq!((figures.plans_good, figures.classified_right), (1, 1));
    assert_eq!(figures.confusion["crash"]["application/crash"], 1);
}

#[test]
fn an_incident_that_was_open_and_cured_the_faults_target_is_the_faults() {
    let faults = [fault(Kind::Crash, "datastore-2", 10_000, 2_500)];
    // Opened about its sibling; the crash joined it, and it was the crash that it treated.
    let mut cured = case("INC-73", "datastore-1", "application/crash", 9_000);
    take_in(&mut cured, "datastore-2", 11_100);
    cured.plans[0].acts = vec![act("datastore-2", 11_600)];
    let (rows, figures, _) = measure(&faults, &[cured.clone()], &BTreeMap::new(), &fleet());
    assert_eq!((rows[0].incidents.len(), figures.false_alarms), (1, 0));
    // Another service's, whatever it does; and an act on its own target alone, or when it was over.
    let mut other = case("INC-80", "orders-1", "application/latency", 9_000);
    other.plans[0].acts = vec![act("datastore-2", 11_600)];
    assert_eq!(measure(&faults, &[other], &BTreeMap::new(), &fleet()).1.false_alarms, 1);
    for other in [act("datastore-1", 11_600), act("datastore-2", 12_600)] {
        cured.plans[0].acts = vec![other];
        let (_, figures, _) = measure(&faults, &[cured.clone()], &BTreeMap::new(), &fleet());
        assert_eq!(figures.false_alarms, 1);
    }
}

#[test]
fn an_incident_that_was_open_and_has_nothing_of_the_fault_is_a_false_alarm() {
    let faults = [fault(Kind::Crash, "datastore-2", 10_000, 2_500)];
    let no_word = unusual("datastore-2");
    let mut sibling = unusual("datastore-1");
    take_in(&mut sibling, "datastore-2", 11_100);
    take_in(&mut sibling, "datastore-1", 11_200);
    let mut closed = unusual("datastore-2");
    closed.resolved_ms = Some(9_900);
    let mut before = unusual("datastore-2");
    take_in(&mut before, "datastore-2", 9_500);
    let mut late = unusual("datastore-2");
    take_in(&mut late, "datastore-2", 12_600);
    let mut caller = unusual("orders-1");
    take_in(&mut caller, "orders-1", 11_100);
    for case in [no_word, sibling, closed, before, late, caller] {
        let (_, figures, alarms) =
            measure(&faults, std::slice::from_ref(&case), &BTreeMap::new(), &fleet());
        assert_eq!((figures.false_alarms, alarms.len()), (1, 1), "{case:?}");
    }
}

#[test]
fn what_opened_of_one_fault_is_not_taken_by_a_later_one() {
    let faults = [
        fault(Kind::Hang, "datastore-1", 10_000, 9_000),
        fault(Kind::Crash, "datastore-2", 36_000, 4_000),
    ];
    let mut first = case("INC-1", "datastore-1", "application/hang", 11_000);
    take_in(&mut first, "datastore-2", 37_000);
    first.resolved_ms = Some(45_000);
    first.plans[0].acts = vec![act("datastore-2", 37_500)];
    let (rows, ..) = measure(&faults, &[first], &BTreeMap::new(), &fleet());
    assert_eq!(rows[0].incidents, ["INC-1"]);
    assert_eq!(rows[0].detected_ms, Some(1_000));
}

#[test]
fn merged_incidents_count_by_the_one_that_took_them_in() {
    let faults = [fault(Kind::Hang, "orders-1", 10_000, 9_000)];
    let mut first = case("INC-1", "orders-1", "", 11_000);
    first.merged_into = "INC-2".to_owned();
    first.plans.clear();
    let last = case("INC-2", "datastore-1", "application/hang", 11_500);
    let (rows, ..) = measure(&faults, &[first, last], &BTreeMap::new(), &fleet());
    assert_eq!(rows[0].class, "application/hang");
    assert_eq!((rows[0].detected_ms, rows[0].plans_good), (Some(1_000), 1));
}

#[test]
fn spreads_are_ranks() {
    let spread = Spread::of(1..=200);
    assert_eq!((spread.median, spread.p99, spread.max), (100, 198, 200));
    assert_eq!(Spread::of(std::iter::empty()).count, 0);
    assert!((percent(1, 3) - 33.333).abs() < 0.001);
}
