//! `medic-chaos bench`: measured figures of a real cluster on this machine.
//!
//! ```text
//!   three `medic` processes (TLS, RocksDB) ──► idle ──► commit (etcd beside it) ──► failover ──► report
//! ```
//!
//! Figures are printed, never judged: how long something takes says as much about the machine and
//! what else it does as about Medic, so load and cores are part of every report. What cannot be
//! measured at all (no leader, writes refused) is an error.

mod commit;
mod etcd;
mod failover;
mod idle;
mod intake;
mod machine;
mod report;
mod stats;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use medic_node::{
    cli::{args::Format, out::Out},
    config::RaftTimings,
};
use medic_proto::v1 as pb;

pub use self::machine::Machine;
use self::report::Report;
use crate::harness::{Client, Cluster, ClusterOptions};

/// Time the cluster is given to come up or to settle.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of payload of one write, here and at the peer.
const PAYLOAD_BYTES: usize = 256;
/// Nodes of the cluster.
const NODES: u64 = 3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Leader killed until the first acknowledged write.
    Failover,
    /// Latency and throughput of acknowledged writes.
    Commit,
    /// CPU and memory of nodes that have nothing to do.
    Idle,
    /// Pushed samples: from the snappy block to the detector, and memory.
    Intake,
}

/// Options of the measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Times the leader is killed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Numbers of clients that write at once
    #[arg(long, value_delimiter = ',', default_value = "1,64", value_name = "N,…",
          value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub clients: Vec<u16>,
    /// Seconds per number of clients, and of watching idle nodes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Rounds of pushed samples, one of each series; 2100 fill what detectors remember (some minutes)
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: u32,
    /// Only this; may be repeated
    #[arg(long, value_enum)]
    pub only: Vec<Part>,
    /// Heartbeat, least and greatest election timeout in milliseconds; default: the product's
    #[arg(long, value_parser = timings, value_name = "MS,MS,MS")]
    pub timings: Option<[u64; 3]>,
    /// One JSON document instead of tables
    #[arg(long)]
    pub json: bool,
    /// Folder on the disk to measure; default: the system's folder for temporary files
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// The `medic` binary; by default the one beside this program
    #[arg(long, env = "MEDIC_BIN")]
    pub medic: Option<PathBuf>,
    /// The `etcd` binary to compare with, where there is one
    #[arg(long, default_value = "etcd")]
    pub etcd: PathBuf,
    /// Keep the folder with logs and data
    #[arg(long)]
    pub keep: bool,
}

impl BenchArgs {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    const fn span(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn timings(text: &str) -> Result<[u64; 3], String> {
    let parts: Result<Vec<u64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    parts
        .ok()
        .and_then(|parts| <[u64; 3]>::try_from(parts).ok())
        .ok_or_else(|| format!("`{text}` is not three numbers such as 50,150,300"))
}

/// Measures, and prints the report. True when everything wanted was measured.
///
/// # Errors
/// When the cluster cannot be set up or does not serve.
pub async fn run(args: BenchArgs) -> anyhow::Result<bool> {
    let out = Out::new(if args.json { Format::Json } else { Format::Table });
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut folder = tempfile::Builder::new()
        .prefix("medic-bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("making a folder in {}", parent.display()))?;
    folder.disable_cleanup(args.keep);
    if args.keep {
        out.note(&format!("folder: {}", folder.path().display()));
    }
    let report = tokio::select! {
        report = measure(&args, folder.path(), &out) => report?,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            bail!("interrupted");
        }
    };
    out.value(&report, Report::tables)?;
    Ok(true)
}

async fn measure(args: &BenchArgs, dir: &Path, out: &Out) -> anyhow::Result<Report> {
    if args.only == [Part::Intake] {
        let mut report = Report::new(Machine::look(dir), [0; 3]);
        report.intake = Some(intake::measure(args.rounds).await?);
        report.machine.look_again();
        return Ok(report);
    }
    let product = RaftTimings::default();
    let timings_ms = args.timings.unwrap_or([
        product.heartbeat.0,
        product.election_min.0,
        product.election_max.0,
    ]);
    let mut options = ClusterOptions::new(&dir.join("cluster"), NODES, Vec::new());
    options.timings_ms = timings_ms;
    if let Some(medic) = &args.medic {
        medic.clone_into(&mut options.medic);
    }
    if !options.medic.exists() {
        bail!("{} is missing: `make build` builds it", options.medic.display());
    }
    let machine = Machine::look(dir);
    out.note(&format!("{NODES} nodes, timings {timings_ms:?} ms, {}", machine.summary()));
    let mut cluster = Cluster::prepare(options).await?;
    cluster.start().await?;
    cluster.wait_for_leader(PATIENCE).await?;
    settle(&cluster, None).await?;

    let mut report = Report::new(machine, timings_ms);
    if args.wants(Part::Idle) {
        out.note(&format!("idle: watching for {} s", args.seconds));
        report.idle = Some(idle::measure(&mut cluster, args.span()).await?);
    }
    if args.wants(Part::Commit) {
        report.commit = Some(commit::measure(args, &cluster, dir, out).await?);
    }
    if args.wants(Part::Failover) {
        report.failover = Some(failover::measure(args.runs, &mut cluster, out).await?);
    }
    cluster.stop().await?;
    if args.wants(Part::Intake) {
        out.note("intake: pushed samples through one thread");
        report.intake = Some(intake::measure(args.rounds).await?);
    }
    report.machine.look_again();
    Ok(report)
}

/// Waits until all nodes but `except` name the same leader and have applied what it has; gives the
/// leader.
async fn settle(cluster: &Cluster, except: Option<u64>) -> anyhow::Result<u64> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut last = String::new();
    while tokio::time::Instant::now() < deadline {
        match settled(cluster, except).await {
            Ok(leader) => return Ok(leader),
            Err(error) => last = format!("{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the cluster did not settle in {PATIENCE:?}: {last}")
}

async fn settled(cluster: &Cluster, except: Option<u64>) -> anyhow::Result<u64> {
    let mut seen = Vec::new();
    for node in (1..=NODES).filter(|node| Some(*node) != except) {
        let mut client = cluster.client_of(node, "admin").await?;
        let status = client.cluster().status(stale(pb::StatusRequest {})).await?.into_inner();
        if status.leader == 0 || Some(status.leader) == except {
            bail!("node-{node} knows no leader");
        }
        seen.push((node, status.leader, status.applied));
    }
    let leader = seen.first().map_or(0, |(_, leader, _)| *leader);
    if seen.iter().any(|(_, named, _)| *named != leader) {
        bail!("nodes name different leaders: {seen:?}");
    }
    let furthest = seen.iter().map(|(_, _, applied)| *applied).max().unwrap_or(0);
    match seen.iter().find(|(_, _, applied)| *applied < furthest) {
        Some((node, _, applied)) => bail!("node-{node} has applied {applied} of {furthest}"),
        None => Ok(leader),
    }
}

/// A read that the asked node answers from what it has.
fn stale<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let stale = tonic::metadata::MetadataValue::from_static("stale");
    request.metadata_mut().insert("medic-consistency", stale);
    request
}

/// One small acknowledged write: a freeze of a service that does not exist, over and over. It is a
/// whole command: checked at the door and by the law, audited, durable on a quorum when answered.
async fn write(client: &mut Client, service: &str) -> Result<(), tonic::Status> {
    let scope = pb::ServiceScope { tenant: "default".to_owned(), service: service.to_owned() };
    let request = pb::FreezeRequest {
        scope: Some(pb::FreezeScope { scope: Some(pb::freeze_scope::Scope::Service(scope)) }),
        reason: "x".repeat(PAYLOAD_BYTES),
        ..Default::default()
    };
    client.safety().freeze(request).await.map(|_| ())
}
