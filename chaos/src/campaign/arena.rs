//! The cluster under attack: carries out the steps of faults, and undoes them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Context as _;
use medic_proto::v1 as pb;
use nix::sys::signal::Signal;

use super::watch::Eyes;
use crate::{
    harness::{Cluster, Dialer},
    nemesis::{Step, Weather, Whom, descriptors_max, memory_max, trace_syncs},
    relay::{Pids, Relays},
};

/// Nodes, agents, links, and what is wrong with them at present.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) cluster: Cluster,
    pub(super) relays: Relays,
    pub(super) pids: Pids,
    pub(super) eyes: Eyes,
    pub(super) dialer: Dialer,
    pub(super) agents: Vec<String>,
    pub(super) nodes: u64,
    /// Control files of failpoints, by node.
    pub(super) points: BTreeMap<u64, PathBuf>,
    pub(super) tracers: Vec<tokio::process::Child>,
    pub(super) limited: BTreeSet<u64>,
    pub(super) slowed: bool,
    /// Each kill of a leader: when, who, and how many plans were under way.
    pub(super) leader_kills: Vec<(u64, u64, usize)>,
    /// When each isolation of a leader began and ended: from, to (milliseconds), who.
    pub(super) isolations: Vec<(u64, Option<u64>, u64)>,
    /// Deaths at failpoints.
    pub(super) point_deaths: u64,
    armed: bool,
}

impl Arena {
    pub(super) fn new(
        cluster: Cluster,
        relays: Relays,
        pids: Pids,
        eyes: Eyes,
        dialer: Dialer,
        agents: Vec<String>,
        points: BTreeMap<u64, PathBuf>,
    ) -> Self {
        let nodes = u64::try_from(points.len()).unwrap_or(0);
        Self {
            cluster,
            relays,
            pids,
            eyes,
            dialer,
            agents,
            nodes,
            points,
            tracers: Vec::new(),
            limited: BTreeSet::new(),
            slowed: false,
            leader_kills: Vec::new(),
            isolations: Vec::new(),
            point_deaths: 0,
            armed: false,
        }
    }

    /// Starts a node and tells the relays who it is.
    pub(super) fn start_node(&mut self, node: u64) -> anyhow::Result<()> {
        let process = self.cluster.node_mut(node)?;
        process.start()?;
        let pid = process.pid().with_context(|| format!("node-{node} has no process id"))?;
        self.pids.set(node, pid);
        Ok(())
    }

    fn running(&mut self, node: u64) -> bool {
        self.cluster.node_mut(node).is_ok_and(|process| !process.ended())
    }

    /// The node a step means, among those that run.
    fn resolve(&mut self, whom: Whom) -> Option<u64> {
        let leader = self.eyes.leader();
        let running: Vec<u64> = (1..=self.nodes).filter(|node| self.running(*node)).collect();
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

    /// Does one step. Says what was done, in words; nothing, when there was nobody to do it to.
    pub(super) async fn perform(&mut self, step: &Step) -> anyhow::Result<Option<String>> {
        match step {
            Step::Kill(whom) => self.kill(*whom).await,
            Step::KillAll => {
                self.note_leader_kill();
                for node in 1..=self.nodes {
                    self.cluster.node_mut(node)?.kill().await?;
                }
                Ok(Some("SIGKILL for all nodes".to_owned()))
            }
            Step::StartDead => self.start_dead(),
            Step::Stop(node) => {
                let process = self.cluster.node_mut(*node)?;
                Ok(process
                    .signal(Signal::SIGTERM)
                    .ok()
                    .map(|()| format!("SIGTERM for node-{node}")))
            }
            Step::Pause(whom) => {
                let Some(node) = self.resolve(*whom) else { return Ok(None) };
                self.cluster.node_mut(node)?.signal(Signal::SIGSTOP)?;
                Ok(Some(format!("SIGSTOP for node-{node}{}", self.role(node))))
            }
            Step::Resume => self.resume(),
            Step::Arm(name) => {
                for path in self.points.values() {
                    std::fs::write(path, format!("{name}\n"))?;
                }
                self.armed = true;
                Ok(Some(format!("whoever reaches {name} dies there")))
            }
            Step::Disarm => self.disarm(),
            Step::Weather(weather) => Ok(self.set_weather(*weather)),
            Step::Fair => {
                self.end_isolation();
                self.relays.heal();
                Ok(Some("links are fair".to_owned()))
            }
            Step::KillAgent(pick) => {
                let name = self.agent(*pick);
                self.cluster.agent_mut(&name)?.kill().await?;
                Ok(Some(format!("SIGKILL for the agent of {name}")))
            }
            Step::PauseAgent(pick) => {
                let name = self.agent(*pick);
                let paused = self.cluster.agent_mut(&name)?.signal(Signal::SIGSTOP).is_ok();
                Ok(paused.then(|| format!("SIGSTOP for the agent of {name}")))
            }
            Step::Agents => self.wake_agents(),
            Step::Transfer(pick) => Ok(self.transfer(*pick)),
            Step::SlowDisk(whom, ms) => {
                let Some(node) = self.resolve(*whom) else { return Ok(None) };
                let Some(path) = self.points.get(&node) else { return Ok(None) };
                std::fs::write(path, format!("raft_log_before_write=sleep({ms})\n"))?;
                self.slowed = true;
                Ok(Some(format!("log writes of node-{node}{} take {ms} ms more", self.role(node))))
            }
            Step::FastDisk => self.fast_disk(),
            Step::FailSync(whom) => self.fail_sync(*whom),
            Step::Descriptors(whom, more) => {
                let Some((node, pid)) = self.limit(*whom)? else { return Ok(None) };
                descriptors_max(pid, Some(*more))?;
                Ok(Some(format!("node-{node} may open {more} more files")))
            }
            Step::Memory(whom, more) => {
                let Some((node, pid)) = self.limit(*whom)? else { return Ok(None) };
                memory_max(pid, Some(*more))?;
                Ok(Some(format!("node-{node} gets {more} MiB more memory at most")))
            }
            Step::Unlimited => self.unlimited(),
        }
    }

    fn role(&self, node: u64) -> &'static str {
        if self.eyes.leader() == Some(node) { " (leader)" } else { "" }
    }

    fn agent(&self, pick: u64) -> String {
        let count = u64::try_from(self.agents.len()).unwrap_or(1).max(1);
        let at = usize::try_from(pick % count).unwrap_or(0);
        self.agents.get(at).cloned().unwrap_or_default()
    }

    fn note_leader_kill(&mut self) {
        if let Some(leader) = self.eyes.leader() {
            let plans = self.eyes.under_way().len();
            self.leader_kills.push((self.eyes.now_ms(), leader, plans));
        }
    }

    async fn kill(&mut self, whom: Whom) -> anyhow::Result<Option<String>> {
        let Some(node) = self.resolve(whom) else { return Ok(None) };
        let role = self.role(node);
        if self.eyes.leader() == Some(node) {
            self.note_leader_kill();
        }
        self.cluster.node_mut(node)?.kill().await?;
        Ok(Some(format!("SIGKILL for node-{node}{role}")))
    }

    fn start_dead(&mut self) -> anyhow::Result<Option<String>> {
        let mut started = Vec::new();
        for node in 1..=self.nodes {
            if !self.running(node) {
                self.start_node(node)?;
                started.push(format!("node-{node}"));
            }
        }
        Ok((!started.is_empty()).then(|| format!("{} start again", started.join(", "))))
    }

    fn resume(&mut self) -> anyhow::Result<Option<String>> {
        for node in 1..=self.nodes {
            if self.running(node) {
                self.cluster.node_mut(node)?.signal(Signal::SIGCONT)?;
            }
        }
        Ok(Some("SIGCONT for all nodes".to_owned()))
    }

    fn disarm(&mut self) -> anyhow::Result<Option<String>> {
        let mut reached = 0;
        for path in self.points.values() {
            match std::fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    reached += u64::from(self.armed);
                }
                Err(error) => return Err(error).context("disarming a failpoint"),
            }
        }
        self.armed = false;
        self.point_deaths += reached;
        Ok(Some(format!("disarmed; {reached} nodes died there")))
    }

    fn set_weather(&mut self, weather: Weather) -> Option<String> {
        let leader = self.eyes.leader();
        let all: Vec<u64> = (1..=self.nodes).collect();
        let pairs = || {
            let all = &all;
            all.iter().flat_map(move |a| all.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
        };
        let (cut, text): (Vec<(u64, u64)>, String) = match weather {
            Weather::IsolateLeader => {
                let leader = leader?;
                self.isolations.push((self.eyes.now_ms(), None, leader));
                let cut = pairs().filter(|(a, b)| *a == leader || *b == leader).collect();
                (cut, format!("node-{leader} (leader) is cut off"))
            }
            Weather::Split(pick) => {
                let size = usize::try_from(self.nodes / 2).unwrap_or(1).max(1);
                let from = usize::try_from(pick % self.nodes).unwrap_or(0);
                let few: BTreeSet<u64> =
                    all.iter().cycle().skip(from).take(size).copied().collect();
                let cut = pairs().filter(|(a, b)| few.contains(a) != few.contains(b)).collect();
                (cut, format!("{few:?} are cut off from the rest"))
            }
            Weather::LeaderMute => {
                let leader = leader?;
                let cut = pairs().filter(|(a, _)| *a == leader).collect();
                (cut, format!("what node-{leader} (leader) sends gets lost"))
            }
            Weather::LeaderDeaf => {
                let leader = leader?;
                let cut = pairs().filter(|(_, b)| *b == leader).collect();
                (cut, format!("what is sent to node-{leader} (leader) gets lost"))
            }
            Weather::Bridge(pick) => {
                let middle = 1 + pick % self.nodes;
                let rest: Vec<u64> = all.iter().copied().filter(|node| *node != middle).collect();
                let (one, other) = rest.split_at(rest.len() / 2);
                let apart = |a: &u64, b: &u64| one.contains(a) && other.contains(b);
                let cut = pairs().filter(|(a, b)| apart(a, b) || apart(b, a)).collect();
                (cut, format!("{one:?} and {other:?} meet at node-{middle} only"))
            }
            Weather::Bad { delay, jitter, loss } => {
                let ms = std::time::Duration::from_millis;
                let bad = crate::relay::Weather {
                    cut: false,
                    delay: ms(delay),
                    jitter: ms(jitter),
                    loss_permille: loss,
                };
                self.relays.set(|map| *map = pairs().map(|pair| (pair, bad)).collect());
                let text = format!("all links: {delay} ms, jitter {jitter} ms, loss {loss} ‰");
                return Some(text);
            }
        };
        let wet = crate::relay::Weather { cut: true, ..Default::default() };
        self.relays.set(|map| *map = cut.into_iter().map(|pair| (pair, wet)).collect());
        Some(text)
    }

    fn end_isolation(&mut self) {
        let now = self.eyes.now_ms();
        if let Some((_, end @ None, _)) = self.isolations.last_mut() {
            *end = Some(now);
        }
    }

    fn wake_agents(&mut self) -> anyhow::Result<Option<String>> {
        for name in self.agents.clone() {
            let agent = self.cluster.agent_mut(&name)?;
            if agent.ended() {
                agent.start()?;
            } else {
                agent.signal(Signal::SIGCONT)?;
            }
        }
        Ok(Some("all agents run".to_owned()))
    }

    /// Asks for it and does not wait: under other faults it may take long, or never happen.
    fn transfer(&mut self, pick: u64) -> Option<String> {
        let to = self.resolve(Whom::Follower(pick))?;
        let dialer = self.dialer.clone();
        let from = self.eyes.leader().unwrap_or(to);
        tokio::spawn(async move {
            if let Ok(mut client) = dialer.dial(from).await {
                let request = pb::TransferLeadershipRequest { node: to, ..Default::default() };
                if let Err(status) = client.cluster().transfer_leadership(request).await {
                    tracing::debug!(%status, to, "leadership was not handed over");
                }
            }
        });
        Some(format!("leadership is to go to node-{to}"))
    }

    fn fast_disk(&mut self) -> anyhow::Result<Option<String>> {
        if !std::mem::take(&mut self.slowed) {
            return Ok(None);
        }
        for path in self.points.values() {
            std::fs::write(path, "raft_log_before_write=off\n")?;
        }
        Ok(Some("disks are fast".to_owned()))
    }

    fn fail_sync(&mut self, whom: Whom) -> anyhow::Result<Option<String>> {
        let Some(node) = self.resolve(whom) else { return Ok(None) };
        let Some(pid) = self.cluster.node_mut(node)?.pid() else { return Ok(None) };
        let log = self.cluster.dir().join(format!("logs/strace-{node}.log"));
        self.tracers.push(trace_syncs(pid, &log)?);
        Ok(Some(format!("syncs of node-{node}{} fail from now on", self.role(node))))
    }

    fn limit(&mut self, whom: Whom) -> anyhow::Result<Option<(u64, i32)>> {
        let Some(node) = self.resolve(whom) else { return Ok(None) };
        let Some(pid) = self.cluster.node_mut(node)?.pid() else { return Ok(None) };
        self.limited.insert(node);
        Ok(Some((node, pid)))
    }

    fn unlimited(&mut self) -> anyhow::Result<Option<String>> {
        let limited = std::mem::take(&mut self.limited);
        for node in &limited {
            let running = self.running(*node);
            let pid = self.cluster.node_mut(*node)?.pid();
            // Whoever died of it has no limits any more.
            if let (true, Some(pid)) = (running, pid) {
                descriptors_max(pid, None)?;
                memory_max(pid, None)?;
            }
        }
        Ok((!limited.is_empty()).then(|| "limits are lifted".to_owned()))
    }

    /// Undoes what would keep processes from ending.
    pub(super) async fn heal_links(&mut self) -> anyhow::Result<()> {
        self.relays.heal();
        for mut tracer in std::mem::take(&mut self.tracers) {
            if let Err(error) = tracer.kill().await {
                tracing::debug!(%error, "the tracer is gone");
            }
        }
        self.unlimited().map(drop)
    }

    /// Undoes everything.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        self.end_isolation();
        self.relays.heal();
        for mut tracer in std::mem::take(&mut self.tracers) {
            if let Err(error) = tracer.kill().await {
                tracing::debug!(%error, "the tracer is gone");
            }
        }
        self.fast_disk()?;
        if self.armed {
            self.disarm()?;
        }
        self.resume()?;
        self.unlimited()?;
        self.wake_agents()?;
        self.start_dead()?;
        Ok(())
    }
}
