//! What was done is undone: at its time, after Ctrl-C, after an abort, after SIGKILL.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::*;

/// A pause that would outlast the test.
const LONG_PAUSE: &str = "  faults: [{target: api, inject: pause, for: 10m}]\n";

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// An experiment whose only fault, a long pause, is in force.
fn paused(stand: &Stand) -> Child {
    let file = stand.experiment(LONG_PAUSE);
    let allow = stand.allow_service("[pause]");
    let child = start(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    until("the service is paused", || stand.paused());
    child
}

#[test]
fn a_service_is_paused_and_killed_and_steady_again() {
    let stand = Stand::new();
    let file = stand.experiment(
        "  faults:\n    - {name: freeze, target: api, inject: pause, for: 2500ms}\n    - {target: api, inject: {kill: {restartAfter: 200ms}}, at: 3500ms}\n",
    );
    let allow = stand.allow_service("[pause, kill]");
    let output = experiment(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(stand.starts(), 2, "killed once, and started again once: {said}");
    let report = stand.report();
    assert_eq!(report["verdict"], "steady");
    assert_eq!(report["faults"].as_array().unwrap().len(), 2);
    assert!(report["faults"].as_array().unwrap().iter().all(|fault| fault["undone"] == true));
    let down = |sample: &serde_json::Value| sample["values"]["web.up"] == 0.0;
    assert!(
        report["samples"].as_array().unwrap().iter().any(down),
        "the pause was felt: {report:#}"
    );
}

#[test]
fn ctrl_c_undoes() {
    let stand = Stand::new();
    let child = paused(&stand);
    send(child.id(), Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(!stand.paused());
    let report = stand.report();
    assert_eq!(report["verdict"]["aborted"], "told to stop by SIGINT");
    assert_eq!(report["faults"][0]["undone"], true);
}

#[test]
fn an_abort_condition_undoes() {
    let stand = Stand::new();
    let file = stand.experiment(&format!("  abort: [{{when: '!web.up'}}]\n{LONG_PAUSE}"));
    let allow = stand.allow_service("[pause]");
    let output = experiment(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("aborted: abort condition `!web.up`"), "{said}");
    assert!(!stand.paused());
    assert!(stand.report()["steadyAfterS"]["after"].is_number(), "it was looked at afterwards");
}

#[test]
fn a_system_that_is_not_steady_is_left_alone() {
    let stand = Stand::new();
    let file = stand.experiment(LONG_PAUSE);
    let text = std::fs::read_to_string(&file).unwrap();
    let text =
        text.replace("web.status == 200", "web.status == 418").replace("within: 10s", "within: 1s");
    let file = stand.write("teapot.yaml", &text);
    let allow = stand.allow_service("[pause]");
    let output = experiment(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("not steady before the faults"));
    assert_eq!(stand.report()["faults"].as_array().unwrap().len(), 0);
}

#[test]
fn the_guardian_undoes_when_the_experiment_is_killed() {
    let stand = Stand::new();
    let mut child = paused(&stand);
    // A guardian of its own session: what is sent to the group is not for it.
    send(child.id(), Signal::SIGKILL);
    child.wait().unwrap();
    until("the guardian has continued the service", || !stand.paused());
    until("the journal is free", || {
        experiment(&["undo", &stand.journal()]).status.code() == Some(0)
    });
    let output = experiment(&["undo", &stand.journal()]);
    let expected =
        "nothing is open; undone by the guardian when the experiment was gone: pause api";
    assert!(said(&output).contains(expected), "{}", said(&output));
}

#[test]
fn a_human_undoes_when_the_guardian_is_killed_too() {
    let stand = Stand::new();
    let mut child = paused(&stand);
    let refused = experiment(&["undo", &stand.journal()]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("still runs"), "{}", said(&refused));
    let guardian = medic_chaos::harness::processes_with(&stand.journal());
    assert_eq!(guardian.len(), 1, "its command line names the journal");
    // The experiment stands still, so that it does not see its guardian die.
    send(child.id(), Signal::SIGSTOP);
    send(u32::try_from(guardian[0]).unwrap(), Signal::SIGKILL);
    send(child.id(), Signal::SIGKILL);
    child.wait().unwrap();
    assert!(stand.paused(), "nobody is left to undo");
    let output = experiment(&["undo", &stand.journal()]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("goes on"), "{}", said(&output));
    until("the service goes on", || !stand.paused());
    let again = said(&experiment(&["undo", &stand.journal()]));
    assert!(again.contains("nothing is open; undone by hand before: pause api"), "{again}");
    let nowhere = said(&experiment(&["undo", "nosuch.jsonl"]));
    assert_eq!(nowhere.matches("No such file").count(), 1, "{nowhere}");
}

#[test]
fn an_experiment_without_its_guardian_stops() {
    let stand = Stand::new();
    let child = paused(&stand);
    let guardian = medic_chaos::harness::processes_with(&stand.journal());
    send(u32::try_from(guardian[0]).unwrap(), Signal::SIGKILL);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("the guardian is gone"), "{}", said(&output));
    assert!(!stand.paused());
}
