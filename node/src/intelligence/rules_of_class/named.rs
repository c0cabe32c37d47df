//! Rules that go by what an indicator is named: what fills up, what its calls run into, what
//! security figures say.
//!
//! | the name holds | and it is over its limit | class |
//! |---|---|---|
//! | `memory`, `heap`, `rss` | or will be | application/memory-leak |
//! | `fds`, `descriptor`, `open_files` | or will be | application/descriptor-leak |
//! | `disk`, `spool`, `volume` | or will be | infrastructure/disk-full |
//! | `upstream`, `dependency` with `timeout` | at one instance, while others and the called do well | network/partition |
//! | `upstream`, `dependency` with `refused`, `resolve`, `dns` | the same | network/name-resolution |
//! | `certificate`, `cert` | | security/certificate-expiry |
//! | `listener`, `open_ports` | | security/unexpected-listener |
//! | `modified`, `tamper`, `integrity`, `privilege` | | security/tampering |
//! | `login`, `auth`, `authentication` | | security/login-storm |
//! | anything else | or will be | infrastructure/saturation |
//!
//! Names are read word by word: `auth` is none of `author_count`.
//!
//! An indicator speaks with the symptom of the greater trouble that it comes with, too: a full disk
//! makes requests fail, and is still the reason.

use std::collections::BTreeSet;

use medic_state::incident::SymptomState;

use super::{each, evidence};
use crate::intelligence::{classify::Evidence, scene::Scene};
use crate::{meaning::Meaning, topology};

/// The class that an indicator over its limit speaks for, and how surely.
const fn class(meaning: Meaning) -> Option<(&'static str, f64)> {
    match meaning {
        Meaning::Memory => Some(("application/memory-leak", 0.8)),
        Meaning::Descriptors => Some(("application/descriptor-leak", 0.85)),
        Meaning::Disk => Some(("infrastructure/disk-full", 0.92)),
        Meaning::Certificate => Some(("security/certificate-expiry", 0.95)),
        Meaning::Listener => Some(("security/unexpected-listener", 0.92)),
        Meaning::Modified => Some(("security/tampering", 0.92)),
        Meaning::Logins => Some(("security/login-storm", 0.88)),
        Meaning::Other => Some(("infrastructure/saturation", 0.78)),
        Meaning::CallsTimeOut | Meaning::CallsRefused | Meaning::Requests => None,
    }
}

/// Whether an indicator counts calls to other services that fail.
pub(super) fn of_calls(indicator: &str) -> bool {
    matches!(Meaning::of(indicator), Meaning::CallsTimeOut | Meaning::CallsRefused)
}

/// The indicators over their limit that a symptom rests on, whatever kind it is of.
fn over_limit(symptom: &SymptomState) -> BTreeSet<&str> {
    symptom
        .symptom
        .signals
        .iter()
        .filter(|signal| signal.detector == "limit")
        .filter_map(|signal| signal.name.strip_prefix("metric."))
        .collect()
}

/// Whether the symptom says that something is, or will be, over its limit.
fn about_limits(kind: &str) -> bool {
    matches!(
        kind,
        "saturation" | "saturation-predicted" | "depleted" | "errors" | "latency" | "unresponsive"
    )
}

/// What is over its limit, by its name.
pub(super) fn limits(scene: &Scene<'_>) -> Vec<Evidence> {
    let mut found = Vec::new();
    for s in scene.telling().into_iter().filter(|s| about_limits(&s.symptom.kind)) {
        let mut names = over_limit(s);
        let out = matches!(s.symptom.kind.as_str(), "saturation" | "depleted");
        if out {
            names.insert(Scene::label(s, "indicator"));
        }
        names.remove("");
        for name in names {
            let meaning = Meaning::of(name);
            // Beside failing requests a busy processor is an effect as often as the cause.
            let beside = meaning == Meaning::Other && !out;
            if let Some((class, weight)) = class(meaning).filter(|_| !beside) {
                let why = format!("{name} of {} is beyond its limit", s.symptom.target);
                found.push(evidence(class, weight, why));
            }
        }
    }
    found
}

/// The class that a prediction speaks for, and how surely: of a limit by the indicator's name, else by
/// what is foretold.
pub(in crate::intelligence) fn class_foretold(
    kind: &str,
    indicator: &str,
) -> Option<(&'static str, f64)> {
    match kind {
        "saturation-predicted" | "capacity-predicted" => match Meaning::of(indicator) {
            Meaning::Memory => Some(("application/memory-leak", 0.92)),
            Meaning::Descriptors => Some(("application/descriptor-leak", 0.92)),
            Meaning::Disk => Some(("infrastructure/disk-full", 0.88)),
            // An error rate or a latency that rises is no lack of a resource.
            Meaning::Requests | Meaning::CallsTimeOut | Meaning::CallsRefused => None,
            Meaning::Certificate | Meaning::Listener | Meaning::Modified | Meaning::Logins => None,
            Meaning::Other => Some(("infrastructure/saturation", 0.65)),
        },
        "failure-predicted" => Some(("application/crash", 0.85)),
        "budget-predicted" => Some(("application/errors", 0.8)),
        "latency-predicted" => Some(("application/latency", 0.8)),
        "security-predicted" => Some(("security/certificate-expiry", 0.92)),
        "certificate-expired" => Some(("security/certificate-expiry", 0.95)),
        _ => None,
    }
}

/// What detection foretells of it.
pub(super) fn foretold(scene: &Scene<'_>) -> Vec<Evidence> {
    each(scene, |s| {
        let name = Scene::label(s, "indicator");
        let (class, weight) = class_foretold(&s.symptom.kind, name)?;
        let who = &s.symptom.target;
        let why = match (s.symptom.kind.as_str(), s.symptom.time_to_event) {
            ("saturation-predicted" | "capacity-predicted", Some(left)) => {
                format!("{name} of {who} will reach its limit in {} s", left.0 / 1000)
            }
            (_, Some(_)) => format!("of {who} it is foretold: {}", s.symptom.summary),
            (_, None) => format!("of {who} it was foretold: {}", s.symptom.summary),
        };
        Some(evidence(class, weight, why))
    })
}

/// Calls of one instance that get no answer, or find nobody there, while its siblings reach the same
/// services and those do well: what lies between is broken.
pub(super) fn calls(scene: &Scene<'_>) -> Vec<Evidence> {
    let called: Vec<_> = topology::dependencies(scene.state, scene.tenant(), scene.name())
        .into_iter()
        .flat_map(|name| topology::running_targets(scene.state, scene.tenant(), name))
        .collect();
    let well = called.iter().filter(|target| scene.healthy(target)).count();
    let affected = scene.affected();
    let siblings_well = scene
        .instances()
        .iter()
        .filter(|target| !affected.contains(target) && scene.healthy(target))
        .count();
    if called.is_empty() || well < called.len() || siblings_well == 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    for s in scene.telling().into_iter().filter(|s| about_limits(&s.symptom.kind)) {
        let who = &s.symptom.target;
        let mut names = over_limit(s);
        names.insert(Scene::label(s, "indicator"));
        for name in names {
            let (class, what) = match Meaning::of(name) {
                Meaning::CallsTimeOut => ("network/partition", "get no answer"),
                Meaning::CallsRefused => ("network/name-resolution", "find nobody there"),
                _ => continue,
            };
            let why = format!(
                "calls of {who} {what} ({name}), while {siblings_well} sibling(s) and all that is \
                 called ({well}) do well"
            );
            found.push(evidence(class, 0.9, why));
        }
    }
    found
}
