//! A client of the control API with one user's certificate, on whichever node answers first.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use medic_proto::v1 as pb;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Time to connect to one node: dead nodes on loopback refuse at once, paused ones do not.
const CONNECT_PATIENCE: Duration = Duration::from_millis(700);
/// Time one call may take.
const CALL_PATIENCE: Duration = Duration::from_secs(5);

/// A connected client.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident => $module:ident :: $client:ident),* $(,)?) => {
        impl Client {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&mut self) -> pb::$module::$client<Channel> {
                pb::$module::$client::new(self.channel.clone())
            })*
        }
    };
}

services! {
    /// Incidents.
    incidents => incidents_client::IncidentsClient,
    /// Approvals.
    approvals => approvals_client::ApprovalsClient,
    /// Remediations.
    remediations => remediations_client::RemediationsClient,
    /// Manifests.
    manifests => manifests_client::ManifestsClient,
    /// Freezes.
    safety => safety_client::SafetyClient,
    /// Membership and leadership.
    cluster => cluster_client::ClusterClient,
    /// The audit log.
    audit => audit_client::AuditClient,
    /// Events as they happen.
    watch => watch_client::WatchClient,
}

impl Client {
    /// Connects to one address (`host:port`) with any identity, a wrong one included.
    ///
    /// # Errors
    /// When there is no connection; gives what TLS or the system said.
    pub async fn connect(
        address: &str,
        material: &medic_node::security::Material,
    ) -> anyhow::Result<Self> {
        dial(address, material.tonic_client("localhost")).await
    }

    /// Connects to one address without a certificate, trusting the authority in this PEM.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_anonymously(address: &str, authority: &str) -> anyhow::Result<Self> {
        let trusted = tonic::transport::Certificate::from_pem(authority);
        let tls = ClientTlsConfig::new().domain_name("localhost").ca_certificate(trusted);
        dial(address, tls).await
    }
}

async fn dial(address: &str, tls: ClientTlsConfig) -> anyhow::Result<Client> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .connect_timeout(CONNECT_PATIENCE)
        .timeout(CALL_PATIENCE);
    match tokio::time::timeout(CONNECT_PATIENCE, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(Client { channel }),
        Ok(Err(error)) => anyhow::bail!("{address}: {error:?}"),
        Err(_) => anyhow::bail!("{address}: no answer in {CONNECT_PATIENCE:?}"),
    }
}

/// API addresses by node; clones share them, for nodes come and go.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(Arc<RwLock<BTreeMap<u64, String>>>);

impl Addresses {
    pub(super) fn all(&self) -> BTreeMap<u64, String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, node: u64, address: Option<String>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match address {
            Some(address) => known.insert(node, address),
            None => known.remove(&node),
        };
    }
}

/// Connects to any node of a cluster with one user's certificate.
#[derive(Clone, Debug)]
pub struct Dialer {
    addresses: Addresses,
    material: Arc<medic_node::security::Material>,
}

impl Dialer {
    pub(super) fn new(addresses: Addresses, material: medic_node::security::Material) -> Self {
        Self { addresses, material: Arc::new(material) }
    }

    /// The nodes there are now.
    #[must_use]
    pub fn nodes(&self) -> Vec<u64> {
        self.addresses.all().into_keys().collect()
    }

    /// A client of one node.
    ///
    /// # Errors
    /// When the node is unknown or does not answer.
    pub async fn dial(&self, node: u64) -> anyhow::Result<Client> {
        let Some(address) = self.addresses.all().remove(&node) else {
            anyhow::bail!("there is no node-{node}");
        };
        connect(&[address], &self.material).await
    }
}

/// Connects to the first of the nodes (`host:port`) that answers.
pub(super) async fn connect(
    addresses: &[String],
    material: &medic_node::security::Material,
) -> anyhow::Result<Client> {
    let mut last = None;
    for address in addresses {
        match Client::connect(address, material).await {
            Ok(client) => return Ok(client),
            Err(error) => last = Some(error),
        }
    }
    let last = last.unwrap_or_else(|| anyhow::anyhow!("there are no addresses"));
    Err(last.context("no node answers; the last"))
}
