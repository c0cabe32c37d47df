//! Experiments on Medic: on a cluster that runs already, and on one of its own.

use super::*;
use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_cluster_outlives_the_death_of_its_leader() {
    let world = World::start().await;
    let leader = world.cluster.leader().await.unwrap();
    let dir = world.dir.path();
    let config = world.cluster.node_config(leader);
    let medic = env!("CARGO_BIN_EXE_medic-under-test");
    let process = format!("{{exe: {medic:?}, args: [serve, --config, {config:?}]}}");
    let file = dir.join("experiment.yaml");
    let contexts = world.cluster.dir().join("medic.toml");
    let text = format!(
        r"apiVersion: medic/v1
kind: Experiment
metadata: {{name: leader-dies}}
spec:
  probes: [{{name: medic, medic: {{config: {contexts:?}, context: admin, timeout: 3s}}}}]
  steadyState: {{expect: 'medic.leader > 0 && medic.live == 3', hold: 0s, within: 20s}}
  abort: [{{when: '!medic.up', for: 15s}}]
  targets: [{{name: leader, process: {process}}}]
  faults: [{{target: leader, inject: {{kill: {{restartAfter: 3s}}}}}}]
"
    );
    std::fs::write(&file, text).unwrap();
    let allow = dir.join("allow.yaml");
    let text = format!(
        "apiVersion: medic/v1\nkind: AllowList\nmetadata: {{name: staging}}\nspec:\n  targets:\n    \
         - {{process: {process}, inject: [kill], restart: [{medic:?}, serve, --config, {config:?}]}}\n"
    );
    std::fs::write(&allow, text).unwrap();
    let (file, allow) = (file.display().to_string(), allow.display().to_string());
    let out = dir.join("out").display().to_string();
    let args = ["run", &file, "--allow", &allow, "--out", &out].map(str::to_owned);
    let run = move || experiment(&args.each_ref().map(String::as_str));
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("SIGKILL") && said.contains("runs again, as process"), "{said}");
    let folder = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let report = std::fs::read_to_string(folder.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let samples = report["samples"].as_array().unwrap();
    let term = |sample: &serde_json::Value| sample["values"]["medic.term"].as_f64();
    let terms: Vec<f64> = samples.iter().filter_map(term).collect();
    assert!(terms.last() > terms.first(), "another leads under a later term: {terms:?}");
    world.agree().await;
}

/// Faults that a cluster of its own can be given without root.
const OWN: &str = "\
apiVersion: medic/v1
kind: Experiment
metadata: {name: own}
spec:
  cluster: local
  probes: [{name: medic, medic: {timeout: 3s}}]
  steadyState: {expect: 'medic.leader > 0 && medic.live == 3', hold: 0s, within: 20s}
  targets: [{name: leader, node: leader}, {name: follower, node: follower}, {name: last, node: node-3}]
  faults:
    - {target: leader, inject: {kill: {restartAfter: 300ms}}}
    - {target: last, inject: {network: {delay: 10ms, jitter: 10ms, loss: 2%}}, for: 2s}
    - {target: last, inject: {clockSkew: {by: 1h, behind: true}}, for: 2s}
    - {target: follower, inject: pause, at: 1s, for: 500ms}
    - {target: leader, inject: {partition: {direction: out}}, at: 2s, for: 1s}
";

fn without_clocks() -> String {
    OWN.lines().filter(|line| !line.contains("clockSkew")).map(|l| format!("{l}\n")).collect()
}

#[test]
fn a_cluster_of_its_own_needs_no_allow_list_and_leaves_nothing() {
    let dir = tempfile::Builder::new().prefix("medic-experiment-").tempdir().unwrap();
    let (file, out) = (dir.path().join("own.yaml"), dir.path().join("out").display().to_string());
    let faketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    let mut faults = vec!["kill leader", "pause follower", "partition leader", "network last"];
    let text = if Path::new(faketime).exists() {
        faults.push("clockSkew last");
        OWN.to_owned()
    } else {
        skipped("libfaketime is not installed: clock skew is");
        without_clocks()
    };
    std::fs::write(&file, text).unwrap();
    let output = experiment(&["run", file.to_str().unwrap(), "--out", &out]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for fault in faults {
        assert!(said.contains(&format!("{fault}: undone")), "{fault}: {said}");
    }
    assert_eq!(medic_chaos::harness::processes_with(&out), Vec::<i32>::new());
    let folder = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let mut left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["journal.jsonl", "report.html", "report.json", "report.md"]);
}

#[test]
fn a_cluster_that_failed_can_be_looked_at() {
    let dir = tempfile::Builder::new().prefix("medic-experiment-").tempdir().unwrap();
    let (file, out) = (dir.path().join("own.yaml"), dir.path().join("out").display().to_string());
    let never = without_clocks();
    let never = never.replace("medic.live == 3", "medic.live == 4").replace("20s", "1s");
    std::fs::write(&file, never).unwrap();
    let output = experiment(&["run", file.to_str().unwrap(), "--out", &out]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let folder = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join("cluster").is_dir() && said.contains("logs and data: "), "{said}");
}

#[test]
fn the_examples_are_well_formed_and_allowed() {
    let folder = Path::new("../deploy/experiments");
    let allow = folder.join("allow.yaml").display().to_string();
    let output = experiment(&["validate", &allow]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("AllowList is well-formed"), "{}", said(&output));
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path() != Path::new(&allow) {
            let file = entry.path().display().to_string();
            let output = experiment(&["validate", &file, "--allow", &allow]);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert!(said(&output).contains("refuses nothing of it"), "{}", said(&output));
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen}");
}
