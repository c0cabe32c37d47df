//! Contexts: which cluster, as whom, in which tenant. A file of names; one is current.
//!
//! The file is written by `medic init` and by people. `medic context use` changes the one line that
//! says which is current, and leaves the rest, comments included, as it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{args::Connect, error::CliError};
use crate::config::TlsFiles;

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the current one.
    #[serde(default)]
    pub current: String,
    /// All, by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Identity of the cluster.
    pub cluster: String,
    /// `host:port` of the control API of its nodes.
    pub nodes: Vec<String>,
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// The user's certificate.
    pub cert: PathBuf,
    /// The user's key.
    pub key: PathBuf,
    /// Tenant to work in.
    #[serde(default = "default_tenant")]
    pub tenant: String,
}

fn default_tenant() -> String {
    medic_state::manifest::DEFAULT_TENANT.to_owned()
}

impl Context {
    /// The files of its identity.
    #[must_use]
    pub fn tls(&self) -> TlsFiles {
        TlsFiles { ca: self.ca.clone(), cert: self.cert.clone(), key: self.key.clone() }
    }
}

/// Where contexts are kept unless somebody says otherwise.
#[must_use]
pub(super) fn default_path() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.config_dir().join("medic").join("config.toml"))
}

/// The file to use.
///
/// # Errors
/// When there is no home directory and no file was named.
pub(super) fn path(given: Option<&PathBuf>) -> Result<PathBuf, CliError> {
    given.cloned().or_else(default_path).ok_or_else(|| {
        CliError::Usage("no home directory; name the file of contexts with --config".to_owned())
    })
}

/// Reads the file; its relative paths become paths beside it.
///
/// # Errors
/// When it is unreadable or not what is expected.
pub(super) fn read(path: &Path) -> Result<Contexts, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::Usage(format!(
            "cannot read {}: {error}; set MEDIC_CONFIG or --config to the medic.toml that \
             `medic init` made",
            path.display()
        ))
    })?;
    let mut contexts: Contexts = toml::from_str(&text).map_err(|error| {
        CliError::Usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    for context in contexts.contexts.values_mut() {
        for file in [&mut context.ca, &mut context.cert, &mut context.key] {
            *file = base.join(&*file);
        }
    }
    Ok(contexts)
}

/// The context that a command should use, and its tenant (empty: all).
///
/// # Errors
/// When there is no such context.
pub(super) fn choose(connect: &Connect) -> Result<(Context, String), CliError> {
    let path = path(connect.config.as_ref())?;
    let mut contexts = read(&path)?;
    let name = connect.context.clone().unwrap_or_else(|| contexts.current.clone());
    let Some(context) = contexts.contexts.remove(&name) else {
        let known: Vec<&String> = contexts.contexts.keys().collect();
        let text = if name.is_empty() {
            format!("{}: no context is current; choose with `medic context use`", path.display())
        } else {
            format!("{}: there is no context `{name}` among {known:?}", path.display())
        };
        return Err(CliError::Usage(text));
    };
    let tenant = connect.tenant.clone().unwrap_or_else(|| context.tenant.clone());
    let tenant = if tenant == "*" { String::new() } else { tenant };
    Ok((context, tenant))
}

/// Makes a context the current one.
///
/// # Errors
/// When there is no such context, or the file cannot be written.
pub(super) fn make_current(path: &Path, name: &str) -> Result<(), CliError> {
    let contexts = read(path)?;
    if !contexts.contexts.contains_key(name) {
        let known: Vec<&String> = contexts.contexts.keys().collect();
        return Err(CliError::Usage(format!("there is no context `{name}` among {known:?}")));
    }
    let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(failed)?;
    std::fs::write(path, with_current(&text, name)).map_err(failed)
}

/// The text with its top-level `current` set.
fn with_current(text: &str, name: &str) -> String {
    let line = format!("current = {name:?}");
    let mut top = true;
    let mut done = false;
    let mut lines: Vec<String> = text
        .lines()
        .map(|old| {
            top &= !old.trim_start().starts_with('[');
            let is_current = old.split('=').next().is_some_and(|key| key.trim() == "current");
            if top && is_current {
                done = true;
                line.clone()
            } else {
                old.to_owned()
            }
        })
        .collect();
    if !done {
        lines.insert(0, line);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TEXT: &str = "# mine\ncurrent = \"a\"\n\n[contexts.a]\ncluster = \"x\"\nnodes = []\nca = \"ca.crt\"\n\
        cert = \"a.crt\"\nkey = \"a.key\"\n[contexts.b]\ncluster = \"y\"\nnodes = []\nca = \"/ca.crt\"\n\
        cert = \"b.crt\"\nkey = \"b.key\"\ntenant = \"t\"\n";

    #[test]
    fn one_is_chosen_and_another_made_current() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, TEXT).unwrap();
        let mut connect = Connect { config: Some(file.clone()), ..Connect::default() };
        let (context, tenant) = choose(&connect).unwrap();
        assert_eq!((context.cluster.as_str(), tenant.as_str()), ("x", "default"));
        assert_eq!(context.cert, dir.path().join("a.crt"));
        make_current(&file, "b").unwrap();
        let (context, tenant) = choose(&connect).unwrap();
        assert_eq!((context.cluster.as_str(), tenant.as_str()), ("y", "t"));
        assert_eq!(context.ca, Path::new("/ca.crt"));
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("# mine\ncurrent = \"b\"\n"));
        connect.tenant = Some("*".to_owned());
        assert_eq!(choose(&connect).unwrap().1, "");
        connect.context = Some("c".to_owned());
        let error = choose(&connect).unwrap_err().to_string();
        assert!(error.contains("no context `c`"), "{error}");
        assert!(make_current(&file, "c").is_err());
    }

    #[test]
    fn a_file_without_a_current_one_gets_a_line() {
        let text = with_current("[contexts.a]\ncurrent = 1\n", "a");
        assert_eq!(text, "current = \"a\"\n[contexts.a]\ncurrent = 1\n");
    }
}
