//! The five checks beside the expectation: did it help without hurting?
//!
//! A check without data is inconclusive and left out of the mean: silence is neither good nor bad.

use std::collections::BTreeSet;

use medic_state::{
    Millis, Timestamp,
    manifest::IndicatorSpec,
    saga::{StepStatus, VerdictValue},
    symptom::{Severity, Symptom, Target},
};

use super::{AssessInput, Sample, expectations::before};
use crate::{figures::value_of, meaning::Meaning, topology};

/// One check before it becomes part of a verdict.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Checked {
    pub(super) kind: &'static str,
    pub(super) value: VerdictValue,
    /// From 0 to 1.
    pub(super) score: f64,
    /// In the mean.
    pub(super) weight: f64,
    pub(super) detail: String,
}

/// A latency or an indicator may be so much worse than before without being called worse.
const TOLERANCE: f64 = 1.25;
/// Samples this recent speak for "now".
const RECENT: Millis = Millis(5_000);

/// All five, in the order they are shown.
pub(super) fn all(input: &AssessInput<'_>) -> Vec<Checked> {
    vec![performance(input), security(input), integration(input), slo(input), regression(input)]
}

/// Passed when nothing speaks against it, failed when something does, inconclusive when nobody
/// could be asked.
fn tally(
    (kind, weight): (&'static str, f64),
    good: usize,
    bad: &[String],
    well: &str,
    nothing: &str,
) -> Checked {
    let asked = good + bad.len();
    if asked == 0 {
        let detail = format!("{nothing} (left out)");
        return Checked { kind, value: VerdictValue::Inconclusive, score: 0.0, weight, detail };
    }
    #[allow(clippy::cast_precision_loss, reason = "counts of targets and indicators")]
    let score = good as f64 / asked as f64;
    let (value, detail) = if bad.is_empty() {
        (VerdictValue::Passed, format!("{well} ({good} looked at)"))
    } else {
        let named = bad.iter().take(4).cloned().collect::<Vec<_>>().join("; ");
        (VerdictValue::Failed, format!("{} of {asked}: {named}", bad.len()))
    };
    Checked { kind, value, score, weight, detail }
}

/// The last sample of a target.
pub(super) fn latest<'a>(input: &AssessInput<'a>, target: &Target) -> Option<&'a Sample> {
    input.history.iter().rev().find(|sample| sample.target == *target)
}

fn metric(input: &AssessInput<'_>, target: &Target, name: &str) -> Option<f64> {
    let value = *latest(input, target)?.observation.metrics.get(name)?;
    value.is_finite().then_some(value)
}

/// The indicators of each verify target's service.
fn indicators<'a>(input: &AssessInput<'a>) -> Vec<(&'a Target, &'a IndicatorSpec)> {
    input
        .saga
        .plan
        .verify_targets
        .iter()
        .filter_map(|target| {
            let spec = topology::service(input.state, &target.tenant, &target.service)?;
            Some(spec.indicators.iter().map(move |indicator| (target, indicator)))
        })
        .flatten()
        .collect()
}

/// Its limit, or its floor.
fn limit(indicator: &IndicatorSpec) -> Option<f64> {
    let text = indicator.limit.as_deref()?.trim();
    let quantity = text.strip_prefix("<=").or_else(|| text.strip_prefix(">=")).unwrap_or(text);
    medic_api::manifest::parse_quantity(quantity).ok()
}

/// Whether the more the better: what has a floor, and the end of a certificate, which has no limit.
fn more_is_better(indicator: &IndicatorSpec) -> bool {
    match &indicator.limit {
        Some(text) => text.trim().starts_with(">="),
        None => {
            Meaning::of(&indicator.name) == Meaning::Certificate && tells_an_end(&indicator.name)
        }
    }
}

/// Whether an indicator of certificates says when they end, or how long they last: more than that they did.
fn tells_an_end(indicator: &str) -> bool {
    let name = indicator.to_ascii_lowercase();
    let ends = ["expir", "not_after", "notafter", "left", "remaining", "until", "ttl"];
    ends.iter().any(|word| name.contains(word)) && !name.contains("expired")
}

/// Whether an indicator tells of requests: it suffers with whatever is called.
fn of_requests(indicator: &str) -> bool {
    use Meaning::{CallsRefused, CallsTimeOut, Requests};
    matches!(Meaning::of(indicator), CallsRefused | CallsTimeOut | Requests)
}

/// Latency within its limit or, without one, not above what it was before. While a callee is ill, a
/// long one says nothing.
fn performance(input: &AssessInput<'_>) -> Checked {
    let mut good = 0;
    let mut bad = Vec::new();
    let excused = callee_ill(input);
    for (target, indicator) in indicators(input) {
        if !indicator.name.contains("latency") {
            continue;
        }
        let Some(now) = metric(input, target, &indicator.name) else { continue };
        let bound = limit(indicator).or_else(|| {
            before(input.saga, target).get(&indicator.name).map(|before| before * TOLERANCE)
        });
        match bound {
            Some(bound) if now > bound && excused => {}
            Some(bound) if now > bound => {
                let name = &indicator.name;
                let (now, bound) = (value_of(name, now), value_of(name, bound));
                bad.push(format!("{name} of {target} is {now}, above {bound}"));
            }
            Some(_) => good += 1,
            None => {}
        }
    }
    tally(("performance", 0.15), good, &bad, "latency is within bounds", "no latency was seen")
}

/// No security symptom on the targets; a restored configuration is the one that was wanted. A prediction is
/// none: it stands for a while after what it foretold was prevented, and the expectation tells of that.
fn security(input: &AssessInput<'_>) -> Checked {
    let mut good = 0;
    let mut bad = Vec::new();
    for target in &input.saga.plan.verify_targets {
        let found = topology::active_symptoms(input.state, &target.tenant, &target.service)
            .map(|(_, s)| s)
            .filter(|s| s.symptom.target == *target || s.symptom.target.instance.is_empty())
            .filter(|s| !s.symptom.predicted())
            .find(|s| {
                let class = s.symptom.labels.get("class").map_or("", String::as_str);
                class.starts_with("security/")
                    || ["security", "certificate"].iter().any(|word| s.symptom.kind.contains(word))
            });
        match found {
            Some(s) => bad.push(format!("`{}` is open on {target}", s.symptom.kind)),
            None => good += 1,
        }
    }
    for (step, state) in input.saga.plan.steps.iter().zip(&input.saga.steps) {
        let wanted = step.action.params.get("hash");
        let (Some(wanted), Some(found)) = (wanted, state.evidence.get("config_hash")) else {
            continue;
        };
        if state.status == StepStatus::Done && wanted != found {
            bad.push(format!("the configuration of {} is not the version wanted", step.target));
        } else {
            good += 1;
        }
    }
    let well = "no security symptom, configuration as wanted";
    tally(("security", 0.10), good, &bad, well, "nothing to look at")
}

/// Services next to those remediated: no symptom that this incident brought or that came since the
/// plan began, probes good. What a service had before, has from another that it calls, or can have from
/// nobody else, is no fault of the plan's; and one that nobody could look at speaks neither way.
fn integration(input: &AssessInput<'_>) -> Checked {
    let tenant = &input.saga.tenant;
    let mut good = 0;
    let mut bad = Vec::new();
    let began = input.saga.started_at.unwrap_or(input.saga.created_at);
    for name in neighbours(input) {
        let mut symptoms = topology::active_symptoms(input.state, tenant, name)
            .filter(|(_, s)| !s.symptom.predicted() && s.symptom.severity > Severity::Info)
            .filter(|(_, s)| !of_itself_alone(&s.symptom))
            .peekable();
        let had_some = symptoms.peek().is_some();
        let of_plan = symptoms
            .find(|(incident, s)| incident.id == input.saga.incident || s.first_at > began)
            .filter(|_| !others_ill(input, name));
        let targets = topology::running_targets(input.state, tenant, name);
        let mut seen = targets
            .iter()
            .filter_map(|target| latest(input, target))
            .filter(|sample| !sample.observation.probes.is_empty())
            .peekable();
        let looked_at = seen.peek().is_some();
        let failing = seen.find(|sample| sample.observation.probes.values().any(|good| !good));
        if let Some((_, s)) = of_plan {
            bad.push(format!("{} still has `{}`", s.symptom.target, s.symptom.kind));
        } else if had_some {
            // Left out: another incident's.
        } else if let Some(sample) = failing {
            bad.push(format!("a probe of {} fails", sample.target));
        } else if looked_at {
            good += 1;
        }
    }
    let well = "services next to it do well";
    tally(("integration", 0.15), good, &bad, well, "no service next to it could be looked at")
}

/// Whether a symptom is of what no act on another instance brings: its files, ports, certificates, logins and
/// disks.
fn of_itself_alone(symptom: &Symptom) -> bool {
    use Meaning::{Certificate, Disk, Listener, Logins, Modified};
    let indicator = symptom.labels.get("indicator").map_or("", String::as_str);
    let meaning = Meaning::of(indicator);
    symptom.kind == "saturation"
        && matches!(meaning, Certificate | Disk | Listener | Logins | Modified)
}

/// Whether a service calls another that is ill, beside those that the plan touched.
fn others_ill(input: &AssessInput<'_>, service: &str) -> bool {
    let touched = touched(input);
    topology::dependencies(input.state, &input.saga.tenant, service)
        .into_iter()
        .filter(|callee| !touched.contains(callee))
        .any(|callee| ill(input, callee))
}

/// Direct callers and callees of the services the plan touched.
pub(super) fn neighbours<'a>(input: &AssessInput<'a>) -> BTreeSet<&'a str> {
    let touched = touched(input);
    let mut found = BTreeSet::new();
    for (name, spec) in topology::services(input.state, &input.saga.tenant) {
        let calls = spec.depends_on.iter().any(|callee| touched.contains(callee.as_str()));
        if calls {
            found.insert(name);
        }
        if touched.contains(name) {
            found.extend(spec.depends_on.iter().map(String::as_str));
        }
    }
    found.retain(|name| !touched.contains(name));
    found
}

/// The services of the verify targets.
fn touched<'a>(input: &AssessInput<'a>) -> BTreeSet<&'a str> {
    input.saga.plan.verify_targets.iter().map(|target| target.service.as_str()).collect()
}

/// Whether a service has trouble that others can feel.
fn ill(input: &AssessInput<'_>, service: &str) -> bool {
    topology::active_symptoms(input.state, &input.saga.tenant, service)
        .any(|(_, s)| s.symptom.felt_by_others())
}

/// Whether a service that one of the targets calls, itself or through others, has trouble of its own.
pub(super) fn callee_ill(input: &AssessInput<'_>) -> bool {
    touched(input).into_iter().any(|service| others_ill(input, service))
}

/// The objective's indicator, averaged over the last seconds, within its allowance. While a callee is
/// ill, a missed objective says nothing.
fn slo(input: &AssessInput<'_>) -> Checked {
    let mut good = 0;
    let mut bad = Vec::new();
    let excused = callee_ill(input);
    for target in &input.saga.plan.verify_targets {
        let spec = topology::service(input.state, &target.tenant, &target.service);
        let Some(slo) = spec.and_then(|spec| spec.slo.as_ref()) else { continue };
        let newest = latest(input, target).map_or(Timestamp(0), |sample| sample.observation.at);
        let window = RECENT.max(input.saga.plan.verify.hold);
        let values: Vec<f64> = input
            .history
            .iter()
            .filter(|sample| sample.target == *target)
            .filter(|sample| newest.since(sample.observation.at) <= window)
            .filter_map(|sample| sample.observation.metrics.get(&slo.indicator).copied())
            .filter(|value| value.is_finite())
            .collect();
        if values.is_empty() {
            continue;
        }
        #[allow(clippy::cast_precision_loss, reason = "samples of a few seconds")]
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let allowed = 1.0 - f64::from(slo.availability.0) / 1e6;
        if mean > allowed && excused {
            continue;
        }
        if mean > allowed {
            let name = &slo.indicator;
            bad.push(format!("{name} of {target} is {mean:.4}, the objective allows {allowed:.4}"));
        } else {
            good += 1;
        }
    }
    tally(("slo", 0.10), good, &bad, "within the objective", "no objective, or nothing measured")
}

/// Nothing became notably worse than before, and nothing new broke where the plan acted; nor do others
/// of the service, who did more meanwhile, serve worse. What requests suffer while a callee is ill says
/// nothing.
fn regression(input: &AssessInput<'_>) -> Checked {
    let mut good = 0;
    let mut bad = Vec::new();
    let excused = callee_ill(input);
    for (target, indicator) in indicators(input) {
        let before = before(input.saga, target).get(&indicator.name).copied();
        let (Some(before), Some(now)) = (before, metric(input, target, &indicator.name)) else {
            continue;
        };
        // A tenth of the limit is noise; without one, a hundredth of the indicator's own unit.
        let noise = limit(indicator).map_or(0.01, |limit| limit.abs() * 0.1);
        let slack = before.abs() * (TOLERANCE - 1.0) + noise;
        let worse = match more_is_better(indicator) {
            true => now < before - slack,
            false => now > before + slack || (!indicator.upward_only && now < before - slack),
        };
        if worse && excused && of_requests(&indicator.name) {
            continue;
        }
        if worse {
            let name = &indicator.name;
            let (before, now) = (value_of(name, before), value_of(name, now));
            bad.push(format!("{name} of {target} went from {before} to {now}"));
        } else {
            good += 1;
        }
    }
    let since = input.saga.verifying_since.unwrap_or(Timestamp(u64::MAX));
    for target in &input.saga.plan.verify_targets {
        let fresh = topology::active_symptoms(input.state, &target.tenant, &target.service)
            .map(|(_, s)| s)
            .filter(|s| {
                let requests = matches!(s.symptom.kind.as_str(), "errors" | "latency");
                let here = s.symptom.target == *target || s.symptom.target.instance.is_empty();
                if requests { !excused } else { here }
            })
            .find(|s| s.first_at > since && s.symptom.severity > Severity::Info);
        match fresh {
            Some(s) => {
                bad.push(format!("`{}` appeared on {} since", s.symptom.kind, s.symptom.target));
            }
            None => good += 1,
        }
    }
    let well = "nothing is worse than before, nothing new broke";
    tally(("regression", 0.10), good, &bad, well, "nothing to compare with")
}
