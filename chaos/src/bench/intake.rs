//! Pushed telemetry: what a sample costs from its snappy block to its detector, on one thread.

use anyhow::Context as _;
use medic_node::detection::intake::measure::{self, Cost};

/// Series, as many as a node is meant to bear.
const SERIES: usize = 100_000;
/// Rounds of a sample each.
const ROUNDS: usize = 20;

/// Measures on a thread for blocking work; nothing else is asked of this process meanwhile.
pub(super) async fn measure() -> anyhow::Result<Cost> {
    let measured = tokio::task::spawn_blocking(|| measure::run(SERIES, ROUNDS));
    measured.await?.map_err(anyhow::Error::msg).context("measuring the intake")
}
