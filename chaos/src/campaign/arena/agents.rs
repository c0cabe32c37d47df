//! Agents and the services they run: lost, paused, silent, aborted at a failpoint.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Arena;
use crate::harness::processes_with;

impl Arena {
    /// An agent, by a drawn number.
    fn agent(&self, pick: u64) -> String {
        let count = u64::try_from(self.agents.len()).unwrap_or(1).max(1);
        let at = usize::try_from(pick % count).unwrap_or(0);
        self.agents.get(at).cloned().unwrap_or_default()
    }

    pub(super) async fn kill_agent(&mut self, pick: u64) -> anyhow::Result<Option<String>> {
        let name = self.agent(pick);
        self.cluster.agent_mut(&name)?.kill().await?;
        Ok(Some(format!("SIGKILL for the agent of {name}")))
    }

    pub(super) fn pause_agent(&mut self, pick: u64) -> anyhow::Result<Option<String>> {
        let name = self.agent(pick);
        let paused = self.cluster.agent_mut(&name)?.signal(Signal::SIGSTOP).is_ok();
        Ok(paused.then(|| format!("SIGSTOP for the agent of {name}")))
    }

    /// An agent aborts at the failpoint of agents that was hit least so far.
    pub(super) fn arm_agent(&mut self, pick: u64) -> anyhow::Result<Option<String>> {
        let name = self.agent(pick);
        let point = self.points.arm_agent(&name, pick)?;
        Ok(Some(format!("the agent of {name} dies when it reaches {point}")))
    }

    pub(super) fn wake_agents(&mut self) -> anyhow::Result<Option<String>> {
        self.points.disarm_agents()?;
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

    /// Every instance of one service stops: probes and scrapes of it get no answer.
    pub(super) fn silence(&mut self, pick: u64) -> Option<String> {
        let mut services: Vec<&str> =
            self.fleet.instances.values().map(|instance| instance.service.as_str()).collect();
        services.sort_unstable();
        services.dedup();
        let count = u64::try_from(services.len()).ok().filter(|count| *count > 0)?;
        let service = (*services.get(usize::try_from(pick % count).ok()?)?).to_owned();
        let stopped = self.signal_services(Some(&service), Signal::SIGSTOP);
        Some(format!("{service} says nothing: SIGSTOP for {stopped} processes"))
    }

    /// All services speak again.
    pub(super) fn speak(&self) -> String {
        let woken = self.signal_services(None, Signal::SIGCONT);
        format!("SIGCONT for the {woken} processes of the fleet")
    }

    fn signal_services(&self, service: Option<&str>, signal: Signal) -> usize {
        let instances = self.fleet.instances.values();
        let meant = instances.filter(|instance| service.is_none_or(|s| s == instance.service));
        let pids = meant.flat_map(|instance| processes_with(&instance.config.to_string_lossy()));
        // Whoever ended meanwhile is not signalled.
        pids.filter(|pid| kill(Pid::from_raw(*pid), signal).is_ok()).count()
    }
}
