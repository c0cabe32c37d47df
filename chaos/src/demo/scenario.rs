//! The eight things the demo breaks, and what it expects of Medic.

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::fleet::{Break, SampleFleet, SampleInstance, ServiceConfig};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Crash,
    Hang,
    MemoryLeak,
    BadRollout,
    DependencyDown,
    LeaderLost,
    FixThatDoesNotHelp,
    HighRisk,
}

/// How the scenario should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Healed and verified without a human.
    Healed,
    /// Rolled back, then handed to a human.
    Escalated,
    /// Healed and verified after a human approved.
    Approved,
}

impl Fault {
    pub(super) const ALL: [Self; 8] = [
        Self::Crash,
        Self::Hang,
        Self::MemoryLeak,
        Self::BadRollout,
        Self::DependencyDown,
        Self::LeaderLost,
        Self::FixThatDoesNotHelp,
        Self::HighRisk,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::MemoryLeak => "memory leak",
            Self::BadRollout => "bad configuration",
            Self::DependencyDown => "dependency down",
            Self::LeaderLost => "errors; leader killed",
            Self::FixThatDoesNotHelp => "fix that does not help",
            Self::HighRisk => "high risk",
        }
    }

    pub(super) const fn story(self) -> &'static str {
        match self {
            Self::Crash => "orders-2 gets SIGKILL",
            Self::Hang => "users-1 gets SIGSTOP: the process is there, and answers nothing",
            Self::MemoryLeak => {
                "both instances of users begin to leak 4 MiB a second; their limit is 160 MiB"
            }
            Self::BadRollout => {
                "a configuration with a wrong datastore address is rolled out to users-1"
            }
            Self::DependencyDown => {
                "the datastore hangs: orders, users and the gateway fail with it"
            }
            Self::LeaderLost => {
                "all instances of orders fail half of their requests; \
                 the leader will be killed in the middle of the remediation"
            }
            Self::FixThatDoesNotHelp => {
                "the data file of users-2 is damaged: slow whatever is done to the process"
            }
            Self::HighRisk => "ledger (critical, pci, a single instance) fails most requests",
        }
    }

    pub(super) const fn ending(self) -> Ending {
        match self {
            Self::FixThatDoesNotHelp => Ending::Escalated,
            Self::HighRisk => Ending::Approved,
            _ => Ending::Healed,
        }
    }

    /// The service whose incident the scenario is about.
    pub(super) const fn service(self) -> &'static str {
        match self {
            Self::Crash | Self::LeaderLost => "orders",
            Self::Hang | Self::MemoryLeak | Self::BadRollout | Self::FixThatDoesNotHelp => "users",
            Self::DependencyDown => "datastore",
            Self::HighRisk => "ledger",
        }
    }

    /// Breaks it.
    pub(super) async fn inject(self, fleet: &SampleFleet) -> anyhow::Result<()> {
        let instance = |name: &str| {
            fleet.instances.get(name).with_context(|| format!("the fleet has no {name}"))
        };
        match self {
            Self::Crash => signal(instance("orders-2")?, Signal::SIGKILL),
            Self::Hang => signal(instance("users-1")?, Signal::SIGSTOP),
            Self::MemoryLeak => {
                let leak = Break { leak_bytes_per_s: Some(4 << 20), ..Break::default() };
                for user in fleet.of("users") {
                    break_it(user, leak.clone()).await?;
                }
                Ok(())
            }
            Self::BadRollout => {
                let wrong = vec![vec!["127.0.0.1:9".to_owned()]];
                let config = ServiceConfig { dependencies: wrong, ..fleet.good_config("users") };
                let user = instance("users-1")?;
                std::fs::write(&user.config, toml::to_string(&config)?)?;
                signal(user, Signal::SIGHUP)
            }
            Self::DependencyDown => signal(instance("datastore-1")?, Signal::SIGSTOP),
            Self::LeaderLost => {
                for order in fleet.of("orders") {
                    break_it(order, Break { error_percent: Some(50), ..Break::default() }).await?;
                }
                Ok(())
            }
            Self::FixThatDoesNotHelp => {
                let damage = Break { damage_ms: Some(900), ..Break::default() };
                break_it(instance("users-2")?, damage).await
            }
            Self::HighRisk => {
                let errors = Break { error_percent: Some(70), ..Break::default() };
                break_it(instance("ledger-1")?, errors).await
            }
        }
    }

    /// What a human does about it when Medic has handed it over.
    pub(super) async fn repair_by_hand(self, fleet: &SampleFleet) -> anyhow::Result<()> {
        if self == Self::FixThatDoesNotHelp
            && let Some(user) = fleet.instances.get("users-2")
        {
            break_it(user, Break { damage_ms: Some(0), ..Break::default() }).await?;
        }
        Ok(())
    }
}

async fn break_it(instance: &SampleInstance, how: Break) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{}/break", instance.port);
    let client = reqwest::Client::new();
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&how)?)
        .send()
        .await
        .with_context(|| format!("breaking {}", instance.name))?;
    response.error_for_status().with_context(|| format!("breaking {}", instance.name))?;
    Ok(())
}

fn signal(instance: &SampleInstance, signal: Signal) -> anyhow::Result<()> {
    let pid = pid_of(instance).with_context(|| format!("{} does not run", instance.name))?;
    kill(Pid::from_raw(pid), signal)
        .with_context(|| format!("sending {signal} to {}", instance.name))
}

/// The process of an instance: the one whose command line names its configuration file.
pub(super) fn pid_of(instance: &SampleInstance) -> Option<i32> {
    let wanted = instance.config.to_string_lossy().into_owned();
    crate::harness::processes_with(&wanted).into_iter().next()
}
