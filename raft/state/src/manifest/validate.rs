//! What can be wrong with a manifest beyond its form, told without any I/O. Asked at the door, and
//! again by `apply`.
//!
//! Deliberately absent: whether CEL conditions parse (judgement's language, checked by the door),
//! and whether names refer to something that is declared: that may come later or go again.

mod channel;
mod source;

use std::{collections::BTreeSet, fmt};

use super::{
    InhibitSpec, MAX_STARTS, Manifest, ObserversSpec, PlaybookSpec, PolicySpec, ProbeKind,
    ProbeSpec, RoleBindingSpec, ScheduleSpec, ServiceSpec, Spec, StepSpec, Subject,
};
use crate::{
    action::action_info,
    ids::{Millis, Ppm},
    matcher::Matcher,
    rbac::builtin_role,
};

/// Something wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `spec.steps[0].action`.
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Longest name, as for Kubernetes labels.
const MAX_NAME: usize = 63;
/// Labels on a manifest.
const MAX_LABELS: usize = 64;
/// Steps of a playbook; each becomes one step per instance in a plan of at most 256.
const MAX_STEPS: usize = 64;
/// Instances of a service.
const MAX_INSTANCES: usize = 1_024;
/// Probes, indicators, dependencies, matchers, subjects: each of these lists.
const MAX_LIST: usize = 256;
/// Nodes that look at one probe's target: the largest cluster of voters that is of use.
const MAX_OBSERVERS: u32 = 7;
/// Attempts after the first.
const MAX_RETRY: u32 = 10;
/// Plans for one incident.
const MAX_ATTEMPTS: u32 = 10;
/// Plans within one rate.
const MAX_RATE: u32 = 1_000;
/// A cron expression, the name of a time zone.
const MAX_SCHEDULE_BYTES: usize = 128;
/// Inhibition rules of a policy; matchers and labels of each.
const MAX_INHIBIT: usize = 32;
/// The longest time in which a return is the same story.
const MAX_REFRACTORY: Millis = Millis::from_secs(86_400);
/// The longest span that rates and cooldowns look back.
const MAX_SPAN: Millis = Millis::from_secs(7 * 86_400);

/// Everything wrong with a manifest; empty: nothing.
#[must_use]
pub fn validate(manifest: &Manifest) -> Vec<Problem> {
    let mut found = Found::default();
    let metadata = &manifest.metadata;
    found.name("metadata.name", &metadata.name);
    let access = matches!(manifest.spec, Spec::Role(_) | Spec::RoleBinding(_));
    if metadata.tenant != "*" {
        found.name("metadata.tenant", &metadata.tenant);
    } else if !access {
        found.add("metadata.tenant", "only Role and RoleBinding may stand in tenant `*`");
    }
    found.at_most("metadata.labels", metadata.labels.len(), MAX_LABELS);
    match &manifest.spec {
        Spec::Service(service) => check_service(&mut found, &metadata.name, service),
        Spec::Playbook(playbook) => check_playbook(&mut found, playbook),
        Spec::Policy(policy) => check_policy(&mut found, policy),
        Spec::Source(source) => source::check(&mut found, source),
        Spec::Silence(silence) => {
            found.matchers("spec.match", &silence.matchers);
            if silence.ends_at <= silence.starts_at {
                found.add("spec.endsAt", "it ends before it starts");
            }
            match (&silence.schedule, silence.duration) {
                (Some(schedule), Some(duration)) => {
                    found.some_time("spec.duration", duration);
                    check_schedule(&mut found, schedule);
                }
                (Some(_), None) => found.add("spec.duration", "how long, each time it comes?"),
                (None, Some(_)) => {
                    found.add("spec.duration", "without a `schedule` it lasts until `endsAt`");
                }
                (None, None) => {}
            }
        }
        Spec::MaintenanceWindow(window) => {
            found.matchers("spec.match", &window.matchers);
            found.some_time("spec.duration", window.duration);
            if window.every.is_some_and(|every| every <= window.duration) {
                found.add("spec.every", "it repeats before it ends: make `every` longer");
            }
            if window.ends_at.is_some_and(|end| end <= window.starts_at) {
                found.add("spec.endsAt", "it ends before it starts");
            }
            if let Some(schedule) = &window.schedule {
                if window.every.is_some() {
                    found.add("spec.every", "a `schedule` says when: leave `every` out");
                }
                if window.ends_at.is_none() {
                    found.add("spec.endsAt", "a `schedule` needs an end: its times are worked out");
                }
                check_schedule(&mut found, schedule);
            }
        }
        Spec::Role(role) => {
            if builtin_role(&metadata.name).is_some() {
                found.add("metadata.name", "this role is built in: choose another name");
            }
            if role.permissions.is_empty() {
                found.add("spec.permissions", "the role opens nothing");
            }
        }
        Spec::RoleBinding(binding) => check_binding(&mut found, binding),
        Spec::Tenant(_) => {
            let home = &metadata.tenant;
            if *home != metadata.name && home != super::DEFAULT_TENANT {
                found.add("metadata.tenant", "a Tenant stands in `default`, or in itself");
            }
        }
        Spec::Channel(spec) => channel::check(&mut found, &metadata.tenant, spec),
    }
    found.0
}

/// The times were worked out by a door: the law only looks whether they are in order.
fn check_schedule(found: &mut Found, schedule: &ScheduleSpec) {
    if schedule.cron.len() > MAX_SCHEDULE_BYTES || schedule.timezone.len() > MAX_SCHEDULE_BYTES {
        found.add("spec.schedule", &format!("at most {MAX_SCHEDULE_BYTES} bytes each"));
    }
    found.at_most("spec.schedule", schedule.starts.len(), MAX_STARTS);
    if schedule.starts.is_empty() {
        found.add("spec.schedule", "it never comes between `startsAt` and `endsAt`");
    }
    if !schedule.starts.is_sorted() {
        found.add("spec.schedule", "its times are not in order");
    }
}

fn check_service(found: &mut Found, name: &str, service: &ServiceSpec) {
    found.at_most("spec.instances", service.instances.len(), MAX_INSTANCES);
    found.at_most("spec.dependsOn", service.depends_on.len(), MAX_LIST);
    found.at_most("spec.probes", service.probes.len(), MAX_LIST);
    found.at_most("spec.indicators", service.indicators.len(), MAX_LIST);
    found.unique("spec.instances", service.instances.iter().map(|one| one.name.as_str()));
    found.unique("spec.probes", service.probes.iter().map(|one| one.name.as_str()));
    found.unique("spec.indicators", service.indicators.iter().map(|one| one.name.as_str()));
    for (at, instance) in service.instances.iter().enumerate() {
        found.name(&format!("spec.instances[{at}].name"), &instance.name);
        if service.process.is_some() && instance.agent.as_deref().unwrap_or_default().is_empty() {
            let path = format!("spec.instances[{at}].agent");
            found.add(&path, "a service with `process` needs the agent that runs the instance");
        }
    }
    for (at, other) in service.depends_on.iter().enumerate() {
        if other == name {
            found.add(&format!("spec.dependsOn[{at}]"), "a service does not depend on itself");
        }
    }
    for (at, probe) in service.probes.iter().enumerate() {
        found.some_time(&format!("spec.probes[{at}].interval"), probe.interval);
        found.some_time(&format!("spec.probes[{at}].timeout"), probe.timeout);
        if let Some(observers) = probe.observers {
            check_observers(found, &format!("spec.probes[{at}].observers"), probe, observers);
        }
    }
    if let Some(process) = &service.process {
        found.not_empty("spec.process.command", &process.command);
    }
}

fn check_observers(found: &mut Found, path: &str, probe: &ProbeSpec, observers: ObserversSpec) {
    let ObserversSpec { of, agree } = observers;
    if of == 0 || of > MAX_OBSERVERS {
        found.add(&format!("{path}.of"), &format!("1 to {MAX_OBSERVERS}"));
    }
    if agree == 0 || agree > of {
        found.add(&format!("{path}.agree"), &format!("1 to `of`, which is {of}"));
    }
    if matches!(probe.kind, ProbeKind::Process(_)) {
        found.add(path, "whether a process lives is its agent's word: no other node can look");
    }
}

fn check_playbook(found: &mut Found, playbook: &PlaybookSpec) {
    found.parse("spec.match", &playbook.matchers);
    if playbook.steps.is_empty() {
        found.add("spec.steps", "a playbook has at least one step");
    }
    found.at_most("spec.steps", playbook.steps.len(), MAX_STEPS);
    found.unique("spec.steps", playbook.steps.iter().map(|step| step.name.as_str()));
    for (at, step) in playbook.steps.iter().enumerate() {
        check_step(found, &format!("spec.steps[{at}]"), step);
    }
    found.not_empty("spec.verify.expect", &playbook.verify.expect);
    found.some_time("spec.verify.timeout", playbook.verify.timeout);
    let scope = &playbook.scope;
    for (path, rate) in
        [("spec.scope.perTarget", scope.per_target), ("spec.scope.perPlaybook", scope.per_playbook)]
    {
        if rate.count == 0 || rate.count > MAX_RATE || rate.per.0 == 0 || rate.per > MAX_SPAN {
            let text = format!("a rate is 1 to {MAX_RATE} per up to {MAX_SPAN}, such as 2/1h");
            found.add(path, &text);
        }
    }
    if scope.cooldown > MAX_SPAN {
        found.add("spec.scope.cooldown", &format!("at most {MAX_SPAN}"));
    }
    if scope.max_attempts == 0 || scope.max_attempts > MAX_ATTEMPTS {
        found.add("spec.scope.maxAttempts", &format!("1 to {MAX_ATTEMPTS}"));
    }
    let approval = &playbook.approval;
    if approval.min_approvers == 0 || approval.min_approvers > 16 {
        found.add("spec.approval.minApprovers", "1 to 16");
    }
    found.some_time("spec.approval.ttl", approval.ttl);
}

fn check_step(found: &mut Found, path: &str, step: &StepSpec) {
    found.not_empty(&format!("{path}.name"), &step.name);
    found.some_time(&format!("{path}.timeout"), step.timeout);
    if step.retry.max > MAX_RETRY {
        found.add(&format!("{path}.retry.max"), &format!("at most {MAX_RETRY}"));
    }
    check_action(found, path, &step.action, &step.params);
    if let Some(undo) = &step.undo {
        check_action(found, &format!("{path}.undo"), &undo.action, &undo.params);
    }
}

fn check_action(
    found: &mut Found,
    path: &str,
    name: &str,
    params: &std::collections::BTreeMap<String, String>,
) {
    let Some(info) = action_info(name) else {
        let known: Vec<&str> = crate::action::ACTIONS.iter().map(|info| info.name).collect();
        let text = format!("there is no action `{name}`; there are {}", known.join(", "));
        found.add(&format!("{path}.action"), &text);
        return;
    };
    for required in info.required {
        if !params.contains_key(*required) {
            found.add(&format!("{path}.params"), &format!("`{name}` needs `{required}`"));
        }
    }
    for given in params.keys() {
        if !info.required.contains(&given.as_str()) && !info.optional.contains(&given.as_str()) {
            found.add(&format!("{path}.params.{given}"), &format!("`{name}` takes no `{given}`"));
        }
    }
}

fn check_policy(found: &mut Found, policy: &PolicySpec) {
    for (path, zero) in [
        ("spec.maxInFlight", policy.max_in_flight == 0),
        ("spec.maxBlastRadius", policy.max_blast_radius == Ppm::ZERO),
        ("spec.breakerFailures", policy.breaker_failures == 0),
    ] {
        if zero {
            found.add(path, "zero would stop all remediation: use a freeze for that");
        }
    }
    for (path, bounds) in
        [("spec.autoExecute", &policy.auto_execute), ("spec.recommend", &policy.recommend)]
    {
        if bounds.confidence > Ppm::ONE || bounds.risk > Ppm::ONE {
            found.add(path, "fractions lie between 0 and 1");
        }
    }
    if policy.refractory.is_some_and(|span| span > MAX_REFRACTORY) {
        found.add("spec.refractory", &format!("at most {MAX_REFRACTORY}"));
    }
    if policy.max_recurrences == Some(0) {
        found.add("spec.maxRecurrences", "at least 1; `refractory: 0s` takes no notice of returns");
    }
    check_inhibition(found, &policy.inhibit);
}

fn check_inhibition(found: &mut Found, rules: &[InhibitSpec]) {
    found.at_most("spec.inhibit", rules.len(), MAX_INHIBIT);
    found.unique("spec.inhibit", rules.iter().map(|rule| rule.name.as_str()));
    for (at, rule) in rules.iter().enumerate() {
        let path = |field: &str| format!("spec.inhibit[{at}].{field}");
        found.name(&path("name"), &rule.name);
        for (field, matchers) in [("source", &rule.source), ("target", &rule.target)] {
            found.matchers(&path(field), matchers);
            found.at_most(&path(field), matchers.len(), MAX_INHIBIT);
        }
        if rule.source == rule.target {
            let text = "it is the same as `source`: what matches both sides inhibits nothing";
            found.add(&path("target"), text);
        }
        found.at_most(&path("equal"), rule.equal.len(), MAX_INHIBIT);
        for (label, name) in rule.equal.iter().enumerate() {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(legal) {
                let text = format!("`{}` is no label's name", name.escape_debug());
                found.add(&path(&format!("equal[{label}]")), &text);
            }
        }
    }
}

fn check_binding(found: &mut Found, binding: &RoleBindingSpec) {
    found.not_empty("spec.role", &binding.role);
    if binding.subjects.is_empty() {
        found.add("spec.subjects", "the binding binds nobody");
    }
    found.at_most("spec.subjects", binding.subjects.len(), MAX_LIST);
    for (at, Subject::User(user)) in binding.subjects.iter().enumerate() {
        found.not_empty(&format!("spec.subjects[{at}].user"), user);
    }
}

/// Problems found so far.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, path: &str, message: &str) {
        self.0.push(Problem { path: path.to_owned(), message: message.to_owned() });
    }

    fn name(&mut self, path: &str, name: &str) {
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
        };
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let (first, last) = (name.bytes().next(), name.bytes().last());
        if name.len() > MAX_NAME || !name.bytes().all(legal) || !edge(first) || !edge(last) {
            let text = format!(
                "`{}` is no name: lower-case letters, digits, `-` and `.`, at most {MAX_NAME}",
                name.escape_debug()
            );
            self.add(path, &text);
        }
    }

    fn not_empty(&mut self, path: &str, text: &str) {
        if text.trim().is_empty() {
            self.add(path, "it is empty");
        }
    }

    fn some_time(&mut self, path: &str, time: Millis) {
        if time.0 == 0 {
            self.add(path, "it must be longer than no time");
        }
    }

    fn at_most(&mut self, path: &str, count: usize, bound: usize) {
        if count > bound {
            self.add(path, &format!("{count} are too many: at most {bound}"));
        }
    }

    fn unique<'a>(&mut self, path: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (at, name) in names.enumerate() {
            if !seen.insert(name) {
                self.add(&format!("{path}[{at}].name"), &format!("`{name}` is there already"));
            }
        }
    }

    fn matchers(&mut self, path: &str, texts: &[String]) {
        if texts.is_empty() {
            self.add(path, "it would match everything: name at least one matcher");
        }
        self.parse(path, texts);
    }

    fn parse(&mut self, path: &str, texts: &[String]) {
        self.at_most(path, texts.len(), MAX_LIST);
        for (at, text) in texts.iter().enumerate() {
            if let Err(error) = text.parse::<Matcher>() {
                self.add(&format!("{path}[{at}]"), &error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests;
