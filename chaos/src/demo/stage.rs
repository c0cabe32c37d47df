//! The stage: a cluster, a fleet, traffic, all in one temporary folder, all ended at the end.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use medic_proto::v1 as pb;

use super::narrator::{Narrator, Tone};
use crate::{
    fleet::{
        SampleFleet, ServiceConfig,
        traffic::{self, Traffic},
    },
    harness::{Cluster, ClusterOptions, free_ports, kill_processes_with, kill_services_below},
};

/// Playbooks of the demo beside the built-in ones, and who may approve.
const EXTRAS: &str = include_str!("extras.yaml");
/// Requests per second to each entry of the fleet.
const TRAFFIC_PER_SECOND: u32 = 15;
/// Time the fleet is given to come up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Traffic is watched this long before the first fault, so that detectors know what is normal.
const WARM_UP: Duration = Duration::from_secs(12);

/// Everything the demo runs.
#[derive(Debug)]
pub(super) struct Stage {
    dir: PathBuf,
    options: ClusterOptions,
    pub(super) fleet: SampleFleet,
    cluster: Option<Cluster>,
    traffic: Option<Traffic>,
}

impl Stage {
    /// Chooses folder and ports; starts nothing.
    pub(super) fn prepare(medic: Option<&Path>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("medic-demo-").tempdir()?.keep();
        let agents: Vec<String> = ["host-a", "host-b", "host-c"].map(str::to_owned).to_vec();
        let mut options = ClusterOptions::new(&dir.join("cluster"), 3, agents.clone());
        if let Some(medic) = medic {
            medic.clone_into(&mut options.medic);
        }
        if !options.medic.exists() {
            bail!("{} is missing: `make build` builds it", options.medic.display());
        }
        options.users = ["admin", "oncall", "viewer"].map(str::to_owned).to_vec();
        options.node_env = vec![("DETECTION_INTERVAL".to_owned(), "1".to_owned())];
        let files = dir.join("fleet");
        std::fs::create_dir_all(&files)?;
        let ports = free_ports(SampleFleet::ports_needed())?;
        let fleet =
            SampleFleet::new(&files, &agents, &ports, &std::env::current_exe()?, &["service"]);
        Ok(Self { dir, options, fleet, cluster: None, traffic: None })
    }

    /// Starts everything and waits until it is well.
    pub(super) async fn raise(&mut self, narrator: &Narrator) -> anyhow::Result<()> {
        narrator.line(Tone::Dim, &format!("folder: {}", self.dir.display()));
        let cluster = self.cluster.insert(Cluster::prepare(self.options.clone()).await?);
        cluster.start().await?;
        let leader = cluster.wait_for_leader(PATIENCE).await?;
        narrator.line(
            Tone::Dim,
            &format!("three nodes are up; node-{leader} leads; three agents are connected"),
        );
        let mut bundle = self.fleet.manifests()?;
        bundle.push_str(&medic_node::intelligence::builtin::manifests());
        let generous = ServiceConfig { timeout_ms: 2_000, ..self.fleet.good_config("users") };
        let generous = serde_json::to_string(&toml::to_string(&generous)?)?;
        bundle.push_str(&EXTRAS.replace("@generous@", &generous));
        let request = pb::ApplyManifestsRequest { text: bundle, ..Default::default() };
        let applied = cluster.client("admin").await?.manifests().apply(request).await?.into_inner();
        if let Some(refused) = applied.manifests.iter().find(|m| !m.refusal.is_empty()) {
            bail!("{} {} was refused: {}", refused.kind, refused.name, refused.refusal);
        }
        narrator.line(
            Tone::Dim,
            &format!("{} manifests applied: services, playbooks, roles", applied.manifests.len()),
        );
        self.wait_for_fleet().await?;
        let ledger = self.fleet.instances.get("ledger-1").map(|i| format!("127.0.0.1:{}", i.port));
        let entries = std::iter::once(self.fleet.entry()).chain(ledger).collect();
        self.traffic = Some(traffic::start(entries, TRAFFIC_PER_SECOND)?);
        narrator.line(
            Tone::Dim,
            &format!(
                "eight services are well; traffic flows; {} s of normal life first",
                WARM_UP.as_secs()
            ),
        );
        tokio::time::sleep(WARM_UP).await;
        Ok(())
    }

    async fn wait_for_fleet(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
        let deadline = Instant::now() + PATIENCE;
        for instance in self.fleet.instances.values() {
            let url = format!("http://127.0.0.1:{}/healthz", instance.port);
            while !matches!(client.get(&url).send().await, Ok(r) if r.status().is_success()) {
                if Instant::now() > deadline {
                    bail!(
                        "{} did not come up; see the logs under {}",
                        instance.name,
                        self.dir.display()
                    );
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    pub(super) fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.cluster.as_ref().context("the cluster was not started")
    }

    pub(super) fn cluster_mut(&mut self) -> anyhow::Result<&mut Cluster> {
        self.cluster.as_mut().context("the cluster was not started")
    }

    pub(super) fn traffic_counts(&self) -> (u64, u64) {
        self.traffic.as_ref().map_or((0, 0), |t| (t.counts().served(), t.counts().failed()))
    }

    /// A command as it can be typed in any terminal of this machine.
    pub(super) fn typed(&self, rest: &str) -> String {
        let config = self.options.dir.join("medic.toml");
        format!("MEDIC_CONFIG={} {} {rest}", config.display(), self.options.medic.display())
    }

    /// What to type next.
    pub(super) fn guide(&self) -> String {
        let medic = self.options.medic.display();
        let config = self.options.dir.join("medic.toml");
        format!(
            "\nThe cluster stays up until Ctrl-C. In another terminal:\n\
             \n  export MEDIC_CONFIG={}\n  alias medic={medic}\n\
             \n  medic cluster status\n  medic get incidents --all\n  medic explain <INCIDENT>\n  medic watch\n  \
             medic get playbooks\n  medic freeze all --reason 'hands off'\n  medic audit list\n\
             \nBreak something yourself: kill a process that this lists:\n\n  pgrep -af {}",
            config.display(),
            self.dir.join("fleet").display()
        )
    }

    /// Ends every process that was started, the services too, and removes the folder.
    pub(super) async fn clean_up(mut self, keep: bool) -> anyhow::Result<()> {
        self.traffic = None;
        if let Some(mut cluster) = self.cluster.take() {
            cluster.stop().await?;
        }
        kill_processes_with(&self.dir.to_string_lossy());
        // What people applied while they looked around, too.
        kill_services_below(&self.dir);
        if !keep {
            std::fs::remove_dir_all(&self.dir)
                .with_context(|| format!("removing {}", self.dir.display()))?;
        }
        Ok(())
    }
}
