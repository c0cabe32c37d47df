//! The sample fleet as manifests: who runs where, who calls whom, what is watched.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
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
    /// Its port.
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

/// Which fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Eight instances, some of them alone, as the demo and the campaigns of faults use them.
    #[default]
    Small,
    /// Every service has a second instance, calls are tried again elsewhere, and everything that can
    /// fill up, expire or be tampered with is watched.
    Redundant,
}

/// The sample fleet.
#[derive(Clone, Debug)]
pub struct SampleFleet {
    /// All instances, by name.
    pub instances: BTreeMap<String, SampleInstance>,
    layout: Layout,
    binary: PathBuf,
    binary_args: Vec<String>,
    interval_ms: u64,
    host: Ipv4Addr,
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

const SMALL: [Sketch; 5] = [
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

const REDUNDANT: [Sketch; 5] = [
    Sketch {
        name: "gateway",
        hosts: &[0, 1],
        depends_on: &["orders", "users", "catalog"],
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
        hosts: &[1, 2],
        depends_on: &["datastore"],
        criticality: "medium",
        compliance: None,
    },
    Sketch {
        name: "catalog",
        hosts: &[0, 2],
        depends_on: &["datastore"],
        criticality: "medium",
        compliance: None,
    },
    Sketch {
        name: "datastore",
        hosts: &[1, 2],
        depends_on: &[],
        criticality: "high",
        compliance: None,
    },
];

/// Watched in the redundant fleet beside errors, latency and memory.
const MORE_INDICATORS: &str = r#"    - {name: cpu, source: {rate: process_cpu_seconds_total}, limit: 0.2}
    - {name: open_fds, source: {gauge: process_open_fds}, limit: 400}
    - {name: disk_used, source: {gauge: spool_used_ratio}, limit: 0.9}
    - {name: upstream_timeouts, source: {ratio: {of: 'upstream_failures_total{reason="timeout"}', to: upstream_requests_total}}, limit: 0.2}
    - {name: upstream_refused, source: {ratio: {of: 'upstream_failures_total{reason="refused"}', to: upstream_requests_total}}, limit: 0.2}
    - {name: certificate_expired, source: {gauge: certificate_expired}, limit: 0.5}
    - {name: unexpected_listeners, source: {gauge: process_unexpected_listeners}, limit: 0.5}
    - {name: artefact_modified, source: {gauge: artefact_modified}, limit: 0.5}
    - {name: logins_denied, source: {rate: logins_denied_total}, limit: 5}
"#;

/// Time a sample service drains after SIGTERM: long enough that a leader can be lost meanwhile.
const DRAIN_MS: u64 = 1_500;
/// Memory a sample service may hold.
pub const MEMORY_LIMIT: &str = "160MiB";

impl Layout {
    const fn sketches(self) -> &'static [Sketch] {
        match self {
            Self::Small => &SMALL,
            Self::Redundant => &REDUNDANT,
        }
    }

    /// How many ports a fleet of this layout needs.
    #[must_use]
    pub fn ports_needed(self) -> usize {
        self.sketches().iter().map(|sketch| sketch.hosts.len()).sum()
    }
}

impl SampleFleet {
    /// How many ports the small fleet needs.
    #[must_use]
    pub fn ports_needed() -> usize {
        Layout::Small.ports_needed()
    }

    /// Lays the small fleet out over three agents, with files under `dir`. `binary` with
    /// `binary_args` runs one service (see [`super::ServiceArgs`]).
    #[must_use]
    pub fn new(
        dir: &Path,
        agents: &[String],
        ports: &[u16],
        binary: &Path,
        binary_args: &[&str],
    ) -> Self {
        Self::laid_out(Layout::Small, dir, agents, ports, binary, binary_args)
    }

    /// Any layout.
    #[must_use]
    pub fn laid_out(
        layout: Layout,
        dir: &Path,
        agents: &[String],
        ports: &[u16],
        binary: &Path,
        binary_args: &[&str],
    ) -> Self {
        let mut ports = ports.iter().copied();
        let mut instances = BTreeMap::new();
        for sketch in layout.sketches() {
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
            layout,
            binary: binary.to_owned(),
            binary_args: binary_args.iter().map(|arg| (*arg).to_owned()).collect(),
            interval_ms: 1_000,
            host: Ipv4Addr::LOCALHOST,
        }
    }

    /// The same on another address of this machine than loopback.
    #[must_use]
    pub fn on(self, host: Ipv4Addr) -> Self {
        Self { host, ..self }
    }

    /// The same, probed and scraped so often.
    #[must_use]
    pub fn scraped_every(self, seconds: u64) -> Self {
        Self { interval_ms: seconds.saturating_mul(1_000), ..self }
    }

    /// Address of the first gateway, where traffic goes.
    #[must_use]
    pub fn entry(&self) -> String {
        self.instances.get("gateway-1").map(|i| self.address(i)).unwrap_or_default()
    }

    fn address(&self, instance: &SampleInstance) -> String {
        format!("{}:{}", self.host, instance.port)
    }

    /// Instances of one service.
    pub fn of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a SampleInstance> {
        self.instances.values().filter(move |instance| instance.service == service)
    }

    /// The configuration a service should have.
    #[must_use]
    pub fn good_config(&self, service: &str) -> ServiceConfig {
        let dependencies: Vec<Vec<String>> = self
            .depends_on(service)
            .iter()
            .map(|name| self.of(name).map(|i| self.address(i)).collect())
            .collect();
        let plain = ServiceConfig { dependencies, timeout_ms: 400, ..ServiceConfig::default() };
        match self.layout {
            Layout::Small => plain,
            // Who calls callers has the patience for one of their calls that is tried again.
            Layout::Redundant if service == "gateway" => {
                ServiceConfig { timeout_ms: 900, retries: 1, ..plain }
            }
            Layout::Redundant => ServiceConfig { retries: 1, ..plain },
        }
    }

    /// The services that one calls.
    #[must_use]
    pub fn depends_on(&self, service: &str) -> &'static [&'static str] {
        let sketches = self.layout.sketches();
        sketches.iter().find(|s| s.name == service).map_or(&[][..], |s| s.depends_on)
    }

    /// Command line of one instance, as its manifest declares it.
    #[must_use]
    pub fn command(&self, instance: &SampleInstance) -> (PathBuf, Vec<String>) {
        let (port, config) = (instance.port.to_string(), instance.config.display().to_string());
        let args = self.args(&instance.name, &port, &config, &instance.data.display().to_string());
        (self.binary.clone(), args)
    }

    fn args(&self, name: &str, port: &str, config: &str, data: &str) -> Vec<String> {
        let (drain, host) = (DRAIN_MS.to_string(), self.host.to_string());
        let own = ["--name", name, "--port", port, "--config", config, "--data", data]
            .into_iter()
            .chain(["--drain-ms", &drain, "--host", &host])
            .map(str::to_owned);
        self.binary_args.iter().cloned().chain(own).collect()
    }

    /// Manifests of all services, as one YAML bundle.
    ///
    /// # Errors
    /// When a configuration cannot be written as TOML.
    pub fn manifests(&self) -> anyhow::Result<String> {
        let mut yaml = String::new();
        for sketch in self.layout.sketches() {
            self.service(sketch, &mut yaml)?;
        }
        Ok(yaml)
    }

    fn service(&self, sketch: &Sketch, yaml: &mut String) -> anyhow::Result<()> {
        let dir =
            self.of(sketch.name).next().and_then(|i| i.config.parent()).unwrap_or(Path::new("/"));
        let data = format!("{}/${{instance}}.data", dir.display());
        let args = self.args("${instance}", "${port}", "${config}", &data);
        let (interval, host) = (format!("{}ms", self.interval_ms), self.host);
        let (probe, indicators) = match self.layout {
            Layout::Small => (String::new(), ""),
            Layout::Redundant => (
                format!(
                    "    - {{name: ready, http: \"http://{host}:${{port}}/ready\", interval: {interval}, timeout: 700ms}}\n"
                ),
                MORE_INDICATORS,
            ),
        };
        let config = toml::to_string(&self.good_config(sketch.name))?;
        let compliance =
            sketch.compliance.map(|c| format!("\n  compliance: [{c}]")).unwrap_or_default();
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
    - {{name: http_ok, http: "http://{host}:${{port}}/healthz", interval: {interval}, timeout: 700ms}}
{probe}  scrape: {{url: "http://{host}:${{port}}/metrics", interval: {interval}}}
  indicators:
    - {{name: error_rate, source: {{ratio: {{of: 'http_requests_total{{code=~"5.."}}', to: http_requests_total}}}}, limit: 0.2}}
    - {{name: latency_p99, source: {{quantile: {{histogram: http_request_duration_seconds, q: 0.99}}}}, limit: 0.6}}
    - {{name: memory, source: {{gauge: process_resident_memory_bytes}}, limit: {MEMORY_LIMIT}}}
{indicators}  slo: {{availability: 0.99}}
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
