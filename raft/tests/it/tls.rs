//! Peers over mutual TLS: the certificate decides who is who.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use medic_raft::{Config, Consensus, Env, IdentityCheck, Ledger, TlsConnector};
use medic_state::NodeId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Extensions, Status,
    transport::{
        Certificate, ClientTlsConfig, Identity, Server, ServerTlsConfig,
        server::{TcpConnectInfo, TlsConnectInfo},
    },
};

use crate::harness::{PATIENCE, registration};

struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    /// Encoded certificate, and PEM of certificate and key.
    nodes: BTreeMap<NodeId, (Vec<u8>, String, String)>,
}

fn pki(nodes: u64) -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let nodes = (1..=nodes).map(|node| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let pem = (certificate.der().to_vec(), certificate.pem(), key.serialize_pem());
        (NodeId(node), pem)
    });
    let nodes = nodes.collect();
    Pki { authority, nodes }
}

impl Pki {
    fn identity(&self, node: NodeId) -> Identity {
        let (_, certificate, key) = &self.nodes[&node];
        Identity::from_pem(certificate, key)
    }

    fn authority(&self) -> Certificate {
        Certificate::from_pem(self.authority.pem())
    }

    fn connector(&self, node: NodeId) -> Arc<TlsConnector> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(self.authority())
            .identity(self.identity(node))
            .domain_name("localhost");
        let config = Arc::new(move |_: NodeId, _: &str| Ok(tls.clone()));
        Arc::new(TlsConnector { connect_deadline: Duration::from_secs(1), config })
    }

    fn check(&self) -> Arc<IdentityCheck> {
        let known: BTreeMap<Vec<u8>, NodeId> =
            self.nodes.iter().map(|(node, (der, ..))| (der.clone(), *node)).collect();
        Arc::new(move |extensions: &Extensions| {
            let found = extensions
                .get::<TlsConnectInfo<TcpConnectInfo>>()
                .and_then(TlsConnectInfo::peer_certs)
                .and_then(|chain| known.get(chain[0].as_ref()).copied());
            found.map(Some).ok_or_else(|| Status::unauthenticated("no node's certificate"))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_certificate_is_not_believed() {
    let pki = pki(3);
    let mut listeners = BTreeMap::new();
    for node in 1..=3 {
        listeners.insert(NodeId(node), TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let members: BTreeMap<NodeId, String> = listeners
        .iter()
        .map(|(node, listener)| (*node, listener.local_addr().unwrap().to_string()))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = BTreeMap::new();
    for (node, listener) in listeners {
        let config = Config::new(node, "test", dir.path().join(node.to_string()), members.clone());
        // The third shows the certificate of the second.
        let shows = if node.0 == 3 { NodeId(2) } else { node };
        let raft = Consensus::start(config, Env::system(), pki.connector(shows)).await.unwrap();
        let tls =
            ServerTlsConfig::new().identity(pki.identity(node)).client_ca_root(pki.authority());
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_routes(raft.peer_routes(pki.check()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        nodes.insert(node, (raft, tokio::spawn(server)));
    }
    let first = &nodes[&NodeId(1)].0;
    let mut leadership = first.leadership();
    let leader = timeout(PATIENCE, leadership.wait_for(|now| now.leader.is_some()));
    let leader = leader.await.unwrap().unwrap().leader.unwrap();
    assert_ne!(leader, NodeId(3), "nobody believes its votes");
    let entry = registration(first, 10, "a:1");
    let committed = first.propose(entry).await.unwrap();
    // It is sent the log like any follower, but what it asks for is refused.
    let third = &nodes[&NodeId(3)].0;
    let mut applied = third.applied();
    timeout(PATIENCE, applied.wait_for(|now| *now >= committed.index)).await.unwrap().unwrap();
    let entry = registration(third, 11, "a:1");
    let asked = timeout(Duration::from_secs(2), third.propose(entry)).await;
    assert!(asked.is_err() || asked.unwrap().is_err());
    for (raft, server) in nodes.into_values() {
        server.abort();
        raft.shutdown().await;
    }
}
