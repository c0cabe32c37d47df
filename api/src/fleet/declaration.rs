//! From Service manifests to what one agent is told to run.
//!
//! Pure. Placeholders are filled in here, so that an agent never interprets a manifest.

use std::collections::{BTreeMap, BTreeSet};

use medic_proto::fleet::v1 as wire;
use medic_state::{
    Digest, State,
    manifest::{InstanceSpec, Kind, ManifestKey, ProbeKind, ProcessSpec, ServiceSpec, Spec},
    symptom::Target,
};
use prost::Message as _;

/// What tells two sets of Service manifests apart without building them: how many there are, and
/// the log index of the newest. (A deletion changes the first, anything else the second.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    count: usize,
    newest: u64,
}

/// What all agents are told to run, as of one log index.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    pub(super) stamp: Stamp,
    pub(super) index: u64,
    by_agent: BTreeMap<String, Declared>,
}

/// What one agent is told to run.
#[derive(Debug, Default)]
pub(super) struct Declared {
    instances: Vec<wire::Instance>,
    targets: BTreeSet<Target>,
}

/// The stamp of this state.
pub(super) fn stamp(state: &State) -> Stamp {
    let mut stamp = Stamp::default();
    for (_, stored) in services(state) {
        stamp.count += 1;
        stamp.newest = stamp.newest.max(stored.index);
    }
    stamp
}

fn services(state: &State) -> impl Iterator<Item = (&ManifestKey, &medic_state::manifest::Stored)> {
    let first = ManifestKey { kind: Kind::Service, tenant: String::new(), name: String::new() };
    state.manifests.range(first..).take_while(|(key, _)| key.kind == Kind::Service)
}

/// Builds the declarations of every agent that is named in a Service manifest.
pub(super) fn build(state: &State) -> Declarations {
    let mut by_agent: BTreeMap<String, Declared> = BTreeMap::new();
    for (key, stored) in services(state) {
        let Spec::Service(service) = &stored.manifest.spec else { continue };
        let Some(process) = &service.process else { continue };
        for instance in &service.instances {
            let Some(agent) = &instance.agent else { continue };
            let declared = by_agent.entry(agent.clone()).or_default();
            declared.targets.insert(Target {
                tenant: key.tenant.clone(),
                service: key.name.clone(),
                instance: instance.name.clone(),
            });
            declared.instances.push(wire_instance(key, service, process, instance));
        }
    }
    Declarations { stamp: stamp(state), index: state.applied, by_agent }
}

impl Declarations {
    /// The message for one agent, and what tells its content from another's whatever the index.
    pub(super) fn for_agent(&self, agent: &str) -> (wire::Declaration, Digest) {
        let instances =
            self.by_agent.get(agent).map(|declared| declared.instances.clone()).unwrap_or_default();
        let content = wire::Declaration { index: 0, instances };
        let digest = Digest::of(&[&content.encode_to_vec()]);
        (wire::Declaration { index: self.index, ..content }, digest)
    }

    /// Whether this agent runs that instance: it may speak of no other.
    pub(super) fn runs(&self, agent: &str, target: &Target) -> bool {
        self.by_agent.get(agent).is_some_and(|declared| declared.targets.contains(target))
    }

    /// Whether any agent runs that instance.
    pub(super) fn anybody_runs(&self, target: &Target) -> bool {
        self.by_agent.values().any(|declared| declared.targets.contains(target))
    }
}

fn wire_instance(
    key: &ManifestKey,
    service: &ServiceSpec,
    process: &ProcessSpec,
    instance: &InstanceSpec,
) -> wire::Instance {
    let mut values =
        BTreeMap::from([("instance", instance.name.clone()), ("service", key.name.clone())]);
    if let Some(port) = instance.port {
        values.insert("port", port.to_string());
    }
    let config_path = process.config.as_ref().map(|config| fill(&config.path, &values));
    if let Some(path) = &config_path {
        values.insert("config", path.clone());
    }
    let filled = |text: &String| fill(text, &values);
    wire::Instance {
        tenant: key.tenant.clone(),
        service: key.name.clone(),
        instance: instance.name.clone(),
        command: filled(&process.command),
        args: process.args.iter().map(filled).collect(),
        env: process.env.iter().map(|(name, value)| (name.clone(), filled(value))).collect(),
        working_dir: process.working_dir.as_ref().map(filled).unwrap_or_default(),
        stop_signal: process.stop.signal.clone(),
        stop_timeout_ms: process.stop.timeout.0,
        config_content: process
            .config
            .as_ref()
            .and_then(|config| config.content.as_ref())
            .map(filled),
        config_path: config_path.unwrap_or_default(),
        reload_signal: process.reload_signal.clone().unwrap_or_default(),
        standby: instance.standby,
        ports: ports(service, instance, filled),
    }
}

/// The ports that a Service names for an instance: its own, and those where it is looked at. (An agent
/// sees command, arguments, environment and configuration by itself.)
fn ports(
    service: &ServiceSpec,
    instance: &InstanceSpec,
    filled: impl Fn(&String) -> String,
) -> Vec<u32> {
    let probed = service.probes.iter().filter_map(|probe| match &probe.kind {
        ProbeKind::Http(at) | ProbeKind::Tcp(at) | ProbeKind::Grpc(at) => Some(at),
        ProbeKind::Process(_) => None,
    });
    let looked = probed.chain(service.scrape.as_ref().map(|scrape| &scrape.url));
    let named = looked.filter_map(|at| port_of(&filled(at)));
    let all: BTreeSet<u32> = named.chain(instance.port).map(u32::from).collect();
    all.into_iter().collect()
}

/// Of `http://host:port/path` or `host:port`.
fn port_of(at: &str) -> Option<u16> {
    let address = at.split_once("://").map_or(at, |(_, rest)| rest);
    let address = address.split(['/', '?', '#']).next()?;
    address.rsplit_once(':')?.1.parse().ok()
}

/// Replaces `${name}` for every name in `values`, once, left to right; what is replaced is not
/// looked at again. An unknown placeholder stays as it is.
fn fill(text: &str, values: &BTreeMap<&str, String>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        filled.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let value = after.find('}').and_then(|end| Some((end, values.get(&after[..end])?)));
        if let Some((end, value)) = value {
            filled.push_str(value);
            rest = &after[end + 1..];
        } else {
            filled.push_str("${");
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once_and_unknown_ones_stay() {
        let values =
            BTreeMap::from([("instance", "a${port}".to_owned()), ("port", "80".to_owned())]);
        assert_eq!(fill("x ${instance}:${port} ${HOME} ${", &values), "x a${port}:80 ${HOME} ${");
        assert_eq!(fill("${port}${port}", &values), "8080");
        assert_eq!(fill("${${port}}", &values), "${80}");
        assert_eq!(fill("plain", &values), "plain");
    }

    #[test]
    fn ports_are_those_of_the_instance_its_probes_and_its_scrape() {
        for (at, port) in [
            ("http://h:8080/x:1", Some(8080)),
            ("h:25", Some(25)),
            ("[::1]:443", Some(443)),
            ("https://h/", None),
            ("h:port", None),
        ] {
            assert_eq!(port_of(at), port, "{at}");
        }
        let service: ServiceSpec = serde_json::from_value(serde_json::json!({
            "instances": [{"name": "a", "port": 80}],
            "probes": [{"name": "p", "http": "http://${host}:${port}/"}, {"name": "q", "tcp": "h:81"},
                {"name": "r", "process": true}],
            "scrape": {"url": "http://h:82/metrics"},
        }))
        .unwrap_or_else(|error| panic!("{error}"));
        let filled = |text: &String| text.replace("${port}", "80");
        assert_eq!(ports(&service, &service.instances[0], filled), [80, 81, 82]);
    }
}
