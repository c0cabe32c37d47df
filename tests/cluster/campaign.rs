//! Two short campaigns with fixed seeds, one on the best network there is and one on loopback: real
//! nodes under faults, and no invariant violated.

use std::process::{Command, Stdio};

/// Seeds whose short schedules kill leaders and cut links.
fn campaign(seed: &str, network: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    // The binary's own folder holds the sample services' program and the node with failpoints.
    let output = Command::new(env!("CARGO_BIN_EXE_campaign"))
        .args(["--minutes", "0.25", "--seed", seed, "--nodes", "3", "--network", network, "--out"])
        .arg(dir.path())
        .env("MEDIC_BIN", env!("CARGO_BIN_EXE_medic-under-test"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a campaign with seed {seed} failed:\n{told}\n{errors}");
    assert!(told.contains(" 0 violations"), "{told}");
    told.into_owned()
}

#[test]
fn a_short_campaign_leaves_every_invariant_whole() {
    let told = campaign("3", "auto");
    // Which network it was is said; where it was namespaces, the kernel has cut the leader off.
    let namespaces = told.contains("partitions made by the kernel: 1");
    assert!(namespaces || told.contains("network: loopback with relays ("), "{told}");
}

#[test]
fn another_short_campaign_leaves_every_invariant_whole() {
    let told = campaign("5", "loopback");
    assert!(told.contains("network: loopback with relays (as asked for)"), "{told}");
}
