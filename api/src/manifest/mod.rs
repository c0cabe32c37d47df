//! Manifests as text: YAML (or JSON) in the Kubernetes envelope, in and out.
//!
//! ```text
//!   text ─► tree (places, limits, duplicate keys) ─► typed (unknown keys) ─► checked ─► Manifest
//! ```
//!
//! Every problem says in which document, at which path, in which line and column. All documents are
//! looked at; within one, form comes first, and meaning only once the form is right.

mod cel;
mod check;
mod cost;
mod de;
mod quantity;
mod schedule;
mod schema;
#[cfg(test)]
mod tests;
mod tree;

use std::{collections::BTreeMap, fmt};

use medic_state::manifest::{Kind, Manifest, Metadata, Spec};
use serde::{Serialize, de::DeserializeOwned};

pub use cel::{EXPECT_VARIABLES, FUNCTIONS, MAX_CONDITION, WHEN_VARIABLES};
pub use check::{Finding, check, check_condition};
pub use de::alternatives;
pub use quantity::{BadQuantity, check_bound, parse_quantity};
pub use schema::{schema, schema_of};
pub use tree::{MAX_BYTES, MAX_COPIED_BYTES, MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES};

use de::Mismatch;
use tree::{Malformed, Node, Pos, Style, Value};

/// The envelope's version.
pub const API_VERSION: &str = "medic/v1";

/// One thing that is wrong with a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which document, from 1.
    pub document: usize,
    /// Where in it: `spec.steps[0].action`; empty: the document as a whole.
    pub path: String,
    /// Line of the whole text, from 1; 0: the text as a whole.
    pub line: u32,
    /// Column, from 1; 0: the text as a whole.
    pub column: u32,
    /// What is wrong, and what would do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Reads a bundle of manifests. Empty documents are skipped; an empty bundle is no error.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn parse_bundle(text: &str) -> Result<Vec<Manifest>, Vec<Problem>> {
    let read = |root: &Node| {
        let (metadata, mut spec) = envelope(root, de::read::<Kind>, read_spec)?;
        schedule::fill(&mut spec);
        Ok(Manifest { metadata, spec })
    };
    bundle(text, read, check, |manifest| manifest.key().to_string())
}

/// Reads documents of one kind that the cluster does not know, in the same envelope and with the
/// same care; `check` says what is wrong with one whose form is right.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn parse_kind<S: DeserializeOwned>(
    text: &str,
    kind: &'static str,
    check: impl Fn(&Metadata, &S) -> Vec<Finding>,
) -> Result<Vec<(Metadata, S)>, Vec<Problem>> {
    let known = |node: &Node| match &node.value {
        Value::Scalar { text, .. } if text == kind => Ok(()),
        Value::Scalar { text, .. } => {
            Err(serde::de::Error::custom(de::unknown("kind", text, &[kind])))
        }
        Value::Seq(_) | Value::Map(_) => {
            Err(serde::de::Error::custom(format!("expected `kind: {kind}`")))
        }
    };
    let read = |root: &Node| envelope(root, known, |(), spec| de::read::<S>(spec));
    let key = |(metadata, _): &(Metadata, S)| format!("{kind} {}", metadata.name);
    bundle(text, read, |(metadata, spec)| check(metadata, spec), key)
}

fn bundle<M>(
    text: &str,
    read: impl Fn(&Node) -> Result<M, Vec<Wrong>>,
    check: impl Fn(&M) -> Vec<Finding>,
    key: impl Fn(&M) -> String,
) -> Result<Vec<M>, Vec<Problem>> {
    let mut manifests = Vec::new();
    let mut problems = Vec::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for (i, document) in tree::documents(text).into_iter().enumerate() {
        let document_number = i + 1;
        let problem = |path: String, at: Pos, message: String| Problem {
            document: document_number,
            path,
            line: at.line,
            column: at.column,
            message,
        };
        let root = match document {
            Ok(root) => root,
            Err(malformed) => {
                let one = |Malformed { at, message }| problem(String::new(), at, message);
                problems.extend(malformed.into_iter().map(one));
                continue;
            }
        };
        match read(&root) {
            Err(errors) => problems
                .extend(errors.into_iter().map(|(path, at, message)| problem(path, at, message))),
            Ok(manifest) => {
                for finding in check(&manifest) {
                    let at = place(&root, &finding);
                    problems.push(problem(finding.path, at, finding.message));
                }
                let key = key(&manifest);
                if let Some(first) = seen.insert(key.clone(), root.at.line) {
                    let message = format!("{key} is declared twice, first in line {first}");
                    problems.push(problem("metadata.name".to_owned(), root.at, message));
                }
                manifests.push(manifest);
            }
        }
    }
    if problems.is_empty() { Ok(manifests) } else { Err(problems) }
}

/// The manifest as a YAML document that [`parse_bundle`] reads back.
///
/// # Errors
/// When a value has no YAML form; none that we define lacks one.
pub fn to_yaml(manifest: &Manifest) -> Result<String, serde_saphyr::SerializeError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'m, S> {
        api_version: &'static str,
        kind: Kind,
        metadata: &'m Metadata,
        spec: &'m S,
    }
    fn write<S: Serialize>(
        manifest: &Manifest,
        spec: &S,
    ) -> Result<String, serde_saphyr::SerializeError> {
        serde_saphyr::to_string(&Envelope {
            api_version: API_VERSION,
            kind: manifest.spec.kind(),
            metadata: &manifest.metadata,
            spec,
        })
    }
    match &manifest.spec {
        Spec::Service(spec) => write(manifest, spec),
        Spec::Playbook(spec) => write(manifest, spec),
        Spec::Policy(spec) => write(manifest, spec),
        Spec::Source(spec) => write(manifest, spec),
        Spec::Silence(spec) => write(manifest, spec),
        Spec::MaintenanceWindow(spec) => write(manifest, spec),
        Spec::Role(spec) => write(manifest, spec),
        Spec::RoleBinding(spec) => write(manifest, spec),
        Spec::Tenant(spec) => write(manifest, spec),
        Spec::Channel(spec) => write(manifest, spec),
    }
}

/// The manifest as a JSON value in the envelope.
///
/// # Errors
/// When a value has no JSON form; none that we define lacks one.
pub fn to_json(manifest: &Manifest) -> Result<serde_json::Value, serde_json::Error> {
    let mut value = serde_json::to_value(manifest)?;
    value["apiVersion"] = API_VERSION.into();
    Ok(value)
}

type Wrong = (String, Pos, String);

/// Reads the four keys of the envelope.
fn envelope<K, S>(
    root: &Node,
    read_kind: impl Fn(&Node) -> Result<K, Mismatch>,
    read_spec: impl Fn(K, &Node) -> Result<S, Mismatch>,
) -> Result<(Metadata, S), Vec<Wrong>> {
    const KEYS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
    let wrong = |path: &str, at: Pos, message: String| (path.to_owned(), at, message);
    let Value::Map(entries) = &root.value else {
        let message = "a manifest is a mapping with apiVersion, kind, metadata, spec".to_owned();
        return Err(vec![wrong("", root.at, message)]);
    };
    let mut errors = Vec::new();
    for (key, _) in entries {
        if !KEYS.contains(&key.text.as_str()) {
            errors.push(wrong(&key.text, key.at, de::unknown("key", &key.text, &KEYS)));
        }
    }
    let mut child = |key: &'static str| {
        let node = root.get(key).map(|(_, node)| node);
        if node.is_none() {
            errors.push(wrong("", root.at, format!("key `{key}` is missing")));
        }
        node
    };
    let (version, kind) = (child("apiVersion"), child("kind"));
    let (metadata, spec) = (child("metadata"), child("spec"));
    if let Some(node) = version
        && !matches!(&node.value, Value::Scalar { text, .. } if text == API_VERSION)
    {
        let message = format!("this release reads `apiVersion: {API_VERSION}`");
        errors.push(wrong("apiVersion", node.at, message));
    }
    let mut place = |key: &str, error: Mismatch, node: &Node| {
        let inner = error.path();
        let dot = if inner.is_empty() || inner.starts_with('[') { "" } else { "." };
        let at = error.at.unwrap_or(node.at);
        errors.push((format!("{key}{dot}{inner}"), at, error.message));
    };
    let kind =
        kind.and_then(|node| read_kind(node).map_err(|error| place("kind", error, node)).ok());
    let metadata = metadata.and_then(|node| {
        de::read::<Metadata>(node).map_err(|error| place("metadata", error, node)).ok()
    });
    let spec = kind.zip(spec).and_then(|(kind, node)| {
        read_spec(kind, node).map_err(|error| place("spec", error, node)).ok()
    });
    match (metadata, spec) {
        (Some(metadata), Some(spec)) if errors.is_empty() => Ok((metadata, spec)),
        _ => Err(errors),
    }
}

fn read_spec(kind: Kind, node: &Node) -> Result<Spec, Mismatch> {
    match kind {
        Kind::Service => de::read(node).map(Spec::Service),
        Kind::Playbook => de::read(node).map(Spec::Playbook),
        Kind::Policy => de::read(node).map(Spec::Policy),
        Kind::Source => de::read(node).map(Spec::Source),
        Kind::Silence => de::read(node).map(Spec::Silence),
        Kind::MaintenanceWindow => de::read(node).map(Spec::MaintenanceWindow),
        Kind::Role => de::read(node).map(Spec::Role),
        Kind::RoleBinding => de::read(node).map(Spec::RoleBinding),
        Kind::Tenant => de::read(node).map(Spec::Tenant),
        Kind::Channel => de::read(node).map(Spec::Channel),
    }
}

/// Where a finding stands in the text, to the column unless escapes or folding moved it.
fn place(root: &Node, finding: &Finding) -> Pos {
    let (node, exact) = root.locate(&finding.path);
    let (Some((line, column)), true) = (finding.within, exact) else { return node.at };
    let Pos { line: first, column: start } = node.at;
    match &node.value {
        Value::Scalar { style: Style::Block, .. } => {
            Pos { line: first + line - 1, column: start + column - 1 }
        }
        Value::Scalar { style: Style::Quoted, .. } if line == 1 => {
            Pos { line: first, column: start + column }
        }
        Value::Scalar { style: Style::Plain, .. } if line == 1 => {
            Pos { line: first, column: start + column - 1 }
        }
        Value::Scalar { .. } | Value::Seq(_) | Value::Map(_) => node.at,
    }
}
