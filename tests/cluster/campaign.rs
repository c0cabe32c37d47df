//! Short campaigns with fixed seeds, on the best network there is and on loopback: real nodes under
//! faults, no invariant violated, and a report that says so, also of one that is told to stop.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A campaign reaches its first round, or its end after it is told to stop, within this.
const PATIENCE: Duration = Duration::from_secs(240);

fn command(minutes: &str, seed: &str, network: &str, dir: &Path) -> Command {
    // The binary's own folder holds the sample services' program and the node with failpoints.
    let mut command = Command::new(env!("CARGO_BIN_EXE_campaign"));
    command
        .args(["--minutes", minutes, "--seed", seed, "--nodes", "3", "--network", network, "--out"])
        .arg(dir)
        .env("MEDIC_BIN", env!("CARGO_BIN_EXE_medic-under-test"))
        .stdin(Stdio::null());
    command
}

/// What a campaign wrote.
struct Written {
    json: serde_json::Value,
    markdown: String,
    html: String,
}

fn written(dir: &Path) -> Written {
    let folder: PathBuf = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    Written {
        json: serde_json::from_str(&read("report.json")).unwrap(),
        markdown: read("report.md"),
        html: read("report.html"),
    }
}

/// Seeds whose short schedules kill leaders and cut links.
fn campaign(seed: &str, network: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = command("0.25", seed, network, dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a campaign with seed {seed} failed:\n{told}\n{errors}");
    assert!(told.contains(" 0 violations"), "{told}");
    let Written { json, markdown, html } = written(dir.path());
    assert_eq!((json["good"].as_bool(), json["violations"].as_u64()), (Some(true), Some(0)));
    for verdict in json["verdicts"].as_array().unwrap() {
        let word = if verdict["checked"] == 0 { "nothing checked" } else { "holds" };
        assert_eq!(verdict["verdict"], word, "{verdict}");
    }
    // The members, their watch, and every journal were read.
    let checked = |of: &str| {
        let verdicts = json["verdicts"].as_array().unwrap().iter();
        let found = verdicts.filter(|v| v["of"].as_str().unwrap().starts_with(of));
        found.map(|v| v["checked"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((checked("members read"), checked("journals of agents read")), (3, 3), "{json}");
    assert!(checked("watched events") > 0 && checked("plans read") > 0, "{json}");
    let incidents = json["incidents"].as_array().unwrap();
    assert!(!incidents.is_empty(), "trouble in the fleet opened none");
    for text in [&markdown, &html] {
        assert!(text.contains("that was checked holds") || text.contains("every invariant holds"));
        assert!(text.contains(incidents[0]["id"].as_str().unwrap()), "{text}");
        assert!(text.contains(&format!("--minutes 0.25 --seed {seed} --nodes 3")), "{text}");
    }
    assert!(html.contains("<svg") && html.contains("answers/s"));
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

#[test]
fn a_campaign_that_is_interrupted_reports_what_it_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("told");
    let out = dir.path().join("out");
    let mut campaign = command("30", "3", "loopback", &out)
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let told = || std::fs::read_to_string(&log).unwrap();
    while !told().contains("round 1: ") {
        assert!(campaign.try_wait().unwrap().is_none(), "it ended too early:\n{}", told());
        assert!(Instant::now() < deadline, "no round has begun:\n{}", told());
        std::thread::sleep(Duration::from_millis(50));
    }
    kill(Pid::from_raw(i32::try_from(campaign.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(campaign.wait().unwrap().code(), Some(3), "{}", told());
    let Written { json, markdown, html } = written(&out);
    assert_eq!((json["ended"]["by"].as_str(), json["exit"].as_u64()), (Some("SIGINT"), Some(3)));
    assert_eq!(json["violations"].as_u64(), Some(0), "{json}");
    for text in [&markdown, &html, &told()] {
        assert!(text.contains("INTERRUPTED by SIGINT after "), "{text}");
    }
}

#[test]
fn a_dry_run_shows_the_schedule_that_would_be_played() {
    let dry = |network: &str| {
        let dir = tempfile::tempdir().unwrap();
        let output = command("60", "7", network, dir.path()).arg("--dry-run").output().unwrap();
        assert!(output.status.success());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it does nothing");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = dry("auto");
    assert_eq!(told, dry("loopback"));
    assert!(told.contains("round 1: "), "{told}");
    assert!(told.starts_with("33 kinds of faults: kill-leader, "), "{told}");
    // What is not had here is said to be missing, and nothing else is missing.
    for fault in ["power-cut", "full-disk", "clock-skew", "kill-at-failpoint", "bit-flips"] {
        let absent = told.contains(&format!("not here: {fault}: "));
        assert_ne!(absent, told.contains(&format!("{fault} (")), "{fault}: {told}");
    }
}

#[test]
fn wrong_usage_is_refused_before_anything_starts() {
    let binary = env!("CARGO_BIN_EXE_medic-under-test");
    let missing = "/nope is missing";
    for (medic, planted, more, why) in [
        ("/nope", None, None, missing),
        ("/nope", None, Some("--dry-run"), missing),
        ("/nope", None, Some("--healing"), missing),
        ("/bin/true", Some("AgentForgetsKeys"), None, "/bin/true makes no mistakes"),
        ("/bin/true", Some("AgentForgetsKeys"), Some("--healing"), "/bin/true makes no mistakes"),
        (binary, Some("Nope"), None, "there is no planted mistake `Nope`; there are "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut command = command("1", "3", "auto", &out);
        command.args(more).args(["--medic", medic]);
        command.envs(planted.map(|name| ("MEDIC_PLANTED", name)));
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{medic} {planted:?}: {told}");
        assert!(told.contains(why) && told.lines().count() == 1, "{told}");
        assert!(!out.exists(), "{medic} {planted:?}: something was begun");
    }
}
