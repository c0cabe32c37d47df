//! A client of the control API with one user's certificate, on whichever node answers first.

use std::time::Duration;

use medic_proto::v1 as pb;
use tonic::transport::{Channel, Endpoint};

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
}

/// Connects to the first of the nodes (`host:port`) that answers.
pub(super) async fn connect(
    addresses: &[String],
    material: &medic_node::security::Material,
) -> anyhow::Result<Client> {
    let mut last = None;
    for address in addresses {
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(material.tonic_client("localhost"))?
            .connect_timeout(CONNECT_PATIENCE)
            .timeout(CALL_PATIENCE);
        match tokio::time::timeout(CONNECT_PATIENCE, endpoint.connect()).await {
            Ok(Ok(channel)) => return Ok(Client { channel }),
            Ok(Err(error)) => last = Some(format!("{address}: {error:?}")),
            Err(_) => last = Some(format!("{address}: no answer in {CONNECT_PATIENCE:?}")),
        }
    }
    anyhow::bail!("no node answers; the last: {}", last.unwrap_or_default())
}
