//! The hands of the campaign: how each kind is done, how it is told that it is over, and how a
//! person puts it right.
//!
//! Whether a fault is over is asked of the processes and files themselves, never of Medic.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::task::JoinHandle;

use super::{kinds::Kind, schedule::Planned};
use crate::{
    fleet::{Break, Files, Ill, SPOOL_BYTES_MAX, SampleFleet, SampleInstance, ServiceConfig},
    harness::processes_with,
};

/// Logins tried at each gateway, per second.
const LOGINS_PER_S: u32 = 40;
/// Time one request of ours may take.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What breaks and mends.
#[derive(Clone, Debug)]
pub(super) struct Hands {
    fleet: Arc<SampleFleet>,
    client: reqwest::Client,
    /// Accepts and never answers.
    hole: String,
}

/// A fault that was done.
#[derive(Debug)]
pub(super) struct Done {
    planned: Planned,
    /// Process of each instance when it was done.
    pids: Vec<Option<i32>>,
    storm: Option<JoinHandle<()>>,
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(storm) = self.storm.take() {
            storm.abort();
        }
    }
}

impl Hands {
    /// `hole`: an address that accepts connections and answers nothing.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub(super) fn new(fleet: Arc<SampleFleet>, hole: String) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        Ok(Self { fleet, client, hole })
    }

    fn instance(&self, name: &str) -> anyhow::Result<&SampleInstance> {
        self.fleet.instances.get(name).with_context(|| format!("the fleet has no {name}"))
    }

    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done, for example because the process is gone for another reason.
    pub(super) async fn inject(&self, planned: &Planned) -> anyhow::Result<Done> {
        let mut pids = Vec::new();
        for name in &planned.instances {
            let instance = self.instance(name)?;
            pids.push(pid_of(instance));
            self.break_one(planned.kind, instance).await.with_context(|| format!("at {name}"))?;
        }
        let storm = (planned.kind == Kind::LoginStorm).then(|| {
            let ports = planned.instances.iter().filter_map(|name| self.fleet.instances.get(name));
            tokio::spawn(storm(self.client.clone(), ports.map(|one| one.port).collect()))
        });
        Ok(Done { planned: planned.clone(), pids, storm })
    }

    async fn break_one(&self, kind: Kind, instance: &SampleInstance) -> anyhow::Result<()> {
        let files = Files::beside(&instance.config);
        let ask = |how: Break| self.ask(instance, how);
        match kind {
            Kind::Crash => halt(instance, Signal::SIGKILL).await,
            Kind::CrashLoop => {
                std::fs::write(files.poison(), "2")?;
                halt(instance, Signal::SIGKILL).await
            }
            Kind::Hang | Kind::DependencyDown => halt(instance, Signal::SIGSTOP).await,
            Kind::CpuBurn => ask(Break { spinning_threads: Some(1), ..Break::default() }).await,
            Kind::Deadlock => ask(Break { deadlock: Some(true), ..Break::default() }).await,
            Kind::MemoryLeak => {
                ask(Break { leak_bytes_per_s: Some(4 << 20), ..Break::default() }).await
            }
            Kind::DescriptorLeak => {
                ask(Break { descriptors_per_s: Some(12), ..Break::default() }).await
            }
            Kind::Errors | Kind::ErrorsEverywhere => {
                ask(Break { error_percent: Some(50), ..Break::default() }).await
            }
            Kind::Slow => ask(Break { latency_ms: Some(800), ..Break::default() }).await,
            Kind::DependencySlow => ask(Break { latency_ms: Some(700), ..Break::default() }).await,
            Kind::PortLost => ask(Break { port_lost: Some(true), ..Break::default() }).await,
            Kind::OneWayLoss => {
                ask(Break { route: Some(self.hole.clone()), ..Break::default() }).await
            }
            Kind::WrongUpstream => {
                ask(Break { route: Some("127.0.0.1:9".to_owned()), ..Break::default() }).await
            }
            Kind::StrayListener => {
                ask(Break { stray_listener: Some(true), ..Break::default() }).await
            }
            Kind::DiskFull => fill(&files),
            Kind::CertificateExpired => files.set_certificate(1),
            Kind::Tampering => Ok(std::fs::write(files.artefact(), "another program\n")?),
            Kind::WrongDependency | Kind::WrongPort => {
                let config = self.bad_config(kind, instance)?;
                roll_out(instance, &config)?;
                signal(instance, Signal::SIGHUP)
            }
            Kind::BrokenConfig => {
                std::fs::write(&instance.config, "timeout_ms = \"soon\"\n")?;
                halt(instance, Signal::SIGKILL).await
            }
            Kind::LoginStorm => Ok(()),
        }
    }

    fn bad_config(&self, kind: Kind, instance: &SampleInstance) -> anyhow::Result<ServiceConfig> {
        let good = self.fleet.good_config(&instance.service);
        Ok(match kind {
            Kind::WrongPort => {
                let free = crate::harness::free_ports(1)?;
                ServiceConfig { listen_port: free.first().copied(), ..good }
            }
            _ => {
                let wrong = vec![vec!["127.0.0.1:9".to_owned()]; good.dependencies.len()];
                ServiceConfig { dependencies: wrong, ..good }
            }
        })
    }

    /// Whether it is over at every instance.
    pub(super) async fn over(&self, done: &Done) -> bool {
        for (name, pid) in done.planned.instances.iter().zip(&done.pids) {
            let Ok(instance) = self.instance(name) else { return false };
            if !self.over_at(done.planned.kind, instance, *pid).await {
                return false;
            }
        }
        true
    }

    async fn over_at(&self, kind: Kind, instance: &SampleInstance, pid: Option<i32>) -> bool {
        let files = Files::beside(&instance.config);
        let healthy = self.healthy(instance).await;
        let anew = pid_of(instance).is_some_and(|now| Some(now) != pid);
        match kind {
            Kind::Crash | Kind::Hang | Kind::DependencyDown => {
                healthy && (anew || kind != Kind::Crash)
            }
            Kind::CrashLoop => {
                let left = std::fs::read_to_string(files.poison()).unwrap_or_default();
                healthy && left.trim() == "0"
            }
            Kind::CpuBurn
            | Kind::Deadlock
            | Kind::MemoryLeak
            | Kind::DescriptorLeak
            | Kind::Errors
            | Kind::ErrorsEverywhere
            | Kind::Slow
            | Kind::DependencySlow
            | Kind::PortLost
            | Kind::OneWayLoss
            | Kind::WrongUpstream
            | Kind::StrayListener => healthy && !self.ill(instance).await.unwrap_or(true),
            Kind::DiskFull => healthy && files.spool_used() < 0.9,
            Kind::CertificateExpired => healthy && !files.certificate_expired(),
            Kind::Tampering => healthy && !files.artefact_modified(),
            Kind::WrongDependency | Kind::WrongPort | Kind::BrokenConfig => {
                healthy
                    && config_of(instance).as_ref()
                        == Some(&self.fleet.good_config(&instance.service))
            }
            Kind::LoginStorm => {
                healthy && config_of(instance).is_some_and(|config| config.lockdown)
            }
        }
    }

    /// What a person does: the cause is removed, and the process ended, so that it is started anew by
    /// whoever supervises it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) async fn mend(&self, done: &mut Done) -> anyhow::Result<()> {
        if let Some(storm) = done.storm.take() {
            storm.abort();
        }
        for name in &done.planned.instances {
            let instance = self.instance(name)?;
            let files = Files::beside(&instance.config);
            std::fs::write(files.poison(), "0")?;
            roll_out(instance, &self.fleet.good_config(&instance.service))?;
            if pid_of(instance).is_some() {
                // What is wrong inside it ends with it; whoever supervises it starts it again.
                signal(instance, Signal::SIGCONT)?;
                signal(instance, Signal::SIGKILL)?;
            }
        }
        Ok(())
    }

    /// After a storm: logins are let in again.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn lift_lockdown(&self, done: &mut Done) -> anyhow::Result<()> {
        if let Some(storm) = done.storm.take() {
            storm.abort();
        }
        for name in &done.planned.instances {
            let instance = self.instance(name)?;
            roll_out(instance, &self.fleet.good_config(&instance.service))?;
            signal(instance, Signal::SIGHUP)?;
        }
        Ok(())
    }

    /// Whether it answers that it is ready.
    pub(super) async fn healthy(&self, instance: &SampleInstance) -> bool {
        let url = format!("http://127.0.0.1:{}/ready", instance.port);
        matches!(self.client.get(url).send().await, Ok(answer) if answer.status().is_success())
    }

    async fn ill(&self, instance: &SampleInstance) -> anyhow::Result<bool> {
        let url = format!("http://127.0.0.1:{}/break", instance.port);
        let answer = self.client.get(url).send().await?.bytes().await?;
        Ok(serde_json::from_slice::<Ill>(&answer)?.ill)
    }

    /// Asks an instance to be ill.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub(super) async fn ask(&self, instance: &SampleInstance, how: Break) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/break", instance.port);
        let body = serde_json::to_vec(&how)?;
        let request = self.client.post(url).header("content-type", "application/json").body(body);
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

/// Rolls a configuration out: the file is replaced.
///
/// # Errors
/// When it cannot be written.
pub(super) fn roll_out(instance: &SampleInstance, config: &ServiceConfig) -> anyhow::Result<()> {
    let text = toml::to_string(config)?;
    std::fs::write(&instance.config, text)
        .with_context(|| format!("writing {}", instance.config.display()))
}

fn config_of(instance: &SampleInstance) -> Option<ServiceConfig> {
    toml::from_str(&std::fs::read_to_string(&instance.config).ok()?).ok()
}

fn fill(files: &Files) -> anyhow::Result<()> {
    const PIECE: usize = 1 << 20;
    for n in 0..=SPOOL_BYTES_MAX / (1 << 20) {
        std::fs::write(files.spool().join(format!("job-{n}")), vec![0; PIECE])?;
    }
    Ok(())
}

/// Sends a signal to an instance's process.
///
/// # Errors
/// When it does not run.
pub(super) fn signal(instance: &SampleInstance, signal: Signal) -> anyhow::Result<()> {
    let Some(pid) = pid_of(instance) else { bail!("{} does not run", instance.name) };
    kill(Pid::from_raw(pid), signal)
        .with_context(|| format!("sending {signal} to {}", instance.name))
}

/// Sends a signal that ends or stops a process, and waits until it has: a signal is on its way for a
/// moment, in which the process still answers.
///
/// # Errors
/// When it does not run, or goes on running.
async fn halt(instance: &SampleInstance, how: Signal) -> anyhow::Result<()> {
    let Some(pid) = pid_of(instance) else { bail!("{} does not run", instance.name) };
    signal(instance, how)?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while runs(pid) {
        if tokio::time::Instant::now() > deadline {
            bail!("{} (process {pid}) runs on after {how}", instance.name);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Whether a process is there and neither stopped nor ended.
fn runs(pid: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the command's name, which is in parentheses and may hold anything.
    let state = status.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
}

/// The process of an instance: the one whose command line names its configuration file.
fn pid_of(instance: &SampleInstance) -> Option<i32> {
    processes_with(&instance.config.to_string_lossy()).into_iter().next()
}

/// Somebody who tries keys, for ever.
async fn storm(client: reqwest::Client, ports: Vec<u16>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / LOGINS_PER_S);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut number: u64 = 0;
    loop {
        tick.tick().await;
        number += 1;
        for port in &ports {
            let url = format!("http://127.0.0.1:{port}/login?key=guess-{number}");
            let request = client.get(url).send();
            tokio::spawn(async move { drop(request.await) });
        }
    }
}
