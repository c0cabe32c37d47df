//! `medic agent`: the hands on a host. Supervises the processes declared for it, carries out orders
//! of the leader, reports to every node.
//!
//! ```text
//!              ┌── link ── node 1          every node gets reports; whichever leads, orders
//!   supervisor ┼── link ── node 2
//!     │  │     └── link ── node 3
//!     │  └─ desk: journal (fences, keys, outcomes)
//!     └─ instances: process, configuration file
//! ```
//!
//! Invariants: an order under a fence lower than any accepted is refused; one key is applied once;
//! what is done was noted before; services outlive the agent, however it ends, and are taken up
//! again when it comes back. Absent on purpose: any decision. What died stays dead until ordered
//! otherwise.

mod acts;
pub mod book;
mod config_file;
mod guard;
mod host;
mod instance;
mod journal;
pub mod link;
mod orders;
mod process;
mod procfs;
pub mod record;
mod spec;
mod store;
mod supervisor;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use medic_proto::fleet::v1 as wire;
use medic_raft::Env;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    config::AgentConfig,
    security::{ReloadableTls, Unit},
};

pub use journal::JournalError;
pub use store::StoreError;
pub use supervisor::{AgentError, Supervisor};

/// Processes are looked at this often; an ended child is noticed at once.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a report goes out though nothing changed; the node counts three of these as silence.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often the host is looked at.
const HOST_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether processes still are what was started.
const GUARD_EVERY: Duration = Duration::from_secs(3);
/// How often certificate files are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// An agent, as it runs.
#[derive(Debug)]
pub struct Options {
    /// As in its certificate.
    pub name: String,
    /// Where it runs.
    pub region: String,
    /// The only cluster it obeys.
    pub cluster: String,
    /// `host:port` of every node's API.
    pub nodes: Vec<String>,
    /// Where it keeps what it must not forget.
    pub state_dir: PathBuf,
    /// Its identity. `None`: plain TCP, for tests.
    pub tls: Option<Arc<ReloadableTls>>,
}

/// Runs an agent until SIGTERM or SIGINT. Its services run on.
///
/// # Errors
/// When its certificate or its state directory cannot be used.
pub async fn run(config: AgentConfig, env: Env) -> anyhow::Result<()> {
    let now = env.clock.now();
    let tls = ReloadableTls::open(&config.tls, &config.cluster, Unit::Agents, &config.name, now)?;
    let follow = tokio::spawn(Arc::clone(&tls).follow(env.clock.clone(), CERTIFICATES_EVERY));
    let options = Options {
        name: config.name,
        region: config.region,
        cluster: config.cluster,
        nodes: config.nodes,
        state_dir: config.state_dir,
        tls: Some(tls),
    };
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let served = serve(options, env, stop).await;
    follow.abort();
    served
}

/// Runs an agent until `stop`.
///
/// # Errors
/// When its state directory cannot be used.
pub async fn serve(
    options: Options,
    env: Env,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let state_dir = options.state_dir.clone();
    let entropy = Arc::clone(&env.entropy);
    let supervisor = tokio::task::spawn_blocking(move || Supervisor::open(&state_dir, env))
        .await
        .context("opening the state directory")??;
    let supervisor = Arc::new(supervisor);
    tracing::info!(
        agent = options.name,
        fence = supervisor.highest_fence(),
        state_dir = %options.state_dir.display(),
        "agent started"
    );
    let (publish, reports) = watch::channel(wire::Report::default());
    let mut tasks = JoinSet::new();
    let first = Arc::clone(&supervisor);
    tasks.spawn_blocking(move || first.reconcile());
    let host = Arc::new(Arc::clone(&supervisor));
    let dial = Arc::new(link::NetDial);
    let shared = link::Shared::new(options, host, dial, reports, entropy);
    for node in &shared.options.nodes {
        tasks.spawn(link::keep(shared.clone(), node.clone()));
    }
    let (told, host) = watch::channel(None);
    let hosting = watch_host(Arc::clone(&supervisor), told);
    let looks = Arc::new(Semaphore::new(1));
    let guarding = guard_processes(Arc::clone(&supervisor), Arc::clone(&looks));
    let watching = watch_processes(supervisor, publish, host);
    tokio::select! {
        () = stop => tracing::info!("agent stops; its services run on"),
        failed = watching => failed?,
        failed = hosting => failed?,
        failed = guarding => failed?,
    }
    tasks.shutdown().await;
    // A look that is under way keeps the state directory until it ends.
    drop(looks.acquire().await);
    Ok(())
}

/// Looks at the host at an interval. By itself: a disk that does not answer must not hold up the
/// reports of processes.
async fn watch_host(
    supervisor: Arc<Supervisor>,
    told: watch::Sender<Option<wire::HostStatus>>,
) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(HOST_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut missing = BTreeMap::new();
    loop {
        every.tick().await;
        let looking = Arc::clone(&supervisor);
        let status = tokio::task::spawn_blocking(move || looking.observe_host())
            .await
            .context("looking at the host")?;
        // Said when it is news: a kernel without PSI stays one.
        for (part, why) in &status.missing {
            if missing.get(part) != Some(why) {
                tracing::warn!(part, why, "a figure of this host cannot be told, or not in full");
            }
        }
        missing.clone_from(&status.missing);
        told.send_replace(Some(status));
    }
}

/// Looks at an interval whether processes still are what was started. By itself: reading a large file must
/// not hold up the reports either.
async fn guard_processes(supervisor: Arc<Supervisor>, looks: Arc<Semaphore>) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(GUARD_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let looking = Arc::clone(&supervisor);
        let permit = Arc::clone(&looks).acquire_owned().await.context("waiting for a look")?;
        let look = move || {
            looking.guard();
            drop(looking);
            drop(permit);
        };
        tokio::task::spawn_blocking(look).await.context("looking at the safety of processes")?;
    }
}

/// Publishes a report at an interval, and at once when something changed.
async fn watch_processes(
    supervisor: Arc<Supervisor>,
    publish: watch::Sender<wire::Report>,
    host: watch::Receiver<Option<wire::HostStatus>>,
) -> anyhow::Result<()> {
    let mut child_ended: Option<Signal> = signal(SignalKind::child()).ok();
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = Instant::now();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = ended(&mut child_ended) => {}
        }
        let due = Instant::now() >= next;
        let looking = Arc::clone(&supervisor);
        let mut report = tokio::task::spawn_blocking(move || looking.observe(due))
            .await
            .context("looking at the processes")?;
        report.host.clone_from(&host.borrow());
        if due {
            next = Instant::now() + REPORT_EVERY;
        }
        publish.send_if_modified(|last| {
            let send = due || changed(last, &report);
            if send {
                *last = report;
            }
            send
        });
    }
}

async fn ended(child: &mut Option<Signal>) {
    match child {
        Some(child) => {
            child.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether anything but usage differs.
fn changed(last: &wire::Report, now: &wire::Report) -> bool {
    let essence = |status: &wire::InstanceStatus| wire::InstanceStatus {
        rss_bytes: 0,
        cpu_ms: 0,
        open_files: 0,
        ..status.clone()
    };
    !last.instances.iter().map(essence).eq(now.instances.iter().map(essence))
}
