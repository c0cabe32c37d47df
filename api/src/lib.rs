//! The doors of a node: what agents, operators and telemetry come in through.

pub mod client;
pub mod control;
pub mod convert;
pub mod door;
pub mod fleet;
pub mod http;
pub mod manifest;
pub mod metrics;
#[cfg(test)]
mod testing;
