//! Connections over the simulated network, in place of TLS over a real one: whoever dials says first
//! who it is, and is believed. What travels then is what travels in production.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use medic_api::door::Identity;
use medic_node::action::agent::link::Dial;
use medic_raft::{ConnectError, PeerConnector, network::peer_endpoint};
use medic_state::{
    NodeId, Timestamp,
    rbac::{Principal, PrincipalKind},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// The cluster of every simulation.
pub(super) const CLUSTER: &str = "simulated";
/// Port of the peers.
pub(super) const PEER: u16 = 7_000;
/// Port of the control API and the fleet service.
pub(super) const API: u16 = 7_001;
/// Connecting takes at most this long; a lost packet is not sent again.
const CONNECT: Duration = Duration::from_secs(1);
/// Saying who one is takes at most this long.
const GREETING: Duration = Duration::from_secs(2);

/// Name of a node's host.
pub(super) fn host_of(node: NodeId) -> String {
    node.to_string()
}

/// Address of a node's peer port.
pub(super) fn peer_addr(node: NodeId) -> String {
    format!("{}:{PEER}", host_of(node))
}

/// Address of a node's control port.
pub(super) fn api_addr(node: NodeId) -> String {
    format!("{}:{API}", host_of(node))
}

async fn dial(uri: Uri, me: Principal) -> io::Result<TokioIo<TcpStream>> {
    let refused = || io::Error::from(io::ErrorKind::AddrNotAvailable);
    let host = uri.host().ok_or_else(refused)?.to_owned();
    let port = uri.port_u16().ok_or_else(refused)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let mut stream = timeout(CONNECT, TcpStream::connect((host, port))).await.map_err(late)??;
    let kind = match me.kind {
        PrincipalKind::User => b'u',
        PrincipalKind::Node => b'n',
        PrincipalKind::Agent => b'a',
    };
    let length = u8::try_from(me.name.len()).map_err(io::Error::other)?;
    let mut greeting = vec![kind, length];
    greeting.extend_from_slice(me.name.as_bytes());
    stream.write_all(&greeting).await?;
    Ok(TokioIo::new(stream))
}

fn lazily(endpoint: &Endpoint, me: Principal) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(move |uri| dial(uri, me.clone())))
}

/// A channel of a person to a node's control port.
pub(super) fn channel(node: NodeId, user: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", api_addr(node))).ok()?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    Some(lazily(&endpoint, Principal::user(user)))
}

/// Dials as somebody: as a node to its peers, as an agent to the nodes.
#[derive(Clone, Debug)]
pub(super) struct Dialler(pub(super) Principal);

#[async_trait]
impl PeerConnector for Dialler {
    async fn connect(&self, node: NodeId, addr: &str) -> Result<Channel, ConnectError> {
        let endpoint = peer_endpoint(format!("http://{addr}"), CONNECT)
            .map_err(|reason| ConnectError { node, addr: addr.to_owned(), reason })?;
        Ok(lazily(&endpoint, self.0.clone()))
    }
}

#[async_trait]
impl Dial for Dialler {
    async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        let me = self.0.clone();
        let connector = service_fn(move |uri| dial(uri, me.clone()));
        endpoint.connect_with_connector(connector).await
    }
}

/// A connection whose other side has said who it is.
pub(super) struct Conn {
    stream: TcpStream,
    identity: Identity,
}

/// Everybody who dials a port, once they have said who they are.
pub(super) async fn listen(port: u16) -> io::Result<ReceiverStream<io::Result<Conn>>> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let (ready, incoming) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ready = ready.clone();
            tokio::spawn(async move {
                if let Ok(Ok(conn)) = timeout(GREETING, greeted(stream)).await {
                    // The door may have closed meanwhile.
                    drop(ready.send(Ok(conn)).await);
                }
            });
        }
    });
    Ok(ReceiverStream::new(incoming))
}

async fn greeted(mut stream: TcpStream) -> io::Result<Conn> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let mut name = vec![0; usize::from(head[1])];
    stream.read_exact(&mut name).await?;
    let kind = match head[0] {
        b'u' => PrincipalKind::User,
        b'n' => PrincipalKind::Node,
        b'a' => PrincipalKind::Agent,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let name = String::from_utf8(name).map_err(io::Error::other)?;
    let identity = Identity {
        principal: Principal { kind, name },
        cluster: CLUSTER.to_owned(),
        serial: String::new(),
        not_after: Timestamp(u64::MAX),
    };
    Ok(Conn { stream, identity })
}

impl Connected for Conn {
    type ConnectInfo = Identity;

    fn connect_info(&self) -> Identity {
        self.identity.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
