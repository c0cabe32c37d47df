//! The stage: a fleet of real services with traffic, and what keeps it running: Medic, or nobody.
//!
//! ```text
//!   with Medic      nodes, agents; agents start the services, nodes decide
//!   without         the services as children of ours; a person starts what has died
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use medic_proto::v1 as pb;
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::{JoinHandle, JoinSet},
};

use super::{inject::Hands, load::Load};
use crate::{
    fleet::{Layout, SampleFleet, ServiceConfig},
    harness::{
        Cluster, ClusterOptions, Process, free_ports, kill_processes_with, kill_services_below,
    },
};

const MANIFESTS: &str = include_str!("playbooks.yaml");
/// Time anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The budgets of the built-in playbooks are per hour; here an hour has the faults of weeks.
const SCOPE: &str = "perTarget: 100/1h, perPlaybook: 1000/1h";

/// Who starts a service that has died.
#[derive(Clone, Debug)]
pub(super) enum Keeper {
    /// Medic.
    Medic,
    /// A person, when the time has come.
    Person(Arc<Mutex<BTreeMap<String, Process>>>),
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage {
    dir: PathBuf,
    pub(super) fleet: Arc<SampleFleet>,
    pub(super) hands: Hands,
    pub(super) keeper: Keeper,
    pub(super) cluster: Option<Cluster>,
    pub(super) load: Option<Load>,
    hole: JoinHandle<()>,
}

/// What a stage is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) dir: PathBuf,
    pub(super) medic: PathBuf,
    pub(super) nodes: u64,
    pub(super) seed: u64,
    /// Seconds.
    pub(super) scrape_interval: u64,
    pub(super) with_medic: bool,
}

impl Stage {
    /// Chooses folder and ports; starts nothing but the hole.
    pub(super) async fn prepare(plan: &Plan) -> anyhow::Result<Self> {
        let agents = agents();
        let files = plan.dir.join("fleet");
        std::fs::create_dir_all(&files)?;
        let ports = free_ports(Layout::Redundant.ports_needed())?;
        let program = std::env::current_exe()?;
        let fleet = SampleFleet::laid_out(
            Layout::Redundant,
            &files,
            &agents,
            &ports,
            &program,
            &["service"],
        );
        let fleet = Arc::new(fleet.scraped_every(plan.scrape_interval));
        let hole = TcpListener::bind("127.0.0.1:0").await?;
        let address = hole.local_addr()?.to_string();
        let hands = Hands::new(fleet.clone(), address)?;
        let keeper = if plan.with_medic { Keeper::Medic } else { Keeper::Person(Arc::default()) };
        let hole = tokio::spawn(swallow(hole));
        let dir = plan.dir.clone();
        Ok(Self { dir, fleet, hands, keeper, cluster: None, load: None, hole })
    }

    /// Starts everything and waits until it is well.
    pub(super) async fn raise(&mut self, plan: &Plan) -> anyhow::Result<()> {
        match self.keeper.clone() {
            Keeper::Medic => self.raise_medic(plan).await?,
            Keeper::Person(crew) => {
                let mut crew = crew.lock().await;
                for instance in self.fleet.instances.values() {
                    let config = self.fleet.good_config(&instance.service);
                    super::inject::roll_out(instance, &config)?;
                    let (program, args) = self.fleet.command(instance);
                    let log = self.dir.join(format!("{}.log", instance.name));
                    let mut process = Process::new(&instance.name, &program, args, log);
                    process.start()?;
                    crew.insert(instance.name.clone(), process);
                }
            }
        }
        self.wait_for_fleet().await?;
        let gateways = self.fleet.of("gateway").map(|one| format!("127.0.0.1:{}", one.port));
        self.load = Some(Load::start(gateways.collect(), plan.seed)?);
        Ok(())
    }

    async fn raise_medic(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let mut options = ClusterOptions::new(&self.dir.join("cluster"), plan.nodes, agents());
        options.medic.clone_from(&plan.medic);
        options.users = ["admin", "oncall"].map(str::to_owned).to_vec();
        options.node_env =
            vec![("DETECTION_INTERVAL".to_owned(), plan.scrape_interval.to_string())];
        let cluster = self.cluster.insert(Cluster::prepare(options).await?);
        cluster.start().await?;
        cluster.wait_for_leader(PATIENCE).await?;
        let locked = ServiceConfig { lockdown: true, ..self.fleet.good_config("gateway") };
        let locked = serde_json::to_string(&toml::to_string(&locked)?)?;
        let own = MANIFESTS.replace("@locked@", &locked);
        let playbooks = medic_node::intelligence::builtin::manifests() + &own;
        let text = self.fleet.manifests()? + &with_budgets(&playbooks);
        let request = pb::ApplyManifestsRequest { text, ..Default::default() };
        let mut client = cluster.client("admin").await?;
        let applied = client.manifests().apply(request).await?.into_inner();
        if let Some(refused) = applied.manifests.iter().find(|m| !m.refusal.is_empty()) {
            bail!("{} {} was refused: {}", refused.kind, refused.name, refused.refusal);
        }
        Ok(())
    }

    async fn wait_for_fleet(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for instance in self.fleet.instances.values() {
            while !self.hands.healthy(instance).await {
                if Instant::now() > deadline {
                    bail!("{} did not come up; see {}", instance.name, self.dir.display());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Ends every process that was started, the services too.
    pub(super) async fn end(&mut self) {
        self.load = None;
        self.hole.abort();
        if let Some(mut cluster) = self.cluster.take()
            && let Err(error) = cluster.stop().await
        {
            tracing::warn!("stopping: {error:#}");
        }
        if let Keeper::Person(crew) = &self.keeper {
            crew.lock().await.clear();
        }
        kill_processes_with(&self.dir.to_string_lossy());
        kill_services_below(&self.dir);
    }
}

fn agents() -> Vec<String> {
    ["host-a", "host-b", "host-c"].map(str::to_owned).to_vec()
}

/// The same playbooks with budgets for a campaign.
fn with_budgets(playbooks: &str) -> String {
    let mut text = String::new();
    for document in playbooks.split("---\n").filter(|text| !text.trim().is_empty()) {
        let document = if let Some((before, scope)) = document.split_once("\n  scope: {") {
            // A budget of its own gives way.
            let own = scope.strip_prefix("perTarget: ").and_then(|own| own.split_once(", "));
            let scope = own.map_or(scope, |(_, others)| others);
            format!("{before}\n  scope: {{{SCOPE}, {scope}")
        } else {
            document.replace("\n  steps:\n", &format!("\n  scope: {{{SCOPE}}}\n  steps:\n"))
        };
        text.push_str("---\n");
        text.push_str(&document);
    }
    text
}

/// Accepts connections, takes what is sent, and answers nothing.
async fn swallow(listener: TcpListener) {
    let mut open = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        open.spawn(async move {
            drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
        });
    }
}

impl Keeper {
    /// A person starts these again, where nobody else does.
    pub(super) async fn start_again(&self, names: &[String]) -> anyhow::Result<()> {
        let Self::Person(crew) = self else { return Ok(()) };
        let mut crew = crew.lock().await;
        for name in names {
            let process = crew.get_mut(name).with_context(|| format!("there is no {name}"))?;
            process.kill().await?;
            process.start()?;
        }
        Ok(())
    }
}

/// The `medic` binary: as given, or beside this program.
pub(crate) fn medic(given: Option<&Path>) -> PathBuf {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("medic"));
    given.map(Path::to_owned).or_else(beside).unwrap_or_else(|| "medic".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_playbook_gets_budgets_and_stays_a_manifest() {
        let built_in = medic_node::intelligence::builtin::manifests();
        let text = with_budgets(&(built_in + &MANIFESTS.replace("@locked@", "\"x\"")));
        let playbooks = text.matches("kind: Playbook").count();
        assert!(playbooks > 8);
        assert_eq!(text.matches("perTarget: 100/1h").count(), playbooks);
        for document in text.split("---\n").filter(|text| !text.trim().is_empty()) {
            let parsed = medic_api::manifest::parse_bundle(document);
            assert!(parsed.is_ok(), "{document}: {parsed:?}");
        }
    }
}
