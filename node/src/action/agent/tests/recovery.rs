//! Fences, keys, and an agent that is killed anywhere.

use super::*;
use crate::action::agent::journal::{Begin, Journal};

/// What is on disk after an agent was killed right after noting that it begins this.
fn begun(host: &mut Host, key: &str, action: &str, before: &str, wanted: &str) {
    drop(host.supervisor.take());
    let mut journal = Journal::open(&host.state_dir().join("journal")).unwrap();
    journal
        .begin(Begin {
            key: key.to_owned(),
            attempt: 1,
            fence: 5,
            at_ms: 1,
            action: action.to_owned(),
            target: "default/web/a".to_owned(),
            config_before: before.to_owned(),
            config_wanted: wanted.to_owned(),
            running: false,
        })
        .unwrap();
    drop(journal);
    host.restart_agent();
}

/// The agent ends, and no outcome reached its disk: the journal ends with the begin.
fn forget_outcomes(host: &mut Host) {
    drop(host.supervisor.take());
    let path = host.state_dir().join("journal");
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("\"outcome\"")).collect();
    assert!(kept.len() < text.lines().count());
    fs::write(&path, kept.join("\n") + "\n").unwrap();
}

fn query(host: &Host, key: &str, fence: u64) -> query_answer::Kind {
    let query = wire::Query { key: key.to_owned(), fence };
    host.agent().query(&query).kind.unwrap()
}

fn result(answer: query_answer::Kind) -> Kind {
    match answer {
        query_answer::Kind::Result(result) => result.kind.unwrap(),
        query_answer::Kind::NeverBegun(_) => panic!("never begun"),
    }
}

#[test]
fn services_survive_the_agent_and_are_taken_up_again() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let before = host.until(ProcessState::Running);
    host.restart_agent();
    let after = host.until(ProcessState::Running);
    assert_eq!((after.pid, after.started_unix_ms), (before.pid, before.started_unix_ms));
    assert_eq!(host.starts(), 1);
    // Its end is noticed though another incarnation started it.
    signal(after.pid, Signal::SIGTERM);
    host.until(ProcessState::Dead);
    host.restart_agent();
    host.until(ProcessState::Dead);
    assert_eq!(host.starts(), 1, "the agent starts nothing by itself");
}

#[test]
fn a_process_whose_pid_was_not_noted_is_found_by_its_environment() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    drop(host.supervisor.take());
    // As it stood on disk before the start: noted as starting, no pid.
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environ = String::from_utf8(environ).unwrap();
    let start = environ.split('\0').find_map(|one| one.strip_prefix("MEDIC_START=")).unwrap();
    let path = host.state_dir().join("instances/default~web~a/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["process"] = serde_json::Value::Null;
    state["starting"] = serde_json::json!({ "start": start, "at_ms": 1, "cause": "declared" });
    fs::write(&path, state.to_string()).unwrap();
    host.restart_agent();
    assert_eq!(host.until(ProcessState::Running).pid, pid);
    assert_eq!(host.starts(), 1);
}

#[test]
fn a_pid_that_another_process_has_now_is_not_taken_for_ours() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    drop(host.supervisor.take());
    let path = host.state_dir().join("instances/default~web~a/state.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["process"]["start_ticks"] = serde_json::json!(1);
    fs::write(&path, state.to_string()).unwrap();
    host.restart_agent();
    host.until(ProcessState::Dead);
    done(host.order("PLAN-1/0/do", 1, "process.stop", &[]));
    assert!(super::super::procfs::stat(pid).unwrap().is_some(), "a stranger was killed");
    signal(pid, Signal::SIGKILL);
}

#[test]
fn an_order_under_an_old_fence_is_refused_even_after_a_restart() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    assert_eq!(query(&host, "PLAN-9/0/do", 7), query_answer::Kind::NeverBegun(true));
    for _ in 0..2 {
        let refused = host.order("PLAN-9/0/do", 6, "process.restart", &[]);
        assert!(matches!(refused, Kind::RefusedFence(wire::RefusedFence { highest: 7 })));
        let refused = result(query(&host, "PLAN-9/0/do", 6));
        assert!(matches!(refused, Kind::RefusedFence(wire::RefusedFence { highest: 7 })));
        host.restart_agent();
        assert_eq!(host.agent().highest_fence(), 7);
    }
    assert_eq!((host.status("a").pid, host.starts()), (pid, 1), "nothing was applied");
}

#[test]
fn one_key_is_applied_once_by_whatever_leader_and_agent() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    host.until(ProcessState::Running);
    let (first, already) = done(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    assert!(!already);
    for fence in 2..5 {
        let (again, already) = done(host.order("PLAN-1/0/do", fence, "process.restart", &[]));
        assert!(already);
        assert_eq!(again, first);
        assert_eq!(done(result(query(&host, "PLAN-1/0/do", fence))), (first.clone(), true));
        host.restart_agent();
    }
    assert_eq!(host.starts(), 2);
}

#[test]
fn the_same_key_at_once_from_many_sides_is_applied_once() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    host.until(ProcessState::Running);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| done(host.order("PLAN-1/0/do", 3, "process.restart", &[]))))
            .collect();
        let fresh = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(fresh.filter(|(_, already)| !already).count(), 1);
    });
    assert_eq!(host.starts(), 2);
}

#[test]
fn a_recorded_failure_is_tried_again_only_under_a_higher_attempt() {
    let mut host = Host::new();
    host.declare(vec![shell("a", "exit 1")]);
    let first = failed(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    host.declare(vec![host.service()]);
    assert_eq!(failed(host.order("PLAN-1/0/do", 1, "process.restart", &[])), first);
    assert_eq!(host.starts(), 0);
    let again = host.agent().order(&order("PLAN-1/0/do", 1, 2, "process.restart", &[]));
    assert!(!done(again.kind.unwrap()).1);
    assert_eq!(host.starts(), 1);
}

#[test]
fn killed_after_begin_the_act_is_done_when_ordered_again() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    begun(&mut host, "PLAN-1/0/do", "process.restart", "", "");
    assert!(!done(host.order("PLAN-1/0/do", 6, "process.restart", &[])).1);
    assert_ne!(host.status("a").pid, pid);
    assert_eq!(host.starts(), 2);
}

#[test]
fn killed_after_begin_a_query_says_it_was_not_done() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    host.until(ProcessState::Running);
    begun(&mut host, "PLAN-1/0/do", "process.restart", "", "");
    let (reason, retryable) = failed(result(query(&host, "PLAN-1/0/do", 6)));
    assert!(retryable, "{reason}");
    // And so it stays, unless under a higher attempt.
    failed(host.order("PLAN-1/0/do", 6, "process.restart", &[]));
    assert_eq!(host.starts(), 1);
}

#[test]
fn killed_after_the_act_it_is_known_to_be_done() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    host.until(ProcessState::Running);
    done(host.order("PLAN-1/0/do", 5, "process.restart", &[]));
    forget_outcomes(&mut host);
    host.restart_agent();
    let (_, already) = done(host.order("PLAN-1/0/do", 6, "process.restart", &[]));
    assert!(already);
    assert_eq!(host.starts(), 2);
}

#[test]
fn what_it_started_and_what_ended_before_it_was_noted_is_not_started_twice() {
    for action in ["process.restart", "process.restore", "process.start"] {
        let mut host = Host::new();
        host.declare(vec![host.service()]);
        signal(host.until(ProcessState::Running).pid, Signal::SIGKILL);
        host.until(ProcessState::Dead);
        let (started, _) = done(host.order("PLAN-1/0/do", 5, action, &[]));
        // The host goes with all its processes, before the outcome reached the disk.
        forget_outcomes(&mut host);
        signal(started["pid"].parse().unwrap(), Signal::SIGKILL);
        host.restart_agent();
        host.until(ProcessState::Dead);
        let (evidence, already) = done(host.order("PLAN-1/0/do", 6, action, &[]));
        assert!(already, "{action}");
        assert_eq!((&evidence["pid"], evidence["state"].as_str()), (&started["pid"], "ended"));
        assert_eq!(host.starts(), 2, "{action}");
    }
}

/// An undo found its process well, and its agent's host went before it could say so. A minute later the process
/// died of something else.
#[test]
fn a_restore_that_found_nothing_to_do_starts_nothing_when_it_is_asked_again() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    done(host.order("PLAN-1/0/undo", 5, "process.restore", &[]));
    assert_eq!(host.starts(), 1);
    forget_outcomes(&mut host);
    signal(pid, Signal::SIGKILL);
    host.restart_agent();
    host.until(ProcessState::Dead);
    let (evidence, already) = done(host.order("PLAN-1/0/undo", 6, "process.restore", &[]));
    assert!(already);
    assert_eq!((evidence["state"].as_str(), host.starts()), ("ended", 1));
}

#[test]
fn a_configuration_change_cut_short_is_finished_with_its_first_evidence() {
    let mut host = Host::new();
    host.declare(vec![configured(&host, "old")]);
    host.until(ProcessState::Running);
    // Killed between writing the file and restarting the process.
    fs::write(host.path("app.conf"), "new").unwrap();
    begun(&mut host, "PLAN-1/0/do", "config.replace", &hash("old"), &hash("new"));
    host.status("a");
    let (evidence, already) =
        done(host.order("PLAN-1/0/do", 6, "config.replace", &[("content", "new")]));
    assert!(!already);
    assert_eq!(evidence["previous_hash"], hash("old"));
    assert_eq!(host.starts(), 2);
    let restored = done(host.order("PLAN-1/0/undo", 6, "config.restore", &[]));
    assert_eq!((conf(&host).as_str(), &restored.0["config_hash"]), ("old", &hash("old")));
}

#[test]
fn a_configuration_change_cut_short_and_asked_about_is_taken_back() {
    let mut host = Host::new();
    host.declare(vec![configured(&host, "old")]);
    host.until(ProcessState::Running);
    fs::write(host.path("app.conf"), "new").unwrap();
    begun(&mut host, "PLAN-1/0/do", "config.replace", &hash("old"), &hash("new"));
    host.status("a");
    // What is said not to be done must not be there when the process starts next.
    let (reason, retryable) = failed(result(query(&host, "PLAN-1/0/do", 5)));
    assert!(retryable, "{reason}");
    assert_eq!((conf(&host).as_str(), host.starts()), ("old", 1));
    // Where it cannot be taken back, nothing is claimed.
    fs::write(host.path("app.conf"), "new").unwrap();
    begun(&mut host, "PLAN-2/0/do", "config.replace", &hash("never seen"), &hash("new"));
    let answer = result(query(&host, "PLAN-2/0/do", 5));
    assert!(matches!(answer, Kind::Unknown(_)), "{answer:?}");
}

#[test]
fn a_stop_cut_short_and_asked_about_leaves_an_instance_whose_end_is_a_fault() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    let path = host.state_dir().join("instances/default~web~a/state.json");
    begun(&mut host, "PLAN-1/0/do", "process.stop", "", "");
    drop(host.supervisor.take());
    let text = fs::read_to_string(&path).unwrap();
    let stopped = text.replace("\"wanted\": \"running\"", "\"wanted\": \"stopped\"");
    assert_ne!(stopped, text);
    fs::write(&path, stopped).unwrap();
    host.restart_agent();
    failed(result(query(&host, "PLAN-1/0/do", 6)));
    signal(pid, Signal::SIGKILL);
    host.until(ProcessState::Dead);
}

#[test]
fn what_cannot_be_noted_is_not_done() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    // Root may write anywhere; what it cannot do is replace a directory by a file.
    let state = host.state_dir().join("instances/default~web~a/state.json");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    let (reason, retryable) = failed(host.order("PLAN-1/0/do", 1, "process.stop", &[]));
    assert!(retryable && reason.contains("cannot write"), "{reason}");
    assert_eq!(host.status("a").pid, pid);
    fs::remove_dir(&state).unwrap();
}

#[test]
fn a_damaged_journal_is_refused() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    done(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    drop(host.supervisor.take());
    let path = host.state_dir().join("journal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[12] ^= 0x20;
    fs::write(&path, &bytes).unwrap();
    let error = Supervisor::open(&host.state_dir(), Env::system()).unwrap_err().to_string();
    assert!(error.contains("is damaged at byte 0"), "{error}");
    bytes[12] ^= 0x20;
    fs::write(&path, &bytes).unwrap();
    host.restart_agent();
}
