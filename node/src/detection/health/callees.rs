//! The dependencies monitor's other source: how the services do that a service declares to depend on.
//!
//! What they say of themselves counts, without their own callees: trouble is told one step on, and never
//! around a circle.

use std::collections::BTreeMap;

use medic_state::symptom::Severity;

use super::{
    InstanceHealth, Monitor, MonitorHealth, ServiceHealth, Sign, Status, Word, of_monitor, worst,
};

/// By tenant and service.
pub(super) type Services<'s> = BTreeMap<(&'s str, &'s str), &'s ServiceHealth>;

/// Services by their names.
pub(super) fn by_name(all: &[ServiceHealth]) -> Services<'_> {
    all.iter().map(|one| ((one.tenant.as_str(), one.service.as_str()), one)).collect()
}

/// Adds the word of those that an instance depends on to what is known of it. Nothing changes for one of
/// which nothing is known, and where no callee is watched.
pub(super) fn heed(
    health: &mut InstanceHealth,
    tenant: &str,
    depends_on: &[String],
    services: &Services<'_>,
) {
    if health.monitors.is_empty() {
        return;
    }
    let signs: Vec<Sign> = depends_on
        .iter()
        .filter_map(|name| {
            Some((name, word(services.get(&(tenant, name.as_str()))?.status, name)?))
        })
        .map(|(name, word)| Sign {
            monitor: Monitor::Dependencies,
            source: format!("service.{name}"),
            word,
        })
        .collect();
    if signs.is_empty() {
        return;
    }
    for own in health.monitors.iter_mut().filter(|one| one.monitor == Monitor::Dependencies) {
        let theirs = of_monitor(Monitor::Dependencies, &signs);
        *own = joined(own, theirs);
    }
    if health.status != Status::Stopped {
        (health.status, health.score) = worst(&health.monitors);
    }
}

/// What a callee's status says to those who call it. One of which nothing is known says nothing.
fn word(status: Status, name: &str) -> Option<Word> {
    match status {
        Status::Healthy => Some(Word::Good),
        Status::Degraded => {
            Some(Word::Bad(Severity::Info, 1, format!("{name}, which it calls, is degraded")))
        }
        Status::Unhealthy => {
            Some(Word::Bad(Severity::Warning, 2, format!("{name}, which it calls, does not work")))
        }
        Status::Stopped | Status::NotWatched | Status::Waiting | Status::Error => None,
    }
}

fn joined(own: &MonitorHealth, theirs: MonitorHealth) -> MonitorHealth {
    let score = own.score.into_iter().chain(theirs.score).min();
    let causes = own.causes.iter().cloned().chain(theirs.causes).collect();
    MonitorHealth { monitor: own.monitor, status: own.status.max(theirs.status), score, causes }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{of_instance, of_services},
        *,
    };

    fn instance(word: Word) -> InstanceHealth {
        let sign = Sign { monitor: Monitor::Application, source: "probe.http".to_owned(), word };
        of_instance("i", &[sign], false)
    }

    #[test]
    fn a_callee_that_does_not_work_is_told_and_one_step_far() {
        let down = || Word::Bad(Severity::Critical, 2, "down".to_owned());
        for (callee, status, score, causes) in [
            (Word::Good, Status::Healthy, Some(100), 0),
            (down(), Status::Degraded, Some(60), 1),
            (Word::Bad(Severity::Warning, 2, String::new()), Status::Healthy, Some(95), 1),
            (Word::Silent(String::new()), Status::NotWatched, None, 0),
        ] {
            let services = of_services(vec![("t".to_owned(), "db".to_owned(), instance(callee))]);
            let mut caller = instance(Word::Good);
            heed(&mut caller, "t", &["db".to_owned(), "gone".to_owned()], &by_name(&services));
            let monitor = &caller.monitors[2];
            assert_eq!((monitor.status, monitor.score), (status, score));
            assert_eq!(monitor.causes.len(), causes);
            assert_eq!(caller.status, status.max(Status::Healthy));
            heed(&mut caller, "other", &["db".to_owned()], &by_name(&services));
            assert_eq!(caller.monitors[2].causes.len(), causes, "another tenant's");
        }
        let services = of_services(vec![("t".to_owned(), "db".to_owned(), instance(down()))]);
        let mut worse = instance(down());
        heed(&mut worse, "t", &["db".to_owned()], &by_name(&services));
        assert_eq!((worse.status, worse.score), (Status::Unhealthy, Some(0)));
    }
}
