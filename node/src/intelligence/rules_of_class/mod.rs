//! The rules of classification: one small function per kind of knowledge.
//!
//! Weights are an operator's odds, set by hand: near 1 when the symptom *is* the fault (the agent
//! says the process is dead), about one half when it is only compatible with it.

mod certificates;
mod named;
pub(super) use named::class_foretold;

use std::collections::BTreeSet;

use medic_state::{
    Millis,
    incident::SymptomState,
    symptom::{Severity, Target},
};

use super::{classify::Evidence, scene::Scene};
use crate::topology;

/// A rule: what it has to say about the scene.
pub(super) type Rule = fn(&Scene<'_>) -> Vec<Evidence>;

/// All rules; their order does not matter.
pub(super) const RULES: &[Rule] = &[
    dead_process,
    hung_process,
    unreachable,
    bad_rollout,
    certificates::shown,
    named::limits,
    named::foretold,
    named::calls,
    failing_requests,
    dependency,
    host,
    alerts,
];

fn evidence(class: &'static str, weight: f64, reason: String) -> Evidence {
    Evidence { class, weight, reason, cause: None }
}

fn each(scene: &Scene<'_>, rule: impl Fn(&SymptomState) -> Option<Evidence>) -> Vec<Evidence> {
    scene.telling().into_iter().filter_map(rule).collect()
}

/// `process` label of the symptom, or what the process probe of a fresh look says.
fn process<'a>(scene: &Scene<'_>, symptom: &'a SymptomState) -> &'a str {
    let label = symptom.symptom.labels.get("process").map_or("", String::as_str);
    if !matches!(label, "" | "unknown") {
        return label;
    }
    let seen = scene.observations.get(&symptom.symptom.target);
    match seen.and_then(|seen| seen.probes.get("process_alive")) {
        Some(true) => "running",
        Some(false) => "not alive",
        None => "unknown",
    }
}

fn dead_process(scene: &Scene<'_>) -> Vec<Evidence> {
    each(scene, |s| {
        let kind = s.symptom.kind.as_str();
        let who = &s.symptom.target;
        match (kind, process(scene, s)) {
            ("down" | "unresponsive", "dead") => {
                let why = format!("the process of {who} is dead");
                Some(evidence("application/crash", 0.97, why))
            }
            ("down", "stopped") => {
                let why = format!("the process of {who} is stopped though it should run");
                Some(evidence("application/crash", 0.75, why))
            }
            ("down", "not alive") => {
                let why = format!("{who} is down and its process does not live");
                Some(evidence("application/crash", 0.85, why))
            }
            ("down", "unknown") => {
                let why = format!("nothing answers at {who}, and nobody sees its process");
                Some(evidence("application/crash", 0.6, why))
            }
            _ => None,
        }
    })
}

fn hung_process(scene: &Scene<'_>) -> Vec<Evidence> {
    each(scene, |s| {
        let who = &s.symptom.target;
        match (s.symptom.kind.as_str(), process(scene, s)) {
            (_, "paused") => {
                let why = format!("the process of {who} is there but paused");
                Some(evidence("application/hang", 0.97, why))
            }
            ("unresponsive", "running") => {
                let why = format!("the process of {who} runs but does not answer");
                Some(evidence("application/hang", 0.88, why))
            }
            ("unresponsive", "unknown") => {
                let why = format!("{who} does not answer in time");
                Some(evidence("application/hang", 0.6, why))
            }
            _ => None,
        }
    })
}

fn unreachable(scene: &Scene<'_>) -> Vec<Evidence> {
    each(scene, |s| {
        let refused = s.symptom.kind == "down" && process(scene, s) == "running";
        let why =
            || format!("the process of {} runs, but connections to it fail", s.symptom.target);
        refused.then(|| evidence("network/unreachable", 0.75, why()))
    })
}

/// A change of configuration just before the fault began, by an agent that keeps the version before.
/// The longer before, the weaker; a change after the fault began is no cause; nor is one that Medic
/// made itself; and what is merely unusual after a change is no fault.
fn bad_rollout(scene: &Scene<'_>) -> Vec<Evidence> {
    const JITTER: Millis = Millis(5_000);
    each(scene, |s| {
        let harmless = s.symptom.severity == Severity::Info;
        let kind = s.symptom.kind.as_str();
        let used_up = kind.starts_with("saturation") || kind == "depleted";
        if used_up || kind == "certificate-expired" || scene.predicted() || harmless {
            return None;
        }
        let target = &s.symptom.target;
        let changed = Scene::config_changed_at(s)?;
        if Scene::label(s, "previous_config").is_empty() {
            // The first version is no roll-out, and there is nothing to go back to.
            return None;
        }
        if changed > s.symptom.since.max(s.first_at).plus(JITTER)
            || scene.changed_by_medic(target, changed)
        {
            return None;
        }
        let lag = s.symptom.since.max(changed).since(changed);
        let weight = match lag.0 {
            0..=45_000 => 0.92,
            45_001..=120_000 => 0.75,
            120_001..=300_000 => 0.45,
            _ => 0.2,
        };
        let seconds = lag.0 / 1000;
        let kind = &s.symptom.kind;
        let why = format!(
            "the configuration of {target} changed {seconds} s before `{kind}` began there"
        );
        Some(evidence("configuration/bad-rollout", weight, why))
    })
}

/// Errors or latency. When siblings on the same work do well, the fault is the instance's own; when
/// all suffer, it is the service's own if what it calls was looked at and does well. Otherwise the
/// cause may lie elsewhere.
fn failing_requests(scene: &Scene<'_>) -> Vec<Evidence> {
    let affected: BTreeSet<Target> = scene.affected().into_iter().collect();
    let siblings: Vec<Target> =
        scene.instances().into_iter().filter(|target| !affected.contains(target)).collect();
    let well = siblings.iter().filter(|target| scene.healthy(target)).count();
    let called: Vec<Target> = topology::dependencies(scene.state, scene.tenant(), scene.name())
        .into_iter()
        .flat_map(|name| topology::running_targets(scene.state, scene.tenant(), name))
        .collect();
    let callees = called.len();
    let callees_well = called
        .iter()
        .filter(|target| {
            let looked = scene.observations.get(target).is_some_and(|seen| !seen.probes.is_empty());
            looked && scene.healthy(target)
        })
        .count();
    each(scene, |s| {
        let indicator = Scene::label(s, "indicator");
        let class = match s.symptom.kind.as_str() {
            "errors" => "application/errors",
            "latency" => "application/latency",
            "saturation" if indicator.contains("error") => "application/errors",
            "saturation" if indicator.contains("latency") => "application/latency",
            _ => return None,
        };
        let who = &s.symptom.target;
        let what = class.trim_start_matches("application/");
        if well > 0 && well == siblings.len() {
            let why = format!("{what} at {who} alone: {well} other instance(s) do well");
            return Some(evidence(class, 0.86, why));
        }
        if callees > 0 && callees_well == callees {
            let why = format!("{what} at {who}, while all it calls ({callees}) does well");
            return Some(evidence(class, 0.8, why));
        }
        let why = format!("{what} at {who}, and nothing to compare with");
        Some(evidence(class, if callees == 0 { 0.7 } else { 0.5 }, why))
    })
}

/// Whether an instance that is not affected was looked at, and serves its requests well.
fn spared(scene: &Scene<'_>) -> bool {
    const WELL: f64 = 0.05;
    let affected = scene.affected();
    scene.instances().iter().filter(|target| !affected.contains(target)).any(|target| {
        let seen = scene.observations.get(target);
        let errors = seen.and_then(|seen| seen.metrics.get("error_rate"));
        errors.is_some_and(|rate| *rate <= WELL) && scene.healthy(target)
    })
}

/// Trouble of something this service calls. Only for symptoms that trouble elsewhere can cause; and
/// half as likely while siblings that call the same do well.
fn dependency(scene: &Scene<'_>) -> Vec<Evidence> {
    let Some(suffering) = scene.telling().into_iter().find(|s| {
        let process = process(scene, s);
        let kind = s.symptom.kind.as_str();
        (matches!(kind, "errors" | "latency" | "unresponsive" | "alert")
            || kind == "saturation" && named::of_calls(Scene::label(s, "indicator")))
            && !matches!(process, "dead" | "paused" | "stopped" | "not alive")
    }) else {
        return Vec::new();
    };
    let share = if spared(scene) { 0.5 } else { 1.0 };
    let callees = topology::dependencies(scene.state, scene.tenant(), scene.name());
    // Farthest first: what the others of the chain depend on is the likelier cause.
    callees
        .into_iter()
        .rev()
        .filter_map(|callee| trouble(scene, callee))
        .map(|(cause, weight, what)| {
            let reason =
                format!("{} is called by {}, and {what}", cause.service, suffering.symptom.target);
            let weight = weight * share;
            Evidence { class: "dependency/failure", weight, reason, cause: Some(cause) }
        })
        .collect()
}

fn trouble(scene: &Scene<'_>, callee: &str) -> Option<(Target, f64, String)> {
    let symptoms: Vec<_> = topology::active_symptoms(scene.state, scene.tenant(), callee)
        .filter(|(_, s)| s.symptom.felt_by_others())
        .collect();
    let gone = symptoms.iter().find(|(_, s)| topology::out_of_service(&s.symptom.kind));
    if let Some((incident, s)) = gone {
        let what = format!("{} is {} ({})", s.symptom.target, s.symptom.kind, incident.id);
        return Some((s.symptom.target.clone(), 0.92, what));
    }
    let failing = scene.observations.iter().find(|(target, seen)| {
        target.tenant == scene.tenant()
            && target.service == callee
            && seen.probes.values().any(|good| !good)
    });
    if let Some((target, seen)) = failing {
        let probe = seen.probes.iter().find(|(_, good)| !**good).map_or("", |(name, _)| name);
        return Some((target.clone(), 0.85, format!("probe {probe} of {target} fails")));
    }
    let (incident, s) = symptoms.first()?;
    let what = format!("{} has `{}` ({})", s.symptom.target, s.symptom.kind, incident.id);
    Some((s.symptom.target.clone(), 0.72, what))
}

/// The agent is gone, or everything on its host is.
fn host(scene: &Scene<'_>) -> Vec<Evidence> {
    let mut found = each(scene, |s| {
        let lost = s.symptom.kind == "agent-lost";
        let why = || format!("the agent on the host of {} is gone", s.symptom.target);
        lost.then(|| evidence("infrastructure/host-down", 0.85, why()))
    });
    let agents: BTreeSet<&str> = scene
        .affected()
        .iter()
        .filter_map(|target| topology::instance(scene.state, target))
        .filter_map(|instance| instance.agent.as_deref())
        .collect();
    for agent in agents {
        let on_it: Vec<Target> = topology::services(scene.state, scene.tenant())
            .flat_map(|(name, spec)| {
                topology::running(spec)
                    .filter(|instance| instance.agent.as_deref() == Some(agent))
                    .map(move |instance| topology::target(scene.tenant(), name, &instance.name))
            })
            .collect();
        let gone = |target: &Target| {
            topology::active_symptoms(scene.state, scene.tenant(), &target.service).any(|(_, s)| {
                s.symptom.target == *target && topology::out_of_service(&s.symptom.kind)
            })
        };
        let away = scene.state.agents.get(agent).is_some_and(|state| state.node.is_none());
        if on_it.len() > 1 && on_it.iter().all(gone) && away {
            let why = format!("agent {agent} is gone and so are all {} instances", on_it.len());
            found.push(evidence("infrastructure/host-down", 0.95, why));
        } else if away && on_it.iter().any(gone) {
            let why = format!("agent {agent} is not connected to any node");
            found.push(evidence("infrastructure/host-down", 0.72, why));
        }
    }
    found
}

/// Alerts: those that name their class, and those about certificates.
fn alerts(scene: &Scene<'_>) -> Vec<Evidence> {
    const KNOWN: [&str; 19] = [
        "application/crash",
        "application/hang",
        "application/memory-leak",
        "application/errors",
        "application/latency",
        "configuration/bad-rollout",
        "infrastructure/host-down",
        "infrastructure/saturation",
        "network/unreachable",
        "dependency/failure",
        "security/certificate-expiry",
        "security/certificate-invalid",
        "application/descriptor-leak",
        "infrastructure/disk-full",
        "network/partition",
        "network/name-resolution",
        "security/unexpected-listener",
        "security/tampering",
        "security/login-storm",
    ];
    each(scene, |s| {
        let named = Scene::label(s, "class");
        if let Some(class) = KNOWN.into_iter().find(|class| *class == named) {
            let why = format!("the {} names its class", s.symptom.kind);
            return Some(evidence(class, 0.75, why));
        }
        let alert = Scene::label(s, "alertname").to_ascii_lowercase();
        let about = |word: &str| alert.contains(word) || s.symptom.kind.contains(word);
        let expires = about("cert") && ["expir", "renew"].iter().any(|word| about(word));
        let why = || format!("{} speaks of an expiring certificate", s.symptom.kind);
        expires.then(|| evidence("security/certificate-expiry", 0.9, why()))
    })
}
