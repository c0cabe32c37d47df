//! `medic serve` and `medic agent`: the long-running commands, with structured logs on standard error.

use std::{future::Future, path::PathBuf};

use clap::{Args, ValueEnum};
use medic_raft::Env;
use tracing_subscriber::EnvFilter;

use super::CliError;
use crate::config::{AgentConfig, NodeConfig};

/// `medic serve`, `medic agent`.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Configuration file, as `medic init` writes it
    #[arg(short, long)]
    pub config: PathBuf,
    /// How log lines are written
    #[arg(long, env = "MEDIC_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: a level, or `target=level` pairs separated by commas
    #[arg(long, env = "MEDIC_LOG", default_value = "info,openraft=warn")]
    pub log: String,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Runs a node.
pub(super) fn serve(args: &DaemonArgs) -> Result<(), CliError> {
    let config = NodeConfig::load(&args.config).map_err(CliError::failed)?;
    run(args, crate::serve::run(config, Env::system()))
}

/// Runs an agent.
pub(super) fn agent(args: &DaemonArgs) -> Result<(), CliError> {
    let config = AgentConfig::load(&args.config).map_err(CliError::failed)?;
    run(args, crate::action::agent::run(config, Env::system()))
}

fn run(args: &DaemonArgs, work: impl Future<Output = anyhow::Result<()>>) -> Result<(), CliError> {
    start_logging(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::failed)?;
    runtime.block_on(Box::pin(work)).map_err(|error| CliError::Failed(format!("{error:#}")))
}

fn start_logging(args: &DaemonArgs) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| CliError::Usage(format!("--log {}: {error}", args.log)))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(CliError::failed)
}
