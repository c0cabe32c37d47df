//! Prometheus' `file_sd` form: groups of targets with labels, JSON or YAML. Pure.
//!
//! `[{"targets": ["host:9100"], "labels": {"job": "node"}}]`. Labels that begin with `__` become none of a series:
//! `__scheme__` and `__metrics_path__` say how a target is asked, as they do for Prometheus; `__meta_…` and others are
//! food for relabelling, which there is none of. One that would change what is asked for is refused.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Bytes of a file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Targets of one source.
pub const TARGETS_MAX: usize = 1_000;

/// Somewhere to scrape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// Labels of all that is scraped there.
    pub labels: BTreeMap<String, String>,
    /// Over TLS.
    pub https: bool,
    /// Where the exposition is, if not where its source says.
    pub path: Option<String>,
}

impl Endpoint {
    /// One of which nothing but the address is known.
    #[must_use]
    pub fn plain(address: String) -> Self {
        Self { address, labels: BTreeMap::new(), https: false, path: None }
    }

    /// What is asked for; `path` is its source's.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path.as_deref().unwrap_or(path))
    }
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// Not of the form.
    #[error("it is no list of target groups (file_sd): {0}")]
    Form(String),
    /// Not `host:port`.
    #[error("target `{0}` is not host:port")]
    Target(String),
    /// A label that says how to ask, and says nothing that can be done.
    #[error("label `{0}`: {1}")]
    Steering(String, &'static str),
    /// Too many.
    #[error("more than {TARGETS_MAX} targets")]
    TooMany,
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
/// When it cannot be used: nothing of it is, then.
pub fn read(text: &str) -> Result<Vec<Endpoint>, BadFile> {
    let form = |error: String| BadFile::Form(error.lines().next().unwrap_or_default().to_owned());
    let groups: Vec<Group> =
        serde_saphyr::from_str(text).map_err(|error| form(error.to_string()))?;
    let mut found = Vec::new();
    for group in groups {
        let (steering, labels): (BTreeMap<_, _>, BTreeMap<_, _>) =
            group.labels.into_iter().partition(|(name, _)| name.starts_with("__"));
        let (https, path) = steered(&steering)?;
        for address in group.targets {
            if !is_address(&address) {
                return Err(BadFile::Target(address.chars().take(80).collect()));
            }
            if found.len() == TARGETS_MAX {
                return Err(BadFile::TooMany);
            }
            let (labels, path) = (labels.clone(), path.clone());
            found.push(Endpoint { address, labels, https, path });
        }
    }
    Ok(found)
}

/// How targets are asked: over TLS or not, and for which path.
fn steered(labels: &BTreeMap<String, String>) -> Result<(bool, Option<String>), BadFile> {
    let bad = |name: &str, why| BadFile::Steering(name.chars().take(80).collect(), why);
    let https = match labels.get("__scheme__").map(String::as_str) {
        None | Some("http") => false,
        Some("https") => true,
        Some(_) => return Err(bad("__scheme__", "it is neither `http` nor `https`")),
    };
    let path = labels.get("__metrics_path__");
    let plain = |path: &String| path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
    if path.is_some_and(|path| !plain(path) || path.contains(['?', '#', '\\'])) {
        return Err(bad(
            "__metrics_path__",
            "it is no path that begins with `/`, without `?` and `#`",
        ));
    }
    match labels.keys().find(|name| name.starts_with("__param_")) {
        Some(name) => Err(bad(name, "parameters are not sent: use a Source with that path alone")),
        None => Ok((https, path.cloned())),
    }
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

    #[test]
    fn json_and_yaml_are_read_alike() {
        let json = r#"[{"targets": ["a:1", "b:2"], "labels": {"job": "node", "__meta_path": "/x"}}, {"targets": ["c:3"]}]"#;
        let yaml = "- targets: ['a:1', 'b:2']\n  labels: {job: node}\n- targets: ['c:3']\n";
        let found = read(json).unwrap();
        assert_eq!(found, read(yaml).unwrap());
        assert_eq!((found.len(), found[0].labels.len(), found[2].labels.len()), (3, 1, 0));
    }

    #[test]
    fn labels_say_how_a_target_is_asked() {
        let text = "- targets: ['a:1']\n  labels: {__scheme__: https, __metrics_path__: /m, __meta_x: y}\n- targets: ['b:2']\n";
        let found = read(text).unwrap();
        let urls: Vec<String> = found.iter().map(|endpoint| endpoint.url("/metrics")).collect();
        assert_eq!(urls, ["https://a:1/m", "http://b:2/metrics"]);
        assert!(found.iter().all(|endpoint| endpoint.labels.is_empty()));
        for (label, value) in [
            ("__scheme__", "ftp"),
            ("__metrics_path__", "m"),
            ("__metrics_path__", "/m?x"),
            ("__param_t", "h"),
        ] {
            let bad = read(&format!("- targets: ['a:1']\n  labels: {{{label}: '{value}'}}\n"));
            assert!(
                matches!(bad, Err(BadFile::Steering(name, _)) if name == label),
                "{label}={value}"
            );
        }
    }

    #[test]
    fn what_is_no_list_of_targets_is_named() {
        assert!(matches!(read("root:x:0:0:root:/root:/bin/bash"), Err(BadFile::Form(_))));
        assert!(matches!(read("- targets: ['http://a/']"), Err(BadFile::Target(_))));
        assert!(matches!(read("- targets: ['a@b:1']"), Err(BadFile::Target(_))));
        let many = format!("- targets: [{}]", vec!["'a:1'"; TARGETS_MAX + 1].join(","));
        assert_eq!(read(&many), Err(BadFile::TooMany));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a-z0-9:{}\\[\\]\"', \n]{0,200}") {
            prop_assert!(read(&text).map_or(0, |found| found.len()) <= text.len());
        }
    }
}
