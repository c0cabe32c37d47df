//! `medic.v1.Health`.

use std::collections::BTreeSet;

use medic_proto::v1::{self as pb, health_server::Health};
use medic_raft::LedgerExt as _;
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::{answer, grant_of},
    page::{Labels, Paging, Sight, labels},
};

/// How the instances of all tenants do, and what the answer lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Healths {
    /// In any order.
    pub instances: Vec<pb::InstanceHealth>,
    /// Their services.
    pub services: Vec<pb::ServiceHealth>,
    /// Not empty: of some nothing is known.
    pub gaps: Vec<pb::Gap>,
}

/// What a node knows of how instances do, by what the nodes of the cluster see.
pub trait HealthView: Send + Sync + 'static {
    /// How they do now. May look at the ledger.
    fn healths(&self) -> Healths;
}

/// For a node that watches nothing and hears of nobody: the answer is one gap.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHealth;

impl HealthView for NoHealth {
    fn healths(&self) -> Healths {
        let reason = "this node does not hear what others see".to_owned();
        Healths { gaps: vec![pb::Gap { reason, ..pb::Gap::default() }], ..Healths::default() }
    }
}

/// The status as matchers and JSON name it.
fn status(status: pb::HealthStatus) -> &'static str {
    match status {
        pb::HealthStatus::Unspecified => "",
        pb::HealthStatus::NotWatched => "not-watched",
        pb::HealthStatus::Stopped => "stopped",
        pb::HealthStatus::Healthy => "healthy",
        pb::HealthStatus::Waiting => "waiting",
        pb::HealthStatus::Degraded => "degraded",
        pb::HealthStatus::Error => "error",
        pb::HealthStatus::Unhealthy => "unhealthy",
    }
}

const fn monitor(monitor: pb::Monitor) -> &'static str {
    match monitor {
        pb::Monitor::Unspecified => "",
        pb::Monitor::Infrastructure => "infrastructure",
        pb::Monitor::Application => "application",
        pb::Monitor::Dependencies => "dependencies",
        pb::Monitor::Security => "security",
        pb::Monitor::Performance => "performance",
    }
}

fn health_labels(one: &pb::InstanceHealth) -> Labels {
    let target = one.target.clone().unwrap_or_default();
    let mut all = labels([
        ("tenant", target.tenant),
        ("service", target.service),
        ("instance", target.instance),
        ("status", status(one.status()).to_owned()),
        ("node", one.node.clone()),
    ]);
    let monitors = one.monitors.iter();
    all.extend(
        monitors.map(|one| (monitor(one.monitor()).to_owned(), status(one.status()).to_owned())),
    );
    all
}

/// Sorts by name, and names one instance.
fn key(target: &pb::Target) -> String {
    [&target.tenant, &target.service, &target.instance].map(String::as_str).join("/")
}

#[tonic::async_trait]
impl Health for Control {
    async fn list(
        &self,
        request: Request<pb::ListHealthRequest>,
    ) -> Result<Response<pb::ListHealthResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let before: String = paging.after()?.unwrap_or_default();
        let grant = grant_of(&request)?;
        self.catch_up(&request).await?;
        let Healths { instances, mut services, gaps } = self.views.health.healths();
        self.ledger.read(|state| {
            let sight = Sight::of(state, &grant, &ask.tenant)?;
            let mut found: Vec<(String, pb::InstanceHealth)> = instances
                .into_iter()
                .filter(|one| one.target.as_ref().is_some_and(|target| sight.sees(&target.tenant)))
                .filter(|one| paging.matches(|| health_labels(one)))
                .map(|one| (one.target.as_ref().map(key).unwrap_or_default(), one))
                .filter(|(key, _)| *key > before)
                .collect();
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
            let (instances, next_page_token) = paging.cut(found.into_iter(), |one| one);
            let shown: BTreeSet<(&str, &str)> = instances
                .iter()
                .filter_map(|one| one.target.as_ref())
                .map(|target| (target.tenant.as_str(), target.service.as_str()))
                .collect();
            services.retain(|one| {
                let of = |target: &pb::Target| {
                    shown.contains(&(target.tenant.as_str(), target.service.as_str()))
                };
                one.target.as_ref().is_some_and(of)
            });
            let message = pb::ListHealthResponse { instances, services, next_page_token, gaps };
            Ok(answer(message, state.applied))
        })
    }
}
