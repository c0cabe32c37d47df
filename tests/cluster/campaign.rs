//! Two short campaigns with fixed seeds: real nodes under faults, and no invariant violated.

use std::process::{Command, Stdio};

/// Seeds whose short schedules kill leaders and cut links.
fn campaign(seed: &str, minutes: &str) {
    let dir = tempfile::tempdir().unwrap();
    // The binary's own folder holds the sample services' program and the node with failpoints.
    let output = Command::new(env!("CARGO_BIN_EXE_campaign"))
        .args(["--minutes", minutes, "--seed", seed, "--nodes", "3", "--out"])
        .arg(dir.path())
        .env("MEDIC_BIN", env!("CARGO_BIN_EXE_medic-under-test"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a campaign with seed {seed} failed:\n{told}\n{errors}");
    assert!(told.contains(" 0 violations"), "{told}");
}

#[test]
fn a_short_campaign_leaves_every_invariant_whole() {
    campaign("1", "0.25");
}

#[test]
fn another_short_campaign_leaves_every_invariant_whole() {
    campaign("5", "0.25");
}
