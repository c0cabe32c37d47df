//! TLS doors for gRPC: our own accept loop in front of tonic, which by itself bounds neither
//! connections nor handshakes.
//!
//! ```text
//!   accept ─► bounded? ─► handshake (5 s) ─► who? ─► admitted? ─► tonic ─► routes
//!               │no          │failed          │no       │no
//!               └─ dropped   └─ TLS alert     └─────────┴─ every call is answered with why, once
//! ```
//!
//! Invariant: every request that reaches the routes carries an [`Identity`] and the law's
//! `Principal`, both from a certificate that the TLS layer verified; nothing in a message can
//! change them. A connection ends with its certificate.
//! Absent on purpose: roles. They are replicated state and are looked at per call, not per
//! connection.

mod accept;
mod conn;
mod identity;
mod refuse;
#[cfg(test)]
mod tests;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use medic_raft::{Clock, env::SystemClock};
use medic_state::rbac::PrincipalKind;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};

pub(crate) use accept::{Gauge, Limiter};
pub use identity::{
    BadCertificate, Identity, identity_of, node_identity, principal_of, require_node,
};

use conn::Conn;

/// Where the TLS configuration of the next connection comes from: rotation needs no restart.
pub type TlsSource = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// Who a door is for.
#[derive(Clone)]
pub struct Door {
    /// For logs and metrics.
    pub name: &'static str,
    /// The cluster that every certificate must name.
    pub cluster: String,
    /// Kinds of identities that may come in.
    pub admits: &'static [PrincipalKind],
    /// The clock by which certificates end.
    pub clock: Arc<dyn Clock>,
}

impl Door {
    /// The control API and the fleet service: everybody with a certificate of this cluster. What an
    /// agent may call is decided per call (`control::PERMISSIONS`).
    #[must_use]
    pub fn control(cluster: &str) -> Self {
        const ALL: &[PrincipalKind] =
            &[PrincipalKind::User, PrincipalKind::Node, PrincipalKind::Agent];
        Self { name: "api", cluster: cluster.to_owned(), admits: ALL, clock: Arc::new(SystemClock) }
    }

    /// The peer port: members of the cluster.
    #[must_use]
    pub fn peer(cluster: &str) -> Self {
        const NODES: &[PrincipalKind] = &[PrincipalKind::Node];
        Self {
            name: "peer",
            cluster: cluster.to_owned(),
            admits: NODES,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("admits", &self.admits)
            .finish_non_exhaustive()
    }
}

/// Bounds of one door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, handshakes included: 64 KiB each at rest is 64 MiB.
    pub connections: usize,
    /// Connections at once from one address: one host must not take the door for itself.
    pub connections_per_address: usize,
    /// Handshakes at once; signing is what costs most per stranger. Beyond it the oldest one of the
    /// address that has most makes room.
    pub handshakes: usize,
    /// Time a handshake may take.
    pub handshake_timeout: Duration,
    /// Streams per connection.
    pub streams: u32,
    /// Requests per connection that wait for their first answer; further ones are shed.
    pub requests: usize,
    /// Bytes of headers per request.
    pub header_bytes: u32,
    /// Silence after which a connection is pinged.
    pub keepalive: Duration,
    /// Time open calls are given at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            connections_per_address: 256,
            handshakes: 64,
            handshake_timeout: Duration::from_secs(5),
            streams: 128,
            requests: 128,
            header_bytes: 16 * 1024,
            keepalive: Duration::from_secs(10),
            drain: Duration::from_secs(3),
        }
    }
}

/// Serves routes at a door until `shutdown`, then drains, then closes what is still open.
///
/// # Errors
/// When tonic gives up on the incoming connections.
pub async fn serve_grpc(
    listener: TcpListener,
    tls: TlsSource,
    door: Door,
    routes: Routes,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    // `stop` ends accepting and asks tonic to drain; `kill` ends what outstays that.
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let _kill_on_return = kill.clone().drop_guard();
    let (ready, incoming) = mpsc::channel::<Conn>(16);
    let name = door.name;
    let acceptor = accept::Acceptor::new(door, tls, limits, kill.clone());
    let accepting = tokio::spawn(acceptor.run(listener, ready, stop.clone()));

    let incoming = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
    let outcome = serve_admitted(name, incoming, routes, limits, stop.clone(), shutdown).await;
    stop.cancel();
    if let Err(error) = accepting.await {
        tracing::error!(door = name, %error, "the accept loop failed");
    }
    outcome
}

/// Serves routes to connections whose identities are known, until `shutdown`, then drains. `stop` is
/// cancelled then, and ends the serving when it is cancelled from outside. Where the connections come
/// from is up to the caller: [`serve_grpc`] takes them from TLS, a simulation from its own network.
///
/// # Errors
/// When tonic gives up on the incoming connections.
pub async fn serve_admitted<C>(
    name: &'static str,
    incoming: impl Stream<Item = std::io::Result<C>> + Send,
    routes: Routes,
    limits: Limits,
    stop: CancellationToken,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected<ConnectInfo = Identity> + Unpin + Send + 'static,
{
    let server = Server::builder()
        .max_concurrent_streams(limits.streams)
        .concurrency_limit_per_connection(limits.requests)
        .load_shed(true)
        .http2_max_header_list_size(limits.header_bytes)
        .http2_keepalive_interval(Some(limits.keepalive))
        .http2_keepalive_timeout(Some(limits.keepalive))
        .add_routes(identity::stamp(routes))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let mut server = Box::pin(server);
    tokio::select! {
        outcome = &mut server => outcome,
        () = shutdown => {
            stop.cancel();
            tokio::time::timeout(limits.drain, server).await.unwrap_or_else(|_| {
                tracing::info!(door = name, "calls were still open after the drain time; closing");
                Ok(())
            })
        }
    }
}
