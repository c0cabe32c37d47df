//! What the measure makes of faults and incidents.

#![allow(clippy::unwrap_used)]
use std::path::Path;

use super::{
    super::{
        cases::{Plan, Seen},
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
