//! Prometheus' `file_sd` form: groups of targets with labels, JSON or YAML. Pure.
//!
//! `[{"targets": ["host:9100"], "labels": {"job": "node"}}]`. Labels that begin with `__` steer
//! Prometheus' relabelling and are left out.

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
        let labels: BTreeMap<String, String> =
            group.labels.into_iter().filter(|(name, _)| !name.starts_with("__")).collect();
        for address in group.targets {
            if !is_address(&address) {
                return Err(BadFile::Target(address.chars().take(80).collect()));
            }
            if found.len() == TARGETS_MAX {
                return Err(BadFile::TooMany);
            }
            found.push(Endpoint { address, labels: labels.clone() });
        }
    }
    Ok(found)
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
        let json = r#"[{"targets": ["a:1", "b:2"], "labels": {"job": "node", "__path__": "/x"}}, {"targets": ["c:3"]}]"#;
        let yaml = "- targets: ['a:1', 'b:2']\n  labels: {job: node}\n- targets: ['c:3']\n";
        let found = read(json).unwrap();
        assert_eq!(found, read(yaml).unwrap());
        assert_eq!((found.len(), found[0].labels.len(), found[2].labels.len()), (3, 1, 0));
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
