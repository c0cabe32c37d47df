//! Whose is an event? From the object it is about to declared instances. Pure.
//!
//! | object | is |
//! |---|---|
//! | any, named as an instance | that instance (a pod of a StatefulSet) |
//! | any, named as a service | all instances of the service |
//! | Pod or ReplicaSet, named as a service and generated parts | all instances of the service |
//! | Node, named as an instance's agent or host | all instances there |
//!
//! Events carry no labels of their objects, so that labels of sources say nothing here.

use medic_state::{State, symptom::Target};

use super::wire::Event;
use crate::topology;

/// Targets of one event: what a node hosts.
const TARGETS_MAX: usize = 200;

/// The instances of a tenant that an event is about, in no special order.
#[must_use]
pub fn targets(state: &State, tenant: &str, event: &Event) -> Vec<Target> {
    let name = event.name.as_str();
    if name.is_empty() {
        return Vec::new();
    }
    let on_node = event.kind == "Node";
    let mut found = Vec::new();
    let mut of_service: Option<&str> = None;
    for (service, spec) in topology::services(state, tenant) {
        for instance in &spec.instances {
            let there = instance.agent.as_deref() == Some(name) || instance.host == name;
            if if on_node { there } else { instance.name == name } {
                found.push(topology::target(tenant, service, &instance.name));
            }
        }
        // Of `web` and `web-api` the longer one is meant by `web-api-5d4f-x2x`.
        let longer = of_service.is_none_or(|known| known.len() < service.len());
        if !on_node && longer && belongs(&event.kind, name, service) {
            of_service = Some(service);
        }
    }
    if found.is_empty()
        && let Some(service) = of_service
    {
        let spec = topology::service(state, tenant, service);
        let instances = spec.map_or(&[][..], |spec| &spec.instances);
        let all = instances.iter().map(|one| topology::target(tenant, service, &one.name));
        found.extend(all);
    }
    found.truncate(TARGETS_MAX);
    found
}

/// Whether an object is the service's: named so, or so with what a Deployment appends.
fn belongs(kind: &str, name: &str, service: &str) -> bool {
    if name == service {
        return true;
    }
    let appended = match kind {
        "Pod" => 2,
        "ReplicaSet" => 1,
        _ => return false,
    };
    let Some(rest) = name.strip_prefix(service).and_then(|rest| rest.strip_prefix('-')) else {
        return false;
    };
    // As `rand.SafeEncodeString` writes: letters without vowels, and digits.
    let generated = |part: &str| {
        (1..=10).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"aeiou".contains(&b)))
    };
    let parts: Vec<&str> = rest.split('-').collect();
    parts.len() == appended && parts.into_iter().all(generated)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use medic_state::{
        Digest, Timestamp,
        manifest::{Kind, Manifest, ManifestKey, Spec, Stored},
    };

    use super::*;

    fn state() -> State {
        let mut state = State::default();
        for (name, instances) in [
            ("web", r#"[{"name":"web-0","agent":"host-a"},{"name":"web-1","host":"host-b"}]"#),
            ("web-api", r#"[{"name":"api","host":"host-a"}]"#),
        ] {
            let spec = format!(r#"{{"kind":"Service","spec":{{"instances":{instances}}}}}"#);
            let spec: Spec = serde_json::from_str(&spec).unwrap();
            let metadata =
                serde_json::from_value(serde_json::json!({"name": name, "tenant": "default"}));
            let manifest = Arc::new(Manifest { metadata: metadata.unwrap(), spec });
            let key = ManifestKey {
                kind: Kind::Service,
                tenant: "default".to_owned(),
                name: name.to_owned(),
            };
            let (by, at, digest) = (String::new(), Timestamp(0), Digest::of(&[b""]));
            state.manifests.insert(key, Stored { manifest, index: 1, by, at, digest });
        }
        state
    }

    fn names(kind: &str, name: &str) -> Vec<String> {
        let event = Event {
            warning: true,
            reason: "BackOff".to_owned(),
            message: String::new(),
            kind: kind.to_owned(),
            namespace: "prod".to_owned(),
            name: name.to_owned(),
            at: Timestamp(0),
        };
        targets(&state(), "default", &event).into_iter().map(|target| target.instance).collect()
    }

    #[test]
    fn names_say_whose_an_event_is() {
        for (kind, name, expected) in [
            ("Pod", "web-1", &["web-1"][..]),
            ("Pod", "web-5d4f8c7b9d-x2x7z", &["web-0", "web-1"]),
            ("Pod", "web-api-5d4f8c7b9d-x2x7z", &["api"]),
            ("ReplicaSet", "web-5d4f8c7b9d", &["web-0", "web-1"]),
            ("Deployment", "web", &["web-0", "web-1"]),
            ("Node", "host-a", &["web-0", "api"]),
            ("Node", "host-b", &["web-1"]),
            ("Pod", "host-a", &[]),
            ("Pod", "web-admin-5d4f8c7b9d-x2x7z", &[]),
            ("Pod", "webhook-5d4f8c7b9d-x2x7z", &[]),
            ("Deployment", "web-5d4f8c7b9d", &[]),
            ("Pod", "", &[]),
        ] {
            assert_eq!(names(kind, name), expected, "{kind} {name}");
        }
    }
}
