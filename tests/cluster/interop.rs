//! Real software from the system's packages: a node exporter, a Prometheus and an Alertmanager, with
//! Medic in every place that it can take among them.
//!
//! ```text
//!   node exporter ◄─ scrape ─ Prometheus ─ remote write ─► Medic (pushed)
//!        ▲                    │   │  ▲
//!        │              rules │   │  └─ PromQL ─────────── Medic (asked)
//!        └── scrape ── Medic  │   └─ /api/v2/alerts ─────► Medic (tenant blue)
//!           (scraped)         └─► Alertmanager ─ webhook ► Medic (paged)
//! ```

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use medic_chaos::harness::free_ports;
use medic_proto::v1 as pb;
use tokio::process::{Child, Command};

use super::support::World;

fn program(name: &str) -> PathBuf {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: `make test` installs it"))
}

/// Ends with the test.
fn start(name: &str, folder: &Path, args: &[String]) -> Child {
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
    Command::new(program(name))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

struct Ports {
    exporter: u16,
    prometheus: u16,
    alertmanager: u16,
    medic: u16,
}

/// The service as seen through each of the ways. `scraped` alone has an exposition of its own.
fn manifests(ports: &Ports) -> String {
    let Ports { exporter, prometheus, .. } = ports;
    let mut text = format!(
        r#"---
apiVersion: medic/v1
kind: Source
metadata: {{name: written}}
spec: {{type: remote-write, serviceLabel: job, match: ['job="pushed"']}}
---
apiVersion: medic/v1
kind: Source
metadata: {{name: asked}}
spec:
  type: prometheus
  query:
    url: "http://127.0.0.1:{prometheus}"
    interval: 1s
    queries:
      - {{name: heat, query: 'label_replace(test_heat, "service", "asked", "", "")'}}
---
apiVersion: medic/v1
kind: Source
metadata: {{name: listed}}
spec: {{type: scrape, scrape: {{targets: ["127.0.0.1:{exporter}"], interval: 1s, labels: {{service: listed}}}}}}
---
apiVersion: medic/v1
kind: Source
metadata: {{name: alertmanager}}
spec: {{type: alertmanager}}
---
apiVersion: medic/v1
kind: Source
metadata: {{name: prometheus, tenant: blue}}
spec: {{type: alertmanager, serviceLabel: team}}
"#
    );
    for (service, tenant, metric, scrape) in [
        ("pushed", "default", "test_heat", false),
        ("asked", "default", "heat", false),
        ("listed", "default", "test_heat", false),
        ("scraped", "default", "test_heat", true),
        ("paged", "default", "none", false),
        ("paged", "blue", "none", false),
    ] {
        let scrape = if scrape {
            "  scrape: {url: \"http://127.0.0.1:${port}/metrics\", interval: 1s}\n"
        } else {
            ""
        };
        text.push_str(&format!(
            "---\napiVersion: medic/v1\nkind: Service\nmetadata: {{name: {service}, tenant: {tenant}}}\nspec:\n{scrape}  \
             instances: [{{name: host-1, port: {exporter}}}]\n  \
             indicators: [{{name: heat, source: {{gauge: {metric}}}, limit: \"80\"}}]\n"
        ));
    }
    text
}

fn prometheus_config(ports: &Ports) -> String {
    let Ports { exporter, alertmanager, medic, .. } = ports;
    format!(
        r#"global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - {{job_name: pushed, static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]}}
remote_write:
  - url: "http://127.0.0.1:{medic}/api/v1/write"
    write_relabel_configs: [{{source_labels: [__name__], regex: "test_.*|up", action: keep}}]
    queue_config: {{batch_send_deadline: 200ms}}
alerting:
  alertmanagers:
    - {{static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]}}
    - {{path_prefix: /t/blue, static_configs: [{{targets: ["127.0.0.1:{medic}"]}}]}}
"#
    )
}

const RULES: &str = r"groups:
  - name: test
    rules:
      - alert: HeatHigh
        expr: test_heat > 90
        labels: {service: paged, team: paged, severity: critical}
        annotations: {summary: it is hot}
      - alert: DiskFull
        expr: test_disk > 90
        labels: {service: paged, team: paged, severity: critical}
        annotations: {summary: '{{ $labels.disk }} is full'}
";

fn alertmanager_config(ports: &Ports) -> String {
    format!(
        r#"route: {{receiver: medic, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers:
  - name: medic
    webhook_configs: [{{url: "http://127.0.0.1:{}/api/v1/alertmanager/default", send_resolved: true}}]
"#,
        ports.medic
    )
}

/// What the exporter's textfile collector shows: degrees, and two disks.
fn show(folder: &Path, heat: f64, [sda, sdb]: [f64; 2]) {
    let text = format!(
        "# TYPE test_heat gauge\ntest_heat {heat}\n# TYPE test_disk gauge\n\
         test_disk{{disk=\"sda\"}} {sda}\ntest_disk{{disk=\"sdb\"}} {sdb}\n"
    );
    // Written whole: the exporter must not read half of it.
    std::fs::write(folder.join("heat.tmp"), text).unwrap();
    std::fs::rename(folder.join("heat.tmp"), folder.join("textfiles/heat.prom")).unwrap();
}

fn start_all(folder: &Path, ports: &Ports) -> Vec<Child> {
    std::fs::create_dir_all(folder.join("textfiles")).unwrap();
    show(folder, 20.0, [20.0, 20.0]);
    for (name, text) in [
        ("prometheus.yml", prometheus_config(ports)),
        ("rules.yml", RULES.to_owned()),
        ("alertmanager.yml", alertmanager_config(ports)),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let shown = folder.display();
    vec![
        start(
            "prometheus-node-exporter",
            folder,
            &[
                format!("--web.listen-address=127.0.0.1:{}", ports.exporter),
                format!("--collector.textfile.directory={shown}/textfiles"),
                // Its other collectors tell of the machine, which no test moves, and may take longer than the scrape
                // interval of a second here where cores are shared.
                "--collector.disable-defaults".to_owned(),
                "--collector.textfile".to_owned(),
            ],
        ),
        start(
            "prometheus-alertmanager",
            folder,
            &[
                format!("--config.file={shown}/alertmanager.yml"),
                format!("--web.listen-address=127.0.0.1:{}", ports.alertmanager),
                format!("--storage.path={shown}/alertmanager"),
                "--cluster.listen-address=".to_owned(),
            ],
        ),
        start(
            "prometheus",
            folder,
            &[
                format!("--config.file={shown}/prometheus.yml"),
                format!("--web.listen-address=127.0.0.1:{}", ports.prometheus),
                format!("--storage.tsdb.path={shown}/tsdb"),
            ],
        ),
    ]
}

/// What the alerts say that fire about the service `paged` of a tenant, as Medic knows them.
async fn firing(world: &World, tenant: &str) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for summary in world.incidents().await {
        let of_it = |target: &pb::Target| target.service == "paged" && target.tenant == tenant;
        if !summary.target.as_ref().is_some_and(of_it) {
            continue;
        }
        let incident = world.explain(&summary.id).await.and_then(|seen| seen.incident);
        let symptoms = incident.into_iter().flat_map(|incident| incident.symptoms);
        let active =
            symptoms.filter(|symptom| symptom.kind == "alert" && symptom.cleared_at.is_none());
        texts.extend(active.flat_map(|symptom| symptom.signals).map(|signal| signal.value));
    }
    texts
}

/// Sum over all nodes of a counter of samples that were taken at a door.
pub(super) async fn taken(world: &World, door: &str) -> f64 {
    let wanted = format!("medic_intake_samples_total{{door=\"{door}\",result=\"taken\"}} ");
    let mut sum = 0.0;
    for node in 1..=3 {
        let port = world.cluster.ports(node).unwrap().http;
        let url = format!("http://127.0.0.1:{port}/metrics");
        let request = reqwest::Client::new().get(url).timeout(Duration::from_secs(2));
        let Ok(response) = request.send().await else { continue };
        let text = response.text().await.unwrap_or_default();
        let values = text.lines().filter_map(|line| line.strip_prefix(&wanted));
        sum += values.filter_map(|value| value.parse::<f64>().ok()).sum::<f64>();
    }
    sum
}

async fn incident(
    world: &World,
    tenant: &str,
    service: &str,
    signal: &str,
) -> Option<pb::ExplainIncidentResponse> {
    for summary in world.incidents().await {
        let Some(target) = &summary.target else { continue };
        if target.service != service || target.tenant != tenant {
            continue;
        }
        let explained = world.explain(&summary.id).await?;
        if format!("{explained:?}").contains(signal) {
            return Some(explained);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_node_exporter_and_alertmanager_work_with_medic() {
    let mut world = World::start().await;
    let folder = world.dir.path().join("interop");
    std::fs::create_dir_all(&folder).unwrap();
    let free = free_ports(3).unwrap();
    let medic = world.cluster.ports(2).unwrap().http;
    let ports = Ports { exporter: free[0], prometheus: free[1], alertmanager: free[2], medic };
    world.apply(&manifests(&ports)).await;
    let programs = start_all(&folder, &ports);
    world.until("Prometheus writes", || async { taken(&world, "remote_write").await >= 3.0 }).await;
    world.until("Prometheus answers", || async { taken(&world, "source").await >= 3.0 }).await;
    assert!(world.incidents().await.is_empty(), "20 degrees are fine");

    show(&folder, 95.0, [95.0, 95.0]);
    for (tenant, service, signal, what) in [
        ("default", "pushed", "heat", "what Prometheus remote-writes is watched"),
        ("default", "asked", "heat", "what Prometheus is asked for is watched"),
        ("default", "listed", "heat", "what a source scrapes is watched"),
        ("default", "scraped", "heat", "what a service shows is watched"),
        ("default", "paged", "HeatHigh", "Alertmanager pages Medic"),
        ("blue", "paged", "HeatHigh", "Prometheus alerts Medic"),
    ] {
        world
            .until(what, || async { incident(&world, tenant, service, signal).await.is_some() })
            .await;
    }

    // Alerts end one by one, those of one name too: through the webhook, and at Prometheus' word.
    let (all, last) = (["it is hot", "sda is full", "sdb is full"], ["sdb is full"]);
    for (heat, disks, expected) in
        [(95.0, [95.0, 95.0], &all[..]), (20.0, [20.0, 95.0], &last[..]), (20.0, [20.0, 20.0], &[])]
    {
        show(&folder, heat, disks);
        for tenant in ["default", "blue"] {
            let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
            let what = format!("{tenant}: {expected:?} fires, and nothing else");
            world.until(&what, || async { firing(&world, tenant).await == expected }).await;
        }
    }

    drop(programs);
    world.cluster.stop().await.unwrap();
}
