//! What the tests of the doors share: an authority, a node with the real law behind real TLS.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use medic_proto::v1 as pb;
use medic_raft::{ClusterAdmin, ClusterStatus, Env, Ledger, LedgerError, LedgerExt, LocalLedger};
use medic_state::{
    BootId, Command, NodeId, State, TraceId,
    command::{ApplyManifest, AssignShards, RegisterNode, ReportSymptom},
    manifest::Manifest,
    rbac::Principal,
    symptom::{Severity, Symptom, Target},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    client::{Client, ClientConfig},
    control,
    door::{Door, Limits, TlsSource, serve_grpc},
    manifest::parse_bundle,
};

pub(crate) const CLUSTER: &str = "test";

/// A certificate authority.
pub(crate) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) ca_pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// What a certificate says.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) expired: bool,
}

impl<'a> Subject<'a> {
    pub(crate) const fn new(name: &'a str, unit: &'a str) -> Self {
        Self { name, unit, cluster: CLUSTER, expired: false }
    }
}

/// Parameters that name their subject so, and in no other way.
fn named(mut params: CertificateParams, says: &[(DnType, &str)]) -> CertificateParams {
    params.distinguished_name = DistinguishedName::new();
    for (kind, text) in says {
        params.distinguished_name.push(kind.clone(), *text);
    }
    params
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params =
            named(CertificateParams::default(), &[(DnType::CommonName, "test authority")]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), ca_pem }
    }

    pub(crate) fn issue(&self, subject: &Subject<'_>) -> Issued {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let says = [
            (DnType::CommonName, subject.name),
            (DnType::OrganizationName, subject.cluster),
            (DnType::OrganizationalUnitName, subject.unit),
        ];
        let mut params = named(CertificateParams::new(names).unwrap(), &says);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        if subject.expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self, issued: &Issued) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider.clone())
                .build()
                .unwrap();
        let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

/// Remembers what was asked; membership itself is consensus', and tested there.
#[derive(Debug, Default)]
pub(crate) struct Admin(pub(crate) std::sync::Mutex<Vec<String>>);

impl Admin {
    fn note(&self, what: String) -> Result<(), LedgerError> {
        self.0.lock().unwrap().push(what);
        Ok(())
    }
}

#[async_trait]
impl ClusterAdmin for Admin {
    fn status(&self) -> ClusterStatus {
        ClusterStatus { cluster_id: CLUSTER.to_owned(), ..ClusterStatus::default() }
    }
    async fn add_learner(&self, node: NodeId, addr: String) -> Result<(), LedgerError> {
        self.note(format!("add {node} {addr}"))
    }
    async fn promote(&self, node: NodeId) -> Result<(), LedgerError> {
        if node == NodeId(7) {
            return Err(LedgerError::Refused(format!("{node} is not a member of the cluster")));
        }
        self.note(format!("promote {node}"))
    }
    async fn remove(&self, node: NodeId) -> Result<(), LedgerError> {
        self.note(format!("remove {node}"))
    }
    async fn transfer(&self, to: NodeId) -> Result<(), LedgerError> {
        self.note(format!("transfer {to}"))
    }
}

/// One node: the law behind a control port.
pub(crate) struct Node {
    pub(crate) pki: Pki,
    pub(crate) ledger: Arc<LocalLedger>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) addr: SocketAddr,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) served: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default(), Door::control(CLUSTER)).await
    }

    pub(crate) async fn with(limits: Limits, door: Door) -> Self {
        let pki = Pki::new();
        let tls = pki.server(&pki.issue(&Subject::new("node-1", "nodes")));
        let tls: TlsSource = Arc::new(move || Arc::clone(&tls));
        Self::with_tls(limits, door, pki, tls).await
    }

    pub(crate) async fn with_tls(limits: Limits, door: Door, pki: Pki, tls: TlsSource) -> Self {
        let ledger = LocalLedger::new(NodeId(1), BootId(1), Env::system());
        let admin = Arc::new(Admin::default());
        let node = Principal::node(NodeId(1));
        for binding in [BOOTSTRAP, ROLES].iter().flat_map(|text| parse_bundle(text).unwrap()) {
            let who = if binding.metadata.name == "root" {
                node.clone()
            } else {
                Principal::user("root")
            };
            declare(&ledger, who, binding).await;
        }
        let control: Arc<dyn ClusterAdmin> = admin.clone();
        let views =
            control::Views { foresight: Arc::new(TwoTenants), health: Arc::new(TwoTenants) };
        let routes = control::routes(ledger.clone(), control, None, views).await.unwrap().routes;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let served = tokio::spawn(serve_grpc(listener, tls, door, routes, limits, shutdown));
        Self { pki, ledger, admin, addr, stop: Some(stop), served }
    }

    pub(crate) fn config(&self, subject: &Subject<'_>) -> ClientConfig {
        self.config_of(&self.pki.issue(subject))
    }

    pub(crate) fn config_of(&self, issued: &Issued) -> ClientConfig {
        ClientConfig {
            endpoints: vec![self.addr.to_string()],
            ca_pem: self.pki.ca_pem.clone().into_bytes(),
            cert_pem: issued.cert.clone().into_bytes(),
            key_pem: issued.key.clone().into_bytes(),
            server_name: None,
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(10),
        }
    }

    pub(crate) async fn user(&self, name: &str) -> Client {
        Client::lazy(&self.config(&Subject::new(name, "users"))).unwrap()
    }

    /// A service that is down: an open incident. Gives its id.
    /// The node says what it understands.
    pub(crate) async fn register(&self, understands: u32) {
        let register = RegisterNode {
            node: NodeId(1),
            region: String::new(),
            api_addr: self.addr.to_string(),
            boot: BootId(1),
            version: "0".to_owned(),
            understands: Some(understands),
            weight: None,
        };
        self.propose(&Principal::node(NodeId(1)), Command::RegisterNode(register)).await;
    }

    pub(crate) async fn incident(&self, tenant: &str, service: &str) -> String {
        let node = Principal::node(NodeId(1));
        let text = SERVICE.replace("TENANT", tenant).replace("NAME", service);
        for manifest in parse_bundle(&text).unwrap() {
            declare(&self.ledger, Principal::user("root"), manifest).await;
        }
        let target = Target {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            instance: format!("{service}-1"),
        };
        let shard = State::shard_of(&target);
        self.register(medic_state::CLUSTER_VERSION).await;
        if self.ledger.read(|state| state.shards.get(&shard).and_then(|s| s.owner)).is_none() {
            let moves = [(shard, NodeId(1))].into();
            self.propose(&node, Command::AssignShards(AssignShards { moves })).await;
        }
        let epoch = self.ledger.read(|state| state.shards[&shard].epoch);
        let symptom = Symptom {
            target,
            kind: "down".to_owned(),
            severity: Severity::Critical,
            summary: format!("{service} does not answer"),
            p_value: medic_state::Ppm(10),
            signals: Vec::new(),
            since: self.ledger.env().clock.now(),
            time_to_event: None,
            labels: [].into(),
            source: "test".to_owned(),
        };
        let report = ReportSymptom { shard, epoch, symptom };
        match self.propose(&node, Command::ReportSymptom(report)).await {
            medic_state::Reply::Incident(id) => id.to_string(),
            other => panic!("no incident: {other:?}"),
        }
    }

    pub(crate) async fn propose(&self, who: &Principal, command: Command) -> medic_state::Reply {
        let entry = self.ledger.entry_for(who.clone(), None, command);
        self.ledger.propose(entry).await.unwrap().answer.unwrap()
    }
}

async fn declare(ledger: &LocalLedger, who: Principal, manifest: Manifest) {
    let command = Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: None }));
    let mut entry = ledger.entry_for(who, None, command);
    entry.trace = TraceId::default();
    ledger.propose(entry).await.unwrap().answer.unwrap();
}

/// The first binding, by the node itself.
const BOOTSTRAP: &str = "
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: root, tenant: '*'}
spec: {role: admin, subjects: [{user: root}]}
";

/// One user per built-in role in tenant `*`, and a viewer of tenant `blue` alone.
const ROLES: &str = "
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: viewer, tenant: '*'}
spec: {role: viewer, subjects: [{user: viewer}]}
---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: responder, tenant: '*'}
spec: {role: responder, subjects: [{user: responder}]}
---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: approver, tenant: '*'}
spec: {role: approver, subjects: [{user: approver}]}
---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: operator, tenant: '*'}
spec: {role: operator, subjects: [{user: operator}]}
---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: admin, tenant: '*'}
spec: {role: admin, subjects: [{user: admin}]}
---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: blue, tenant: blue}
spec: {role: operator, subjects: [{user: blue}]}
";

/// A service with one instance that nobody probes.
pub(crate) const SERVICE: &str = "
apiVersion: medic/v1
kind: Service
metadata: {name: NAME, tenant: TENANT, labels: {team: core}}
spec:
  instances: [{name: NAME-1, host: 127.0.0.1}]
";

/// Foresees one thing of each kind in two tenants, and does not know what `node-3` foresees.
struct TwoTenants;

impl control::Foresight for TwoTenants {
    fn foreseen(&self) -> control::Foreseen {
        let kinds = (1..).map_while(|kind| pb::PredictionKind::try_from(kind).ok());
        let one = |tenant: &str, kind: pb::PredictionKind| pb::Prediction {
            target: Some(pb::Target {
                tenant: tenant.to_owned(),
                service: "web".to_owned(),
                instance: "web-1".to_owned(),
            }),
            kind: kind.into(),
            subject: "memory".to_owned(),
            probability: 0.2 * f64::from(i32::from(kind)),
            node: "node-2".to_owned(),
            ..pb::Prediction::default()
        };
        let predictions = kinds.flat_map(|kind| [one("default", kind), one("blue", kind)]);
        control::Foreseen { predictions: predictions.collect(), gaps: self.gaps() }
    }

    fn gaps(&self) -> Vec<pb::Gap> {
        let reason = "it was last heard from 60 s ago".to_owned();
        vec![pb::Gap { node: "node-3".to_owned(), shards: vec![7], reason }]
    }

    fn scores(&self, sees: &dyn Fn(&str) -> bool) -> Vec<pb::PredictionScore> {
        let count = ["default", "blue"].into_iter().filter(|tenant| sees(tenant)).count() as u64;
        vec![pb::PredictionScore { count, ..pb::PredictionScore::default() }]
    }
}

/// One service of two instances in each of two tenants; nothing is known of the second.
impl control::HealthView for TwoTenants {
    fn healths(&self) -> control::Healths {
        let about = |tenant: &str, instance: &str| {
            let [tenant, service, instance] = [tenant, "web", instance].map(str::to_owned);
            Some(pb::Target { tenant, service, instance })
        };
        let monitors = (1..).map_while(|monitor| pb::Monitor::try_from(monitor).ok());
        let of = |(monitor, status): (pb::Monitor, pb::HealthStatus)| pb::MonitorHealth {
            monitor: monitor.into(),
            status: status.into(),
            ..pb::MonitorHealth::default()
        };
        let [good, slow] = [pb::HealthStatus::Healthy, pb::HealthStatus::Degraded];
        let status = |one| if one == pb::Monitor::Performance { slow } else { good };
        let monitors: Vec<_> = monitors.map(|one| of((one, status(one)))).collect();
        let known = |tenant| pb::InstanceHealth {
            target: about(tenant, "web-1"),
            status: slow.into(),
            monitors: monitors.clone(),
            node: "node-2".to_owned(),
            ..pb::InstanceHealth::default()
        };
        let unknown = |tenant| pb::InstanceHealth {
            target: about(tenant, "web-2"),
            status: pb::HealthStatus::Error.into(),
            unknown: "it was last heard from 60 s ago".to_owned(),
            ..pb::InstanceHealth::default()
        };
        let service = |tenant| pb::ServiceHealth {
            target: about(tenant, ""),
            instances: 2,
            ..pb::ServiceHealth::default()
        };
        let tenants = ["default", "blue"];
        control::Healths {
            instances: tenants.iter().flat_map(|one| [unknown(one), known(one)]).collect(),
            services: tenants.map(service).into(),
            gaps: control::Foresight::gaps(self),
        }
    }
}
