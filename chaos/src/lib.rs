//! Proof: a sample fleet that can be broken, clusters of real processes, the demo, and measurements.
//!
//! Everything here drives the real `medic` binary from outside, as a user would. Faults and load go
//! to loopback, to network namespaces made here and to processes started here, and to nothing else; only an [`experiment`] can be aimed
//! at what was there before, and only at what an allow-list names.

pub mod bench;
pub mod campaign;
pub mod check;
pub mod demo;
pub mod experiment;
pub mod fleet;
pub mod harness;
pub mod healing;
pub mod history;
pub mod nemesis;
pub mod netns;
pub mod relay;
pub mod report;
