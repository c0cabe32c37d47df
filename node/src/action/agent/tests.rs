//! The supervisor with real processes, and an agent with a real hub over loopback.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use medic_proto::fleet::v1::{
    self as wire, InstanceStatus, ProcessState, query_answer, result::Kind,
};
use medic_raft::Env;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Supervisor;

mod dying;
mod end_to_end;
mod guard;
mod recovery;

/// A state directory, a supervisor over it, and the services it runs.
struct Host {
    dir: tempfile::TempDir,
    supervisor: Option<Supervisor>,
    index: u64,
    env: Env,
}

impl Host {
    fn new() -> Self {
        Self::with_env(Env::system())
    }

    fn with_env(env: Env) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Self { dir, supervisor: None, index: 0, env };
        host.restart_agent();
        host
    }

    /// Leaves the agent's memory behind, as its death would.
    fn restart_agent(&mut self) {
        drop(self.supervisor.take());
        let supervisor = Supervisor::open(&self.state_dir(), self.env.clone()).unwrap();
        supervisor.reconcile();
        self.supervisor = Some(supervisor);
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn agent(&self) -> &Supervisor {
        self.supervisor.as_ref().unwrap()
    }

    fn declare(&mut self, instances: Vec<wire::Instance>) {
        self.index += 1;
        self.agent().declare(wire::Declaration { index: self.index, instances }).unwrap();
    }

    /// An instance `a` that notes each start as a line of `starts`, then runs.
    fn service(&self) -> wire::Instance {
        let starts = self.path("starts");
        let script = format!("echo $$ >> {}; exec sleep 600", starts.display());
        shell("a", &script)
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.path("starts")).map_or(0, |text| text.lines().count())
    }

    fn status(&self, instance: &str) -> InstanceStatus {
        let report = self.agent().observe(true);
        let named = |s: &InstanceStatus| s.key.as_ref().is_some_and(|k| k.instance == instance);
        report.instances.into_iter().find(named).unwrap()
    }

    fn until(&self, state: ProcessState) -> InstanceStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let status = self.status("a");
            if status.state() == state {
                return status;
            }
            assert!(Instant::now() < deadline, "{state:?} awaited, seen {status:?}");
            std::thread::yield_now();
        }
    }

    fn order(&self, key: &str, fence: u64, action: &str, params: &[(&str, &str)]) -> Kind {
        self.agent().order(&order(key, fence, 1, action, params)).kind.unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            let gone = wire::Declaration { index: u64::MAX, instances: Vec::new() };
            drop(supervisor.declare(gone));
        }
    }
}

fn shell(instance: &str, script: &str) -> wire::Instance {
    wire::Instance {
        tenant: "default".to_owned(),
        service: "web".to_owned(),
        instance: instance.to_owned(),
        command: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        stop_signal: "SIGTERM".to_owned(),
        stop_timeout_ms: 2_000,
        ..wire::Instance::default()
    }
}

fn order(
    key: &str,
    fence: u64,
    attempt: u32,
    action: &str,
    params: &[(&str, &str)],
) -> wire::Order {
    wire::Order {
        key: key.to_owned(),
        fence,
        node_id: 1,
        action: action.to_owned(),
        params: params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        target: Some(wire::InstanceKey {
            tenant: "default".to_owned(),
            service: "web".to_owned(),
            instance: "a".to_owned(),
        }),
        timeout_ms: 10_000,
        trace_id: String::new(),
        attempt,
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

fn done(kind: Kind) -> (BTreeMap<String, String>, bool) {
    match kind {
        Kind::Done(done) => (done.evidence, done.already),
        other => panic!("{other:?}"),
    }
}

fn failed(kind: Kind) -> (String, bool) {
    match kind {
        Kind::Failed(failed) => (failed.reason, failed.retryable),
        other => panic!("{other:?}"),
    }
}

fn hash(text: &str) -> String {
    super::config_file::hash(text.as_bytes())
}

#[test]
fn declared_instances_start_once_and_the_dead_stay_dead_until_ordered() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let first = host.until(ProcessState::Running);
    assert!(first.rss_bytes > 0 && first.pid > 0 && first.open_files > 0);
    // The same again, and an older one: nothing changes.
    host.declare(vec![host.service()]);
    host.agent().declare(wire::Declaration { index: 1, instances: Vec::new() }).unwrap();
    assert_eq!(host.status("a").pid, first.pid);

    signal(first.pid, Signal::SIGKILL);
    let dead = host.until(ProcessState::Dead);
    assert_eq!((dead.pid, dead.last_exit.as_str()), (0, "signal 9"));
    host.declare(vec![host.service(), shell("b", "exit 3")]);
    assert_eq!(host.status("a").state(), ProcessState::Dead);
    assert_eq!(host.status("b").last_exit, "exit 3");
    assert_eq!(host.starts(), 1);

    let (evidence, already) = done(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    assert!(!already);
    let running = host.until(ProcessState::Running);
    assert_eq!(evidence["pid"], running.pid.to_string());
    assert_eq!((running.restarts, host.starts()), (1, 2));
}

#[test]
fn a_removed_instance_is_stopped_and_forgotten() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    host.declare(Vec::new());
    assert!(super::procfs::stat(pid).unwrap().is_none());
    assert!(host.agent().observe(true).instances.is_empty());
    assert_eq!(fs::read_dir(host.state_dir().join("instances")).unwrap().count(), 0);
}

#[test]
fn a_paused_process_is_seen_and_can_be_restarted() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    signal(pid, Signal::SIGSTOP);
    host.until(ProcessState::Paused);
    done(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    let running = host.until(ProcessState::Running);
    assert_ne!(running.pid, pid);
    assert!(super::procfs::stat(pid).unwrap().is_none());
    // Restore brings a paused one on without a restart.
    signal(running.pid, Signal::SIGSTOP);
    host.until(ProcessState::Paused);
    done(host.order("PLAN-1/0/undo", 1, "process.restore", &[]));
    assert_eq!(host.until(ProcessState::Running).pid, running.pid);
}

#[test]
fn what_ignores_its_stop_signal_and_what_it_left_behind_is_killed() {
    let mut host = Host::new();
    let child = host.path("child");
    let script =
        format!("trap '' TERM; sleep 600 & echo $! > {}; while :; do wait; done", child.display());
    let mut instance = shell("a", &script);
    instance.stop_timeout_ms = 100;
    host.declare(vec![instance]);
    let pid = host.until(ProcessState::Running).pid;
    let child: u32 = fs::read_to_string(child).unwrap().trim().parse().unwrap();
    // Killed from outside, its child holds on to what it held; the next start clears that away.
    signal(pid, Signal::SIGKILL);
    host.until(ProcessState::Dead);
    let gone = |pid| super::procfs::stat(pid).unwrap().is_none_or(|stat| stat.state == 'Z');
    assert!(!gone(child));
    done(host.order("PLAN-1/0/do", 1, "process.start", &[]));
    assert!(gone(child));
    host.until(ProcessState::Running);
    done(host.order("PLAN-2/0/do", 1, "process.stop", &[]));
    assert_eq!(host.status("a").state(), ProcessState::Stopped);
}

#[test]
fn standbys_wait_for_scale_out() {
    let mut host = Host::new();
    let standby = wire::Instance { standby: true, ..host.service() };
    host.declare(vec![standby]);
    assert_eq!(host.status("a").state(), ProcessState::Stopped);
    done(host.order("PLAN-1/0/do", 1, "scale.out", &[]));
    host.until(ProcessState::Running);
    done(host.order("PLAN-1/0/undo", 1, "scale.in", &[]));
    assert_eq!(host.until(ProcessState::Stopped).pid, 0);
    assert_eq!(host.starts(), 1);
}

#[test]
fn what_cannot_start_fails_with_the_reason() {
    let mut host = Host::new();
    let missing = wire::Instance { command: "/no/such/program".to_owned(), ..shell("a", "") };
    host.declare(vec![missing]);
    let status = host.status("a");
    assert_eq!(status.state(), ProcessState::Dead);
    assert!(status.last_exit.contains("/no/such/program"), "{}", status.last_exit);
    let (reason, retryable) = failed(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    assert!(reason.contains("/no/such/program") && retryable, "{reason}");

    host.declare(vec![shell("a", "echo port in use >&2; exit 7")]);
    let retry = order("PLAN-1/0/do", 1, 2, "process.restart", &[]);
    let (reason, _) = failed(host.agent().order(&retry).kind.unwrap());
    assert!(reason.contains("exit 7") && reason.contains("port in use"), "{reason}");
}

fn configured(host: &Host, content: &str) -> wire::Instance {
    wire::Instance {
        config_path: host.path("app.conf").display().to_string(),
        config_content: Some(content.to_owned()),
        ..host.service()
    }
}

fn conf(host: &Host) -> String {
    fs::read_to_string(host.path("app.conf")).unwrap()
}

#[test]
fn a_bad_roll_out_is_seen_and_taken_back_and_forth() {
    let mut host = Host::new();
    host.declare(vec![configured(&host, "good")]);
    let first = host.until(ProcessState::Running);
    assert_eq!((conf(&host).as_str(), first.config_hash.as_str()), ("good", &*hash("good")));
    assert_eq!((first.config_changed_unix_ms, first.previous_config_hash.as_str()), (0, ""));

    fs::write(host.path("app.conf"), "bad").unwrap();
    let seen = host.status("a");
    assert_eq!(seen.config_hash, hash("bad"));
    assert_eq!(seen.previous_config_hash, hash("good"));
    assert!(seen.config_changed_unix_ms > 0);

    let (evidence, _) = done(host.order("PLAN-1/0/do", 1, "config.restore", &[]));
    assert_eq!(conf(&host), "good");
    assert_eq!(evidence["previous_hash"], hash("bad"));
    assert_eq!(host.starts(), 2, "without a reload signal the process is restarted");

    let back = evidence["previous_hash"].clone();
    done(host.order("PLAN-1/0/undo", 1, "config.restore", &[("hash", &back)]));
    assert_eq!(conf(&host), "bad");

    let (evidence, _) =
        done(host.order("PLAN-2/0/do", 1, "config.replace", &[("content", "better")]));
    assert_eq!((conf(&host).as_str(), &evidence["previous_hash"]), ("better", &hash("bad")));
    // A new declaration does not overwrite what the file holds.
    host.declare(vec![configured(&host, "newer first content")]);
    assert_eq!(conf(&host), "better");
}

#[test]
fn a_reload_signal_spares_the_restart() {
    let mut host = Host::new();
    let reloads = host.path("reloads");
    let script = format!(
        "trap 'echo x >> {}' HUP; echo $$ >> {}; while :; do sleep 0.02; done",
        reloads.display(),
        host.path("starts").display()
    );
    let mut instance =
        wire::Instance { reload_signal: "SIGHUP".to_owned(), ..configured(&host, "1") };
    instance.args[1] = script;
    host.declare(vec![instance]);
    let pid = host.until(ProcessState::Running).pid;
    let (evidence, _) = done(host.order("PLAN-1/0/do", 1, "config.replace", &[("content", "2")]));
    assert_eq!(evidence["reloaded"], "SIGHUP");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !reloads.exists() {
        assert!(Instant::now() < deadline, "the signal never came");
        std::thread::yield_now();
    }
    assert_eq!((host.status("a").pid, host.starts()), (pid, 1));
}

#[test]
fn bad_orders_are_refused_and_nothing_is_done() {
    let mut host = Host::new();
    host.declare(vec![host.service()]);
    let pid = host.until(ProcessState::Running).pid;
    for (action, params) in [
        ("process.explode", &[][..]),
        ("config.replace", &[("content", "x")]),
        ("config.restore", &[]),
    ] {
        let (reason, retryable) = failed(host.order(action, 1, action, params));
        assert!(!retryable, "{reason}");
    }
    let mut elsewhere = order("k", 1, 1, "process.restart", &[]);
    elsewhere.target.as_mut().unwrap().instance = "z".to_owned();
    assert!(failed(host.agent().order(&elsewhere).kind.unwrap()).0.contains("not declared"));
    elsewhere.target = None;
    failed(host.agent().order(&elsewhere).kind.unwrap());
    assert_eq!(host.status("a").pid, pid);
}

#[test]
fn bad_declarations_are_left_out() {
    let mut host = Host::new();
    let named = |tenant: &str| wire::Instance { tenant: tenant.to_owned(), ..shell("b", "") };
    let bad_signal = wire::Instance { stop_signal: "SIGNONE".to_owned(), ..shell("c", "") };
    let bad_path = wire::Instance { config_path: "etc/passwd".to_owned(), ..shell("d", "") };
    host.declare(vec![
        host.service(),
        named("../../etc"),
        named(""),
        named("a~b"),
        bad_signal,
        bad_path,
    ]);
    host.until(ProcessState::Running);
    assert_eq!(host.agent().observe(true).instances.len(), 1);
}

#[test]
fn one_directory_serves_one_agent() {
    let host = Host::new();
    let error = Supervisor::open(&host.state_dir(), Env::system()).unwrap_err().to_string();
    assert!(error.contains("in use by another agent"), "{error}");
    let format = Path::new("format");
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join(format), "medic-agent-state 9\n").unwrap();
    let error = Supervisor::open(other.path(), Env::system()).unwrap_err().to_string();
    assert!(error.contains("medic-agent-state 9"), "{error}");
}

#[test]
fn memory_of_children_is_counted() {
    let mut host = Host::new();
    // `tail` keeps what it reads until its one endless line ends: a child that grows, under a shell
    // that does not.
    let script = "(head -c 64000000 /dev/zero; exec sleep 600) | tail & exec sleep 600";
    host.declare(vec![shell("a", script)]);
    host.until(ProcessState::Running);
    let deadline = Instant::now() + Duration::from_secs(10);
    while host.status("a").rss_bytes < 64_000_000 {
        assert!(Instant::now() < deadline, "seen {} bytes", host.status("a").rss_bytes);
        std::thread::yield_now();
    }
}
