//! Network namespaces, cgroups and directories: faults that need root, on namespaces made here.

use std::process::Command;

use nix::sys::signal::{Signal, kill};

use super::*;

/// A network namespace with a loopback and one device; gone afterwards.
struct Netns(String);

impl Netns {
    fn make() -> Self {
        let name = format!("medic-exp-{}", std::process::id());
        let netns = Self(name.clone());
        for line in [
            format!("ip netns add {name}"),
            format!("ip -n {name} link set lo up"),
            format!("ip -n {name} link add dev0 type veth peer name dev1"),
            format!("ip -n {name} link set dev0 up"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
        }
        netns
    }

    fn run(&self, words: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(words.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn walled(&self) -> bool {
        self.run("nft list tables").contains("medic_chaos_")
    }

    fn shaped(&self) -> bool {
        self.run("tc qdisc show dev dev0").contains("c4a0:")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).status());
    }
}

/// Says loudly why a test does nothing here.
fn missing(tools: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skipped("not root: faults in network namespaces and cgroups are");
        return true;
    }
    let path = std::env::var_os("PATH").unwrap();
    let lacks = |tool: &&&str| !std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    if let Some(tool) = tools.iter().find(lacks) {
        skipped(&format!("{tool} is not installed: faults that need it are"));
        return true;
    }
    false
}

/// An experiment on a namespace in which a service listens.
fn experiment_in(stand: &Stand, netns: &Netns, faults: &str) -> [String; 2] {
    let name = &netns.0;
    let argv = format!(
        "[/usr/bin/env, ip, netns, exec, {name}, bash, -c, 'exec 3<>/dev/tcp/127.0.0.1/{}']",
        stand.port
    );
    let file = stand.write(
        "experiment.yaml",
        &format!(
            "apiVersion: medic/v1\nkind: Experiment\nmetadata: {{name: netns}}\nspec:\n  \
             probes: [{{name: inside, command: {{argv: {argv}, timeout: 500ms}}}}]\n  \
             steadyState: {{expect: 'inside.ok', hold: 0s, within: 10s}}\n  \
             targets: [{{name: blue, namespace: {name}}}]\n{faults}"
        ),
    );
    let allow = stand.write(
        "allow.yaml",
        &format!(
            "apiVersion: medic/v1\nkind: AllowList\nmetadata: {{name: netns}}\nspec:\n  \
             targets: [{{namespace: {name}, inject: [network, partition]}}]\n  commands: [{argv}]\n"
        ),
    );
    [file, allow]
}

#[test]
fn a_namespace_is_walled_and_narrowed_and_as_it_was() {
    if missing(&["ip", "tc", "nft", "nsenter"]) {
        return;
    }
    let netns = Netns::make();
    let stand = Stand::within(&["ip", "netns", "exec", &netns.0]);
    let before = netns.run("tc qdisc show dev dev0");
    let wall = format!(
        "  faults:\n    - {{target: blue, inject: {{partition: {{peers: [127.0.0.0/8], ports: [{}]}}}}, for: 2500ms}}\n    \
         - {{target: blue, inject: {{network: {{rate: 1mbit, interface: dev0}}}}, for: 2500ms}}\n",
        stand.port
    );
    let [file, allow] = experiment_in(&stand, &netns, &wall);
    let child = start(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    until("wall and narrow road are there", || netns.walled() && netns.shaped());
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report = stand.report();
    let cut = |sample: &serde_json::Value| sample["values"]["inside.ok"] == 0.0;
    assert!(report["samples"].as_array().unwrap().iter().any(cut), "the wall was felt: {report:#}");
    assert!(!netns.walled(), "{}", netns.run("nft list ruleset"));
    assert_eq!(netns.run("tc qdisc show dev dev0"), before);
}

#[test]
fn a_wall_falls_when_the_experiment_is_killed() {
    if missing(&["ip", "tc", "nft", "nsenter"]) {
        return;
    }
    let netns = Netns::make();
    let stand = Stand::within(&["ip", "netns", "exec", &netns.0]);
    let [file, allow] = experiment_in(
        &stand,
        &netns,
        "  faults: [{target: blue, inject: {partition: {direction: in}}, for: 10m}]\n",
    );
    let mut child = start(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    until("the wall stands", || netns.walled());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    until("the guardian has torn it down", || !netns.walled());
}

#[test]
fn the_network_of_the_machine_is_refused() {
    let stand = Stand::new();
    let faults = "  faults: [{target: api, inject: {partition: {}}, for: 1s}]\n";
    let file = stand.experiment(faults);
    let allow = stand.allow_service("[partition]");
    let output = experiment(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    if !missing(&["nft", "nsenter"]) {
        assert!(said(&output).contains("the network of the machine itself"), "{}", said(&output));
    }
}

#[test]
fn limits_pressure_and_a_filled_directory_are_lifted() {
    if missing(&[]) {
        return;
    }
    let stand = Stand::new();
    let dir = stand.path("data");
    std::fs::create_dir(&dir).unwrap();
    let file = stand.experiment(
        "  faults:\n    - {target: api, inject: {limit: {cpu: 20%, memory: 256MiB}}, for: 2s}\n    \
         - {target: api, inject: {pressure: {cpu: 1, memory: 16MiB}}, for: 2s}\n    \
         - {target: disk, inject: {fill: {bytes: 8MiB, leave: 1MiB}}, for: 2s}\n",
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let text =
        text.replace("targets: [", &format!("targets: [{{name: disk, directory: {dir:?}}}, "));
    let file = stand.write("experiment.yaml", &text);
    let allow = stand.allow(&[
        &format!("{{process: {}, inject: [limit, pressure]}}", stand.process()),
        &format!("{{directory: {dir:?}, inject: [fill], maxBytes: 8MiB}}"),
    ]);
    let more = stand.write("more.yaml", &text.replace("bytes: 8MiB", "bytes: 9MiB"));
    let output = experiment(&["run", &more, "--allow", &allow, "--out", &stand.out()]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let expected = "to be filled with 9MiB, and the allow-list allows `maxBytes: 8MiB`";
    assert!(said(&output).contains(expected), "{}", said(&output));
    let groups = || std::fs::read_to_string(format!("/proc/{}/cgroup", stand.pid())).unwrap();
    let (before, full) = (groups(), || std::fs::read_dir(&dir).unwrap().next());
    let child = start(&["run", &file, "--allow", &allow, "--out", &stand.out()]);
    let burners = || medic_chaos::harness::processes_with("burn\0--mark").len();
    until("everything is in force", || {
        groups().contains("/medic-chaos-") && full().is_some() && burners() > 0
    });
    let size = full().unwrap().unwrap().metadata().unwrap().len();
    assert_eq!(size, 8 << 20, "as much as was asked for");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(groups(), before);
    assert!(full().is_none() && burners() == 0);
    let report = stand.report();
    assert!(report["faults"].as_array().unwrap().iter().all(|fault| fault["undone"] == true));
}
