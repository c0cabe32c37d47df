//! An agent dies wherever it can in the middle of an order: the services run on, the next agent
//! takes them up, carries the order out once in all, and obeys no older leader than before.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use medic_proto::v1 as pb;

use super::support::{Sample, World, plan, read, refused, status};

/// Where the agent may die: before anything is noted, before anything is done, before the outcome
/// is noted, before it is told.
const POINTS: [&str; 4] =
    ["agent_before_begin", "agent_after_begin", "agent_after_act", "agent_before_report"];

const MANIFESTS: &str = r#"---
apiVersion: medic/v1
kind: Source
metadata: {name: alertmanager}
spec: {type: alertmanager}
---
apiVersion: medic/v1
kind: Policy
metadata: {name: default}
spec: {autoExecute: {confidence: 0.0, risk: 1.0}, maxBlastRadius: 100%, autoResolveAfter: 1h}
---
apiVersion: medic/v1
kind: Playbook
metadata: {name: restart-ordered}
spec:
  mode: auto
  match: ['alertname=~"Trouble.*"', 'service="ordered"']
  scope: {maxUnavailable: 100%, perTarget: 1000/1h, perPlaybook: 1000/1h, cooldown: 0s, maxAttempts: 1}
  steps: [{name: restart, action: process.restart, safety: fenced, timeout: 20s, undo: {action: process.restore}}]
  verify: {expect: 'probe.process_alive == 1.0', hold: 0s, timeout: 20s}
"#;

/// A service that is treated, and one that nobody ordered anything about.
struct Host {
    world: World,
    ordered: Sample,
    bystander: Sample,
    failpoints: PathBuf,
}

impl Host {
    async fn start(drain_ms: u64) -> Self {
        let mut failpoints = PathBuf::new();
        let world = World::start_with(|options| {
            failpoints = options.dir.with_file_name("agent-failpoints");
            let file = failpoints.display().to_string();
            options.agent_env.push(("MEDIC_FAILPOINTS_FILE".into(), file));
        })
        .await;
        let (mut ordered, bystander) = (world.sample("ordered", 1), world.sample("bystander", 2));
        let drain = format!("\"${{config}}\", --drain-ms, \"{drain_ms}\"]");
        ordered.manifest = ordered.manifest.replace("\"${config}\"]", &drain);
        world.apply(MANIFESTS).await;
        world.apply(&ordered.manifest).await;
        world.apply(&bystander.manifest).await;
        world.up(&ordered).await;
        world.up(&bystander).await;
        Self { world, ordered, bystander, failpoints }
    }

    fn journal_path(&self) -> PathBuf {
        self.world.cluster.dir().join("agents/host-a.state/journal")
    }

    /// The records of the journal that are whole, without their checksums.
    fn journal(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.journal_path()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line.split_once(' ')?.1).ok()).collect()
    }

    fn highest_fence(&self) -> u64 {
        self.journal().iter().filter_map(|record| record["fence"].as_u64()).max().unwrap_or(0)
    }

    fn records(&self, kind: &str, key: &str) -> usize {
        let is = |r: &&serde_json::Value| r["record"] == kind && r["key"] == key;
        self.journal().iter().filter(is).count()
    }

    async fn until_agent_ended(&mut self) {
        let deadline = std::time::Instant::now() + super::support::PATIENCE;
        while !self.world.cluster.agent_mut("host-a").unwrap().ended() {
            assert!(std::time::Instant::now() < deadline, "the agent did not die");
            tokio::time::sleep(super::support::LOOK).await;
        }
    }

    /// Starts the agent, and gives the fence it says it goes on from.
    async fn restart_agent(&mut self) -> u64 {
        let said = |world: &World| -> Vec<u64> {
            let lines = world.log("agent-host-a");
            let fence = |line: &str| {
                let from = line.split_once("fence=")?.1;
                from.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            };
            lines.lines().filter(|l| l.contains("agent started")).filter_map(fence).collect()
        };
        let before = said(&self.world).len();
        self.world.cluster.agent_mut("host-a").unwrap().start().unwrap();
        self.world
            .until("the agent says it started", || async { said(&self.world).len() > before })
            .await;
        *said(&self.world).last().unwrap()
    }

    /// The incident of an alert, healed; its one plan.
    async fn healed(&self, alert: &str) -> pb::Remediation {
        let of_alert = |seen: &pb::ExplainIncidentResponse| {
            seen.incident.as_ref().is_some_and(|incident| {
                let name =
                    |s: &pb::Symptom| s.labels.get("alertname").map(String::as_str) == Some(alert);
                incident.symptoms.iter().any(name)
            })
        };
        let seen = self
            .world
            .incident_when("ordered", &format!("healed of {alert}"), |seen| {
                of_alert(seen)
                    && status(seen) == pb::IncidentStatus::Resolved
                    && plan(seen).status() == pb::RemediationStatus::Succeeded
            })
            .await;
        assert_eq!(seen.remediations.len(), 1, "{alert}: one plan");
        plan(&seen).clone()
    }

    /// Every service runs exactly once, and those that nobody ordered anything about were left alone.
    fn check(&self, before: &BTreeMap<String, usize>, what: &str) {
        let starts = self.world.starts(&self.ordered)["ordered-1"];
        assert_eq!(starts, before["ordered-1"] + 1, "{what}: applied once");
        assert!(self.world.starts(&self.bystander).values().all(|n| *n == 1), "{what}: left alone");
        for instance in self.ordered.instances.iter().chain(&self.bystander.instances) {
            assert_eq!(copies(&self.world, instance), 1, "{what}: {instance} runs once");
        }
    }
}

/// How many processes of an instance live.
fn copies(world: &World, instance: &str) -> usize {
    let config = format!("{instance}.toml");
    let of_test = world.dir.path().display().to_string();
    medic_chaos::harness::processes_with(&config)
        .into_iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
        .filter(|line| line.contains(&of_test))
        .count()
}

/// The key of the newest act begun.
fn newest_key(host: &Host) -> String {
    let begun = host.journal().into_iter().rfind(|record| record["record"] == "begin");
    begun.map(|record| record["key"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_carried_out_once_wherever_its_agent_dies() {
    let mut host = Host::start(0).await;
    for point in POINTS {
        let before = host.world.starts(&host.ordered);
        let alert = format!("Trouble-{point}");
        std::fs::write(&host.failpoints, format!("{point}\n")).unwrap();
        host.world.alert(&alert, "ordered", "ordered-1").await;
        host.until_agent_ended().await;
        assert!(!host.failpoints.exists(), "it died at {point}");
        let highest = host.highest_fence();
        assert!(highest > 0, "{point}: the fence is noted before anything else");
        let told = host.restart_agent().await;
        assert_eq!(told, highest, "{point}: it keeps its highest fence");
        let plan = host.healed(&alert).await;
        host.check(&before, point);
        let key = newest_key(&host);
        assert!(key.contains(&plan.id), "{point}: {key} is of {}", plan.id);
        assert_eq!(host.records("outcome", &key), 1, "{point}: one outcome, however often asked");
        assert!(host.highest_fence() >= highest, "{point}: fences never decrease");
    }
    host.world.agree().await;
    host.world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_stop_and_a_damaged_journal() {
    // The service drains for a while: the agent is killed while it waits for that.
    let mut host = Host::start(1_500).await;
    let before = host.world.starts(&host.ordered);
    host.world.alert("Trouble", "ordered", "ordered-1").await;
    host.world.until("an act is begun", || async { !newest_key(&host).is_empty() }).await;
    let key = newest_key(&host);
    host.world.cluster.agent_mut("host-a").unwrap().kill().await.unwrap();
    assert_eq!(host.records("outcome", &key), 0, "killed in the middle");
    // What the dying agent had not written whole.
    append(&host.journal_path(), b"0badc0de {\"record\":\"outcome\",\"key\":\"PLA");
    host.restart_agent().await;
    assert!(host.world.log("agent-host-a").contains("a torn last record is cut off"));
    host.healed("Trouble").await;
    host.check(&before, "killed in the middle of a stop");

    host.world.cluster.agent_mut("host-a").unwrap().stop().await.unwrap();
    let whole = std::fs::read(host.journal_path()).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x20;
    std::fs::write(host.journal_path(), &damaged).unwrap();
    let said = refused("agent", &host.world.cluster.agent_config("host-a")).await;
    assert!(said.contains("journal is damaged at byte") && said.contains("Restore"), "{said}");
    assert_eq!(std::fs::read(host.journal_path()).unwrap(), damaged, "nothing was changed");
    host.check(&before, "while no agent runs");

    std::fs::write(host.journal_path(), &whole).unwrap();
    host.restart_agent().await;
    let before = host.world.starts(&host.ordered);
    host.world.alert("Trouble-after", "ordered", "ordered-1").await;
    host.healed("Trouble-after").await;
    host.check(&before, "restored");
    assert!(read(&host.journal_path()).lines().count() > 3);
    host.world.cluster.stop().await.unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}
