//! `medic-chaos`: the demo, the sample services it is played with, and the measurements.

use std::process::ExitCode;

use clap::Parser as _;
use medic_chaos::{bench, campaign, demo, experiment, fleet};

/// Breaks things on purpose, to show and to prove that Medic heals them.
///
/// Everything stays on loopback or in network namespaces of its own, and on processes that were started
/// here; an experiment alone can be
/// aimed at others, within an allow-list.
#[derive(clap::Parser)]
#[command(
    version,
    after_help = "Examples:\n  medic-chaos demo            watch, then look around yourself\n  medic-chaos demo --script   exit when done; non-zero if anything did not heal\n  medic-chaos demo --only 6   only the one that loses its leader\n  medic-chaos campaign --minutes 5 --seed 1\n                              real nodes and agents under faults drawn from a seed\n  medic-chaos experiment run deploy/experiments/local-leader.yaml\n                              a hypothesis of your own, on a cluster of its own"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Three nodes heal real faults, and lose their leader in the middle of it.
    Demo(demo::DemoArgs),
    /// Measures failover, commits and idle nodes of a real cluster here; prints figures, judges none.
    #[command(
        after_help = "Examples:\n  medic-chaos bench                              everything, beside etcd where it is installed\n  medic-chaos bench --only failover --runs 100\n  medic-chaos bench --only commit --clients 1,64,512 --seconds 30 --dir /srv/data\n  medic-chaos bench --json > figures.json"
    )]
    Bench(bench::BenchArgs),
    /// Real nodes and agents under faults drawn from a seed; checks what they left behind. Exit: 0 all
    /// holds, 1 violated or not kept, 2 wrong usage, 3 interrupted, 4 the harness failed.
    #[command(
        after_help = "Examples:\n  medic-chaos campaign --minutes 5 --seed 1\n  medic-chaos campaign --minutes 30 --seed 7 --nodes 5 --out ./reports\n  medic-chaos campaign --network namespaces   each node on a network of its own, or fail\n  medic-chaos campaign --seed 7 --dry-run     what would be done, and when\n  medic-chaos campaign --healing --minutes 8 --seed 1"
    )]
    Campaign(campaign::CampaignArgs),
    /// A hypothesis and faults of your own, on a cluster of its own or on what an allow-list names.
    #[command(subcommand)]
    Experiment(experiment::ExperimentCommand),
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
        Command::Bench(args) => bench::run(args).await,
        Command::Campaign(args) => return Box::pin(campaign::main(args)).await,
        Command::Experiment(command) => return experiment::main(command).await,
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
