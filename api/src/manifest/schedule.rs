//! Schedules of silences and windows: cron expressions in a time zone, worked out into times.
//!
//! The law has neither calendar nor time zones, and must not: their rules change from release to
//! release. The door works the times out once, and they are committed as data.

use std::str::FromStr as _;

use croner::{Cron, Direction};
use jiff_zoned::{Timestamp as Instant, tz::TimeZone};
use medic_state::{
    Timestamp,
    manifest::{MAX_STARTS, ScheduleSpec, Spec},
};

use super::Finding;

/// Works out when the manifest's schedule comes, if it has one that can be read; [`check`] says why
/// not, otherwise.
pub(super) fn fill(spec: &mut Spec) {
    if let Some((schedule, from, to)) = parts(spec)
        && let Ok(starts) = starts(schedule, from, to)
    {
        schedule.starts = starts;
    }
}

/// What is wrong with the manifest's schedule.
pub(super) fn check(spec: &Spec) -> Option<Finding> {
    let mut spec = spec.clone();
    let (schedule, from, to) = parts(&mut spec)?;
    starts(schedule, from, to).err()
}

fn parts(spec: &mut Spec) -> Option<(&mut ScheduleSpec, Timestamp, Timestamp)> {
    match spec {
        Spec::Silence(silence) => {
            Some((silence.schedule.as_mut()?, silence.starts_at, silence.ends_at))
        }
        Spec::MaintenanceWindow(window) => {
            Some((window.schedule.as_mut()?, window.starts_at, window.ends_at?))
        }
        Spec::Service(_)
        | Spec::Playbook(_)
        | Spec::Policy(_)
        | Spec::Source(_)
        | Spec::Role(_)
        | Spec::RoleBinding(_)
        | Spec::Tenant(_)
        | Spec::Channel(_) => None,
    }
}

/// When it comes from `from` on, before `to`.
fn starts(
    schedule: &ScheduleSpec,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Timestamp>, Finding> {
    let cron = Cron::from_str(&schedule.cron).map_err(|error| {
        let text = format!("it is no cron expression such as `0 2 * * SUN`: {error}");
        Finding::new("spec.schedule.cron", text)
    })?;
    let zone = TimeZone::get(&schedule.timezone).map_err(|_| {
        let text = format!("there is no time zone `{}`, such as Europe/Berlin", schedule.timezone);
        Finding::new("spec.schedule.timezone", text)
    })?;
    let odd = || Finding::new("spec.startsAt", "no calendar reaches there");
    let from = i64::try_from(from.0).ok().and_then(|at| Instant::from_millisecond(at).ok());
    let first = from.ok_or_else(odd)?.to_zoned(zone);
    let mut starts = Vec::new();
    for next in cron.iter_from(first, Direction::Forward) {
        let at = u64::try_from(next.timestamp().as_millisecond()).map_err(|_| odd())?;
        if at >= to.0 {
            break;
        }
        if starts.len() >= MAX_STARTS {
            let text = format!("it comes more than {MAX_STARTS} times: let it end sooner");
            return Err(Finding::new("spec.endsAt", text));
        }
        starts.push(Timestamp(at));
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use crate::manifest::{parse_bundle, to_yaml};

    use super::*;

    fn window(cron: &str, zone: &str, ends: &str) -> String {
        format!(
            "apiVersion: medic/v1\nkind: MaintenanceWindow\nmetadata: {{name: nightly}}\nspec:\n  \
             match: ['env=\"prod\"']\n  startsAt: 2026-10-20T00:00:00Z\n  duration: 1h\n  \
             schedule: {{cron: '{cron}', timezone: {zone}}}\n  endsAt: {ends}\n  comment: backup\n"
        )
    }

    fn worked_out(text: &str) -> Vec<String> {
        let manifest = parse_bundle(text).unwrap().remove(0);
        let Spec::MaintenanceWindow(window) = manifest.spec else { panic!("no window") };
        let starts = window.schedule.unwrap().starts;
        starts.into_iter().map(medic_state::time::format_rfc3339).collect()
    }

    #[test]
    fn times_are_those_of_the_place_through_the_change_of_clocks() {
        let text = window("30 2 * * SUN", "Europe/Berlin", "2026-11-05T00:00:00Z");
        let found = worked_out(&text);
        // On the 25th clocks go back at 3:00 summer time: 2:30 comes twice, and counts once.
        assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-11-01T01:30:00Z"]);
    }

    #[test]
    fn the_same_text_gives_the_same_manifest_and_comes_back_as_it_was_written() {
        let text = window("0 2 * * *", "UTC", "2026-10-30T00:00:00Z");
        let manifest = parse_bundle(&text).unwrap().remove(0);
        let written = to_yaml(&manifest).unwrap();
        assert!(!written.contains("starts:"), "{written}");
        assert_eq!(parse_bundle(&written).unwrap(), [manifest]);
    }

    #[test]
    fn what_cannot_be_worked_out_is_told_where() {
        let end = "2026-10-30T00:00:00Z";
        for (text, path) in [
            (window("0 25 * * *", "UTC", end), "spec.schedule.cron"),
            (window("nightly", "UTC", end), "spec.schedule.cron"),
            (window("0 2 * * *", "Mars/Olympus", end), "spec.schedule.timezone"),
            (window("* * * * *", "UTC", end), "spec.endsAt"),
        ] {
            let problems = parse_bundle(&text).unwrap_err();
            assert!(problems.iter().any(|problem| problem.path == path), "{text}: {problems:?}");
        }
    }
}
