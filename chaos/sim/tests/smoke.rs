//! The part of the simulation that every change must pass: some hundred seeds, one of them twice,
//! and a few planted mistakes, which must be found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use medic_sim::{
    campaign::{Report, campaign},
    layer_b::Mark,
    planted::{hunt, hunt_in_processes},
    processes,
    run::{Plan, run},
};
use medic_state::planted::Planted;

const PROGRAM: &str = env!("CARGO_BIN_EXE_medic-sim");

#[test]
fn two_hundred_seeds_hold_every_invariant() {
    let report = campaign(0..200, 2, &|_| {}).unwrap();
    none_failed(&report);
    assert_eq!((report.seeds, report.twice), (200, 2));
}

fn none_failed(report: &Report) {
    let failed: Vec<String> = report
        .failed
        .iter()
        .flat_map(|(seed, all)| all.iter().map(move |one| format!("seed {seed}: {one}")))
        .collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", report.failures, failed.join("\n"));
}

/// Whole nodes: seed 0 twice, in two processes.
#[test]
fn twenty_clusters_of_whole_nodes_hold_every_invariant() {
    let report = processes::campaign(Path::new(PROGRAM), 0..20, 2, &|_| {}).unwrap();
    none_failed(&report);
    assert_eq!((report.seeds, report.twice), (20, 1));
    // A storm that hit nothing, or clients that nobody answered, would prove nothing.
    let reached = |mark: Mark| report.marks.get(&mark).copied().unwrap_or_default();
    for mark in [
        Mark::LeaderKilled,
        Mark::PowerLost,
        Mark::LeaderIsolated,
        Mark::CallAnswered,
        Mark::ReadAnswered,
        Mark::MemberRemoved,
        Mark::SnapshotSent,
    ] {
        assert!(reached(mark) > 0, "{}: {:?}", mark.as_str(), report.marks);
    }
}

#[test]
fn mistakes_of_whole_nodes_are_found() {
    for planted in [Planted::StaleReadServed, Planted::FsyncSkipped] {
        let caught = hunt_in_processes(Path::new(PROGRAM), planted, 0..40).unwrap();
        assert!(caught.by.is_some(), "{}: {}", planted.name(), planted.what());
    }
}

#[test]
fn one_seed_is_one_trace() {
    let plan = Plan { seed: 7, trace: true, ..Plan::default() };
    let (first, second) = (run(&plan).unwrap(), run(&plan).unwrap());
    assert!(!first.trace.is_empty());
    let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(first.hash, second.hash);
}

#[test]
fn mistakes_are_found() {
    for planted in [Planted::UndoInOrder, Planted::AgentTakesAnyFence, Planted::LeaseUnchecked] {
        let caught = hunt(planted, 0..60).unwrap();
        assert!(caught.by.is_some(), "{}: {}", planted.name(), planted.what());
    }
}
