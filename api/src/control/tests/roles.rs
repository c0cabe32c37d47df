//! Every role against every RPC, both generated: roles from the law, RPCs from the descriptors.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes};
use medic_state::rbac::{BUILTIN_ROLES, builtin_role};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use crate::{
    client::ClientConfig,
    control::{Access, PERMISSIONS},
    testing::{Node, Subject},
};

fn rpcs(descriptors: &[u8]) -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(descriptors).unwrap();
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths
}

/// Fails when an RPC is added without saying who may call it, and when one goes and its entry stays.
#[test]
fn every_rpc_has_exactly_one_entry() {
    let own = rpcs(medic_proto::DESCRIPTORS);
    let health = rpcs(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let reflection = rpcs(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
    // Peers have a port of their own.
    let served: BTreeSet<String> = own
        .into_iter()
        .filter(|path| !path.starts_with("/medic.peer."))
        .chain(health)
        .chain(reflection)
        .collect();
    let listed: BTreeSet<String> = PERMISSIONS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(PERMISSIONS.len(), listed.len(), "an RPC has two entries");
    assert_eq!(served, listed);
}

/// What a viewer may call, by hand: the table must not open more by accident.
#[test]
fn a_viewer_only_reads() {
    let reads = ["List", "Get", "Explain", "ListPending", "ListFreezes", "Status", "ListAgents"];
    let reads: BTreeSet<&str> =
        reads.into_iter().chain(["ListShards", "Events", "Score", "ListWeights"]).collect();
    for (path, access) in PERMISSIONS.iter().filter(|(path, _)| path.starts_with("/medic.v1.")) {
        let name = path.rsplit('/').next().unwrap();
        let open = opens("viewer", *access);
        let expected = reads.contains(name) && !path.starts_with("/medic.v1.Audit/");
        assert_eq!(open, expected, "{path}");
    }
}

fn opens(role: &str, access: Access) -> bool {
    let permissions = builtin_role(role).unwrap_or_default();
    match access {
        Access::Tenant(any) => any.iter().any(|one| permissions.contains(one)),
        Access::Everywhere(one) => permissions.contains(&one),
        Access::Agents => false,
        Access::NotAgents => true,
    }
}

#[tokio::test]
async fn each_role_reaches_what_the_table_says_and_nothing_else() {
    let node = Node::start().await;
    for role in BUILTIN_ROLES.into_iter().chain(["nobody"]) {
        let channel = channel(&node.config(&Subject::new(role, "users"))).await;
        for (path, access) in PERMISSIONS {
            let code = call(&channel, path).await;
            let denied = code == Code::PermissionDenied;
            assert_eq!(denied, !opens(role, *access), "{role} at {path}: {code:?}");
        }
    }
}

#[tokio::test]
async fn a_role_in_one_tenant_opens_nothing_of_the_cluster() {
    let node = Node::start().await;
    let channel = channel(&node.config(&Subject::new("blue", "users"))).await;
    for (path, access) in PERMISSIONS {
        if let Access::Everywhere(_) = access {
            assert_eq!(call(&channel, path).await, Code::PermissionDenied, "{path}");
        }
    }
}

#[tokio::test]
async fn agents_and_nodes_open_nothing_of_the_control_api() {
    let node = Node::start().await;
    for (name, unit) in [("host-1", "agents"), ("node-2", "nodes")] {
        let channel = channel(&node.config(&Subject::new(name, unit))).await;
        for (path, access) in PERMISSIONS {
            let expected = match access {
                Access::Tenant(_) | Access::Everywhere(_) => true,
                Access::NotAgents => unit == "agents",
                Access::Agents => unit == "nodes",
            };
            let denied = call(&channel, path).await == Code::PermissionDenied;
            assert_eq!(denied, expected, "{unit} at {path}");
        }
    }
}

#[tokio::test]
async fn what_is_not_in_the_table_is_denied_even_to_an_admin() {
    let node = Node::start().await;
    let channel = channel(&node.config(&Subject::new("root", "users"))).await;
    for path in ["/medic.v1.Incidents/Forget", "/medic.peer.v1.Peer/Append", "/a/b"] {
        assert_eq!(call(&channel, path).await, Code::PermissionDenied, "{path}");
    }
}

async fn channel(config: &ClientConfig) -> Channel {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&config.ca_pem))
        .identity(Identity::from_pem(&config.cert_pem, &config.key_pem));
    let uri = format!("https://{}", config.endpoints[0]);
    Channel::from_shared(uri).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
}

/// Calls with an empty message, whatever the RPC; gives the first code it answers with. A stream
/// that says nothing at once counts as opened.
async fn call(channel: &Channel, path: &'static str) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http_path(path);
    let answer = grpc.server_streaming(Request::new(Bytes::new()), path, RawCodec).await;
    match answer {
        Err(status) => status.code(),
        Ok(response) => {
            let mut stream = response.into_inner();
            let first =
                tokio::time::timeout(std::time::Duration::from_millis(50), stream.message());
            match first.await {
                Ok(Err(status)) => status.code(),
                Ok(Ok(_)) | Err(_) => Code::Ok,
            }
        }
    }
}

fn http_path(path: &'static str) -> axum::http::uri::PathAndQuery {
    axum::http::uri::PathAndQuery::from_static(path)
}

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buf.remaining();
        Ok(Some(buf.copy_to_bytes(length)))
    }
}
