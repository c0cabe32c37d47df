//! What a well-formed manifest may still get wrong: conditions, quantities, selectors, addresses.
//!
//! The law checks what replicas must agree on ([`medic_state::manifest::validate`], called here);
//! this adds what takes floats or an expression language, which the law has not.

use medic_state::{
    Millis,
    manifest::{IndicatorSource, Manifest, PlaybookSpec, ProbeKind, ServiceSpec, Spec, validate},
    matcher::Selector,
};

use super::{
    cel::{BadCondition, EXPECT_VARIABLES, WHEN_VARIABLES},
    quantity::check_bound,
};

/// The longest time a step, a pause or a verification may take, and the longest between two looks: a
/// plan holds its locks for as long, and what is looked at once a day is not watched.
const TIME_MAX: Millis = Millis::from_secs(86_400);

/// What an objective is about where it does not say.
const ERROR_RATE: &str = "error_rate";

/// What is wrong at a path of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `spec.steps[0].action`.
    pub path: String,
    /// What is wrong, and what would do.
    pub message: String,
    /// Line and column, from 1, within the text at that path, where that is known.
    pub within: Option<(u32, u32)>,
}

impl Finding {
    /// Something is wrong with what stands at a path.
    pub fn new(path: impl Into<String>, message: impl ToString) -> Self {
        Self { path: path.into(), message: message.to_string(), within: None }
    }
}

/// Everything that is wrong with one manifest.
#[must_use]
pub fn check(manifest: &Manifest) -> Vec<Finding> {
    let mut found: Vec<Finding> = validate(manifest)
        .into_iter()
        .map(|problem| Finding::new(problem.path, problem.message))
        .collect();
    match &manifest.spec {
        Spec::Service(service) => check_service(service, &mut found),
        Spec::Playbook(playbook) => check_playbook(playbook, &mut found),
        Spec::Silence(_) | Spec::MaintenanceWindow(_) => {
            if let Some(wrong) = super::schedule::check(&manifest.spec) {
                // That nothing could be worked out is a consequence.
                found.retain(|finding| finding.path != "spec.schedule");
                found.push(wrong);
            }
        }
        Spec::Channel(_)
        | Spec::Policy(_)
        | Spec::Source(_)
        | Spec::Role(_)
        | Spec::RoleBinding(_)
        | Spec::Tenant(_) => {}
    }
    found
}

/// What is wrong with a condition at a path, which may name these variables.
#[must_use]
pub fn check_condition(path: &str, source: &str, variables: &[&str]) -> Vec<Finding> {
    super::cel::check(source, variables)
        .into_iter()
        .map(|BadCondition { line, column, message }| Finding {
            path: path.to_owned(),
            message,
            within: Some((line, column)),
        })
        .collect()
}

fn check_playbook(playbook: &PlaybookSpec, found: &mut Vec<Finding>) {
    let mut condition = |path: &str, source: &str, variables: &[&str]| {
        found.extend(check_condition(path, source, variables));
    };
    if let Some(when) = &playbook.when {
        condition("spec.when", when, &WHEN_VARIABLES);
    }
    condition("spec.verify.expect", &playbook.verify.expect, &EXPECT_VARIABLES);
    check_time("spec.verify.hold", playbook.verify.hold, found);
    check_time("spec.verify.timeout", playbook.verify.timeout, found);
    for (i, step) in playbook.steps.iter().enumerate() {
        check_time(&format!("spec.steps[{i}].timeout"), step.timeout, found);
        if let Some(rollout) = &step.rollout {
            check_time(&format!("spec.steps[{i}].rollout.pause"), rollout.pause, found);
        }
    }
}

fn check_time(path: &str, time: Millis, found: &mut Vec<Finding>) {
    if time > TIME_MAX {
        found.push(Finding::new(path, format!("{time} is too long: at most {TIME_MAX}")));
    }
}

fn check_service(service: &ServiceSpec, found: &mut Vec<Finding>) {
    for (i, probe) in service.probes.iter().enumerate() {
        let at = |kind: &str| format!("spec.probes[{i}].{kind}");
        check_time(&at("interval"), probe.interval, found);
        check_time(&at("timeout"), probe.timeout, found);
        match &probe.kind {
            ProbeKind::Http(url) => check_url(&at("http"), url, found),
            ProbeKind::Grpc(url) => check_url(&at("grpc"), url, found),
            ProbeKind::Tcp(address) => check_address(&at("tcp"), address, found),
            ProbeKind::Process(true) => {}
            ProbeKind::Process(false) => {
                found.push(Finding::new(at("process"), "write `process: true`, or no such probe"));
            }
        }
    }
    // By default it is about `error_rate`, which need not be there.
    if let Some(slo) = service.slo.as_ref().filter(|slo| slo.indicator != ERROR_RATE) {
        let declared: Vec<&str> = service.indicators.iter().map(|one| one.name.as_str()).collect();
        if !declared.contains(&slo.indicator.as_str()) {
            let (about, there) = (&slo.indicator, declared.join("`, `"));
            let message = format!("`{about}` is no indicator of this service; there are `{there}`");
            found.push(Finding::new("spec.slo.indicator", message));
        }
    }
    if let Some(scrape) = &service.scrape {
        check_url("spec.scrape.url", &scrape.url, found);
        check_time("spec.scrape.interval", scrape.interval.unwrap_or_default(), found);
    }
    for (i, indicator) in service.indicators.iter().enumerate() {
        if let Some(error) = indicator.limit.as_ref().and_then(|text| check_bound(text).err()) {
            found.push(Finding::new(format!("spec.indicators[{i}].limit"), error));
        }
        let mut selector = |key: &str, text: &str| {
            if let Err(error) = text.parse::<Selector>() {
                found.push(Finding::new(format!("spec.indicators[{i}].source.{key}"), error));
            }
        };
        match &indicator.source {
            IndicatorSource::Gauge(text) => selector("gauge", text),
            IndicatorSource::Rate(text) => selector("rate", text),
            IndicatorSource::Ratio { of, to } => {
                selector("ratio.of", of);
                selector("ratio.to", to);
            }
            IndicatorSource::Quantile { histogram, q: _ } => {
                selector("quantile.histogram", histogram);
            }
        }
    }
}

/// What stands for a port or a name of each instance, with something to put there before looking.
const PLACEHOLDERS: [(&str, &str); 5] = [
    ("${instance}", "i"),
    ("${service}", "s"),
    ("${host}", "h"),
    ("${port}", "1"),
    ("${config}", "c"),
];

/// A text with its placeholders filled; one that is none is told.
fn fill(path: &str, text: &str, found: &mut Vec<Finding>) -> Option<String> {
    let put = |text: String, (name, value): &(&str, &str)| text.replace(name, value);
    let filled = PLACEHOLDERS.iter().fold(text.to_owned(), put);
    let Some((_, unknown)) = filled.split_once("${") else { return Some(filled) };
    let unknown = unknown.split('}').next().unwrap_or_default();
    let known = PLACEHOLDERS.map(|(name, _)| name).join(", ");
    found.push(Finding::new(
        path,
        format!("`${{{unknown}}}` stands for nothing: there are {known}"),
    ));
    None
}

fn check_url(path: &str, url: &str, found: &mut Vec<Finding>) {
    let Some(filled) = fill(path, url, found) else { return };
    let uri = filled.parse::<axum::http::Uri>().ok();
    let good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    });
    if !good {
        let message = format!("`{url}` is not a URL such as http://127.0.0.1:${{port}}/healthz");
        found.push(Finding::new(path, message));
    }
}

fn check_address(path: &str, address: &str, found: &mut Vec<Finding>) {
    let Some(filled) = fill(path, address, found) else { return };
    let good = filled
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !good {
        let message = format!("`{address}` is not host:port such as 127.0.0.1:${{port}}");
        found.push(Finding::new(path, message));
    }
}
