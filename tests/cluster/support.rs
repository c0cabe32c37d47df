//! A cluster under test, with services whose starts are counted by the services themselves.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use medic_chaos::{
    fleet::ServiceConfig,
    harness::{Cluster, ClusterOptions, free_ports, kill_processes_with, kill_services_below},
};
use medic_proto::v1 as pb;

/// Anything a healthy cluster does takes less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// A service under supervision.
pub(crate) struct Sample {
    pub(crate) instances: Vec<String>,
    pub(crate) manifest: String,
}

/// Alerts come in, and nothing but what a test says stands in the way of a plan.
pub(crate) const OPEN_GROUND: &str = r#"---
apiVersion: medic/v1
kind: Policy
metadata: {name: default}
spec: {autoExecute: {confidence: 0.0, risk: 1.0}, maxBlastRadius: 100%, autoResolveAfter: 1h}
---
apiVersion: medic/v1
kind: Source
metadata: {name: alertmanager}
spec: {type: alertmanager}
"#;

/// Three nodes, one agent, and a folder that is gone afterwards.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) failpoints: PathBuf,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut ClusterOptions)) -> Self {
        medic_node::security::provide_crypto();
        let dir = tempfile::Builder::new().prefix("medic-test-").tempdir().unwrap();
        let failpoints = dir.path().join("failpoints");
        let mut options =
            ClusterOptions::new(&dir.path().join("cluster"), 3, vec!["host-a".into()]);
        options.medic = PathBuf::from(env!("CARGO_BIN_EXE_medic-under-test"));
        options.users = ["admin", "oncall", "viewer"].map(str::to_owned).to_vec();
        options.node_env = vec![
            ("MEDIC_FAILPOINTS_FILE".into(), failpoints.display().to_string()),
            ("DETECTION_INTERVAL".into(), "1".into()),
        ];
        adjust(&mut options);
        let mut cluster = Cluster::prepare(options).await.unwrap();
        cluster.start().await.unwrap();
        cluster.wait_for_leader(PATIENCE).await.unwrap();
        Self { cluster, dir, failpoints }
    }

    /// A sample service with so many instances on the agent, not yet declared.
    pub(crate) fn sample(&self, name: &str, instances: usize) -> Sample {
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let config =
            toml::to_string(&ServiceConfig { timeout_ms: 400, ..ServiceConfig::default() })
                .unwrap();
        let mut list = String::new();
        let mut names = Vec::new();
        for (n, port) in free_ports(instances).unwrap().into_iter().enumerate() {
            let instance = format!("{name}-{}", n + 1);
            list.push_str(&format!("    - {{name: {instance}, agent: host-a, port: {port}}}\n"));
            names.push(instance);
        }
        let manifest = format!(
            r#"---
apiVersion: medic/v1
kind: Service
metadata: {{name: {name}}}
spec:
  criticality: low
  process:
    command: {binary:?}
    args: [--name, "${{instance}}", --port, "${{port}}", --config, "${{config}}"]
    config: {{path: "{folder}/${{instance}}.toml", content: {config:?}}}
  probes: [{{name: process_alive, process: true, interval: 1s}}]
  instances:
{list}"#,
            binary = env!("CARGO_BIN_EXE_sample-service"),
            folder = folder.display(),
        );
        Sample { instances: names, manifest }
    }

    /// How often each instance has started, by its own account.
    pub(crate) fn starts(&self, sample: &Sample) -> BTreeMap<String, usize> {
        sample.instances.iter().map(|name| (name.clone(), self.started(name))).collect()
    }

    /// How often an instance (`web-1`) has started, by its own account.
    pub(crate) fn started(&self, instance: &str) -> usize {
        let folder = self.dir.path().join(instance.rsplit_once('-').unwrap().0);
        let path = folder.join(format!("{instance}.starts"));
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    /// Applies manifests, again while nobody leads: on a busy machine an election may come at any time.
    pub(crate) async fn apply(&self, yaml: &str) {
        self.until("the manifests are applied", || async {
            let Ok(mut client) = self.cluster.client("admin").await else { return false };
            let request = pb::ApplyManifestsRequest { text: yaml.to_owned(), ..Default::default() };
            let applied = match client.manifests().apply(request).await {
                Ok(applied) => applied.into_inner(),
                Err(status) if passes(&format!("{:?}", status.code())) => return false,
                Err(status) => panic!("{status:?}"),
            };
            for manifest in applied.manifests {
                assert_eq!(manifest.refusal, "", "{} {}", manifest.kind, manifest.name);
            }
            true
        })
        .await;
    }

    /// Waits until every instance of the sample has started once.
    pub(crate) async fn up(&self, sample: &Sample) {
        self.until("the sample service is up", || async {
            self.starts(sample).values().all(|count| *count >= 1)
        })
        .await;
    }

    /// Alertmanager, as it would post.
    pub(crate) async fn alert(&self, alert: &str, service: &str, instance: &str) {
        let body = serde_json::json!({
            "version": "4", "status": "firing", "receiver": "medic",
            "groupKey": alert, "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://alertmanager.invalid", "truncatedAlerts": 0,
            "alerts": [{
                "status": "firing",
                "labels": {"alertname": alert, "service": service, "instance": instance, "severity": "critical"},
                "annotations": {"summary": format!("{alert} on {instance}")},
                "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "", "fingerprint": "0"
            }]
        });
        self.until("a node takes the alert", || async {
            for node in 1..=3 {
                let port = self.cluster.ports(node).unwrap().http;
                let url = format!("http://127.0.0.1:{port}/api/v1/alertmanager/default");
                let request = reqwest::Client::new()
                    .post(url)
                    .timeout(Duration::from_secs(5))
                    .header("content-type", "application/json")
                    .body(body.to_string());
                if matches!(request.send().await, Ok(response) if response.status().is_success()) {
                    return true;
                }
            }
            false
        })
        .await;
    }

    pub(crate) async fn incidents(&self) -> Vec<pb::IncidentSummary> {
        let Ok(mut client) = self.cluster.client("admin").await else { return Vec::new() };
        let request = pb::ListIncidentsRequest { page_size: 500, ..Default::default() };
        client
            .incidents()
            .list(request)
            .await
            .map_or_else(|_| Vec::new(), |r| r.into_inner().incidents)
    }

    pub(crate) async fn explain(&self, id: &str) -> Option<pb::ExplainIncidentResponse> {
        let mut client = self.cluster.client("admin").await.ok()?;
        let request = pb::ExplainIncidentRequest { id: id.to_owned() };
        Some(client.incidents().explain(request).await.ok()?.into_inner())
    }

    /// Waits for an incident of a service to satisfy a condition; the newest that does.
    pub(crate) async fn incident_when(
        &self,
        service: &str,
        what: &str,
        good: impl Fn(&pb::ExplainIncidentResponse) -> bool,
    ) -> pb::ExplainIncidentResponse {
        let of_service =
            |i: &pb::IncidentSummary| i.target.as_ref().is_some_and(|t| t.service == service);
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            let mut incidents = self.incidents().await;
            incidents.retain(of_service);
            incidents.sort_by_key(|incident| std::cmp::Reverse(number(&incident.id)));
            // Older ones are settled history.
            for incident in incidents.into_iter().take(3) {
                let Some(explained) = self.explain(&incident.id).await else { continue };
                if good(&explained) {
                    return explained;
                }
                last.get_or_insert(explained);
            }
            tokio::time::sleep(LOOK).await;
        }
        panic!("{service}: not {what} after {PATIENCE:?}; seen: {last:#?}\nlogs: {}", self.logs());
    }

    pub(crate) async fn resolve(&self, id: &str) {
        self.until("the incident is closed by hand", || async {
            let Ok(mut client) = self.cluster.client("admin").await else { return false };
            let request = pb::ResolveIncidentRequest { id: id.to_owned(), ..Default::default() };
            client.incidents().resolve(request).await.is_ok()
        })
        .await;
    }

    /// Waits for a condition, with a deadline that names it.
    pub(crate) async fn until<F: Future<Output = bool>>(
        &self,
        what: &str,
        condition: impl Fn() -> F,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(
                Instant::now() < deadline,
                "not after {PATIENCE:?}: {what}\nlogs: {}",
                self.logs()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What a process has said so far: `node-1`, `agent-host-a`.
    pub(crate) fn log(&self, process: &str) -> String {
        let path = self.cluster.dir().join(format!("logs/{process}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The ends of all logs, for a failure's message.
    fn logs(&self) -> String {
        let folder = self.cluster.dir().join("logs");
        let mut text = String::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            text.push_str(&format!("\n--- {}\n{tail}\n", entry.path().display()));
        }
        text
    }

    /// Waits until the process of a node has ended: a boundary is reached a moment before its death.
    pub(crate) async fn until_one_has_ended(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !(1..=3).any(|id| self.cluster.node_mut(id).unwrap().ended()) {
            assert!(Instant::now() < deadline, "no node has ended");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts every node that is not running; gives their numbers.
    pub(crate) fn revive(&mut self) -> Vec<u64> {
        let mut revived = Vec::new();
        for id in 1..=3 {
            let node = self.cluster.node_mut(id).unwrap();
            if node.ended() {
                node.start().unwrap();
                revived.push(id);
            }
        }
        revived
    }

    /// All three nodes answer, have applied the same index, and agree on state and audit chain.
    pub(crate) async fn agree(&self) {
        self.until("all nodes agree on state and audit chain", || async {
            let mut seen = Vec::new();
            for node in 1..=3 {
                let Ok(mut client) = self.cluster.client_of(node, "admin").await else {
                    return false;
                };
                let Ok(status) = client.cluster().status(pb::StatusRequest {}).await else {
                    return false;
                };
                let status = status.into_inner();
                if status.answered_by != node {
                    return false;
                }
                seen.push((status.applied, status.state_hash, status.audit_seq, status.audit_hash));
            }
            seen.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }
}

/// A whole number from a node's metrics, by name with labels; zero while there is none.
pub(crate) async fn metric(world: &World, node: u64, name: &str) -> u64 {
    let port = world.cluster.ports(node).unwrap().http;
    let url = format!("http://127.0.0.1:{port}/metrics");
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

impl Drop for World {
    fn drop(&mut self) {
        // Services outlive their agent by design; the test's own must not outlive the test.
        kill_processes_with(&self.dir.path().to_string_lossy());
        kill_services_below(self.dir.path());
    }
}

/// Whether a call that ended with this code may end well a moment later.
fn passes(code: &str) -> bool {
    ["Unavailable", "Aborted", "Cancelled", "DeadlineExceeded"].contains(&code)
}

pub(crate) fn number(id: &str) -> u64 {
    id.trim_start_matches("INC-").parse().unwrap()
}

pub(crate) fn status(explained: &pb::ExplainIncidentResponse) -> pb::IncidentStatus {
    explained.incident.as_ref().map_or(pb::IncidentStatus::Unspecified, pb::Incident::status)
}

pub(crate) fn plan(explained: &pb::ExplainIncidentResponse) -> &pb::Remediation {
    explained.remediations.last().expect("a remediation")
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Runs `medic serve` or `medic agent`, which is expected to end by itself; gives what it said.
pub(crate) async fn refused(what: &str, config: &Path) -> String {
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_medic-under-test"))
        .args([what, "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
    let output = ended.expect("it refuses to run and ends").unwrap();
    assert!(!output.status.success(), "it must not report success");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Most memory that a process has ever had resident, in bytes.
pub(crate) fn peak_memory(pid: i32) -> u64 {
    let status = read(Path::new(&format!("/proc/{pid}/status")));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
