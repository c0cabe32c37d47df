//! `medic-chaos campaign`, the sample services it starts, and `medic-chaos experiment`, for tests.

use clap::Parser as _;

#[derive(clap::Parser)]
struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    campaign: medic_chaos::campaign::CampaignArgs,
}

#[derive(clap::Subcommand)]
enum Other {
    /// Experiments.
    #[command(subcommand)]
    Experiment(medic_chaos::experiment::ExperimentCommand),
    /// One service of the sample fleet.
    Service(medic_chaos::fleet::ServiceArgs),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    medic_node::security::provide_crypto();
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(match args.other {
        Some(Other::Experiment(command)) => {
            runtime.block_on(medic_chaos::experiment::main(command))
        }
        Some(Other::Service(service)) => {
            runtime.block_on(medic_chaos::fleet::run(service))?;
            std::process::ExitCode::SUCCESS
        }
        None => runtime.block_on(medic_chaos::campaign::main(args.campaign)),
    })
}
