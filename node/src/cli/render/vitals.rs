//! How instances do.

use medic_proto::v1 as pb;

use super::{
    Style, Table, span,
    words::{health_status, monitor, ms, target},
};

/// Each service, and below it its instances: the five monitors by their scores, and what is wrong, the worst
/// first.
#[must_use]
pub fn health(
    services: &[pb::ServiceHealth],
    instances: &[pb::InstanceHealth],
    now: u64,
    style: Style,
) -> String {
    let mut table = Table::new([
        "TARGET", "STATUS", "SCORE", "INFRA", "APP", "DEPS", "SECURITY", "PERF", "WHY", "NODE",
        "SEEN",
    ]);
    let mut named: Option<(String, String)> = None;
    for one in instances {
        let of = one.target.clone().unwrap_or_default();
        let key = (of.tenant.clone(), of.service.clone());
        if named.as_ref() != Some(&key) {
            let same = |service: &&pb::ServiceHealth| {
                let target = service.target.as_ref();
                target.is_some_and(|it| (&it.tenant, &it.service) == (&key.0, &key.1))
            };
            if let Some(service) = services.iter().find(same) {
                let mut row: [String; 11] = Default::default();
                row[0] = target(service.target.as_ref());
                row[1] = colored(service.status(), style);
                row[2] = score(service.score);
                table.row(row);
            }
            named = Some(key);
        }
        let at = ms(one.at.as_ref());
        let [infra, app, deps, security, perf] = MONITORS.map(|wanted| of_monitor(one, wanted));
        table.row([
            target(one.target.as_ref()),
            colored(one.status(), style),
            score(one.score),
            infra,
            app,
            deps,
            security,
            perf,
            why(one),
            one.node.clone(),
            at.map_or_else(|| "-".to_owned(), |at| format!("{} ago", span(now.saturating_sub(at)))),
        ]);
    }
    table.render(&style)
}

const MONITORS: [pb::Monitor; 5] = [
    pb::Monitor::Infrastructure,
    pb::Monitor::Application,
    pb::Monitor::Dependencies,
    pb::Monitor::Security,
    pb::Monitor::Performance,
];

/// Its score; its status where that says more.
fn of_monitor(one: &pb::InstanceHealth, wanted: pb::Monitor) -> String {
    let Some(found) = one.monitors.iter().find(|found| found.monitor() == wanted) else {
        return "?".to_owned();
    };
    match (found.status(), found.score) {
        (pb::HealthStatus::NotWatched, _) => "-".to_owned(),
        (pb::HealthStatus::Error, _) => "error".to_owned(),
        (_, Some(score)) => score.to_string(),
        (status, None) => health_status(status),
    }
}

fn score(score: Option<u32>) -> String {
    score.map_or_else(|| "-".to_owned(), |score| score.to_string())
}

fn colored(status: pb::HealthStatus, style: Style) -> String {
    let text = health_status(status);
    match status {
        pb::HealthStatus::Unhealthy | pb::HealthStatus::Error => style.bad(&text),
        pb::HealthStatus::Degraded | pb::HealthStatus::Waiting => style.warn(&text),
        pb::HealthStatus::Healthy => style.good(&text),
        pb::HealthStatus::Unspecified
        | pb::HealthStatus::NotWatched
        | pb::HealthStatus::Stopped => text,
    }
}

/// The causes of its monitors, the worst monitor first; or why nothing is known.
fn why(one: &pb::InstanceHealth) -> String {
    if !one.unknown.is_empty() {
        return one.unknown.clone();
    }
    let mut monitors: Vec<&pb::MonitorHealth> =
        one.monitors.iter().filter(|monitor| !monitor.causes.is_empty()).collect();
    monitors.sort_by_key(|monitor| std::cmp::Reverse(monitor.status));
    let said =
        monitors.iter().map(|one| format!("{}: {}", monitor(one.monitor()), one.causes.join("; ")));
    said.collect::<Vec<_>>().join(". ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::words::timestamp;

    /// 2026-11-18 14:02:10 UTC.
    const T: u64 = 1_795_010_530_000;

    fn about(instance: &str) -> Option<pb::Target> {
        let [tenant, service] = ["default", "web"].map(str::to_owned);
        Some(pb::Target { tenant, service, instance: instance.to_owned() })
    }

    fn of(
        monitor: pb::Monitor,
        status: pb::HealthStatus,
        score: Option<u32>,
        cause: &str,
    ) -> pb::MonitorHealth {
        let causes = Some(cause).filter(|cause| !cause.is_empty()).map(str::to_owned);
        let causes = causes.into_iter().collect();
        pb::MonitorHealth { monitor: monitor.into(), status: status.into(), score, causes }
    }

    #[test]
    fn each_instance_has_its_monitors_and_what_is_wrong_the_worst_first() {
        let monitors = vec![
            of(pb::Monitor::Application, pb::HealthStatus::Degraded, Some(60), "slow"),
            of(pb::Monitor::Security, pb::HealthStatus::NotWatched, None, ""),
            of(pb::Monitor::Performance, pb::HealthStatus::Error, Some(50), "no scrape"),
        ];
        let seen = pb::InstanceHealth {
            target: about("web-1"),
            status: pb::HealthStatus::Error.into(),
            score: Some(50),
            monitors,
            node: "node-2".to_owned(),
            at: Some(timestamp(T - 3_000)),
            ..Default::default()
        };
        let unknown = pb::InstanceHealth {
            target: about("web-2"),
            status: pb::HealthStatus::Waiting.into(),
            unknown: "it has just begun".to_owned(),
            ..Default::default()
        };
        let service = pb::ServiceHealth {
            target: about(""),
            status: pb::HealthStatus::Error.into(),
            score: Some(50),
            instances: 2,
        };
        let text = health(&[service], &[seen, unknown], T, Style::new(false));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].starts_with("web ") && lines[2].starts_with("web/web-1"), "{text}");
        for part in
            ["error", " 60 ", "performance: no scrape. application: slow", "node-2", "3s ago"]
        {
            assert!(lines[2].contains(part), "{part} in:\n{text}");
        }
        assert!(lines[3].contains("waiting") && lines[3].contains("it has just begun"), "{text}");
    }
}
