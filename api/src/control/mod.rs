//! The control API over any [`Ledger`]: the same answers on every node.
//!
//! ```text
//!   door (who) ─► gate (one table: may they at all?) ─► handler (may they here? what exactly?)
//!                                                         │ reads: ReadIndex, then the local state
//!                                                         └ writes: an entry with their principal
//!                                                           and request id ─► the law checks again
//! ```
//!
//! Invariant: a handler is reached only through the gate, and answers only about tenants in which
//! the caller holds what the table demands. Absent on purpose: knowledge of who leads; the ledger
//! forwards.

mod access;
mod approvals;
mod audit;
mod call;
mod cluster;
mod decisions;
mod detection;
mod errors;
mod health;
mod incidents;
mod manifests;
mod page;
mod predictions;
mod remediations;
mod safety;
#[cfg(test)]
mod tests;
mod watch;

use std::{sync::Arc, time::Duration};

use medic_proto::v1::{
    approvals_server::ApprovalsServer, audit_server::AuditServer, cluster_server::ClusterServer,
    decisions_server::DecisionsServer, detection_server::DetectionServer,
    health_server::HealthServer, incidents_server::IncidentsServer,
    manifests_server::ManifestsServer, predictions_server::PredictionsServer,
    remediations_server::RemediationsServer, safety_server::SafetyServer,
    watch_server::WatchServer,
};
use medic_raft::{ClusterAdmin, Ledger};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

pub use access::{Access, PERMISSIONS};
pub use errors::{CONSISTENCY, DOMAIN, INDEX, OUTCOME_UNKNOWN, REFUSAL, refusal_status};
pub use health::{HealthView, Healths, NoHealth};
pub use page::{PAGE_DEFAULT, PAGE_MAX};
pub use predictions::{Foreseen, Foresight, NoForesight};

use crate::fleet::FleetHub;

/// Largest request: a bundle of manifests and its envelope.
const DECODE_MAX: usize = 2 << 20;
/// Largest answer: a full page of the largest messages fits.
const ENCODE_MAX: usize = 32 << 20;
/// Time one call may take to its first answer; adding a node waits until it has caught up.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// What a node knows beside the law's state, from what nodes tell each other.
#[derive(Clone)]
pub struct Views {
    /// What is foreseen.
    pub foresight: Arc<dyn Foresight>,
    /// How instances do.
    pub health: Arc<dyn HealthView>,
}

/// For nodes that hear of nothing.
impl Default for Views {
    fn default() -> Self {
        Self { foresight: Arc::new(NoForesight), health: Arc::new(NoHealth) }
    }
}

/// The control API of one node.
#[derive(Clone)]
pub struct Control {
    ledger: Arc<dyn Ledger>,
    cluster: Arc<dyn ClusterAdmin>,
    views: Views,
    /// Places for watches.
    watches: Arc<Semaphore>,
}

impl Control {
    fn new(ledger: Arc<dyn Ledger>, cluster: Arc<dyn ClusterAdmin>, views: Views) -> Self {
        let watches = Arc::new(Semaphore::new(watch::WATCHES_MAX));
        Self { ledger, cluster, views, watches }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("node", &self.ledger.node()).finish_non_exhaustive()
    }
}

/// What the control port serves.
#[derive(Debug)]
pub struct ControlRoutes {
    /// For [`crate::door::serve_grpc`].
    pub routes: Routes,
    /// Tells gRPC health checks how this node is; every service starts as serving.
    pub health: HealthReporter,
}

/// A control API that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up reflection: {0}")]
pub struct SetupError(#[from] tonic_reflection::server::Error);

/// The control API with health and reflection, and the fleet service beside it, behind the gate.
///
/// # Errors
/// When our own descriptors do not parse.
pub async fn routes(
    ledger: Arc<dyn Ledger>,
    cluster: Arc<dyn ClusterAdmin>,
    fleet: Option<&Arc<FleetHub>>,
    views: Views,
) -> Result<ControlRoutes, SetupError> {
    let control = Arc::new(Control::new(ledger, cluster, views));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(medic_proto::DESCRIPTORS)
        .build_v1()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    macro_rules! serve {
        ($routes:ident, $($server:ident),+) => {
            $(
                health.set_serving::<$server<Control>>().await;
                $routes.add_service(
                    $server::from_arc(Arc::clone(&control))
                        .max_decoding_message_size(DECODE_MAX)
                        .max_encoding_message_size(ENCODE_MAX),
                );
            )+
        };
    }
    let mut routes = Routes::builder();
    routes.add_service(reflection).add_service(health_service);
    serve!(
        routes,
        IncidentsServer,
        DecisionsServer,
        ApprovalsServer,
        RemediationsServer,
        ManifestsServer,
        SafetyServer,
        PredictionsServer,
        HealthServer,
        DetectionServer,
        ClusterServer,
        AuditServer,
        WatchServer
    );
    if let Some(fleet) = fleet {
        routes.add_service(fleet.service());
    }
    Ok(ControlRoutes { routes: access::gate(routes.routes(), control), health })
}
