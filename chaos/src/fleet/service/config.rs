//! What a service is told: its command line, and the file that operators roll out.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Command line of one service process.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs {
    /// Instance name, for the log.
    #[arg(long)]
    pub name: String,
    /// Port to serve on.
    #[arg(long)]
    pub port: u16,
    /// Address to serve on; loopback, unless those who call are elsewhere.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub host: Ipv4Addr,
    /// Configuration file (TOML); read at start and on SIGHUP. Beside it, under the same name, the
    /// service keeps its other files: certificate, artefact, spool.
    #[arg(long)]
    pub config: PathBuf,
    /// Data file; when `POST /break` has damaged it, every request is slow, restarts or not.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Time to drain connections after SIGTERM.
    #[arg(long, default_value_t = 0)]
    pub drain_ms: u64,
}

/// Configuration of a service: what an operator rolls out, well or badly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Groups of addresses (`host:port`); each request calls one address of every group, in turn.
    #[serde(default)]
    pub dependencies: Vec<Vec<String>>,
    /// Time one dependency may take.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// How often a failed call is tried again, at the next address of its group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// Serve on this port instead of the one on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Turn logins away before their credentials are looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lockdown: bool,
}

/// Default of [`ServiceConfig::timeout_ms`].
const fn timeout_ms() -> u64 {
    500
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

pub(super) fn read(args: &ServiceArgs) -> anyhow::Result<ServiceConfig> {
    let path = args.config.display();
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("reading the configuration {path}"))?;
    toml::from_str(&text).with_context(|| format!("reading the configuration {path}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_not_written() {
        let plain = ServiceConfig { timeout_ms: 400, ..ServiceConfig::default() };
        assert_eq!(toml::to_string(&plain).unwrap(), "dependencies = []\ntimeout_ms = 400\n");
        let full =
            ServiceConfig { retries: 1, listen_port: Some(9), lockdown: true, ..plain.clone() };
        let again: ServiceConfig = toml::from_str(&toml::to_string(&full).unwrap()).unwrap();
        assert_eq!(again, full);
        assert!(toml::from_str::<ServiceConfig>("retires = 1").is_err(), "a typo is an error");
    }
}
