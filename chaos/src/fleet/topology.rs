//! The sample fleet as manifests: who runs where, who calls whom, what is watched.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::ServiceConfig;

/// One instance of a sample service.
#[derive(Clone, Debug)]
pub struct SampleInstance {
    /// Service name.
    pub service: String,
    /// Instance name, `<service>-<n>`.
    pub name: String,
    /// The agent on its host.
    pub agent: String,
    /// Loopback port.
    pub port: u16,
    /// Configuration file.
    pub config: PathBuf,
    /// Data file.
    pub data: PathBuf,
}

impl SampleInstance {
    /// Where the instance notes each of its starts, a line each.
    #[must_use]
    pub fn starts(&self) -> PathBuf {
        self.config.with_extension("starts")
    }
}

/// The sample fleet.
#[derive(Clone, Debug)]
pub struct SampleFleet {
    /// All instances, by name.
    pub instances: BTreeMap<String, SampleInstance>,
    binary: PathBuf,
    binary_args: Vec<String>,
    interval_ms: u64,
}

/// A service of the fleet: name, hosts of its instances (by position among the agents),
/// dependencies, criticality, compliance.
struct Sketch {
    name: &'static str,
    hosts: &'static [usize],
    depends_on: &'static [&'static str],
    criticality: &'static str,
    compliance: Option<&'static str>,
}

const SKETCHES: [Sketch; 5] = [
    Sketch {
        name: "gateway",
        hosts: &[0],
        depends_on: &["orders", "users"],
        criticality: "high",
        compliance: None,
    },
    Sketch {
        name: "orders",
        hosts: &[0, 1, 2],
        depends_on: &["datastore"],
        criticality: "high",
        compliance: None,
    },
    Sketch {
        name: "users",
        hosts: &[0, 1],
        depends_on: &["datastore"],
        criticality: "medium",
        compliance: None,
    },
    Sketch {
        name: "datastore",
        hosts: &[2],
        depends_on: &[],
        criticality: "high",
        compliance: None,
    },
    Sketch {
        name: "ledger",
        hosts: &[1],
        depends_on: &[],
        criticality: "critical",
        compliance: Some("pci"),
    },
];

/// Time a sample service drains after SIGTERM: long enough that a leader can be lost meanwhile.
const DRAIN_MS: u64 = 1_500;
/// Memory a sample service may hold.
pub const MEMORY_LIMIT: &str = "160MiB";

impl SampleFleet {
    /// How many ports a fleet needs.
    #[must_use]
    pub fn ports_needed() -> usize {
        SKETCHES.iter().map(|sketch| sketch.hosts.len()).sum()
    }

    /// Lays the fleet out over three agents, with files under `dir`. `binary` with `binary_args`
    /// runs one service (see [`super::ServiceArgs`]).
    #[must_use]
    pub fn new(
        dir: &Path,
        agents: &[String],
        ports: &[u16],
        binary: &Path,
        binary_args: &[&str],
    ) -> Self {
        let mut ports = ports.iter().copied();
        let mut instances = BTreeMap::new();
        for sketch in &SKETCHES {
            for (n, host) in sketch.hosts.iter().enumerate() {
                let name = format!("{}-{}", sketch.name, n + 1);
                let instance = SampleInstance {
                    service: sketch.name.to_owned(),
                    agent: agents[host % agents.len()].clone(),
                    port: ports.next().unwrap_or_default(),
                    config: dir.join(format!("{name}.toml")),
                    data: dir.join(format!("{name}.data")),
                    name: name.clone(),
                };
                instances.insert(name, instance);
            }
        }
        Self {
            instances,
            binary: binary.to_owned(),
            binary_args: binary_args.iter().map(|arg| (*arg).to_owned()).collect(),
            interval_ms: 1_000,
        }
    }

    /// Address of the first gateway, where traffic goes.
    #[must_use]
    pub fn entry(&self) -> String {
        self.instances.get("gateway-1").map(|i| format!("127.0.0.1:{}", i.port)).unwrap_or_default()
    }

    /// Instances of one service.
    pub fn of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a SampleInstance> {
        self.instances.values().filter(move |instance| instance.service == service)
    }

    /// The configuration a service should have.
    #[must_use]
    pub fn good_config(&self, service: &str) -> ServiceConfig {
        let depends_on =
            SKETCHES.iter().find(|s| s.name == service).map_or(&[][..], |s| s.depends_on);
        let dependencies = depends_on
            .iter()
            .map(|name| self.of(name).map(|i| format!("127.0.0.1:{}", i.port)).collect())
            .collect();
        ServiceConfig { dependencies, timeout_ms: 400 }
    }

    /// Manifests of all services, as one YAML bundle.
    ///
    /// # Errors
    /// When a configuration cannot be written as TOML.
    pub fn manifests(&self) -> anyhow::Result<String> {
        let mut yaml = String::new();
        for sketch in &SKETCHES {
            self.service(sketch, &mut yaml)?;
        }
        Ok(yaml)
    }

    fn service(&self, sketch: &Sketch, yaml: &mut String) -> anyhow::Result<()> {
        let mut args: Vec<String> = self.binary_args.clone();
        args.extend(
            ["--name", "${instance}", "--port", "${port}", "--config", "${config}"]
                .map(str::to_owned),
        );
        let dir =
            self.of(sketch.name).next().and_then(|i| i.config.parent()).unwrap_or(Path::new("/"));
        args.extend(["--data".to_owned(), format!("{}/${{instance}}.data", dir.display())]);
        args.extend(["--drain-ms".to_owned(), DRAIN_MS.to_string()]);
        let config = toml::to_string(&self.good_config(sketch.name))?;
        let compliance =
            sketch.compliance.map(|c| format!("\n  compliance: [{c}]")).unwrap_or_default();
        let interval = format!("{}ms", self.interval_ms);
        write!(
            yaml,
            r#"---
apiVersion: medic/v1
kind: Service
metadata: {{name: {name}, labels: {{env: prod-demo, fleet: sample}}}}
spec:
  criticality: {criticality}{compliance}
  dependsOn: [{depends_on}]
  process:
    command: {command}
    args: {args}
    stop: {{signal: SIGTERM, timeout: 4s}}
    config: {{path: "{dir}/${{instance}}.toml", content: {config}}}
    reloadSignal: SIGHUP
  probes:
    - {{name: process_alive, process: true, interval: {interval}}}
    - {{name: http_ok, http: "http://127.0.0.1:${{port}}/healthz", interval: {interval}, timeout: 700ms}}
  scrape: {{url: "http://127.0.0.1:${{port}}/metrics", interval: {interval}}}
  indicators:
    - {{name: error_rate, source: {{ratio: {{of: 'http_requests_total{{code=~"5.."}}', to: http_requests_total}}}}, limit: 0.2}}
    - {{name: latency_p99, source: {{quantile: {{histogram: http_request_duration_seconds, q: 0.99}}}}, limit: 0.6}}
    - {{name: memory, source: {{gauge: process_resident_memory_bytes}}, limit: {MEMORY_LIMIT}}}
  slo: {{availability: 0.99}}
  instances:
"#,
            name = sketch.name,
            criticality = sketch.criticality,
            depends_on = sketch.depends_on.join(", "),
            command = serde_json::to_string(&self.binary)?,
            args = serde_json::to_string(&args)?,
            dir = dir.display(),
            config = serde_json::to_string(&config)?,
        )?;
        for instance in self.of(sketch.name) {
            writeln!(
                yaml,
                "    - {{name: {}, agent: {}, port: {}}}",
                instance.name, instance.agent, instance.port
            )?;
        }
        Ok(())
    }
}
