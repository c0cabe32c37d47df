//! For tests of judgement: the sample fleet as a state, incidents and looks made by hand.
//!
//! Judgement reads states and changes none, so these states are put together directly.
#![allow(clippy::unwrap_used, reason = "a fixture that does not parse should fail loudly")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use medic_api::manifest::parse_bundle;
use medic_state::{
    IncidentId, Millis, PlanId, Ppm, Revision, State, Timestamp, TraceId,
    incident::{Attempt, Incident, IncidentStatus, SymptomState},
    manifest::{Manifest, Metadata, PlaybookSpec, ServiceSpec, Spec, Stored},
    state::AgentState,
    symptom::{Severity, Signal, Symptom, Target},
};

use crate::{intelligence::builtin, topology, world::Observation};

/// When everything happens.
pub(crate) const T0: Timestamp = Timestamp(1_000_000);

const SERVICES: &str = r#"
gateway:
  criticality: high
  dependsOn: [orders, users]
  instances: [{name: gateway-1, agent: a1, port: 1}]
orders:
  criticality: high
  dependsOn: [datastore]
  slo: {availability: 0.99}
  indicators:
    - {name: error_rate, source: {gauge: e}, limit: 0.2}
    - {name: latency_p99, source: {gauge: l}, limit: 0.6}
  instances:
    - {name: orders-1, agent: a1, port: 2}
    - {name: orders-2, agent: a2, port: 3}
    - {name: orders-3, agent: a3, port: 4}
    - {name: orders-4, agent: a3, port: 5, standby: true}
users:
  criticality: medium
  dependsOn: [datastore]
  instances: [{name: users-1, agent: a1, port: 6}, {name: users-2, agent: a2, port: 7}]
datastore:
  criticality: high
  instances: [{name: datastore-1, agent: a3, port: 8}]
ledger:
  criticality: critical
  compliance: [pci]
  instances: [{name: ledger-1, agent: a2, port: 9}]
"#;

/// The sample fleet with the built-in playbooks.
pub(crate) fn fleet() -> State {
    let mut state = State::new();
    state.now = T0;
    let services: BTreeMap<String, ServiceSpec> = serde_saphyr::from_str(SERVICES).unwrap();
    for (name, spec) in services {
        declare(&mut state, &name, BTreeMap::new(), Spec::Service(spec));
    }
    for manifest in parse_bundle(&builtin::manifests()).unwrap() {
        store(&mut state, manifest);
    }
    for agent in ["a1", "a2", "a3"] {
        let there = AgentState {
            node: Some(medic_state::NodeId(1)),
            region: String::new(),
            version: String::new(),
            since: Timestamp(0),
        };
        state.agents.insert(agent.to_owned(), there);
    }
    state
}

/// Declares (or declares anew) a thing of the default tenant.
pub(crate) fn declare(state: &mut State, name: &str, labels: BTreeMap<String, String>, spec: Spec) {
    let metadata = Metadata { name: name.to_owned(), tenant: "default".to_owned(), labels };
    store(state, Manifest { metadata, spec });
}

fn store(state: &mut State, manifest: Manifest) {
    let digest = manifest.digest();
    let stored = Stored {
        manifest: Arc::new(manifest),
        index: 1,
        by: "user:test".to_owned(),
        at: Timestamp(0),
        digest,
    };
    state.manifests.insert(stored.manifest.key(), stored);
}

/// Declares a playbook from YAML.
pub(crate) fn playbook(state: &mut State, name: &str, spec: &str) {
    let spec: PlaybookSpec = serde_saphyr::from_str(spec).unwrap();
    declare(state, name, BTreeMap::new(), Spec::Playbook(spec));
}

/// An instance of the default tenant: `orders-1` belongs to `orders`.
pub(crate) fn at(instance: &str) -> Target {
    let service = instance.rsplit_once('-').map_or(instance, |(service, _)| service);
    topology::target("default", service, instance)
}

/// A symptom that began at [`T0`].
pub(crate) fn symptom(instance: &str, kind: &str, labels: &[(&str, &str)]) -> Symptom {
    let predicted = kind.ends_with("-predicted");
    Symptom {
        target: at(instance),
        kind: kind.to_owned(),
        severity: if predicted { Severity::Warning } else { Severity::Critical },
        summary: format!("{instance} {kind}"),
        p_value: Ppm(10),
        signals: vec![Signal {
            name: "probe.http_ok".to_owned(),
            value: "0".to_owned(),
            expected: "1".to_owned(),
            detector: "probe".to_owned(),
            p_value: Ppm(10),
        }],
        since: T0,
        time_to_event: predicted.then_some(Millis(60_000)),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        source: "shard-1".to_owned(),
    }
}

/// Opens an incident of these symptoms; the first names the target.
pub(crate) fn open(state: &mut State, id: u64, symptoms: Vec<Symptom>) -> IncidentId {
    let first = symptoms.first().unwrap();
    let (target, severity) = (first.target.clone(), first.severity);
    let predicted = symptoms.iter().all(Symptom::predicted);
    let symptoms = symptoms
        .into_iter()
        .map(|symptom| {
            let grouped = symptom.target.service != target.service;
            let kept = SymptomState {
                first_at: T0,
                last_at: T0,
                count: 1,
                cleared_at: None,
                grouped,
                voices: BTreeSet::new(),
                symptom,
            };
            (kept.symptom.fingerprint(), kept)
        })
        .collect();
    let incident = Incident {
        id: IncidentId(id),
        tenant: "default".to_owned(),
        target,
        status: IncidentStatus::Open,
        revision: Revision(1),
        severity,
        symptoms,
        decision: None,
        plan: None,
        attempts: Vec::new(),
        acknowledged_by: None,
        notices: BTreeMap::new(),
        judged: None,
        recurs: None,
        followed_by: None,
        escalation: None,
        manual: false,
        opened_at: T0,
        updated_at: T0,
        decided_at: None,
        remediated_at: None,
        resolved_at: None,
        resolution: None,
        timeline: Vec::new(),
        trace: TraceId::default(),
        predicted,
        held_by: None,
        merged_into: None,
    };
    state.incidents.insert(IncidentId(id), incident);
    IncidentId(id)
}

/// Adds a failed attempt.
pub(crate) fn attempt(state: &mut State, id: IncidentId, playbook: &str) {
    let incident = state.incidents.get_mut(&id).unwrap();
    incident.attempts.push(Attempt {
        plan: PlanId(90),
        playbook: playbook.to_owned(),
        reason: "verification failed".to_owned(),
        at: T0,
    });
}

/// A look: probes (`http_ok` and `process_alive` alike) and metrics.
pub(crate) fn look(at: Timestamp, good: bool, metrics: &[(&str, f64)]) -> Observation {
    Observation {
        at,
        probes: BTreeMap::from([("http_ok".to_owned(), good), ("process_alive".to_owned(), good)]),
        metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        errors: BTreeMap::new(),
    }
}
