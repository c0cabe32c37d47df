//! Pushed telemetry: what a sample costs from its snappy block to its detector, on one thread, and what
//! watching so many series takes in memory.

use anyhow::Context as _;
use medic_node::detection::intake::measure::{self, Cost};

/// Series, as many as a node is meant to bear.
const SERIES: usize = 100_000;

/// Measures on a thread for blocking work; nothing else is asked of this process meanwhile.
pub(super) async fn measure(rounds: u32) -> anyhow::Result<Cost> {
    let rounds = usize::try_from(rounds)?;
    let measured = tokio::task::spawn_blocking(move || measure::run(SERIES, rounds));
    measured.await?.map_err(anyhow::Error::msg).context("measuring the intake")
}
