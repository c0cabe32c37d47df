//! One service of the sample fleet, for tests that supervise it.

use clap::Parser as _;

#[derive(clap::Parser)]
struct Args {
    #[command(flatten)]
    service: medic_chaos::fleet::ServiceArgs,
}

fn main() -> anyhow::Result<()> {
    medic_node::security::provide_crypto();
    let args = Args::parse();
    tokio::runtime::Runtime::new()?.block_on(medic_chaos::fleet::run(args.service))
}
