//! The peer: three etcd processes on the same disk, with the same mutual TLS, written to over the
//! same transport.
//!
//! The two messages a put needs are declared here, by their numbers in etcd's `rpc.proto`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use medic_node::security::Unit;
use tonic::{
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use super::{NODES, PATIENCE, PAYLOAD_BYTES};
use crate::harness::{Cluster, Process, free_ports};

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`; nothing in it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// A connection that puts.
#[derive(Clone, Debug)]
pub(super) struct Put(Channel);

impl Put {
    /// One acknowledged put of a client's own key.
    pub(super) async fn put(&self, client: usize) -> Result<(), tonic::Status> {
        let request = PutRequest {
            key: format!("bench-{client}").into_bytes(),
            value: vec![b'x'; PAYLOAD_BYTES],
        };
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        let ready = grpc.ready().await;
        ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
        grpc.unary(tonic::Request::new(request), path, codec).await.map(|_| ())
    }
}

/// Three processes. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Etcd {
    version: String,
    members: Vec<Member>,
    material: medic_node::security::Material,
}

#[derive(Debug)]
struct Member {
    process: Process,
    client: u16,
    metrics: u16,
}

impl Etcd {
    /// Describes the processes; `None` when there is no such binary. The certificates are those of
    /// `cluster`, the data lies beside its data.
    pub(super) async fn prepare(binary: &Path, cluster: &Cluster) -> anyhow::Result<Option<Self>> {
        let asked = tokio::process::Command::new(binary).arg("--version").output().await;
        let Ok(asked) = asked else { return Ok(None) };
        let said = String::from_utf8_lossy(&asked.stdout);
        let version = said.lines().next().unwrap_or_default().trim();
        let version = version.trim_start_matches("etcd Version: ").to_owned();
        let dir = cluster.dir().join("etcd");
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let ports = free_ports(usize::try_from(NODES)? * 3)?;
        let places: Vec<(u64, &[u16])> = (1..=NODES).zip(ports.chunks(3)).collect();
        let everyone: Vec<String> = places
            .iter()
            .map(|(number, ports)| format!("n{number}=https://127.0.0.1:{}", ports[1]))
            .collect();
        let members = places
            .iter()
            .map(|(number, ports)| {
                let args = arguments(*number, ports, &everyone.join(","), &dir, cluster);
                let log = dir.join(format!("n{number}.log"));
                let process = Process::new(&format!("etcd-{number}"), binary, args, log);
                Member { process, client: ports[0], metrics: ports[2] }
            })
            .collect();
        Ok(Some(Self { version, members, material: cluster.material("admin")? }))
    }

    /// As it says itself.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        self.members.iter_mut().try_for_each(|member| member.process.start())
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.process.stop().await?;
        }
        Ok(())
    }

    /// Position of the leader among the members.
    pub(super) async fn wait_for_leader(&self) -> anyhow::Result<usize> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for (position, member) in self.members.iter().enumerate() {
                let url = format!("http://127.0.0.1:{}/metrics", member.metrics);
                let Ok(response) = http.get(url).send().await else { continue };
                let text = response.text().await.unwrap_or_default();
                if text.lines().any(|line| line == "etcd_server_is_leader 1") {
                    return Ok(position);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let logs: Vec<String> =
            self.members.iter().map(|m| m.process.log().display().to_string()).collect();
        bail!("etcd has no leader after {PATIENCE:?}; see {}", logs.join(", "))
    }

    /// A connection of its own to a member.
    pub(super) async fn connect(&self, member: usize) -> anyhow::Result<Put> {
        let port = self.members.get(member).context("no such member")?.client;
        let channel = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?
            .tls_config(self.material.tonic_client("localhost"))?
            .connect()
            .await
            .with_context(|| format!("connecting to etcd on port {port}"))?;
        Ok(Put(channel))
    }
}

/// Defaults of etcd, but for where it listens, who may come in, and what it logs.
fn arguments(
    number: u64,
    ports: &[u16],
    everyone: &str,
    dir: &Path,
    cluster: &Cluster,
) -> Vec<String> {
    let files = cluster.tls_files(Unit::Nodes, &format!("node-{number}"));
    let shown = |path: &PathBuf| path.display().to_string();
    let url = |port: u16| format!("https://127.0.0.1:{port}");
    let mut args: Vec<String> = [
        "--client-cert-auth",
        "--peer-client-cert-auth",
        "--enable-grpc-gateway=false",
        "--logger=zap",
        "--log-level=warn",
        "--initial-cluster-state=new",
    ]
    .map(str::to_owned)
    .to_vec();
    let valued = [
        ("name", format!("n{number}")),
        ("data-dir", shown(&dir.join(format!("n{number}")))),
        ("listen-client-urls", url(ports[0])),
        ("advertise-client-urls", url(ports[0])),
        ("listen-peer-urls", url(ports[1])),
        ("initial-advertise-peer-urls", url(ports[1])),
        ("initial-cluster", everyone.to_owned()),
        ("listen-metrics-urls", format!("http://127.0.0.1:{}", ports[2])),
        ("trusted-ca-file", shown(&files.ca)),
        ("cert-file", shown(&files.cert)),
        ("key-file", shown(&files.key)),
        ("peer-trusted-ca-file", shown(&files.ca)),
        ("peer-cert-file", shown(&files.cert)),
        ("peer-key-file", shown(&files.key)),
    ];
    args.extend(valued.into_iter().map(|(name, value)| format!("--{name}={value}")));
    args
}
