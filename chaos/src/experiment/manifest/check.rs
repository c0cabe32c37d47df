//! What a well-formed experiment may still get wrong.

use std::collections::BTreeSet;

use medic_api::manifest::{Finding, check_condition};
use medic_state::{Millis, Ppm, matcher::Selector};

use super::{
    ExperimentSpec, FaultSpec, Inject, Network, ProbeSpec, TargetSpec,
    allow::{absolute, process_match},
    fields,
    parts::size,
};
use crate::experiment::schedule;

/// The longest experiment, and the longest wait in one.
const TIME_MAX: Millis = Millis::from_secs(24 * 3_600);
/// A round of probes waits for its slowest.
const PROBE_TIME_MAX: Millis = Millis::from_secs(5);
/// Threads of pressure.
const WORKERS_MAX: u32 = 64;
/// Memory of pressure.
const MEMORY_MAX: u64 = 64 << 30;
/// Signals that may be sent, by name.
pub(crate) const SIGNALS: [&str; 9] =
    ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ABRT", "ALRM", "WINCH"];

/// Everything that is wrong with an experiment.
pub(super) fn experiment(spec: &ExperimentSpec) -> Vec<Finding> {
    let mut found = Vec::new();
    for (i, probe) in spec.probes.iter().enumerate() {
        check_probe(&format!("spec.probes[{i}]"), probe, spec, &mut found);
    }
    unique("probes", spec.probes.iter().map(|probe| probe.name.as_str()), &mut found);
    let steady = &spec.steady_state;
    condition("spec.steadyState.expect", &steady.expect, spec, &mut found);
    if let Some(during) = &steady.during {
        condition("spec.steadyState.during", during, spec, &mut found);
    }
    check_time("spec.steadyState.within", steady.within, &mut found);
    if steady.hold > steady.within {
        let message = format!("it cannot hold for {} within {}", steady.hold, steady.within);
        found.push(Finding::new("spec.steadyState.hold", message));
    }
    for (i, abort) in spec.abort.iter().enumerate() {
        condition(&format!("spec.abort[{i}].when"), &abort.when, spec, &mut found);
        check_time(&format!("spec.abort[{i}].for"), abort.lasts, &mut found);
    }
    for (i, target) in spec.targets.iter().enumerate() {
        check_target(&format!("spec.targets[{i}]"), target, spec, &mut found);
    }
    unique("targets", spec.targets.iter().map(|target| target.name.as_str()), &mut found);
    for (i, fault) in spec.faults.iter().enumerate() {
        check_fault(&format!("spec.faults[{i}]"), fault, spec, &mut found);
    }
    if spec.faults.is_empty() {
        found.push(Finding::new("spec.faults", "an experiment has at least one fault"));
    }
    if let Some(duration) = spec.duration {
        check_time("spec.duration", duration, &mut found);
    }
    if found.is_empty() {
        found.extend(schedule::check(spec));
    }
    found
}

/// What is wrong with a condition: its syntax, the probes it names, and their fields.
fn condition(path: &str, source: &str, spec: &ExperimentSpec, found: &mut Vec<Finding>) {
    let names: Vec<&str> = spec.probes.iter().map(|probe| probe.name.as_str()).collect();
    found.extend(check_condition(path, source, &names));
    found.extend(fields::check(path, source, &spec.probes));
}

fn unique<'n>(what: &str, names: impl Iterator<Item = &'n str>, found: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            let path = format!("spec.{what}[{i}].name");
            found.push(Finding::new(path, format!("`{name}` is there already")));
        }
    }
}

fn check_time(path: &str, time: Millis, found: &mut Vec<Finding>) {
    if time > TIME_MAX {
        found.push(Finding::new(path, format!("{time} is too long: at most {TIME_MAX}")));
    }
}

fn check_probe(path: &str, probe: &ProbeSpec, spec: &ExperimentSpec, found: &mut Vec<Finding>) {
    let mut bad = |key: &str, message: String| {
        found.push(Finding::new(format!("{path}{key}"), message));
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !probe.name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !probe.name.chars().all(letters)
    {
        bad(".name", format!("`{}`: letters, digits and `_`, a letter first", probe.name));
    }
    let mut said = 0;
    let mut timeout = |key: &str, time: Millis| {
        said += 1;
        if time > PROBE_TIME_MAX || time == Millis(0) {
            bad(&format!("{key}.timeout"), format!("{time}: more than 0s, at most 5s"));
        }
    };
    if let Some(http) = &probe.http {
        timeout(".http", http.timeout);
    }
    if let Some(tcp) = &probe.tcp {
        timeout(".tcp", tcp.timeout);
    }
    if let Some(command) = &probe.command {
        timeout(".command", command.timeout);
    }
    if let Some(metric) = &probe.metric {
        timeout(".metric", metric.timeout);
    }
    if let Some(medic) = &probe.medic {
        timeout(".medic", medic.timeout);
    }
    if said != 1 {
        bad("", "a probe has exactly one of http, tcp, command, metric, medic".to_owned());
    }
    for (key, url) in [
        (".http.url", probe.http.as_ref().map(|http| &http.url)),
        (".metric.url", probe.metric.as_ref().map(|metric| &metric.url)),
    ] {
        if let Some(url) = url
            && !reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            bad(key, format!("`{url}` is not a URL such as http://127.0.0.1:8080/healthz"));
        }
    }
    if let Some(Err(error)) = probe.metric.as_ref().map(|metric| metric.select.parse::<Selector>())
    {
        bad(".metric.select", error.to_string());
    }
    if let Some(tcp) = &probe.tcp
        && tcp.address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err())
    {
        bad(".tcp.address", format!("`{}` is not host:port", tcp.address));
    }
    if probe.command.as_ref().is_some_and(|command| !absolute(&command.argv)) {
        bad(".command.argv", "a command is an absolute path and its arguments".to_owned());
    }
    let named = probe.medic.as_ref().is_some_and(|m| m.config.is_some() || m.context.is_some());
    if named && spec.cluster.is_some() {
        bad(".medic", "with `cluster: local` it asks that cluster: leave config out".to_owned());
    }
}

fn check_target(path: &str, target: &TargetSpec, spec: &ExperimentSpec, found: &mut Vec<Finding>) {
    let said = [
        target.process.is_some(),
        target.container.is_some(),
        target.namespace.is_some(),
        target.directory.is_some(),
        target.node.is_some(),
    ];
    if said.iter().filter(|said| **said).count() != 1 {
        let message = "a target has exactly one of process, container, namespace, directory, node";
        found.push(Finding::new(path, message));
    }
    if let Some(process) = &target.process {
        found.extend(process_match(&format!("{path}.process"), process));
    }
    if target.directory.as_ref().is_some_and(|dir| !dir.is_absolute()) {
        found.push(Finding::new(format!("{path}.directory"), "not an absolute path"));
    }
    for (key, name) in [("container", &target.container), ("namespace", &target.namespace)] {
        let good = |name: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
        };
        if name.as_ref().is_some_and(|name| !good(name)) {
            found.push(Finding::new(format!("{path}.{key}"), "letters, digits, `-`, `_`, `.`"));
        }
    }
    if target.node.is_some() && spec.cluster.is_none() {
        let message = "nodes are targets with `cluster: local`; aim at others as processes";
        found.push(Finding::new(format!("{path}.node"), message));
    }
}

/// Whether a target of this sort can have this fault.
fn suits(target: &TargetSpec, inject: &Inject) -> bool {
    let runs = target.process.is_some() || target.container.is_some();
    match inject {
        Inject::Kill(_) | Inject::Pause | Inject::Signal(_) | Inject::Limit(_) => {
            runs || target.node.is_some()
        }
        Inject::Pressure(_) => runs,
        Inject::Network(_) | Inject::Partition(_) => target.directory.is_none(),
        Inject::Fill(_) => target.directory.is_some(),
        Inject::ClockSkew(_) => target.node.is_some(),
    }
}

fn check_fault(path: &str, fault: &FaultSpec, spec: &ExperimentSpec, found: &mut Vec<Finding>) {
    let kind = fault.inject.kind();
    let mut bad = |key: &str, message: String| {
        found.push(Finding::new(format!("{path}.{key}"), message));
    };
    match spec.targets.iter().find(|target| target.name == fault.target) {
        None => {
            let known: Vec<&str> = spec.targets.iter().map(|t| t.name.as_str()).collect();
            bad("target", format!("no target `{}` (known: {})", fault.target, known.join(", ")));
        }
        Some(target) if !suits(target, &fault.inject) => {
            bad("inject", format!("{kind} is nothing that `{}` can be given", fault.target));
        }
        Some(_) => {}
    }
    let at_once = matches!(fault.inject, Inject::Kill(_) | Inject::Signal(_));
    match fault.lasts {
        Some(_) if at_once => {
            bad("for", format!("{kind} is done at once; a kill may say restartAfter"));
        }
        None if !at_once => bad("inject", format!("{kind} needs a `for`: how long it lasts")),
        Some(Millis(0)) => bad("for", "longer than 0s".to_owned()),
        Some(_) | None => {}
    }
    if fault.rate.is_some() && fault.every.is_some() {
        bad("rate", "either `every` or `rate`".to_owned());
    }
    if fault.times.is_some() && fault.every.is_none() {
        bad("times", "`times` goes with `every`".to_owned());
    }
    if fault.rate.is_some_and(|rate| rate.count == 0 || rate.per == Millis(0)) {
        bad("rate", "more than none".to_owned());
    }
    let endless = fault.rate.is_some() || (fault.every.is_some() && fault.times.is_none());
    if endless && spec.duration.is_none() {
        bad("target", "faults without a last time need `spec.duration`".to_owned());
    }
    if let Some((key, message)) = inject(&fault.inject, spec, fault) {
        bad(&format!("inject.{key}"), message);
    }
}

/// What is wrong with what is to be done: key and message.
fn inject(
    inject: &Inject,
    spec: &ExperimentSpec,
    fault: &FaultSpec,
) -> Option<(&'static str, String)> {
    let bytes = |text: &Option<String>, max: u64| {
        text.as_ref().is_some_and(|text| size(text).is_none_or(|bytes| bytes == 0 || bytes > max))
    };
    let bad = |key, message: &str| Some((key, message.to_owned()));
    match inject {
        Inject::Signal(name) if !SIGNALS.contains(&name.as_str()) => {
            Some(("signal", format!("`{name}` is none of {}", SIGNALS.join(", "))))
        }
        Inject::Network(network) => {
            let of_node = spec.targets.iter().any(|t| t.name == fault.target && t.node.is_some());
            check_network(network, of_node).map(|message| ("network", message.to_owned()))
        }
        Inject::Partition(wall) => {
            let of_node = spec.targets.iter().any(|t| t.name == fault.target && t.node.is_some());
            if of_node && !(wall.peers.is_empty() && wall.ports.is_empty()) {
                return bad("partition", "a node is cut off from all others: no peers, no ports");
            }
            let peer = wall.peers.iter().find(|peer| {
                let address = peer.split('/').next().unwrap_or_default();
                let bits = peer.split_once('/').is_none_or(|(_, bits)| bits.parse::<u8>().is_ok());
                !bits || address.parse::<std::net::IpAddr>().is_err()
            })?;
            Some(("partition.peers", format!("`{peer}` is no address such as 10.0.0.0/8")))
        }
        Inject::Limit(limit) => {
            if limit.cpu.is_none() && limit.memory.is_none() {
                return bad("limit", "say cpu, memory, or both");
            }
            if limit.cpu.is_some_and(|cpu| cpu < Ppm(10_000)) {
                return bad("limit.cpu", "at least 1% of a core");
            }
            bytes(&limit.memory, u64::MAX)
                .then(|| ("limit.memory", "not a size such as 256MiB".to_owned()))
        }
        Inject::Pressure(pressure) => {
            if pressure.cpu > WORKERS_MAX || (pressure.cpu == 0 && pressure.memory.is_none()) {
                return bad("pressure", "say cpu (1 to 64), memory, or both");
            }
            bytes(&pressure.memory, MEMORY_MAX)
                .then(|| ("pressure.memory", "not a size such as 512MiB, up to 64GiB".to_owned()))
        }
        Inject::Fill(fill) => {
            if bytes(&Some(fill.bytes.clone()), u64::MAX) {
                return bad("fill.bytes", "not a size such as 512MiB");
            }
            size(&fill.leave)
                .is_none()
                .then(|| ("fill.leave", "not a size such as 64MiB".to_owned()))
        }
        Inject::Kill(_) | Inject::Pause | Inject::Signal(_) | Inject::ClockSkew(_) => None,
    }
}

fn check_network(network: &Network, of_node: bool) -> Option<&'static str> {
    let slow = network.delay > Millis(0) || network.jitter > Millis(0) || network.loss > Ppm(0);
    let words =
        |text: &String| text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    match &network.rate {
        None if !slow => Some("say delay, jitter, loss or rate"),
        Some(_) if slow => Some("rate goes alone"),
        Some(rate) if !words(rate) || !rate.ends_with("bit") => Some("a rate is such as 1mbit"),
        Some(_) if of_node => Some("nodes of `cluster: local` know delay, jitter and loss"),
        _ if network.jitter > network.delay && !of_node => Some("jitter is at most the delay"),
        _ if network.interface.as_ref().is_some_and(|name| !words(name) || name.len() > 15) => {
            Some("not the name of a network device")
        }
        _ => None,
    }
}
