//! What the customer's table says of a phase: a bound is kept only where it was measured of each fault.

use std::collections::BTreeMap;

use super::{
    super::{life::Injected, schedule::Planned},
    *,
};

fn spread(count: usize, p99: u64) -> Spread {
    Spread { count, median: p99, p99, max: p99 }
}

/// Four faults, all healed in good time.
fn good() -> Figures {
    Figures {
        faults: 4,
        detected: 4,
        healed: 4,
        classified: 4,
        classified_right: 4,
        plans: 4,
        plans_good: 4,
        detection_ms: spread(4, 2_000),
        decision_ms: spread(4, 1_000),
        remediation_ms: spread(4, 9_000),
        recovery_ms: spread(4, 12_000),
        incidents: 4,
        served: 10_000,
        failed: 1,
        ..Figures::default()
    }
}

fn record(phase: Phase) -> Record {
    Record {
        phase,
        began_wall_ms: 0,
        warm_up_ms: 20_000,
        length_ms: 86_400,
        faults: Vec::new(),
        kills: Vec::new(),
        noise: Vec::new(),
        cases: Vec::new(),
        load: BTreeMap::new(),
        left_open: 0,
    }
}

fn report(phase: Phase, figures: Figures) -> Report {
    let mut report = Report {
        seed: 2,
        nodes: 3,
        minutes: 5.0,
        person_after_s: 150,
        scrape_interval_s: 5,
        kinds: Vec::new(),
        medic: None,
        machine: Machine::look(Path::new("/tmp")),
        phases: vec![phase],
        broken_off: None,
        lines: Vec::new(),
        parts: Vec::new(),
    };
    report.add(record(phase), Vec::new(), figures, Vec::new(), 11);
    report
}

/// A fault that was healed without having been given a class, another that was classed right.
fn crashes() -> Vec<Row> {
    let planned = |at_ms, instance: &str| Planned {
        at_ms,
        kind: Kind::Crash,
        service: "datastore".to_owned(),
        instances: vec![instance.to_owned()],
    };
    let row = |at_ms, instance: &str, class: &str| Row {
        fault: Injected {
            planned: planned(at_ms, instance),
            wall_ms: at_ms,
            gone_after_ms: Some(2_400),
            by_hand: false,
            not_done: None,
        },
        expected: "application/crash",
        incidents: vec!["INC-99".to_owned()],
        class: class.to_owned(),
        detected_ms: Some(1_000),
        decided_ms: None,
        remediated_ms: None,
        recovered_ms: None,
        plans_good: 0,
        plans_bad: 0,
        healed: true,
        remarks: Vec::new(),
    };
    vec![row(2_000, "datastore-1", "application/crash"), row(38_200, "datastore-2", "")]
}

/// Lines that were not kept.
fn missed(report: &Report) -> Vec<&'static str> {
    let lines = report.lines.iter().filter(|line| line.kept == Some(false));
    lines.map(|line| line.what).collect()
}

#[test]
fn what_was_not_measured_of_each_fault_is_not_kept() {
    let all = report(Phase::Faults, good());
    assert_eq!(missed(&all), [""; 0]);
    assert!(all.good());
    let none = Figures {
        decision_ms: Spread::default(),
        remediation_ms: Spread::default(),
        recovery_ms: spread(3, 12_000),
        ..good()
    };
    let none = report(Phase::Faults, none);
    assert_eq!(
        missed(&none),
        [
            "decided, after detection",
            "remediated and verified, after the first act",
            "recovered, after the fault"
        ]
    );
    assert!(!none.good());
    let recovered =
        none.lines.iter().find(|line| line.what.starts_with("recovered")).map(|l| &l.seen);
    assert!(recovered.is_some_and(|seen| seen.starts_with("3 of 4: ")), "{recovered:?}");
    let late = report(Phase::Faults, Figures { detection_ms: spread(4, 31_000), ..good() });
    assert_eq!(missed(&late), ["detected"]);
}

#[test]
fn availability_is_judged_where_medic_is_and_compared_where_it_is_not() {
    let poor = Figures { served: 9_906, failed: 94, ..good() };
    assert_eq!(missed(&report(Phase::Faults, poor.clone())), ["requests served, faults and Medic"]);
    let quiet = Figures { incidents: 0, ..poor.clone() };
    assert_eq!(missed(&report(Phase::Quiet, quiet)), ["requests served, quiet and Medic"]);
    assert_eq!(missed(&report(Phase::WithoutMedic, poor)), [""; 0]);
}

#[test]
fn false_alarms_are_told_per_service_day() {
    // 86.4 s of eleven instances are 0.011 service-days.
    let figures = Figures { incidents: 2, false_alarms: 2, served: 1_000, ..Figures::default() };
    let report = report(Phase::Quiet, figures);
    let line = report.lines.iter().find(|line| line.what.starts_with("false alarms"));
    let seen = line.map(|line| line.seen.as_str()).unwrap_or_default();
    assert!(seen.starts_with("2 in 0.011 service-days, 182 per service-day"), "{seen}");
    assert_eq!(missed(&report), ["false positives"]);
}

#[test]
fn a_fault_without_a_class_is_told_everywhere() {
    let given = [("application/crash".to_owned(), 1), ("none".to_owned(), 1)];
    let confusion = BTreeMap::from([("crash".to_owned(), BTreeMap::from(given))]);
    let figures = Figures { confusion, ..good() };
    let told = |phase| {
        let mut report = report(phase, figures.clone());
        report.parts[0].rows = crashes();
        report
    };
    let faults = told(Phase::Faults);
    let (text, page) = (markdown::render(&faults), html::render(&faults));
    assert!(text.contains("| crash | datastore-2 | **none**, not application/crash |"), "{text}");
    assert!(text.contains("| crash | application/crash | 1 right, **1 none** |"), "{text}");
    let line = "38.2 s crash datastore-2 [INC-99]: classed none instead of application/crash";
    assert!(text.contains(&format!("as it should:\n\n- {line}\n")), "{text}");
    assert!(page.contains(&format!("<li>{line}</li>")) && !page.contains("2.0 s crash"), "{page}");
    assert!(page.contains("<th>none") && page.contains("<td class='n bad'>1"), "{page}");
    assert!(faults.terminal().contains(line));
    // Nobody was there to give one.
    let without = told(Phase::WithoutMedic);
    assert!(!without.terminal().contains("classed") && !html::render(&without).contains("<li>"));
}

#[test]
fn the_command_that_does_it_again_has_all_its_options() {
    let mut report = report(Phase::Faults, good());
    report.kinds = vec![Kind::Crash, Kind::DiskFull];
    assert_eq!(
        report.again(),
        "medic-chaos campaign --healing --minutes 5 --seed 2 --nodes 3 --person-after 150 --scrape-interval 5 \
         --phase faults --kind crash --kind disk-full"
    );
}

#[test]
fn what_was_broken_off_is_never_good() {
    let mut report = report(Phase::Faults, good());
    report.broken_off = Some("in phase quiet: interrupted".to_owned());
    assert!(!report.good());
    assert!(report.headline().starts_with("BROKEN OFF (in phase quiet: interrupted): every bound"));
    report.lines.clear();
    assert!(report.headline().ends_with("nothing was measured in what was played"));
}
