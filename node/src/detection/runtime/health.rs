//! How the instances that this node watches do.

use std::sync::Arc;

use medic_raft::Clock;
use metrics::gauge;
use serde::Serialize;

use super::{Runtime, Shared, lock};
use crate::detection::{
    entity::Now,
    health::{ServiceHealth, Status, of_services},
    metrics::Metric,
};

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// By tenant and name; of each those instances that this node watches.
    pub services: Vec<ServiceHealth>,
}

impl Runtime {
    /// Asks for the present health, as long as the watch runs.
    pub fn health(&self, clock: Arc<dyn Clock>) -> impl Fn() -> Health + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.health(Now { mono_ms: shared.mono_ms(), wall: clock.now() })
    }

    /// Counts instances by how they do, into the metrics, as long as the watch runs.
    pub fn count_health(&self, clock: Arc<dyn Clock>) -> impl Fn() + Send + Sync + use<> {
        let health = self.health(clock);
        move || {
            let services = health().services;
            for status in Status::ALL {
                let all = services.iter().flat_map(|service| &service.instances);
                let count = all.filter(|one| one.status == status).count();
                let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
                gauge!(Metric::Health.name(), "status" => status.as_str()).set(count);
            }
        }
    }
}

impl Shared {
    fn health(&self, now: Now) -> Health {
        let entities = lock(&self.entities);
        let instances = entities.iter().map(|(target, watched)| {
            let health = lock(&watched.entity).health(now);
            (target.tenant.clone(), target.service.clone(), health)
        });
        Health { services: of_services(instances.collect()) }
    }
}
