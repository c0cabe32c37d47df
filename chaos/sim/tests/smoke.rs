//! The part of the simulation that every change must pass: some hundred seeds, one of them twice,
//! and a few planted mistakes, which must be found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use medic_sim::{
    campaign::campaign,
    planted::hunt,
    run::{Plan, run},
};
use medic_state::planted::Planted;

#[test]
fn two_hundred_seeds_hold_every_invariant() {
    let report = campaign(0..200, 2, &|_| {}).unwrap();
    let failed: Vec<String> = report
        .failed
        .iter()
        .flat_map(|(seed, all)| all.iter().map(move |one| format!("seed {seed}: {one}")))
        .collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", report.failures, failed.join("\n"));
    assert_eq!((report.seeds, report.twice), (200, 2));
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
