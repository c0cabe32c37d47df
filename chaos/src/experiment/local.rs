//! `cluster: local`: three nodes of Medic on loopback, with a relay before each peer port, started for
//! the experiment and ended with it.
//!
//! Its nodes need no entry of an allow-list: nothing of it was there before. They are the only targets
//! whose links and clocks can go wrong without root.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::Signal;

use super::{
    manifest::{ClockSkew, Direction, Inject, Network, Node},
    process::{self, ProcessRef},
    system::Trouble,
};
use crate::{
    harness::{Cluster, ClusterOptions, Dialer},
    nemesis::{Skew, clock},
    relay::{Pids, Relays, Weather},
};

/// Nodes of the cluster.
pub(super) const NODES: u64 = 3;
/// Anything that a healthy cluster does takes less.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time until a leader is known again; no abort condition is judged meanwhile.
const ELECTION_PATIENCE: Duration = Duration::from_secs(5);
/// Time its processes take to be gone after SIGKILL.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// The cluster.
#[derive(Debug)]
pub(super) struct Local {
    cluster: Cluster,
    relays: Relays,
    pids: Pids,
    dir: PathBuf,
}

impl Local {
    /// Starts it under `dir`. `clocks`: its clocks can go wrong.
    pub(super) async fn raise(
        dir: &Path,
        medic: Option<&Path>,
        seed: u64,
        clocks: bool,
    ) -> anyhow::Result<Self> {
        let mut options = ClusterOptions::new(dir, NODES, Vec::new());
        if let Some(medic) = medic {
            options.medic = medic.to_owned();
        }
        options.peer_relays = true;
        let library = clock::library();
        let mut cluster = Cluster::prepare(options).await?;
        let pids = Pids::default();
        let mut relays = Relays::new(seed, pids.clone());
        for node in 1..=NODES {
            relays.add(node, &cluster.way(node)?)?;
            if clocks {
                let library = library.as_deref();
                let library = library.context("clockSkew needs libfaketime: install faketime")?;
                let file = clock_file(dir, node);
                clock::set(&file, Skew::NONE)?;
                let env = clock::environment(library, &file);
                let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                cluster.node_mut(node)?.set_env(&env);
            }
        }
        let mut local = Self { cluster, relays, pids, dir: dir.to_owned() };
        for node in 1..=NODES {
            local.start(node)?;
        }
        local.cluster.wait_for_leader(PATIENCE).await?;
        Ok(local)
    }

    fn start(&mut self, node: u64) -> anyhow::Result<()> {
        let process = self.cluster.node_mut(node)?;
        if !process.ended() {
            return Ok(());
        }
        process.start()?;
        let pid = process.pid().with_context(|| format!("node-{node} has no process id"))?;
        self.pids.set(node, pid);
        Ok(())
    }

    /// What asks its nodes.
    pub(super) fn dialer(&self) -> anyhow::Result<Dialer> {
        self.cluster.dialer("admin")
    }

    /// The number of a node. Waits a moment for a leader, where one has to be known.
    pub(super) async fn number(&self, node: Node) -> anyhow::Result<u64> {
        Ok(match node {
            Node::Leader => self.leader().await?,
            Node::Follower => {
                let leader = self.leader().await?;
                if leader == 1 { 2 } else { 1 }
            }
            Node::Node1 => 1,
            Node::Node2 => 2,
            Node::Node3 => 3,
        })
    }

    async fn leader(&self) -> anyhow::Result<u64> {
        let deadline = Instant::now() + ELECTION_PATIENCE;
        loop {
            match self.cluster.leader().await {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Ok(leader) => return Ok(leader),
            }
        }
    }

    /// The process of a node.
    pub(super) fn process(&mut self, node: u64) -> anyhow::Result<ProcessRef> {
        let pid = self.cluster.node_mut(node)?.pid().context("it does not run")?;
        ProcessRef::of(u32::try_from(pid)?).with_context(|| format!("node-{node} has ended"))
    }

    /// Whether a fault needs this handle; others are like any other process's.
    pub(super) const fn handles(inject: &Inject) -> bool {
        match inject {
            Inject::Kill(_) | Inject::Network(_) | Inject::Partition(_) | Inject::ClockSkew(_) => {
                true
            }
            Inject::Pause
            | Inject::Signal(_)
            | Inject::Limit(_)
            | Inject::Pressure(_)
            | Inject::Fill(_) => false,
        }
    }

    /// Does what needs this handle.
    pub(super) async fn begin(&mut self, node: u64, inject: &Inject) -> anyhow::Result<()> {
        match inject {
            Inject::Kill(_) => self.cluster.node_mut(node)?.kill().await?,
            Inject::Network(network) => self.weather(node, Direction::Both, weather(network)),
            Inject::Partition(wall) => {
                self.weather(node, wall.direction, Weather { cut: true, ..Weather::default() });
            }
            Inject::ClockSkew(skew) => {
                clock::set(&clock_file(&self.dir, node), skew_of(*skew))?;
            }
            Inject::Pause
            | Inject::Signal(_)
            | Inject::Limit(_)
            | Inject::Pressure(_)
            | Inject::Fill(_) => {}
        }
        Ok(())
    }

    /// Takes back what [`Self::begin`] did.
    pub(super) fn undo(&mut self, node: u64, inject: &Inject) -> anyhow::Result<()> {
        match inject {
            Inject::Kill(kill) if kill.restart_after.is_some() => self.start(node)?,
            Inject::Network(_) | Inject::Partition(_) => {
                self.relays.set(|map| map.retain(|(from, to), _| *from != node && *to != node));
            }
            Inject::ClockSkew(_) => {
                clock::set(&clock_file(&self.dir, node), Skew::NONE)?;
            }
            Inject::Kill(_)
            | Inject::Pause
            | Inject::Signal(_)
            | Inject::Limit(_)
            | Inject::Pressure(_)
            | Inject::Fill(_) => {}
        }
        Ok(())
    }

    fn weather(&self, node: u64, direction: Direction, weather: Weather) {
        self.relays.set(|map| {
            for other in (1..=NODES).filter(|other| *other != node) {
                if direction != Direction::In {
                    map.insert((node, other), weather);
                }
                if direction != Direction::Out {
                    map.insert((other, node), weather);
                }
            }
        });
    }
}

fn clock_file(dir: &Path, node: u64) -> PathBuf {
    dir.join(format!("clock-{node}"))
}

fn skew_of(skew: ClockSkew) -> Skew {
    let by = i64::try_from(skew.by.0).unwrap_or(i64::MAX);
    Skew { offset_ms: if skew.behind { -by } else { by }, ..Skew::NONE }
}

fn weather(network: &Network) -> Weather {
    Weather {
        cut: false,
        delay: network.delay.as_duration(),
        jitter: network.jitter.as_duration(),
        loss_permille: u16::try_from(network.loss.0 / 1_000).unwrap_or(1_000),
    }
}

/// Ends every process whose configuration lies under a directory.
pub(super) fn end(dir: &Path) -> Result<String, Trouble> {
    let deadline = Instant::now() + END_PATIENCE;
    let of = |pid: &u32| {
        process::argv(*pid)
            .windows(2)
            .any(|pair| pair[0] == "--config" && Path::new(&pair[1]).starts_with(dir))
    };
    let mut ended = 0;
    loop {
        let left: Vec<ProcessRef> =
            process::all().into_iter().filter(of).filter_map(ProcessRef::of).collect();
        if left.is_empty() {
            return Ok(format!("{ended} processes of {} are ended", dir.display()));
        }
        if Instant::now() > deadline {
            let pids: Vec<u32> = left.iter().map(|process| process.pid).collect();
            return Err(Trouble::Refused(format!("processes {pids:?} do not end")));
        }
        for process in left {
            process.allowed()?;
            ended += usize::from(process.signal(Signal::KILL)?);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
