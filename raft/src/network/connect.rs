//! How a node reaches its peers. The transport is injected: TLS in production, plain TCP in tests,
//! a simulated network in simulations.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use medic_state::NodeId;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// A peer that cannot be connected to.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {node} at {addr}: {reason}")]
pub struct ConnectError {
    /// Which.
    pub node: NodeId,
    /// Where.
    pub addr: String,
    /// Why.
    pub reason: String,
}

/// Makes channels to peers.
#[async_trait]
pub trait PeerConnector: Send + Sync + 'static {
    /// A channel to a node's peer port. It may connect at first use, and reconnects by itself.
    async fn connect(&self, node: NodeId, addr: &str) -> Result<Channel, ConnectError>;
}

/// Settings every peer channel should have: no delay, and a dead connection noticed within seconds.
///
/// # Errors
/// When the address is not `host:port`.
pub fn peer_endpoint(uri: String, connect_deadline: Duration) -> Result<Endpoint, String> {
    Ok(Endpoint::from_shared(uri)
        .map_err(|error| error.to_string())?
        .connect_timeout(connect_deadline)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(Some(1 << 20))
        .initial_connection_window_size(Some(4 << 20)))
}

/// Plain TCP: for tests and for networks that are secured otherwise.
#[derive(Clone, Copy, Debug)]
pub struct PlainConnector {
    /// Connecting may take this long.
    pub connect_deadline: Duration,
}

impl Default for PlainConnector {
    fn default() -> Self {
        Self { connect_deadline: Duration::from_secs(1) }
    }
}

#[async_trait]
impl PeerConnector for PlainConnector {
    async fn connect(&self, node: NodeId, addr: &str) -> Result<Channel, ConnectError> {
        let error = |reason| ConnectError { node, addr: addr.to_owned(), reason };
        let endpoint =
            peer_endpoint(format!("http://{addr}"), self.connect_deadline).map_err(error)?;
        Ok(endpoint.connect_lazy())
    }
}

/// The TLS settings for one peer: own certificate and key, the authority, the name to expect.
pub type TlsForPeer = dyn Fn(NodeId, &str) -> Result<ClientTlsConfig, String> + Send + Sync;

/// Mutual TLS. The settings are asked for at every connect, so that certificates can be rotated.
#[derive(Clone)]
pub struct TlsConnector {
    /// Connecting may take this long.
    pub connect_deadline: Duration,
    /// Settings for a peer.
    pub config: Arc<TlsForPeer>,
}

#[async_trait]
impl PeerConnector for TlsConnector {
    async fn connect(&self, node: NodeId, addr: &str) -> Result<Channel, ConnectError> {
        let error = |reason| ConnectError { node, addr: addr.to_owned(), reason };
        let tls = (self.config)(node, addr).map_err(error)?;
        let endpoint = peer_endpoint(format!("https://{addr}"), self.connect_deadline)
            .and_then(|endpoint| endpoint.tls_config(tls).map_err(|e| e.to_string()))
            .map_err(error)?;
        Ok(endpoint.connect_lazy())
    }
}

/// What a connection is used for: each has its own, so that a snapshot does not hold up heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Log entries.
    Log,
    /// Heartbeats, votes and small calls.
    Control,
    /// Snapshots and forwarded proposals.
    Bulk,
    /// What is not consensus.
    Other,
}

/// Open channels by peer and lane.
pub(crate) struct Pool {
    connector: Arc<dyn PeerConnector>,
    channels: Mutex<BTreeMap<(NodeId, Lane), (String, Channel)>>,
}

impl Pool {
    pub(crate) fn new(connector: Arc<dyn PeerConnector>) -> Self {
        Self { connector, channels: Mutex::default() }
    }

    pub(crate) async fn get(
        &self,
        node: NodeId,
        addr: &str,
        lane: Lane,
    ) -> Result<Channel, ConnectError> {
        if let Some((at, channel)) = self.channels().get(&(node, lane))
            && at == addr
        {
            return Ok(channel.clone());
        }
        let channel = self.connector.connect(node, addr).await?;
        self.channels().insert((node, lane), (addr.to_owned(), channel.clone()));
        Ok(channel)
    }

    pub(crate) fn clear(&self) {
        self.channels().clear();
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Lane), (String, Channel)>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
