//! The declarations of the simulated fleet, and the changes that are made to them under way.

use medic_node::intelligence::builtin;
use medic_state::manifest::{Kind, Manifest, Metadata, Spec};
use serde::Deserialize;

/// The fleet and its remedies.
const FLEET: &str = include_str!("fleet.yaml");

/// How every service is watched.
const WATCHED: &str = r#"  probes:
    - {name: process_alive, process: true, interval: 2s}
    - {name: http_ok, http: "http://${instance}.sim/healthz", interval: 2s, timeout: 700ms}
  scrape: {url: "http://${instance}.sim/metrics", interval: 5s}
  indicators:
    - {name: error_rate, source: {gauge: error_rate}, limit: "0.2"}
    - {name: latency_p99, source: {gauge: latency_p99}, limit: "0.6"}
    - {name: memory, source: {gauge: memory}, limit: 160MiB}"#;

/// A manifest as it is written.
#[derive(Debug, Deserialize)]
struct Written {
    kind: String,
    metadata: Metadata,
    spec: serde_json::Value,
}

/// A bundle that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is no YAML.
    #[error("the simulation's manifests are no YAML: {0}")]
    Yaml(#[from] serde_saphyr::Error),
    /// It is no manifest.
    #[error("{name} of the simulation's manifests is no {kind}: {source}")]
    Spec {
        /// Which.
        name: String,
        /// What it should be.
        kind: String,
        /// Why not.
        source: serde_json::Error,
    },
}

/// Everything declared at the start, in the order in which it is applied.
///
/// # Errors
/// When a document cannot be read.
pub fn all() -> Result<Vec<Manifest>, BundleError> {
    let mut manifests = read(&FLEET.replace("  @watched@", WATCHED))?;
    manifests.extend(read(&builtin::manifests())?);
    let rank =
        |manifest: &Manifest| Kind::ALL.iter().position(|kind| *kind == manifest.spec.kind());
    manifests.sort_by_key(rank);
    Ok(manifests)
}

fn read(bundle: &str) -> Result<Vec<Manifest>, BundleError> {
    let written: Vec<Written> = serde_saphyr::from_multiple(bundle)?;
    written.into_iter().map(manifest).collect()
}

fn manifest(written: Written) -> Result<Manifest, BundleError> {
    let Written { kind, metadata, spec } = written;
    let typed = serde_json::json!({"kind": kind, "spec": spec});
    let spec: Spec = serde_json::from_value(typed).map_err(|source| BundleError::Spec {
        name: metadata.name.clone(),
        kind,
        source,
    })?;
    Ok(Manifest { metadata, spec })
}

/// The same playbook with a timeout a little different: another digest.
#[must_use]
pub fn touched(manifest: &Manifest, by_ms: u64) -> Option<Manifest> {
    let mut changed = manifest.clone();
    let Spec::Playbook(playbook) = &mut changed.spec else { return None };
    playbook.verify.timeout.0 += by_ms;
    Some(changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_fleet_is_valid() {
        for manifest in all().unwrap() {
            let problems = medic_state::manifest::validate(&manifest);
            assert!(problems.is_empty(), "{}: {problems:?}", manifest.metadata.name);
        }
    }
}
