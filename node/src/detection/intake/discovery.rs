//! Prometheus' `file_sd` form: groups of targets with labels, JSON or YAML. Pure.
//!
//! `[{"targets": ["host:9100"], "labels": {"job": "node"}}]`. Labels that begin with `__` become none of a series:
//! `__scheme__`, `__metrics_path__` and `__param_NAME` say how a target is asked, as they do for Prometheus;
//! `__meta_…` and others are food for relabelling, which there is none of. What cannot be used is left out and
//! named: a group whose labels cannot be done, a target that is no address. The others are scraped.

use std::collections::BTreeMap;

use medic_state::manifest::{DiscoverySpec, Scheme};
use serde::Deserialize;

use super::fetch::encoded;

/// Bytes of a file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Targets of one source.
pub const TARGETS_MAX: usize = 1_000;
/// What is left out and named, of one file.
const NAMED_MAX: usize = 5;
/// Characters of what is named.
const SHOWN_MAX: usize = 80;

/// Somewhere to scrape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// Labels of all that is scraped there.
    pub labels: BTreeMap<String, String>,
    /// How it is asked, where its source does not say.
    pub steering: Steering,
}

/// How targets are asked, as far as a file says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steering {
    /// Over TLS, or not.
    pub https: Option<bool>,
    /// Where the exposition is.
    pub path: Option<String>,
    /// Query parameters.
    pub params: BTreeMap<String, String>,
}

impl Endpoint {
    /// One of which nothing but the address is known.
    #[must_use]
    pub fn plain(address: String) -> Self {
        Self { address, labels: BTreeMap::new(), steering: Steering::default() }
    }

    /// What is asked for: what its file says of it, else what its source says of all. A parameter of the file
    /// replaces the first value of the source's.
    #[must_use]
    pub fn url(&self, spec: &DiscoverySpec) -> String {
        let Steering { https, path, params } = &self.steering;
        let https = https.unwrap_or(spec.scheme == Some(Scheme::Https));
        let scheme = if https { "https" } else { "http" };
        let path = path.as_deref().unwrap_or(&spec.path);
        let mut url = format!("{scheme}://{}{path}", self.address);
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, values) in spec.params.iter().flatten() {
            all.insert(name, values.iter().map(String::as_str).collect());
        }
        for (name, value) in params {
            let values = all.entry(name).or_default();
            match values.first_mut() {
                Some(first) => *first = value,
                None => values.push(value),
            }
        }
        for (name, value) in all.iter().flat_map(|(n, all)| all.iter().map(move |v| (n, v))) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{}={}", encoded(name), encoded(value)));
        }
        url
    }

    /// What it goes by in words. Not by its parameters: they may hold what is nobody's business.
    #[must_use]
    pub fn name(&self) -> String {
        match self.labels.get("instance") {
            Some(instance) => format!("{} (instance {instance})", self.address),
            None => self.address.clone(),
        }
    }
}

/// A file that cannot be used at all: it is not of the form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no list of target groups (file_sd): {0}")]
pub struct BadFile(String);

/// Why something of a file is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// Not `host:port`.
    #[error("target `{0}` is not host:port")]
    Target(String),
    /// A label that says how to ask, and says nothing that can be done: its group is left out.
    #[error("the group of `{first}`: label `{label}`: {why}")]
    Steering {
        /// The first target of the group.
        first: String,
        /// Which label.
        label: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A file, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where to scrape.
    pub endpoints: Vec<Endpoint>,
    /// The first of what cannot be used.
    pub left_out: Vec<LeftOut>,
    /// How much more there is of that.
    pub more: usize,
    /// There are more targets than [`TARGETS_MAX`]: these are the first.
    pub too_many: bool,
}

impl Found {
    /// Leaves out what would be asked in clear.
    #[must_use]
    pub fn over_tls_alone(mut self) -> Self {
        let https = |endpoint: &Endpoint| endpoint.steering.https != Some(false);
        let (kept, left_out) = std::mem::take(&mut self.endpoints).into_iter().partition(https);
        self.endpoints = kept;
        for Endpoint { address, .. } in left_out {
            let why = "its source has credentials and says `https`: they do not go out in clear";
            let (first, label) = (shown(&address), "__scheme__".to_owned());
            self.leave_out(LeftOut::Steering { first, label, why });
        }
        self
    }

    fn leave_out(&mut self, what: LeftOut) {
        if self.left_out.len() < NAMED_MAX { self.left_out.push(what) } else { self.more += 1 }
    }
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Reads a file. JSON is YAML.
///
/// # Errors
/// When it is not of the form.
pub fn read(text: &str) -> Result<Found, BadFile> {
    let form = |error: String| BadFile(error.lines().next().unwrap_or_default().to_owned());
    let groups: Vec<Group> =
        serde_saphyr::from_str(text).map_err(|error| form(error.to_string()))?;
    let mut found = Found::default();
    for Group { targets, labels } in groups {
        let (steering, labels): (BTreeMap<_, _>, BTreeMap<_, _>) =
            labels.into_iter().partition(|(name, _)| name.starts_with("__"));
        let steering = match steered(&steering) {
            Ok(steering) => steering,
            Err((label, why)) => {
                let (first, label) = (shown(targets.first().map_or("", |t| t)), shown(label));
                found.leave_out(LeftOut::Steering { first, label, why });
                continue;
            }
        };
        for address in targets {
            if !is_address(&address) {
                found.leave_out(LeftOut::Target(shown(&address)));
            } else if found.endpoints.len() == TARGETS_MAX {
                found.too_many = true;
            } else {
                let (labels, steering) = (labels.clone(), steering.clone());
                found.endpoints.push(Endpoint { address, labels, steering });
            }
        }
    }
    Ok(found)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// How targets are asked; else which label cannot be done, and why.
fn steered(labels: &BTreeMap<String, String>) -> Result<Steering, (&str, &'static str)> {
    let https = match labels.get("__scheme__").map(String::as_str) {
        None => None,
        Some("http") => Some(false),
        Some("https") => Some(true),
        Some(_) => return Err(("__scheme__", "it is neither `http` nor `https`")),
    };
    let path = labels.get("__metrics_path__");
    let plain = |path: &String| path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
    if path.is_some_and(|path| !plain(path) || path.contains(['?', '#', '\\'])) {
        let why = "it is no path that begins with `/`, without `?` and `#`: parameters are `__param_NAME`";
        return Err(("__metrics_path__", why));
    }
    let mut params = BTreeMap::new();
    for (label, value) in labels {
        match label.strip_prefix("__param_") {
            Some("") => return Err((label, "it names no parameter")),
            Some(name) => drop(params.insert(name.to_owned(), value.clone())),
            None => {}
        }
    }
    Ok(Steering { https, path: path.cloned(), params })
}

/// Whether it is `host:port`, and nothing that would make another URL of it.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        && !text.contains(['/', '@', '?', '#', '\\'])
        && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn spec(scheme: Option<Scheme>, params: &[(&str, &[&str])]) -> DiscoverySpec {
        let values = |all: &[&str]| all.iter().map(|v| (*v).to_owned()).collect();
        let params = params.iter().map(|(name, all)| ((*name).to_owned(), values(all)));
        DiscoverySpec {
            targets: Vec::new(),
            file: None,
            dns: None,
            path: "/metrics".to_owned(),
            interval: medic_state::Millis(1),
            labels: BTreeMap::new(),
            honor_labels: None,
            scheme,
            params: Some(params.collect()),
            tls: None,
            authorization: None,
            basic_auth: None,
            honor_timestamps: None,
        }
    }

    fn urls(found: &Found, spec: &DiscoverySpec) -> Vec<String> {
        found.endpoints.iter().map(|endpoint| endpoint.url(spec)).collect()
    }

    #[test]
    fn json_and_yaml_are_read_alike() {
        let json = r#"[{"targets": ["a:1", "b:2"], "labels": {"job": "node", "__meta_path": "/x"}}, {"targets": ["c:3"]}]"#;
        let yaml = "- targets: ['a:1', 'b:2']\n  labels: {job: node}\n- targets: ['c:3']\n";
        let found = read(json).unwrap();
        assert_eq!(found, read(yaml).unwrap());
        let labels: Vec<usize> = found.endpoints.iter().map(|found| found.labels.len()).collect();
        assert_eq!(labels, [1, 1, 0]);
    }

    #[test]
    fn labels_say_how_a_target_is_asked() {
        let text = "- targets: ['a:1']\n  labels: {__scheme__: https, __metrics_path__: /m, __meta_x: y}\n- targets: ['b:2']\n";
        let found = read(text).unwrap();
        assert_eq!(urls(&found, &spec(None, &[])), ["https://a:1/m", "http://b:2/metrics"]);
        assert!(found.endpoints.iter().all(|endpoint| endpoint.labels.is_empty()));
        let https = spec(Some(Scheme::Https), &[]);
        assert_eq!(urls(&found, &https), ["https://a:1/m", "https://b:2/metrics"]);
        let plain = read("- targets: ['a:1']\n  labels: {__scheme__: http}\n").unwrap();
        assert_eq!(urls(&plain, &https), ["http://a:1/metrics"], "what the file says wins");
        let safe = plain.over_tls_alone();
        assert!(safe.endpoints.is_empty());
        assert!(safe.left_out[0].to_string().contains("do not go out in clear"));
        assert_eq!(found.clone().over_tls_alone(), found);
    }

    /// As a blackbox exporter is asked about many.
    #[test]
    fn parameters_are_sent_and_those_of_a_target_win() {
        let text = "- targets: ['black:9115']\n  labels: {__metrics_path__: /probe, __param_target: 'https://a.org/?x=1&y', instance: a.org}\n";
        let found = read(text).unwrap();
        let of_all = spec(None, &[("module", &["http_2xx"]), ("target", &["x", "z"])]);
        let expected = "http://black:9115/probe?module=http%5F2xx&target=https%3A%2F%2Fa%2Eorg%2F%3Fx%3D1%26y&target=z";
        assert_eq!(urls(&found, &of_all), [expected]);
        assert_eq!(found.endpoints[0].name(), "black:9115 (instance a.org)");
        let mut federate = spec(None, &[("b", &["1"])]);
        federate.path = "/federate?a=1".to_owned();
        let endpoint = Endpoint::plain("p:1".to_owned());
        assert_eq!(endpoint.url(&federate), "http://p:1/federate?a=1&b=1");
    }

    #[test]
    fn what_cannot_be_done_is_left_out_and_named_and_the_others_are_kept() {
        for (label, value) in [
            ("__scheme__", "ftp"),
            ("__metrics_path__", "m"),
            ("__metrics_path__", "/m?x"),
            ("__param_", "h"),
        ] {
            let text = format!(
                "- targets: ['a:1']\n  labels: {{{label}: '{value}'}}\n- targets: ['b:1', 'http://c/', 'd@e:1']\n"
            );
            let found = read(&text).unwrap();
            assert_eq!(found.endpoints, [Endpoint::plain("b:1".to_owned())]);
            let said: Vec<String> = found.left_out.iter().map(ToString::to_string).collect();
            assert!(
                said[0].starts_with(&format!("the group of `a:1`: label `{label}`: ")),
                "{said:?}"
            );
            assert_eq!(said[1], "target `http://c/` is not host:port");
            assert_eq!(said[2], "target `d@e:1` is not host:port");
        }
        let many = format!("- targets: [{}, x]", vec!["'a:1'"; TARGETS_MAX + 1].join(","));
        let found = read(&many).unwrap();
        assert_eq!((found.endpoints.len(), found.too_many), (TARGETS_MAX, true));
        let bad = format!("- targets: [{}]", ["x"; NAMED_MAX + 3].join(","));
        let found = read(&bad).unwrap();
        assert_eq!((found.left_out.len(), found.more), (NAMED_MAX, 3));
        assert!(read("root:x:0:0:root:/root:/bin/bash").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a-z0-9:{}\\[\\]\"', \n]{0,200}") {
            prop_assert!(read(&text).map_or(0, |found| found.endpoints.len()) <= text.len());
        }
    }
}
