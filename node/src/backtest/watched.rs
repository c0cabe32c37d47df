//! What the columns of a history are: the indicators of an instance.
//!
//! A Service manifest says it for the columns that go by the names of its indicators: their limits, what they
//! are computed from (and so what they mean), the service's objective. Any other column is a gauge without a limit,
//! and means what its name says, as it would live.
//!
//! Deliberately absent: reading manifests, which is the same for all commands.

use std::collections::BTreeSet;

use medic_state::{
    manifest::{Criticality, IndicatorSource, IndicatorSpec, ServiceSpec},
    symptom::Target,
};

use crate::detection::detector::Role;

/// Names in one remark.
const NAMED_MAX: usize = 8;

/// A service whose instances the histories are of.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Its tenant.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// What its manifest says.
    pub spec: ServiceSpec,
}

/// One instance, as its history shows it.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) target: Target,
    pub(super) spec: ServiceSpec,
    /// The indicator of each column.
    pub(super) names: Vec<String>,
    /// What people should know of it.
    pub(super) notes: Vec<String>,
}

impl Watched {
    /// `rates`: whether the column of a place counts, and is given as a rate.
    pub(super) fn new(
        entity: &str,
        columns: &[String],
        declared: Option<&Declared>,
        rates: impl Fn(usize) -> bool,
    ) -> Self {
        let (tenant, service) = declared
            .map_or(("default", "backtest"), |one| (one.tenant.as_str(), one.name.as_str()));
        let target = Target {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            instance: entity.to_owned(),
        };
        let (names, mut notes) = indicators(columns);
        let mut spec = declared.map_or_else(undeclared, |one| one.spec.clone());
        if declared.is_some() {
            notes.extend(fitted(&mut spec, &names));
        }
        let known: BTreeSet<String> = spec.indicators.iter().map(|one| one.name.clone()).collect();
        let others = names.iter().enumerate().filter(|(_, name)| !known.contains(*name));
        spec.indicators.extend(others.map(|(at, name)| IndicatorSpec {
            name: name.clone(),
            source: if rates(at) {
                IndicatorSource::Rate(name.clone())
            } else {
                IndicatorSource::Gauge(name.clone())
            },
            limit: None,
            upward_only: true,
        }));
        let telling = |one: &IndicatorSpec| one.limit.is_some() || Role::of(one) != Role::Other;
        if !spec.indicators.iter().any(telling) {
            notes.push(
                "no column has a limit, or is failures or a latency by its name: nothing but anomalies \
                 and silence can be told of it; --service says more"
                    .to_owned(),
            );
        }
        Self { target, spec, names, notes }
    }
}

/// The names of the columns; a later one of the same name gets a number.
fn indicators(columns: &[String]) -> (Vec<String>, Vec<String>) {
    let mut taken = BTreeSet::new();
    let mut twice = Vec::new();
    let mut one = |column: &String| {
        let mut name = column.clone();
        for number in 2.. {
            if taken.insert(name.clone()) {
                break;
            }
            name = format!("{column}#{number}");
        }
        if name != *column {
            twice.push(name.clone());
        }
        name
    };
    let names = columns.iter().map(&mut one).collect();
    let note = format!("columns of the same name are taken as {}", listed(&twice));
    let notes = if twice.is_empty() { Vec::new() } else { vec![note] };
    (names, notes)
}

/// Leaves a service the indicators that are columns; says which are none, and which columns it does not declare.
fn fitted(spec: &mut ServiceSpec, columns: &[String]) -> Vec<String> {
    let (kept, gone): (Vec<IndicatorSpec>, Vec<_>) =
        std::mem::take(&mut spec.indicators).into_iter().partition(|i| columns.contains(&i.name));
    let other: Vec<&String> =
        columns.iter().filter(|name| !kept.iter().any(|one| one.name == **name)).collect();
    spec.indicators = kept;
    let mut notes = Vec::new();
    if !gone.is_empty() {
        let gone: Vec<&String> = gone.iter().map(|one| &one.name).collect();
        notes.push(format!("declared, and no column: {}", listed(&gone)));
    }
    // Nor an objective that nothing would be heard of: that is no silence of a monitor.
    if let Some(slo) = spec.slo.take_if(|slo| !columns.contains(&slo.indicator)) {
        notes.push(format!("the objective is about `{}`, which is no column", slo.indicator));
    }
    if !other.is_empty() {
        notes.push(format!("not declared, and watched without a limit: {}", listed(&other)));
    }
    notes
}

pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let shown = names.iter().take(NAMED_MAX).map(|name| format!("`{}`", name.as_ref()));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

const fn undeclared() -> ServiceSpec {
    ServiceSpec {
        criticality: Criticality::Medium,
        compliance: Vec::new(),
        depends_on: Vec::new(),
        process: None,
        instances: Vec::new(),
        probes: Vec::new(),
        scrape: None,
        indicators: Vec::new(),
        slo: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_manifest_says_what_columns_are_and_the_rest_is_said_to_be_watched_without_limits() {
        let spec = serde_json::from_str(
            r#"{"indicators":[{"name":"memory","source":{"gauge":"m"},"limit":"64MiB"},
                              {"name":"latency_p99","source":{"quantile":{"histogram":"d","q":0.99}}}],
                "slo":{"availability":0.999}}"#,
        );
        let declared =
            Declared { tenant: "shop".to_owned(), name: "web".to_owned(), spec: spec.unwrap() };
        let watched =
            Watched::new("a", &columns(&["cpu", "memory", "cpu"]), Some(&declared), |_| false);
        assert_eq!(
            (watched.target.tenant.as_str(), watched.target.service.as_str()),
            ("shop", "web")
        );
        assert_eq!(watched.names, ["cpu", "memory", "cpu#2"]);
        let known: Vec<_> =
            watched.spec.indicators.iter().map(|i| (i.name.as_str(), i.limit.as_deref())).collect();
        assert_eq!(known, [("memory", Some("64MiB")), ("cpu", None), ("cpu#2", None)]);
        assert_eq!(
            watched.notes,
            [
                "columns of the same name are taken as `cpu#2`",
                "declared, and no column: `latency_p99`",
                "the objective is about `error_rate`, which is no column",
                "not declared, and watched without a limit: `cpu`, `cpu#2`",
            ]
        );
    }

    #[test]
    fn that_nothing_but_anomalies_can_be_told_is_said() {
        let notes = |names: &[&str]| Watched::new("a", &columns(names), None, |_| false).notes;
        assert!(notes(&["a", "b"])[0].starts_with("no column has a limit"));
        assert!(notes(&["a", "error_rate"]).is_empty() && notes(&["latency"]).is_empty());
    }
}
