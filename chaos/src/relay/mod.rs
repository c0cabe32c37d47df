//! A TCP relay in front of each peer port, and the weather between the nodes.
//!
//! ```text
//!   node-1 ──► relay of node-2 ──► node-2        who dials is known by its socket, or its address
//!              │  1→2: up                        (relays need one listener per node, and the
//!              └─ 2→1: down                       membership one address)
//! ```
//!
//! On loopback who dials is looked up in `/proc`. Nodes in network namespaces of their own are known by
//! their addresses: the relay of each listens in its namespace, behind whatever the kernel drops there.
//!
//! Each direction of each pair of nodes has weather of its own: cut, delayed, jittery, lossy. TCP
//! hides a lost packet behind a late one, so loss here is a chunk that comes a retransmission later,
//! and a cut is bytes that wait; what waited arrives when the cut heals. The chances are drawn from
//! a seed.

mod pipe;
mod source;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::netns::within;

pub use source::Pids;

/// What one direction between two nodes is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing arrives.
    pub cut: bool,
    /// Everything comes this much later.
    pub delay: Duration,
    /// And up to this much more.
    pub jitter: Duration,
    /// Chunks of a thousand that come a retransmission later.
    pub loss_permille: u16,
}

/// Weather by (from, to); fair where nothing is said.
pub type Map = BTreeMap<(u64, u64), Weather>;

/// The way to a node, through its relay.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where the others dial.
    pub listen: SocketAddr,
    /// Where the node listens for them.
    pub to: SocketAddr,
    /// The network namespace that the others dial into.
    pub netns: Option<PathBuf>,
}

impl Way {
    fn listener(&self) -> anyhow::Result<TcpListener> {
        let bind = || std::net::TcpListener::bind(self.listen);
        let listener = match &self.netns {
            Some(netns) => within(netns, bind)?,
            None => bind(),
        };
        let listener = listener?;
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener)?)
    }
}

/// What the relays share.
#[derive(Debug)]
pub(super) struct Shared {
    weather: watch::Sender<Map>,
    pids: Pids,
    /// Nodes that have an address of their own.
    hosts: Mutex<BTreeMap<IpAddr, u64>>,
    seed: u64,
    connections: Mutex<u64>,
}

impl Shared {
    /// A number for each connection, so that its chances are its own.
    fn connection_seed(&self) -> u64 {
        let mut count = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        self.seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Who dials; none for a stranger, and for a client that is gone already.
    async fn dialler(&self, from: SocketAddr) -> Option<u64> {
        if from.ip().is_loopback() {
            return self.pids.find(from.port()).await;
        }
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(&from.ip()).copied()
    }
}

/// The relays of a cluster. Dropping them ends them.
#[derive(Debug)]
pub struct Relays {
    shared: Arc<Shared>,
    tasks: BTreeMap<u64, JoinHandle<()>>,
}

impl Relays {
    /// Relays that know the nodes' processes by `pids`; their chances are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64, pids: Pids) -> Self {
        let (weather, connections) = (watch::Sender::new(Map::new()), Mutex::new(0));
        let hosts = Mutex::default();
        Self {
            shared: Arc::new(Shared { weather, pids, hosts, seed, connections }),
            tasks: BTreeMap::new(),
        }
    }

    /// Listens for whoever wants to reach `node`.
    ///
    /// # Errors
    /// When the address is taken, or its namespace is gone.
    pub fn add(&mut self, node: u64, way: &Way) -> anyhow::Result<()> {
        let (listen, to) = (way.listen, way.to);
        let listener = way
            .listener()
            .with_context(|| format!("binding {listen}, the relay of node-{node}"))?;
        let shared = self.shared.clone();
        if !listen.ip().is_loopback() {
            let mut hosts = shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.insert(listen.ip(), node);
        }
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((inbound, from)) => {
                        tokio::spawn(carry(shared.clone(), inbound, from, node, to));
                    }
                    Err(error) => {
                        tracing::warn!(node, %error, "the relay cannot accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        self.tasks.insert(node, task);
        Ok(())
    }

    /// Nobody reaches a node any more; its port is free.
    pub async fn remove(&mut self, node: u64) {
        if let Some(task) = self.tasks.remove(&node) {
            task.abort();
            // The listener is closed once the task is gone.
            drop(task.await);
        }
        self.shared.pids.forget(node);
        let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, known| *known != node);
    }

    /// Changes the weather.
    pub fn set(&self, change: impl FnOnce(&mut Map)) {
        self.shared.weather.send_modify(change);
    }

    /// Fair weather everywhere.
    pub fn heal(&self) {
        self.set(Map::clear);
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

/// One connection, until either side ends it.
async fn carry(
    shared: Arc<Shared>,
    inbound: TcpStream,
    from: SocketAddr,
    node: u64,
    to: SocketAddr,
) {
    let Some(from) = shared.dialler(from).await else { return };
    let Ok(outbound) = TcpStream::connect(to).await else { return };
    for stream in [&inbound, &outbound] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    }
    let (seed, weather) = (shared.connection_seed(), &shared.weather);
    let (in_read, in_write) = inbound.into_split();
    let (out_read, out_write) = outbound.into_split();
    let up = pipe::run(in_read, out_write, weather.subscribe(), (from, node), seed);
    let down = pipe::run(out_read, in_write, weather.subscribe(), (node, from), !seed);
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::harness::free_ports;

    /// Echoes bytes; both ends are this process, which the relay knows as node 1.
    async fn through() -> (Relays, TcpStream) {
        let ports = free_ports(2).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", ports[1])).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        let pids = Pids::default();
        pids.set(1, i32::try_from(std::process::id()).unwrap());
        let mut relays = Relays::new(7, pids);
        relays.add(2, &way(&ports)).unwrap();
        (relays, TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap())
    }

    fn way(ports: &[u16]) -> Way {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Way { listen: at(ports[0]), to: at(ports[1]), netns: None }
    }

    async fn echo(stream: &mut TcpStream) -> Duration {
        let began = Instant::now();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_direction_has_its_own_weather_and_what_waited_arrives() {
        let (relays, mut stream) = through().await;
        echo(&mut stream).await;
        let delay = Duration::from_millis(120);
        relays.set(|map| {
            map.insert((2, 1), Weather { delay, ..Weather::default() });
        });
        assert!(echo(&mut stream).await >= delay);
        relays.set(|map| {
            map.insert((1, 2), Weather { cut: true, ..Weather::default() });
        });
        let waited = tokio::time::timeout(Duration::from_millis(300), echo(&mut stream)).await;
        assert!(waited.is_err(), "nothing passes a cut");
        relays.heal();
        stream.read_exact(&mut [0]).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stranger_is_not_let_through() {
        let ports = free_ports(2).unwrap();
        let target = TcpListener::bind(("127.0.0.1", ports[1])).await.unwrap();
        let mut relays = Relays::new(1, Pids::default());
        relays.add(2, &way(&ports)).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        drop(target);
    }
}
