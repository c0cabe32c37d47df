//! The cluster under attack: carries out the steps of faults, and undoes them all.
//!
//! ```text
//!   step ──► perform ──► links · limits · clocks · disks · certs · members · agents · points
//!   tick: who has ended by itself?      heal: everything is undone      mend: who cannot go on?
//! ```

mod agents;
mod certs;
mod clocks;
mod deaths;
mod disks;
mod felt;
mod limits;
mod links;
mod members;
mod points;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Instant,
};

use anyhow::Context as _;
use nix::sys::signal::Signal;

pub use self::deaths::{Cause, Death};
pub(crate) use self::disks::Flipped;
pub(super) use self::felt::Proof;
pub use self::points::Hits;
use self::{links::Walls, members::Replacing, points::Points};
use super::{
    trouble::{Doors, Wish},
    watch::Eyes,
};
use crate::{
    experiment::fault::cgroup::Group,
    fleet::SampleFleet,
    harness::{Cluster, Dialer},
    nemesis::{Capabilities, Step, Whom, clock, disk::Disk},
    netns::Network,
    relay::{Pids, Relays},
};

/// Nodes, agents, links, and what is wrong with them at present.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) dir: PathBuf,
    pub(super) medic: PathBuf,
    pub(super) cluster: Cluster,
    pub(super) relays: Relays,
    pub(super) walls: Walls,
    pub(super) pids: Pids,
    pub(super) eyes: Eyes,
    pub(super) dialer: Dialer,
    pub(super) fleet: SampleFleet,
    pub(super) agents: Vec<String>,
    /// Nodes there are, whatever the cluster thinks of them.
    pub(super) members: BTreeSet<u64>,
    /// The number of the next one.
    next: u64,
    pub(super) doors: Doors,
    pub(super) wish: Wish,
    pub(super) points: Points,
    own_disks: bool,
    library: Option<PathBuf>,
    disks: BTreeMap<u64, Disk>,
    tracers: Vec<tokio::process::Child>,
    /// Syncs that were made to fail so far.
    traced: usize,
    limited: BTreeSet<u64>,
    /// Groups that hold nodes to little memory: since when, whom.
    squeezed: Vec<(u64, u64, Group)>,
    /// Nodes that came to the end of it: who, since when.
    short_of_memory: BTreeSet<(u64, u64)>,
    /// What must be found of what was done lately.
    unproved: Vec<Proof>,
    skewed: BTreeSet<u64>,
    expiring: BTreeSet<u64>,
    /// Nodes that cannot live with what is on their disk.
    refused: BTreeSet<u64>,
    replacing: Option<Replacing>,
    /// Nodes whose process is thought to run.
    up: BTreeSet<u64>,
    revive: BTreeMap<u64, Instant>,
    pub(super) deaths: Vec<Death>,
    /// When each isolation of a leader began and ended: from, to (milliseconds), who.
    pub(super) isolations: Vec<(u64, Option<u64>, u64)>,
    pub(super) flips: Vec<Flipped>,
    /// Damage that a node died of without saying so.
    pub(super) unsaid: Vec<String>,
    /// Clocks that were set wrong, as their nodes' own words showed.
    pub(super) skews_seen: usize,
    /// Nodes whose power failed.
    pub(super) power_cuts: usize,
    /// Nodes that were replaced.
    pub(super) replaced: usize,
}

/// What an arena is made of.
pub(super) struct Parts {
    pub(super) dir: PathBuf,
    pub(super) medic: PathBuf,
    pub(super) cluster: Cluster,
    pub(super) relays: Relays,
    pub(super) pids: Pids,
    pub(super) eyes: Eyes,
    pub(super) dialer: Dialer,
    pub(super) fleet: SampleFleet,
    pub(super) agents: Vec<String>,
    pub(super) nodes: u64,
    pub(super) can: Capabilities,
    pub(super) network: Option<Network>,
}

impl Arena {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { dir, medic, cluster, relays, pids, eyes, dialer, fleet, agents, nodes, .. } =
            parts;
        let (can, network) = (parts.can, parts.network);
        Self {
            points: Points::new(&dir),
            dir,
            medic,
            cluster,
            relays,
            walls: Walls::new(network),
            pids,
            eyes,
            dialer,
            fleet,
            agents,
            members: BTreeSet::new(),
            next: nodes + 1,
            doors: Doors::default(),
            wish: Wish::default(),
            own_disks: can.disks,
            library: clock::library().filter(|_| can.clocks),
            disks: BTreeMap::new(),
            tracers: Vec::new(),
            traced: 0,
            limited: BTreeSet::new(),
            squeezed: Vec::new(),
            short_of_memory: BTreeSet::new(),
            unproved: Vec::new(),
            skewed: BTreeSet::new(),
            expiring: BTreeSet::new(),
            refused: BTreeSet::new(),
            replacing: None,
            up: BTreeSet::new(),
            revive: BTreeMap::new(),
            deaths: Vec::new(),
            isolations: Vec::new(),
            flips: Vec::new(),
            unsaid: Vec::new(),
            skews_seen: 0,
            power_cuts: 0,
            replaced: 0,
        }
    }

    /// Gives a node what faults need: a disk, a clock, a control file. Not yet started.
    pub(super) fn equip(&mut self, node: u64) -> anyhow::Result<()> {
        self.give_disk(node)?;
        let mut env = vec![
            ("DETECTION_INTERVAL".to_owned(), "1".to_owned()),
            (
                "MEDIC_FAILPOINTS_FILE".to_owned(),
                self.points.file(&format!("node-{node}")).display().to_string(),
            ),
            ("MEDIC_FAILPOINTS_HITS".to_owned(), self.points.hits_dir().display().to_string()),
        ];
        if let Some(library) = &self.library {
            let file = self.clock_file(node);
            clock::set(&file, crate::nemesis::Skew::NONE)?;
            env.extend(clock::environment(library, &file));
        }
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        self.cluster.node_mut(node)?.set_env(&env);
        self.members.insert(node);
        if let Some(door) = self.door(node) {
            let mut doors = self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            doors.insert(node, door);
        }
        Ok(())
    }

    /// Where a node answers HTTP.
    fn door(&self, node: u64) -> Option<SocketAddr> {
        self.cluster.ports(node).map(|ports| SocketAddr::from((ports.host, ports.http)))
    }

    /// Starts a node and tells the relays who it is.
    pub(super) fn start_node(&mut self, node: u64) -> anyhow::Result<()> {
        let process = self.cluster.node_mut(node)?;
        process.start()?;
        let pid = process.pid().with_context(|| format!("node-{node} has no process id"))?;
        if let Some(before) = self.pids.all().get(&node) {
            clock::sweep(*before);
        }
        self.pids.set(node, pid);
        self.up.insert(node);
        Ok(())
    }

    fn running(&mut self, node: u64) -> bool {
        self.cluster.node_mut(node).is_ok_and(|process| !process.ended())
    }

    /// The node a step means, among those that run.
    fn resolve(&mut self, whom: Whom) -> Option<u64> {
        let leader = self.eyes.leader();
        let members = self.members.clone();
        let running: Vec<u64> = members.into_iter().filter(|node| self.running(*node)).collect();
        match whom {
            Whom::Leader => leader.filter(|node| running.contains(node)),
            Whom::Follower(pick) => {
                let others: Vec<u64> =
                    running.into_iter().filter(|node| Some(*node) != leader).collect();
                let count = u64::try_from(others.len()).ok().filter(|count| *count > 0)?;
                others.get(usize::try_from(pick % count).ok()?).copied()
            }
        }
    }

    /// The same; between two leaders, any that runs.
    fn target(&mut self, whom: Whom) -> Option<u64> {
        self.resolve(whom).or_else(|| self.resolve(Whom::Follower(0)))
    }

    /// Does one step. Says what was done, in words; nothing, when there was nobody to do it to.
    pub(super) async fn perform(&mut self, step: &Step) -> anyhow::Result<Option<String>> {
        match step {
            Step::Kill(whom) => match self.resolve(*whom) {
                Some(node) => self.kill(node).await.map(Some),
                None => Ok(None),
            },
            Step::KillMid => self.kill_mid().await,
            Step::KillAll => {
                for node in self.members.clone() {
                    self.end_node(node, Cause::Signal).await?;
                }
                Ok(Some("SIGKILL for all nodes".to_owned()))
            }
            Step::StartDead => self.start_dead(),
            Step::Stop(place) => self.stop(*place),
            Step::Pause(whom) => {
                let Some(node) = self.resolve(*whom) else { return Ok(None) };
                self.cluster.node_mut(node)?.signal(Signal::SIGSTOP)?;
                Ok(Some(format!("SIGSTOP for node-{node}{}", self.role(node))))
            }
            Step::Resume => self.resume(),
            Step::Arm(aim) => {
                let name = self.points.arm(*aim, self.members.iter().copied())?;
                self.provoke(name);
                Ok(Some(format!("whoever reaches {name} dies there")))
            }
            Step::Disarm => self.disarm(),
            Step::Weather(weather) => self.set_weather(*weather),
            Step::Fair => {
                self.fair()?;
                Ok(Some("links are fair".to_owned()))
            }
            Step::KillAgent(pick) => self.kill_agent(*pick).await,
            Step::PauseAgent(pick) => self.pause_agent(*pick),
            Step::ArmAgent(pick) => self.arm_agent(*pick),
            Step::Agents => self.wake_agents(),
            Step::Silence(pick) => Ok(self.silence(*pick)),
            Step::Speak => Ok(Some(self.speak())),
            Step::Transfer(pick) => Ok(self.transfer(*pick)),
            Step::SlowDisk(whom, ms) => {
                let Some(node) = self.resolve(*whom) else { return Ok(None) };
                self.points.slow(node, *ms)?;
                Ok(Some(format!("log writes of node-{node}{} take {ms} ms more", self.role(node))))
            }
            Step::FastDisk => Ok(self.points.fast()?.then(|| "disks are fast".to_owned())),
            Step::FailSync(whom) => self.fail_sync(*whom).await,
            Step::Descriptors(whom, more) => self.few_descriptors(*whom, *more),
            Step::Memory(whom, more) => self.little_memory(*whom, *more),
            Step::Unlimited => self.unlimited().await,
            Step::Clock(whom, skew) => self.skew(*whom, *skew).await,
            Step::Clocks(pick) => self.skew_all(*pick).await,
            Step::TrueClocks => self.true_clocks(),
            Step::Cut(whom) => match self.target(*whom) {
                Some(node) => self.cut(&[node]).await,
                None => Ok(None),
            },
            Step::CutAll => self.cut(&self.members.iter().copied().collect::<Vec<_>>()).await,
            Step::Fill(whom) => self.fill(*whom),
            Step::MakeRoom => self.make_room(),
            Step::Flip(whom, pick) => self.flip(*whom, *pick).await,
            Step::Rotate => self.rotate().await,
            Step::Expire(whom) => self.expire(*whom),
            Step::Renew => self.renew().await,
            Step::Replace(whom) => self.replace(*whom).await,
        }
    }

    fn role(&self, node: u64) -> &'static str {
        if self.eyes.leader() == Some(node) { " (leader)" } else { "" }
    }

    /// What a node has said so far.
    fn log(&self, node: u64) -> anyhow::Result<String> {
        let path = self.cluster.dir().join(format!("logs/node-{node}.log"));
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// SIGTERM for the node in the n-th place.
    fn stop(&mut self, place: u64) -> anyhow::Result<Option<String>> {
        let at = usize::try_from(place).unwrap_or(1).saturating_sub(1);
        let Some(node) = self.members.iter().nth(at).copied() else { return Ok(None) };
        if !self.running(node) {
            return Ok(None);
        }
        self.cluster.node_mut(node)?.signal(Signal::SIGTERM)?;
        // It ends by our will.
        self.up.remove(&node);
        Ok(Some(format!("SIGTERM for node-{node}")))
    }

    fn start_dead(&mut self) -> anyhow::Result<Option<String>> {
        let mut started = Vec::new();
        for node in self.members.clone() {
            if !self.refused.contains(&node) && !self.running(node) {
                self.start_node(node)?;
                started.push(format!("node-{node}"));
            }
        }
        self.revive.clear();
        Ok((!started.is_empty()).then(|| format!("{} start again", started.join(", "))))
    }

    fn resume(&mut self) -> anyhow::Result<Option<String>> {
        for node in self.members.clone() {
            if self.running(node) {
                self.cluster.node_mut(node)?.signal(Signal::SIGCONT)?;
            }
        }
        Ok(Some("SIGCONT for all nodes".to_owned()))
    }

    fn disarm(&mut self) -> anyhow::Result<Option<String>> {
        self.tick()?;
        Ok(self.points.disarm()?.map(|name| format!("{name} kills nobody any more")))
    }

    /// Undoes what would keep processes from ending.
    pub(super) async fn heal_links(&mut self) -> anyhow::Result<()> {
        self.fair()?;
        self.untrace().await;
        self.speak();
        self.unlimited().await.map(drop)
    }

    /// Undoes everything.
    pub(super) async fn heal(&mut self) -> anyhow::Result<Option<String>> {
        self.fair()?;
        self.untrace().await;
        self.true_clocks()?;
        self.make_room()?;
        self.renew().await?;
        self.points.fast()?;
        self.disarm()?;
        self.resume()?;
        self.unlimited().await?;
        self.wake_agents()?;
        self.speak();
        let mended = self.mend().await?;
        let replaced = self.end_replacement().await?;
        self.start_dead()?;
        let said: Vec<String> = mended.into_iter().chain(replaced).collect();
        Ok((!said.is_empty()).then(|| said.join("; ")))
    }
}
