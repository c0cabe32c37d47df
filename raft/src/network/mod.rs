//! Peers over tonic.
//!
//! ```text
//!   openraft ─► Link (one per peer and use) ─► Pool ─► PeerConnector ─► the peer's PeerService ─► openraft
//! ```
//!
//! Every call has a deadline and carries who calls, whom, in which cluster and in which incarnation
//! ([`Tag`]); the server refuses what does not fit. Absent on purpose: TLS and the meaning of
//! certificates, which are injected.

mod client;
mod connect;
mod incarnations;
mod server;

use medic_state::{BootId, NodeId};
use tonic::{
    Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::Interceptor,
};

pub(crate) use self::{
    client::{Caller, Links, PeerClient, describe},
    connect::{Lane, Pool},
    server::{PeerService, failure_in},
};
pub use self::{
    connect::{
        ConnectError, PeerConnector, PlainConnector, TlsConnector, TlsForPeer, peer_endpoint,
    },
    server::{IdentityCheck, trust_metadata},
};

const CLUSTER: &str = "medic-cluster";
const FROM: &str = "medic-from";
const TO: &str = "medic-to";
const BOOT: &str = "medic-boot";
const KNOWN: &str = "medic-known-boot";

/// What every call between peers carries.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    cluster: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
    boot: MetadataValue<Ascii>,
    known: Option<MetadataValue<Ascii>>,
}

impl Tag {
    /// The cluster id may hold any text: it travels percent-encoded. `known` is the incarnation of
    /// the callee that has registered, as far as the caller has applied.
    pub(crate) fn new(
        cluster: &str,
        from: NodeId,
        to: NodeId,
        boot: BootId,
        known: Option<BootId>,
    ) -> Self {
        let cluster = printable(cluster).parse();
        Self {
            cluster: cluster.unwrap_or_else(|_| MetadataValue::from_static("")),
            from: from.0.into(),
            to: to.0.into(),
            boot: boot.0.into(),
            known: known.map(|known| known.0.into()),
        }
    }
}

impl Interceptor for Tag {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        metadata.insert(BOOT, self.boot.clone());
        if let Some(known) = &self.known {
            metadata.insert(KNOWN, known.clone());
        }
        Ok(request)
    }
}

/// Printable ASCII as it is, everything else percent-encoded.
fn printable(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else if write!(out, "%{byte:02x}").is_err() {
            unreachable!("writing to a string");
        }
        out
    })
}

/// Who calls, as the metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) cluster: String,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) boot: BootId,
    /// The incarnation of this node that the caller knows to have registered.
    pub(crate) known: Option<BootId>,
}

impl Claim {
    fn read(metadata: &MetadataMap) -> Result<Self, Status> {
        let text = |key: &'static str| {
            metadata
                .get(key)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| Status::invalid_argument(format!("the call carries no `{key}`")))
        };
        let number = |key| {
            text(key)?
                .parse::<u64>()
                .map_err(|_| Status::invalid_argument(format!("`{key}` is not a number")))
        };
        Ok(Self {
            cluster: text(CLUSTER)?.to_owned(),
            from: NodeId(number(FROM)?),
            to: NodeId(number(TO)?),
            boot: BootId(number(BOOT)?),
            known: match metadata.contains_key(KNOWN) {
                true => Some(BootId(number(KNOWN)?)),
                false => None,
            },
        })
    }
}
