//! Latency and throughput of small acknowledged writes, here and at the peer, with the same clients.
//!
//! Closed loop: each client has one write under way and sends the next when it is answered. Clients
//! share a few connections, as many here as there. The clients run on the same machine as the
//! nodes, so their cost is in the figures of both.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use medic_node::cli::out::Out;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    BenchArgs,
    etcd::{Etcd, Put},
    machine::{SyncTimes, Syncs},
    settle, stale,
    stats::{Summary, ms},
    write,
};
use crate::harness::{Client, Cluster};

/// Before times count: connections, caches and batches find their pace.
const WARM_UP: Duration = Duration::from_secs(2);
/// Connections that clients share.
const CONNECTIONS_MAX: usize = 8;
/// Services whose freezes are written.
const SERVICES: usize = 64;
/// Calls that tell what the way to a node and back costs.
const CALLS: usize = 200;

/// One number of clients at one system.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Load {
    pub(super) clients: usize,
    pub(super) writes_per_second: f64,
    pub(super) latency: Option<Summary>,
}

/// Writes at all numbers of clients.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Commit {
    pub(super) payload_bytes: usize,
    /// One `fdatasync` on the disk of the data.
    pub(super) fdatasync: Syncs,
    /// A call that the node answers from memory: what door and connection cost.
    pub(super) call: Option<Summary>,
    pub(super) medic: Vec<Load>,
    /// Absent: there is no such binary.
    pub(super) etcd: Option<Peer>,
}

/// The peer that was measured beside.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Peer {
    pub(super) version: String,
    pub(super) loads: Vec<Load>,
}

/// Measures writes at the leader, then the same at etcd where there is one.
pub(super) async fn measure(
    args: &BenchArgs,
    cluster: &Cluster,
    dir: &Path,
    out: &Out,
) -> anyhow::Result<Commit> {
    let leader = settle(cluster, None).await?;
    let syncs = time_syncs(SyncTimes::default(), dir).await?;
    let call = time_calls(&mut cluster.client_of(leader, "admin").await?).await?;
    let mut medic = Vec::new();
    for clients in args.clients.iter().copied().map(usize::from) {
        out.note(&format!("commit: {clients} clients at node-{leader} for {} s", args.seconds));
        let mut connections = Vec::new();
        for _ in 0..clients.min(CONNECTIONS_MAX) {
            connections.push(cluster.client_of(leader, "admin").await?);
        }
        let writers = (0..clients).zip(connections.iter().cycle()).map(|(number, client)| {
            // A bounded number of services: what is measured is the log, not a growing state.
            let service = format!("bench-{}", number % SERVICES);
            MedicWrite { client: client.clone(), service }
        });
        let load = drive(writers.collect(), args.span()).await;
        medic.push(load.context("writing at the leader")?);
    }
    let syncs = time_syncs(syncs, dir).await?;
    let etcd = match Etcd::prepare(&args.etcd, cluster).await? {
        Some(etcd) => Some(peer(args, etcd, out).await?),
        None => {
            out.note(&format!("commit: {} is not there to compare with", args.etcd.display()));
            None
        }
    };
    let fdatasync = time_syncs(syncs, dir).await?.summary();
    Ok(Commit { payload_bytes: super::PAYLOAD_BYTES, fdatasync, call, medic, etcd })
}

/// Takes times before, between and after the loads.
async fn time_syncs(times: SyncTimes, dir: &Path) -> anyhow::Result<SyncTimes> {
    let folder = dir.to_owned();
    tokio::task::spawn_blocking(move || times.take(&folder)).await?
}

/// The same writes at three etcd processes.
async fn peer(args: &BenchArgs, mut etcd: Etcd, out: &Out) -> anyhow::Result<Peer> {
    etcd.start()?;
    let leader = etcd.wait_for_leader().await?;
    let mut loads = Vec::new();
    for clients in args.clients.iter().copied().map(usize::from) {
        out.note(&format!("commit: {clients} clients at etcd's leader for {} s", args.seconds));
        let mut connections = Vec::new();
        for _ in 0..clients.min(CONNECTIONS_MAX) {
            connections.push(etcd.connect(leader).await?);
        }
        let writers = (0..clients)
            .zip(connections.iter().cycle())
            .map(|(client, put)| EtcdWrite { put: put.clone(), client });
        let load = drive(writers.collect(), args.span()).await;
        loads.push(load.context("writing at etcd's leader")?);
    }
    let version = etcd.version().to_owned();
    etcd.stop().await?;
    Ok(Peer { version, loads })
}

/// What one client does over and over.
trait Write: Send + 'static {
    /// One acknowledged write.
    fn write(&mut self) -> impl Future<Output = Result<(), tonic::Status>> + Send;
}

struct MedicWrite {
    client: Client,
    service: String,
}

impl Write for MedicWrite {
    async fn write(&mut self) -> Result<(), tonic::Status> {
        write(&mut self.client, &self.service).await
    }
}

struct EtcdWrite {
    put: Put,
    client: usize,
}

impl Write for EtcdWrite {
    async fn write(&mut self) -> Result<(), tonic::Status> {
        self.put.put(self.client).await
    }
}

/// Runs closed-loop clients.
async fn drive(clients: Vec<impl Write>, span: Duration) -> anyhow::Result<Load> {
    let from = Instant::now() + WARM_UP;
    let until = from + span;
    let number = clients.len();
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(repeat(client, from, until));
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
    Ok(Load {
        clients: number,
        writes_per_second: (f64::from(count) / span.as_secs_f64() * 10.0).round() / 10.0,
        latency: Summary::of(times),
    })
}

/// Times of the writes that ended between `from` and `until`.
async fn repeat(
    mut client: impl Write,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    loop {
        let began = Instant::now();
        if let Err(status) = client.write().await {
            bail!("a write failed after {:.0} ms: {status}", ms(began.elapsed()));
        }
        let now = Instant::now();
        if now >= until {
            return Ok(times);
        }
        if now >= from {
            times.push(now - began);
        }
    }
}

/// Calls that need neither log nor disk nor peers.
async fn time_calls(client: &mut Client) -> anyhow::Result<Option<Summary>> {
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let began = Instant::now();
        let request = medic_proto::v1::ListFreezesRequest { page_size: 1, ..Default::default() };
        client.safety().list_freezes(stale(request)).await?;
        times.push(began.elapsed());
    }
    Ok(Summary::of(times))
}
