//! `medic-chaos`: the demo, and the sample services it is played with.

use std::process::ExitCode;

use clap::Parser as _;
use medic_chaos::{demo, fleet};

/// Breaks things on purpose, to show and to prove that Medic heals them.
///
/// Everything stays on loopback and on processes that were started here.
#[derive(clap::Parser)]
#[command(
    version,
    after_help = "Examples:\n  medic-chaos demo            watch, then look around yourself\n  medic-chaos demo --script   exit when done; non-zero if anything did not heal\n  medic-chaos demo --only 6   only the one that loses its leader"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Three nodes heal real faults, and lose their leader in the middle of it.
    Demo(demo::DemoArgs),
    /// One service of the sample fleet (the demo's agents start these).
    Service(fleet::ServiceArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    medic_node::security::provide_crypto();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(args).await,
        Command::Service(args) => fleet::run(args).await.map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
