//! Health as the API shows it.

use medic_api::convert;
use medic_proto::v1 as pb;
use medic_state::{NodeId, Timestamp, symptom::Target};

use super::{InstanceHealth, Monitor, MonitorHealth, ServiceHealth, Status};

/// Who tells of an instance, and since when that is so; or why nobody does.
pub(super) type Word = (Option<NodeId>, Result<Timestamp, String>);

pub(super) fn instance(
    target: &Target,
    health: &InstanceHealth,
    word: &Word,
) -> pb::InstanceHealth {
    let (node, told) = word;
    pb::InstanceHealth {
        target: Some(convert::target(target)),
        status: status(health.status).into(),
        score: health.score.map(u32::from),
        monitors: health.monitors.iter().map(of_monitor).collect(),
        unknown: told.as_ref().err().cloned().unwrap_or_default(),
        node: node.map_or_else(String::new, |node| node.to_string()),
        at: told.as_ref().ok().map(|at| convert::time(*at)),
    }
}

pub(super) fn service(health: &ServiceHealth) -> pb::ServiceHealth {
    let ServiceHealth { tenant, service, .. } = health.clone();
    let target = Target { tenant, service, instance: String::new() };
    pb::ServiceHealth {
        target: Some(convert::target(&target)),
        status: status(health.status).into(),
        score: health.score.map(u32::from),
        instances: u32::try_from(health.instances.len()).unwrap_or(u32::MAX),
    }
}

fn of_monitor(one: &MonitorHealth) -> pb::MonitorHealth {
    let monitor = match one.monitor {
        Monitor::Infrastructure => pb::Monitor::Infrastructure,
        Monitor::Application => pb::Monitor::Application,
        Monitor::Dependencies => pb::Monitor::Dependencies,
        Monitor::Security => pb::Monitor::Security,
        Monitor::Performance => pb::Monitor::Performance,
    };
    pb::MonitorHealth {
        monitor: monitor.into(),
        status: status(one.status).into(),
        score: one.score.map(u32::from),
        causes: one.causes.clone(),
    }
}

const fn status(status: Status) -> pb::HealthStatus {
    match status {
        Status::NotWatched => pb::HealthStatus::NotWatched,
        Status::Stopped => pb::HealthStatus::Stopped,
        Status::Healthy => pb::HealthStatus::Healthy,
        Status::Waiting => pb::HealthStatus::Waiting,
        Status::Degraded => pb::HealthStatus::Degraded,
        Status::Error => pb::HealthStatus::Error,
        Status::Unhealthy => pb::HealthStatus::Unhealthy,
    }
}
