//! Real processes that become what was not started.
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

use std::sync::Arc;

use medic_raft::env::Clock;
use medic_state::Timestamp;
use nix::unistd::{Uid, setresuid};

use super::*;

/// Names the folder in which this very program, started as a service, is told what to do.
const FOLDER: &str = "MEDIC_TEST_STAND_IN";

/// Not a test but a service: what the tests below start, with [`FOLDER`] set. It does what appears as a file.
#[test]
fn stand_in() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let told = |what: &str| fs::remove_file(folder.join(what)).is_ok();
    let done = |what: &str| fs::write(folder.join(format!("{what}.done")), "").unwrap();
    let mut listeners = Vec::new();
    let nobody = Uid::from_raw(65_534);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(120) {
        if told("listen") {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            fs::write(folder.join("port"), port.to_string()).unwrap();
            listeners.push(listener);
            done("listen");
        }
        if told("close") {
            listeners.clear();
            done("close");
        }
        if told("lose") {
            setresuid(nobody, nobody, Uid::from_raw(0)).unwrap();
            done("lose");
        }
        if told("gain") {
            setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).unwrap();
            done("gain");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A clock that stands.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000)
    }
}

impl Host {
    fn stand_in(&self) -> wire::Instance {
        // Whoever it becomes must find what it is told.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(self.dir.path(), open).unwrap();
        let name = "action::agent::tests::guard::stand_in";
        let folder = self.dir.path().display().to_string();
        wire::Instance {
            command: std::env::current_exe().unwrap().display().to_string(),
            args: [name, "--exact", "--test-threads", "1"].map(ToOwned::to_owned).to_vec(),
            env: [(FOLDER.to_owned(), folder)].into(),
            ..shell("a", "")
        }
    }

    fn tell(&self, what: &str) {
        fs::write(self.path(what), "").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.path(&format!("{what}.done")).exists() {
            assert!(Instant::now() < deadline, "{what} was not done");
            std::thread::yield_now();
        }
        fs::remove_file(self.path(&format!("{what}.done"))).unwrap();
    }

    /// What is known of it after another two rounds, which is what a finding takes at the most.
    fn guarded(&self) -> wire::ProcessGuard {
        self.agent().guard();
        self.agent().guard();
        self.status("a").guard.unwrap_or_default()
    }
}

#[test]
fn a_socket_that_nobody_declared_is_seen_within_two_looks() {
    let mut host = Host::new();
    host.declare(vec![host.stand_in()]);
    host.until(ProcessState::Running);
    host.agent().guard();
    assert_eq!(host.status("a").guard, None, "one look says nothing");
    host.tell("listen");
    let port = fs::read_to_string(host.path("port")).unwrap();
    host.agent().guard();
    let guard = host.guarded();
    let named = vec![format!("tcp 127.0.0.1:{port}")];
    assert_eq!((guard.unexpected_listeners, guard.listeners), (1, named));
    host.tell("close");
    assert_eq!(host.guarded().unexpected_listeners, 0);
    // The same port, host.
    host.tell("listen");
    let port = fs::read_to_string(host.path("port")).unwrap().parse().unwrap();
    host.declare(vec![wire::Instance { ports: vec![port], ..host.stand_in() }]);
    assert_eq!(host.guarded().unexpected_listeners, 0);
}

#[test]
fn a_child_that_listens_is_seen() {
    let mut host = Host::new();
    let exe = std::env::current_exe().unwrap().display().to_string();
    let script =
        format!("'{exe}' action::agent::tests::guard::stand_in --exact --test-threads 1 & wait");
    let mut instance = host.stand_in();
    (instance.command, instance.args) = ("/bin/sh".to_owned(), vec!["-c".to_owned(), script]);
    host.declare(vec![instance]);
    host.until(ProcessState::Running);
    host.tell("listen");
    host.agent().guard();
    let guard = host.guarded();
    assert_eq!((guard.unexpected_listeners, guard.privilege_changes), (1, 0), "{guard:?}");
}

#[test]
fn a_child_with_more_rights_than_the_service_is_seen() {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !Uid::effective().is_root() || !setpriv.exists() {
        eprintln!("skipped: it takes root and setpriv");
        return;
    }
    let mut host = Host::new();
    let script = "sleep 600 & exec setpriv --reuid 65534 --clear-groups sleep 600";
    host.declare(vec![shell("a", script)]);
    host.until(ProcessState::Running);
    let guard = host.guarded();
    assert_eq!(guard.privilege_changes, 1, "{guard:?}");
    assert!(guard.privileges.contains("has more rights: Uid 0"), "{guard:?}");
    assert_eq!(host.guarded().privilege_changes, 1, "told once");
}

#[test]
fn rights_that_are_given_away_at_the_start_are_none_lost_and_those_that_come_back_are_seen() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    // However slow this machine is, the process stays young.
    let mut host = Host::with_env(Env { clock: Arc::new(Still), ..Env::system() });
    host.declare(vec![host.stand_in()]);
    host.until(ProcessState::Running);
    assert_eq!(host.guarded().privilege_changes, 0);
    host.tell("lose");
    let guard = host.guarded();
    assert_eq!(guard.privilege_changes, 0, "so daemons start: {}", guard.privileges);
    host.tell("gain");
    let guard = host.guarded();
    assert_eq!(guard.privilege_changes, 1, "{guard:?}");
    assert!(guard.privileges.contains("CapEff 0 became"), "{guard:?}");
    assert_eq!(host.guarded().privilege_changes, 1, "told once");
    // The next agent knows what it was.
    host.restart_agent();
    assert_eq!(host.guarded().privilege_changes, 1);
    done(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    assert_eq!(host.guarded().privilege_changes, 0, "another process");
}

#[test]
fn a_program_that_is_replaced_changed_or_deleted_is_seen_and_a_restart_ends_it() {
    let mut host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let place = |other: bool| {
        let mut bytes = fs::read("/bin/sleep").unwrap();
        if other {
            bytes.extend(b"more");
        }
        let beside = folder.path().join("beside");
        fs::write(&beside, bytes).unwrap();
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&beside, runs).unwrap();
        fs::rename(&beside, &program).unwrap();
    };
    place(false);
    let command = program.display().to_string();
    let args = vec!["600".to_owned()];
    let instance = wire::Instance { command, args, ..shell("a", "") };
    host.declare(vec![instance]);
    host.until(ProcessState::Running);
    assert_eq!(host.guarded().executable, "");
    place(false);
    assert_eq!(host.guarded().executable, "", "the same content is no change");
    place(true);
    let said = host.guarded().executable;
    assert_eq!(said, format!("{} was replaced", program.display()));
    host.restart_agent();
    assert_eq!(host.guarded().executable, said, "the next agent knows it too");
    fs::remove_file(&program).unwrap();
    assert!(host.guarded().executable.ends_with("was deleted"));
    place(true);
    done(host.order("PLAN-1/0/do", 1, "process.restart", &[]));
    assert_eq!(host.guarded().executable, "", "it is what was started");
}

#[test]
fn a_script_that_is_edited_is_seen() {
    let mut host = Host::new();
    let script = host.path("script");
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::write(&script, "#!/bin/sh\nsleep 600 & wait\n").unwrap();
    fs::set_permissions(&script, runs).unwrap();
    let command = script.display().to_string();
    host.declare(vec![wire::Instance { command, args: Vec::new(), ..shell("a", "") }]);
    host.until(ProcessState::Running);
    assert_eq!(host.guarded().executable, "");
    fs::write(&script, "#!/bin/sh\nsleep 600 & evil; wait\n").unwrap();
    assert_eq!(host.guarded().executable, format!("{} was changed in place", script.display()));
}

#[test]
fn a_configuration_changed_by_others_is_seen_and_an_order_is_none() {
    let mut host = Host::new();
    host.declare(vec![configured(&host, "first")]);
    host.until(ProcessState::Running);
    assert_eq!(host.guarded().config, "");
    done(host.order("PLAN-1/0/do", 1, "config.replace", &[("content", "second")]));
    host.until(ProcessState::Running);
    assert_eq!(host.guarded().config, "", "Medic's own");
    fs::write(host.path("app.conf"), "third").unwrap();
    let path = host.path("app.conf").display().to_string();
    assert_eq!(host.guarded().config, format!("{path} was changed without an order"));
    fs::remove_file(host.path("app.conf")).unwrap();
    assert_eq!(host.guarded().config, format!("{path} was deleted without an order"));
    fs::write(host.path("app.conf"), "second").unwrap();
    assert_eq!(host.guarded().config, "", "it is what it was");
}

#[test]
#[ignore = "a measurement: what a round of looks takes"]
fn a_round_takes() {
    let mut host = Host::new();
    let all = (0..100).map(|i| shell(&format!("i{i}"), "exec sleep 600")).collect();
    host.declare(all);
    let mut took = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        host.agent().guard();
        took.push(begun.elapsed());
    }
    let processes = fs::read_dir("/proc").unwrap().count();
    let steady = took[2..].iter().sum::<Duration>() / 18;
    eprintln!(
        "100 instances, {processes} entries in /proc: baseline {:?}, then {steady:?}",
        took[1]
    );
}
