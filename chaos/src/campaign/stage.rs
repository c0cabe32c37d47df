//! The stage of a campaign: cluster with relays, fleet, clients, trouble, all in one folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use medic_proto::v1 as pb;
use tokio::{sync::watch, task::JoinSet};

use super::{
    CampaignArgs,
    arena::{Arena, Parts},
    ask::Key,
    bystanders::{Follower, Pager},
    clients::{Caller, Desk},
    ground::SPARE,
    people::People,
    trouble::{Kills, MANIFESTS, Trouble},
    watch::{Eyes, Watching, stale},
};
use crate::{
    fleet::SampleFleet,
    harness::{Cluster, ClusterOptions, free_ports, kill_processes_with},
    history::{Act, Recorder},
    nemesis::Capabilities,
    netns::Network,
    relay::{Pids, Relays},
};

/// Clients that call.
const CALLERS: u32 = 4;
/// What a client thinks between calls, in the middle.
const THINK: Duration = Duration::from_millis(70);
/// Anything that a healthy cluster does takes less.
const PATIENCE: Duration = Duration::from_secs(60);
/// Log entries between two snapshots: few, so that whoever was away for some seconds needs one.
const SNAPSHOT_EVERY: u64 = 100;
/// Nothing may be under way for this long before a campaign is over: a decision that is being made
/// shows as an incident, and an incident that is being reported does not.
const QUIET: Duration = Duration::from_millis(1_500);
/// Plans are given this long to come to their end after the last round.
pub(super) const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
/// Answers that each client has had before life is called normal.
const ANSWERS_LEAST: usize = 8;
/// One look at all nodes.
const LOOK: Duration = Duration::from_secs(3);

/// Everything that runs.
pub(super) struct Stage {
    pub(super) dir: PathBuf,
    pub(super) medic: PathBuf,
    pub(super) arena: Arena,
    pub(super) desk: Desk,
    pub(super) pager: Pager,
    pub(super) follower: Option<Follower>,
    pub(super) troubles: Arc<AtomicU64>,
    /// Instances that were killed.
    pub(super) kills: Kills,
    wall_began_ms: u64,
    seed: u64,
    watching: Option<Watching>,
}

/// Tasks that work until they are told to stop.
pub(super) struct Workers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// The binary that is used.
pub(super) fn medic(given: Option<&Path>) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    let beside = |name| Some(std::env::current_exe().ok()?.parent()?.join(name));
    ["medic-under-test", "medic"]
        .into_iter()
        .filter_map(beside)
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("medic"))
}

/// Whether a binary has its failpoints compiled in: by the one name that builds have that do.
pub(super) fn has_failpoints(medic: &Path) -> bool {
    medic.file_name().is_some_and(|name| name == "medic-under-test")
}

impl Stage {
    /// The folder of a campaign: a fresh one.
    pub(super) fn folder(args: &CampaignArgs) -> anyhow::Result<PathBuf> {
        Ok(match &args.out {
            Some(out) => {
                std::fs::create_dir_all(out)
                    .with_context(|| format!("creating {}", out.display()))?;
                tempfile::Builder::new()
                    .prefix("campaign-")
                    .tempdir_in(std::fs::canonicalize(out)?)?
                    .keep()
            }
            None => tempfile::Builder::new().prefix("medic-campaign-").tempdir()?.keep(),
        })
    }

    /// Starts everything and waits until it is well.
    pub(super) async fn raise(
        args: &CampaignArgs,
        can: Capabilities,
        network: Option<Network>,
        dir: PathBuf,
    ) -> anyhow::Result<Self> {
        let medic = medic(args.medic.as_deref());
        let agents: Vec<String> = ["host-a", "host-b", "host-c"].map(str::to_owned).to_vec();
        let cluster = prepare(&dir, &medic, args.nodes, &agents, network).await?;
        let files = dir.join("fleet");
        std::fs::create_dir_all(&files)?;
        let ports = free_ports(SampleFleet::ports_needed())?;
        let program = std::env::current_exe()?;
        // Where nodes find what is no node.
        let host = network.map_or(Ipv4Addr::LOCALHOST, |network| network.hub());
        let fleet = SampleFleet::new(&files, &agents, &ports, &program, &["service"]).on(host);
        let began = Instant::now();
        let pids = Pids::default();
        let mut relays = Relays::new(args.seed, pids.clone());
        for node in 1..=args.nodes {
            relays.add(node, &cluster.way(node)?)?;
        }
        let (dialer, eyes) = (cluster.dialer("admin")?, Eyes::new(began));
        let desk = Desk::new(dialer.clone(), Recorder::new(began));
        let arena = Arena::new(Parts {
            dir: dir.clone(),
            medic: medic.clone(),
            cluster,
            relays,
            pids,
            eyes,
            dialer,
            fleet,
            agents,
            nodes: args.nodes,
            can,
            network,
        });
        let wall_began_ms = wall_ms();
        let mut stage = Self {
            dir,
            medic,
            arena,
            desk,
            pager: Pager::open(host).await?,
            follower: None,
            troubles: Arc::default(),
            kills: Kills::default(),
            wall_began_ms,
            seed: args.seed,
            watching: None,
        };
        if let Err(error) = stage.start(args.nodes).await {
            stage.end().await;
            return Err(error);
        }
        Ok(stage)
    }

    async fn start(&mut self, nodes: u64) -> anyhow::Result<()> {
        let hits = self.arena.points.hits_dir();
        std::fs::create_dir_all(&hits)?;
        let hits = hits.display().to_string();
        for node in 1..=nodes {
            self.arena.equip(node)?;
            self.arena.start_node(node)?;
        }
        for name in self.arena.agents.clone() {
            let points = self.arena.points.file(&format!("agent-{name}")).display().to_string();
            let agent = self.arena.cluster.agent_mut(&name)?;
            agent.set_env(&[("MEDIC_FAILPOINTS_FILE", &points), ("MEDIC_FAILPOINTS_HITS", &hits)]);
            agent.start()?;
        }
        self.arena.cluster.wait_for_leader(PATIENCE).await?;
        self.watching = Some(self.arena.eyes.open(&self.arena.dialer));
        let fleet = self.arena.fleet.manifests()?;
        let text = format!("{fleet}{MANIFESTS}{}", self.pager.manifest());
        let request = pb::ApplyManifestsRequest { text, ..Default::default() };
        let mut client = self.arena.cluster.client("admin").await?;
        let applied = client.manifests().apply(request).await?.into_inner();
        if let Some(refused) = applied.manifests.iter().find(|m| !m.refusal.is_empty()) {
            bail!("{} {} was refused: {}", refused.kind, refused.name, refused.refusal);
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.arena.fleet.instances.values().all(|instance| instance.starts().exists()) {
            if Instant::now() > deadline {
                bail!("the fleet did not come up; see {}", self.dir.display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.follower = Some(Follower::start(self.arena.dialer.clone()));
        Ok(())
    }

    pub(super) const fn wall_began_ms(&self) -> u64 {
        self.wall_began_ms
    }

    /// Clients and trouble begin.
    pub(super) fn work(&mut self, seed: u64) -> anyhow::Result<Workers> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 1..=CALLERS {
            let caller = Caller::new(self.desk.clone(), number, seed);
            tasks.spawn(caller.run(stopped.clone(), THINK));
        }
        let (fleet, doors) = (self.arena.fleet.clone(), self.arena.doors.clone());
        let people = self.people()?;
        let trouble = Trouble::new(fleet, people, doors, self.arena.wish.clone(), seed);
        self.troubles = trouble.count.clone();
        self.kills = trouble.kills.clone();
        tasks.spawn(trouble.run(stopped));
        Ok(Workers { stop, tasks })
    }

    fn people(&self) -> anyhow::Result<People> {
        let oncall = self.arena.cluster.dialer("oncall")?;
        Ok(People::new(self.desk.clone(), oncall, self.seed))
    }

    /// One leader that all know, everybody caught up, reads and writes served by every node.
    pub(super) async fn well(&self) -> anyhow::Result<()> {
        tokio::time::timeout(LOOK, self.look_well())
            .await
            .unwrap_or_else(|_| bail!("no answer within {LOOK:?}"))
    }

    async fn look_well(&self) -> anyhow::Result<()> {
        let first = self.arena.members.first().copied().unwrap_or(1);
        let before = self.write(first).await?;
        let mut leaders = BTreeMap::new();
        if let Some((old, new)) = self.arena.changing() {
            bail!("node-{new} has not taken the place of node-{old} yet");
        }
        for node in self.arena.members.clone() {
            let mut client = self.arena.dialer.dial(node).await?;
            // Linearizable: served at all, and as far as the write before.
            let status = client.cluster().status(pb::StatusRequest {}).await?.into_inner();
            if !status.fatal.is_empty() {
                bail!("node-{node}: {}", status.fatal);
            }
            if status.applied < before {
                bail!("node-{node} has applied {} of {before}", status.applied);
            }
            leaders.insert(node, status.leader);
            self.write(node).await?;
        }
        let first = leaders.values().next().copied().unwrap_or(0);
        if first == 0 || leaders.values().any(|leader| *leader != first) {
            bail!("the nodes name different leaders: {leaders:?}");
        }
        Ok(())
    }

    async fn write(&self, node: u64) -> anyhow::Result<u64> {
        use pb::freeze_scope::Scope;
        let service = pb::ServiceScope { tenant: "default".into(), service: "recovery".into() };
        let scope = Some(pb::FreezeScope { scope: Some(Scope::Service(service)) });
        let request = pb::FreezeRequest { scope, reason: "probe".into(), ..Default::default() };
        let mut client = self.arena.dialer.dial(node).await?;
        let receipt = client.safety().freeze(request).await?.into_inner().receipt;
        Ok(receipt.unwrap_or_default().index)
    }

    /// Waits until life is normal: all is well, every node was looked at, every client has had
    /// answers, and the first trouble was made.
    pub(super) async fn normal(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let Err(why) = self.look_normal().await else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(why.context(format!("no normal life within {patience:?}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn look_normal(&self) -> anyhow::Result<()> {
        let calls = self.desk.recorder.calls();
        for caller in 1..=CALLERS {
            let answers = calls.iter().filter(|c| c.client == caller && c.end_us.is_some()).count();
            if answers < ANSWERS_LEAST {
                bail!("client {caller} has had {answers} answers of {ANSWERS_LEAST}");
            }
        }
        let looked_at: BTreeSet<u64> =
            self.arena.eyes.seen().samples.iter().map(|sample| sample.node).collect();
        if let Some(node) = self.arena.members.iter().find(|node| !looked_at.contains(node)) {
            bail!("nobody has seen node-{node}");
        }
        if self.troubles.load(Ordering::Relaxed) == 0 {
            bail!("no trouble was made in the fleet");
        }
        self.well().await
    }

    /// Stops the trouble. People stay until nothing waits for them any more: a plan that asks for
    /// approval after they have gone would never end. Then reads every list once more.
    pub(super) async fn settle(
        &mut self,
        workers: Option<Workers>,
        patience: Duration,
    ) -> anyhow::Result<()> {
        if let Some(Workers { stop, mut tasks }) = workers {
            stop.send_replace(true);
            while tasks.join_next().await.is_some() {}
        }
        let mut people = self.people()?;
        let deadline = Instant::now() + patience;
        let mut quiet_since = None;
        while Instant::now() < deadline {
            let open = people.look().await;
            people.tend(open.as_deref().unwrap_or_default()).await;
            let quiet = open.is_some_and(|open| open.is_empty())
                && matches!(self.open_plans().await, Ok(0))
                && matches!(self.agreed().await, Ok(Some(_)));
            let since = *quiet_since.get_or_insert_with(Instant::now);
            if !quiet {
                quiet_since = None;
            } else if since.elapsed() > QUIET {
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let mut reader = Caller::new(self.desk.clone(), CALLERS + 1, 0);
        for incident in self.desk.noted() {
            reader.call(Key::Notes(incident), Act::Read).await;
        }
        Ok(())
    }

    async fn open_plans(&self) -> anyhow::Result<usize> {
        let matchers = vec!["status!~\"succeeded|rolled-back|failed|unknown|dropped\"".to_owned()];
        let request =
            pb::ListRemediationsRequest { matchers, page_size: 500, ..Default::default() };
        let mut client = self.arena.cluster.client("admin").await?;
        let open = client.remediations().list(request).await?.into_inner().remediations;
        use pb::RemediationStatus as S;
        Ok(open
            .iter()
            .filter(|p| {
                matches!(p.status(), S::Running | S::Verifying | S::Unwinding | S::AwaitingApproval)
            })
            .count())
    }

    /// The applied index at which all nodes have the same state; nothing, when they differ.
    ///
    /// # Errors
    /// When a node does not say.
    pub(super) async fn agreed(&self) -> anyhow::Result<Option<u64>> {
        let mut seen = Vec::new();
        for node in &self.arena.members {
            let mut client = self.arena.dialer.dial(*node).await?;
            let status = client
                .cluster()
                .status(stale(pb::StatusRequest {}))
                .await
                .with_context(|| format!("asking node-{node}"))?
                .into_inner();
            seen.push((status.applied, status.state_hash, status.audit_seq, status.audit_hash));
        }
        let same = seen.windows(2).all(|pair| pair[0] == pair[1]);
        Ok(seen.first().map(|(applied, ..)| *applied).filter(|_| same))
    }

    /// Ends every process that was started, the services too.
    pub(super) async fn end(&mut self) {
        self.watching = None;
        self.follower = None;
        if let Err(error) = self.arena.heal_links().await {
            tracing::warn!("healing: {error:#}");
        }
        if let Err(error) = self.arena.cluster.stop().await {
            tracing::warn!("stopping: {error:#}");
        }
        kill_processes_with(&self.dir.to_string_lossy());
        for pid in self.arena.pids.all().into_values() {
            crate::nemesis::clock::sweep(pid);
        }
    }
}

async fn prepare(
    dir: &Path,
    medic: &Path,
    nodes: u64,
    agents: &[String],
    network: Option<Network>,
) -> anyhow::Result<Cluster> {
    let mut options = ClusterOptions::new(&dir.join("cluster"), nodes, agents.to_vec());
    options.medic = medic.to_owned();
    options.users = ["admin", "oncall"].map(str::to_owned).to_vec();
    options.peer_relays = true;
    options.network = network;
    options.spare = SPARE;
    options.snapshot_every = Some(SNAPSHOT_EVERY);
    Cluster::prepare(options).await
}

pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
