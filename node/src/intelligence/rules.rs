//! Which playbooks fit: matchers over labels, `when` over facts, prevention only before the event.

use std::sync::Arc;

use medic_state::{
    Digest,
    manifest::{Escalation, Manifest, PlaybookSpec, Spec},
    matcher::{self, MatchOp},
};

use super::scene::Scene;
use crate::{
    expr::{Condition, Truth},
    topology,
};

/// A playbook that concerns the incident.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Hash of its manifest.
    pub(super) digest: Digest,
    /// What it says.
    pub(super) spec: &'a PlaybookSpec,
    /// How narrowly it matches: two for each matcher, one for a condition.
    pub(super) specificity: usize,
    /// Whether it recognises the fault by its class or by the symptom itself.
    pub(super) by_symptom: bool,
    /// Named next by the playbook that failed last.
    pub(super) escalation: bool,
    /// Why it cannot be used after all.
    pub(super) unfit: Option<String>,
}

/// The playbooks whose matchers match, by name; those that cannot be used say why. Playbooks that
/// do not match are no candidates and are not listed.
#[must_use]
pub(super) fn candidates<'a>(scene: &Scene<'a>, class: &str) -> Vec<Candidate<'a>> {
    let labels = scene.labels(class);
    let facts = scene.facts(class);
    let next = named_next(scene);
    let mut found = Vec::new();
    for (name, stored) in topology::playbooks(scene.state, scene.tenant()) {
        let manifest: &'a Arc<Manifest> = &stored.manifest;
        let Spec::Playbook(spec) = &manifest.spec else { continue };
        let escalation = next.contains(&name);
        let matched = matcher::parse_all(&spec.matchers)
            .map(|all| all.iter().all(|matcher| matcher.matches(&labels)));
        let mut unfit = match matched {
            Err(error) => Some(error.to_string()),
            Ok(true) => None,
            // Named by hand as what follows: its author has chosen it for this case.
            Ok(false) if escalation => None,
            Ok(false) => continue,
        };
        if unfit.is_none() {
            unfit = not_now(scene, name, spec).or_else(|| condition(spec, &facts));
        }
        let specificity = 2 * spec.matchers.len() + usize::from(spec.when.is_some());
        let by_symptom = by_symptom(spec);
        let digest = stored.digest;
        found.push(Candidate { name, digest, spec, specificity, by_symptom, escalation, unfit });
    }
    found
}

/// What the playbook that failed last on this incident says should follow.
fn named_next<'a>(scene: &Scene<'a>) -> Vec<&'a str> {
    let Some(last) = scene.incident.attempts.last() else { return Vec::new() };
    topology::playbooks(scene.state, scene.tenant())
        .filter(|(name, _)| *name == last.playbook)
        .filter_map(|(_, stored)| match &stored.manifest.spec {
            Spec::Playbook(spec) => Some(&spec.escalate),
            _ => None,
        })
        .flatten()
        .filter_map(|escalation| match escalation {
            Escalation::Playbook(name) => Some(name.as_str()),
            Escalation::Notify(_) => None,
        })
        .collect()
}

/// A playbook for one alert, kind or indicator, whatever the class: its author knows what it means.
fn by_symptom(spec: &PlaybookSpec) -> bool {
    let names: Vec<String> = matcher::parse_all(&spec.matchers)
        .unwrap_or_default()
        .into_iter()
        .filter(|matcher| matches!(matcher.op, MatchOp::Equal | MatchOp::Matches))
        .map(|matcher| matcher.name)
        .collect();
    let has = |name: &str| names.iter().any(|found| found == name);
    !has("class") && ["alertname", "kind", "indicator"].into_iter().any(has)
}

fn not_now(scene: &Scene<'_>, name: &str, spec: &PlaybookSpec) -> Option<String> {
    let predicted = scene.predicted();
    if predicted && !spec.preventive {
        return Some("nothing is broken yet, and it is not preventive".to_owned());
    }
    if !predicted && spec.preventive {
        return Some("it prevents, and the fault is already there".to_owned());
    }
    let attempt = scene.incident.attempts.iter().find(|attempt| attempt.playbook == name)?;
    Some(format!("already tried ({}): {}", attempt.plan, attempt.reason))
}

fn condition(spec: &PlaybookSpec, facts: &crate::expr::Facts) -> Option<String> {
    let when = spec.when.as_deref()?;
    match Condition::parse(when).and_then(|condition| condition.evaluate(facts)) {
        Ok(Truth::True) => None,
        Ok(Truth::False) => Some(format!("its condition does not hold: {when}")),
        Ok(Truth::NoData(what)) => Some(format!("its condition cannot be told ({what}): {when}")),
        Err(error) => Some(error.to_string()),
    }
}
