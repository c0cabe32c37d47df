//! What is refused, and that a refusal, like a dry run, touches nothing.

use super::*;

const PAUSE: &str = "  faults: [{target: api, inject: pause, for: 1s}]\n";

#[test]
fn nothing_outside_the_allow_list_is_touched() {
    let stand = Stand::new();
    let file = stand.experiment(PAUSE);
    let out = stand.out();
    let refused = |allow: Option<&str>, file: &str, expected: &str| {
        let mut args = vec!["run", file, "--out", &out];
        args.extend(allow.iter().flat_map(|allow| ["--allow", *allow]));
        let output = experiment(&args);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!stand.path("out").exists() && !stand.paused());
    };
    refused(None, &file, "target `api` is not on the allow-list");
    let process = stand.process();
    let entry = |process: &str, inject: &str| format!("{{process: {process}, inject: {inject}}}");
    let other = stand.allow(&[&entry("{exe: /usr/bin/other}", "[pause]")]);
    refused(Some(&other), &file, "not on the allow-list");
    let fewer = process.replace("--name", "--nama");
    let fewer = stand.allow(&[&entry(&fewer, "[pause]")]);
    refused(Some(&fewer), &file, "not on the allow-list");
    let kill = stand.allow(&[&entry(&process, "[kill]")]);
    refused(Some(&kill), &file, "does not allow pause for target `api`, only kill");
    let exe = format!("{{exe: {:?}}}", env!("CARGO_BIN_EXE_sample-service"));
    let twice = stand.allow(&[&entry(&process, "[pause]"), &entry(&exe, "[pause]")]);
    refused(Some(&twice), &file, "matches 2 entries");
    let command = std::fs::read_to_string(&file).unwrap();
    let command = command.replace("http: {url", "command: {argv: [/bin/true], timeout: 1s}} #");
    let command = stand.write("command.yaml", &command.replace("web.status == 200", "web.ok"));
    let allowed = stand.allow_service("[pause]");
    refused(Some(&allowed), &command, "runs `/bin/true`, which is not among the `commands`");
}

#[test]
fn this_program_and_what_started_it_are_never_targets() {
    let stand = Stand::new();
    let allow =
        stand.allow(&[&format!("{{process: {}, inject: [pause, kill]}}", stand.pid_file())]);
    let file = stand.manifest(&stand.pid_file(), PAUSE);
    for (pid, expected) in [(1, "the init process"), (std::process::id(), "what started it")] {
        stand.write("api.pid", &pid.to_string());
        let output = experiment(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
    // The allow-list may pin the program behind a pid file.
    stand.write("api.pid", &stand.pid().to_string());
    let pinned = stand.pid_file().replace('}', ", exe: /usr/bin/other}");
    let pinned = stand.allow(&[&format!("{{process: {pinned}, inject: [pause]}}")]);
    let output = experiment(&["run", &file, "--allow", &pinned, "--out", &stand.out()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("not on the allow-list"), "{}", said(&output));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let stand = Stand::new();
    let file = stand.experiment(
        "  faults:\n    - {target: api, inject: pause, at: 1s, for: 2s}\n    - {target: api, inject: {kill: {restartAfter: 1s}}, at: 5s}\n",
    );
    let allow = stand.allow_service("[pause, kill]");
    let before: Vec<_> =
        std::fs::read_dir(stand.dir.path()).unwrap().flatten().map(|e| e.path()).collect();
    let output = experiment(&["run", &file, "--allow", &allow, "--out", &stand.out(), "--dry-run"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let pid = stand.pid();
    for expected in [
        format!("target api: process {pid} ("),
        format!("SIGSTOP for process {pid}"),
        format!("undo, 2s later: SIGCONT for process {pid}"),
        format!("SIGKILL for process {pid}"),
        "undo, 1s later: `".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
    let after: Vec<_> =
        std::fs::read_dir(stand.dir.path()).unwrap().flatten().map(|e| e.path()).collect();
    assert_eq!(before, after);
    assert!(!stand.paused() && stand.starts() == 1);
}

#[test]
fn what_is_wrong_is_said_with_line_and_column() {
    let stand = Stand::new();
    let file =
        stand.experiment("  faults: [{target: api, inject: puase, for: 1s}]\n  colour: red\n");
    for command in ["validate", "run"] {
        let output = experiment(&[command, &file]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(&format!("{file}:9:34: ")) && said.contains("did you mean `pause`?"),
            "{said}"
        );
    }
    let good = stand.experiment(PAUSE);
    let output = experiment(&["validate", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let allow = stand.allow_service("[pause]");
    let kill = std::fs::read_to_string(&allow).unwrap().replace("[pause]", "[kill]");
    let kill = stand.write("kill.yaml", &kill);
    let bad = stand.write("bad.yaml", "apiVersion: medic/v1\nkind: AlowList\n");
    for (args, code, expected) in [
        (vec![good.as_str(), "--allow", &allow], 0, "the list refuses nothing of it"),
        (vec![good.as_str(), "--allow", &kill], 2, "refused: the allow-list does not allow pause"),
        (vec![allow.as_str()], 0, "AllowList is well-formed: 1 targets"),
        (vec![allow.as_str(), "--allow", &kill], 2, "this is an allow-list itself"),
        (vec![bad.as_str()], 2, "did you mean `AllowList`?"),
    ] {
        let output = experiment(&[vec!["validate"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(expected), "{expected}: {}", said(&output));
    }
    for args in [["schema"].as_slice(), &["schema", "--allow"]] {
        let schema: serde_json::Value = serde_json::from_slice(&experiment(args).stdout).unwrap();
        assert_eq!(schema["properties"]["apiVersion"]["const"], "medic/v1");
    }
}
