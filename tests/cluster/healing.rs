//! A short healing campaign with a fixed seed: real services broken in a few ways while a leader dies,
//! and all of them healed without a human. How long that takes, and what else is reported meanwhile, is
//! the long campaign's to judge: it depends on the machine.

use std::process::{Command, Stdio};

#[test]
fn every_fault_of_a_short_campaign_is_healed_without_a_human() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = ["crash", "wrong-dependency", "port-lost", "tampering", "errors"];
    let output = Command::new(env!("CARGO_BIN_EXE_campaign"))
        .args(["--healing", "--phase", "faults", "--minutes", "0.8", "--seed", "3", "--out"])
        .arg(dir.path())
        .args(kinds.into_iter().flat_map(|kind| ["--kind", kind]))
        .env("MEDIC_BIN", env!("CARGO_BIN_EXE_medic-under-test"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("report: "), "it did not come to its end:\n{told}\n{errors}");
    assert!(told.contains("gets SIGKILL"), "no node of Medic's was killed:\n{told}");
    let times = told.lines().filter_map(|line| line.trim_start().split_once(" s  "));
    let times: Vec<f64> = times.filter_map(|(at, _)| at.parse().ok()).collect();
    // Each is told when it is done; a node's death not only when the node is back, seconds later.
    let in_order = times.windows(2).all(|two| two[1] > two[0] - 1.5);
    assert!(times.len() > 4 && in_order, "{told}");
    let folder = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let report = std::fs::read(folder.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let figures = &report["parts"][0]["figures"];
    assert!(figures["faults"].as_u64().unwrap() >= 2, "{figures}");
    assert_eq!(figures["healed"], figures["faults"], "{told}");
    assert!(folder.join("report.html").exists() && folder.join("report.md").exists());
}
