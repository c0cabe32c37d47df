//! What an agent is told to run, in its own words: checked, and in a form that is kept on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr as _,
};

use medic_proto::fleet::v1 as wire;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::store::plain_name;

/// Instances one agent runs at most.
pub(super) const INSTANCES_MAX: usize = 1_000;

/// One instance among all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) tenant: String,
    pub(super) service: String,
    pub(super) instance: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.service, self.instance)
    }
}

impl Key {
    /// Name of its directory; its parts hold no `~`.
    pub(super) fn dir_name(&self) -> String {
        format!("{}~{}~{}", self.tenant, self.service, self.instance)
    }

    pub(super) fn to_wire(&self) -> wire::InstanceKey {
        wire::InstanceKey {
            tenant: self.tenant.clone(),
            service: self.service.clone(),
            instance: self.instance.clone(),
        }
    }
}

impl From<wire::InstanceKey> for Key {
    fn from(key: wire::InstanceKey) -> Self {
        Self { tenant: key.tenant, service: key.service, instance: key.instance }
    }
}

/// How one instance is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) key: Key,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: String,
    pub(super) stop_signal: String,
    pub(super) stop_timeout_ms: u64,
    /// Empty: none.
    pub(super) config_path: String,
    pub(super) config_content: Option<String>,
    /// Empty: restart instead.
    pub(super) reload_signal: String,
    pub(super) standby: bool,
    /// Ports that its manifest names.
    #[serde(default)]
    pub(super) ports: BTreeSet<u16>,
}

impl Spec {
    /// Checks what came over the wire.
    pub(super) fn from_wire(instance: wire::Instance) -> Result<Self, String> {
        let spec = Self {
            key: Key {
                tenant: instance.tenant,
                service: instance.service,
                instance: instance.instance,
            },
            command: instance.command,
            args: instance.args,
            env: instance.env,
            working_dir: instance.working_dir,
            stop_signal: instance.stop_signal,
            stop_timeout_ms: instance.stop_timeout_ms,
            config_path: instance.config_path,
            config_content: instance.config_content,
            reload_signal: instance.reload_signal,
            standby: instance.standby,
            ports: (instance.ports.into_iter())
                .filter_map(|port| u16::try_from(port).ok())
                .collect(),
        };
        let key = &spec.key;
        if ![&key.tenant, &key.service, &key.instance].into_iter().all(|name| plain_name(name)) {
            return Err("names are letters, digits, `-`, `_` and `.`, at most 63".to_owned());
        }
        signal(&spec.stop_signal)?;
        if !spec.reload_signal.is_empty() {
            signal(&spec.reload_signal)?;
        }
        if !spec.config_path.is_empty() && !spec.config_path.starts_with('/') {
            return Err(format!("`{}` is not an absolute path", spec.config_path));
        }
        let texts = spec.args.iter().chain(spec.env.values()).chain(spec.env.keys());
        if texts
            .chain([&spec.command, &spec.working_dir, &spec.config_path])
            .any(|text| text.contains('\0'))
        {
            return Err("command, arguments and environment hold no NUL".to_owned());
        }
        if spec.env.keys().any(|name| name.is_empty() || name.contains('=')) {
            return Err(
                "a name of an environment variable is not empty and holds no `=`".to_owned()
            );
        }
        Ok(spec)
    }
}

/// A signal by its name, with or without `SIG`; empty: SIGTERM.
pub(super) fn signal(name: &str) -> Result<Signal, String> {
    let upper = name.to_ascii_uppercase();
    let full = match upper.as_str() {
        "" => "SIGTERM".to_owned(),
        _ if upper.starts_with("SIG") => upper,
        _ => format!("SIG{upper}"),
    };
    Signal::from_str(&full).map_err(|_| format!("`{name}` is not a signal such as SIGTERM"))
}
