//! Processes that die: of what they were told, and soon after their start.

use std::fs;

use medic_proto::fleet::v1::{InstanceStatus, ProcessState};
use nix::sys::signal::Signal;

use super::{Host, configured, done, failed, hash, order, shell, signal};

#[test]
fn a_death_is_reported_with_the_configuration_it_came_of() {
    let mut host = Host::new();
    host.declare(vec![configured(&host, "good")]);
    let pid = host.until(ProcessState::Running).pid;
    fs::write(host.path("app.conf"), "bad").unwrap();
    signal(pid, Signal::SIGKILL);
    // Looks that see to processes alone, as they are between reports.
    let mut dead = InstanceStatus::default();
    for _ in 0..200 {
        let report = host.agent().observe(false);
        dead = report.instances.into_iter().next().unwrap();
        if dead.state() == ProcessState::Dead {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(dead.state(), ProcessState::Dead);
    assert_eq!((dead.config_hash, dead.previous_config_hash), (hash("bad"), hash("good")));
    assert!(dead.config_changed_unix_ms > 0);
}

#[test]
fn a_restart_that_is_watched_fails_when_the_process_dies_again_and_a_retry_starts_it_anew() {
    let mut host = Host::new();
    // The first three starts (its declared one among them) die after a while.
    let starts = host.path("starts");
    let script = format!(
        "echo $$ >> {0}; [ $(wc -l < {0}) -gt 3 ] && exec sleep 600; sleep 0.4; exit 5",
        starts.display()
    );
    host.declare(vec![shell("a", &script)]);
    host.until(ProcessState::Dead);
    let watched = |attempt| order("PLAN-1/0/do", 1, attempt, "process.restart", &[("watch", "2s")]);
    for attempt in [1, 2] {
        let (reason, retryable) = failed(host.agent().order(&watched(attempt)).kind.unwrap());
        assert!(retryable && reason.contains("exit 5"), "{reason}");
    }
    let (evidence, already) = done(host.agent().order(&watched(3)).kind.unwrap());
    let running = host.until(ProcessState::Running);
    assert!(!already);
    assert_eq!((evidence["pid"].clone(), host.starts()), (running.pid.to_string(), 4));
    let bad = order("PLAN-2/0/do", 1, 1, "process.restart", &[("watch", "soon")]);
    let (reason, retryable) = failed(host.agent().order(&bad).kind.unwrap());
    assert!(!retryable && reason.contains("watch"), "{reason}");
    assert_eq!(host.status("a").pid, running.pid, "nothing was done");
}
