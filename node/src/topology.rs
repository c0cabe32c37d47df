//! Who runs where and who calls whom, read from the declared services. Views only, no I/O.
//!
//! Dependencies and dependents come nearest first; cycles end where they began.

use std::collections::{BTreeSet, VecDeque};

use medic_state::{
    State,
    incident::{Incident, SymptomState},
    manifest::{InstanceSpec, Kind, Manifest, ManifestKey, ServiceSpec, Spec, Stored},
    symptom::Target,
};

/// Kinds of symptoms that mean: it serves nothing.
pub const OUT_OF_SERVICE: [&str; 3] = ["down", "unresponsive", "agent-lost"];

fn of_kind<'a>(
    state: &'a State,
    kind: Kind,
    tenant: &'a str,
) -> impl Iterator<Item = (&'a ManifestKey, &'a Stored)> {
    let first = ManifestKey { kind, tenant: tenant.to_owned(), name: String::new() };
    state
        .manifests
        .range(first..)
        .take_while(move |(key, _)| key.kind == kind && key.tenant == tenant)
}

/// The manifest of a service.
#[must_use]
pub fn service_manifest<'a>(state: &'a State, tenant: &str, name: &str) -> Option<&'a Manifest> {
    let key = ManifestKey { kind: Kind::Service, tenant: tenant.to_owned(), name: name.to_owned() };
    state.manifests.get(&key).map(|stored| stored.manifest.as_ref())
}

/// A service as declared.
#[must_use]
pub fn service<'a>(state: &'a State, tenant: &str, name: &str) -> Option<&'a ServiceSpec> {
    match &service_manifest(state, tenant, name)?.spec {
        Spec::Service(spec) => Some(spec),
        _ => None,
    }
}

/// All services of a tenant, by name.
pub fn services<'a>(
    state: &'a State,
    tenant: &'a str,
) -> impl Iterator<Item = (&'a str, &'a ServiceSpec)> {
    of_kind(state, Kind::Service, tenant).filter_map(|(key, stored)| match &stored.manifest.spec {
        Spec::Service(spec) => Some((key.name.as_str(), spec)),
        _ => None,
    })
}

/// All playbooks of a tenant, by name.
pub fn playbooks<'a>(
    state: &'a State,
    tenant: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Stored)> {
    of_kind(state, Kind::Playbook, tenant).map(|(key, stored)| (key.name.as_str(), stored))
}

fn walk<'a>(start: &'a str, next: impl Fn(&str) -> Vec<&'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::from([start]);
    let mut found = Vec::new();
    let mut queue = VecDeque::from([start]);
    while let Some(name) = queue.pop_front() {
        for neighbour in next(name) {
            if seen.insert(neighbour) {
                found.push(neighbour);
                queue.push_back(neighbour);
            }
        }
    }
    found
}

/// The services that this one calls, directly or not, nearest first.
#[must_use]
pub fn dependencies<'a>(state: &'a State, tenant: &'a str, name: &'a str) -> Vec<&'a str> {
    walk(name, |name| {
        service(state, tenant, name)
            .map(|spec| spec.depends_on.iter().map(String::as_str).collect())
            .unwrap_or_default()
    })
}

/// The services that call this one, directly or not, nearest first.
#[must_use]
pub fn dependents<'a>(state: &'a State, tenant: &'a str, name: &'a str) -> Vec<&'a str> {
    walk(name, |name| {
        services(state, tenant)
            .filter(|(_, spec)| spec.depends_on.iter().any(|callee| callee == name))
            .map(|(caller, _)| caller)
            .collect()
    })
}

/// Instances that are meant to run.
pub fn running(spec: &ServiceSpec) -> impl Iterator<Item = &InstanceSpec> {
    spec.instances.iter().filter(|instance| !instance.standby)
}

/// One instance as declared.
#[must_use]
pub fn instance<'a>(state: &'a State, target: &Target) -> Option<&'a InstanceSpec> {
    service(state, &target.tenant, &target.service)?
        .instances
        .iter()
        .find(|instance| instance.name == target.instance)
}

/// An instance as a target.
#[must_use]
pub fn target(tenant: &str, service: &str, instance: &str) -> Target {
    Target { tenant: tenant.to_owned(), service: service.to_owned(), instance: instance.to_owned() }
}

/// The instances of a service that are meant to run.
#[must_use]
pub fn running_targets(state: &State, tenant: &str, name: &str) -> Vec<Target> {
    service(state, tenant, name)
        .map(|spec| running(spec).map(|i| target(tenant, name, &i.name)).collect())
        .unwrap_or_default()
}

/// Symptoms of a service that have not cleared, in whichever open incident they are.
pub fn active_symptoms<'a>(
    state: &'a State,
    tenant: &'a str,
    name: &'a str,
) -> impl Iterator<Item = (&'a Incident, &'a SymptomState)> {
    state
        .incidents
        .values()
        .filter(move |incident| !incident.closed() && incident.tenant == tenant)
        .flat_map(|incident| incident.symptoms.values().map(move |symptom| (incident, symptom)))
        .filter(move |(_, s)| s.cleared_at.is_none() && s.symptom.target.service == name)
}

/// Whether a kind of symptom means that the target serves nothing.
#[must_use]
pub fn out_of_service(kind: &str) -> bool {
    OUT_OF_SERVICE.contains(&kind)
}
