//! Consensus as its users meet it: one binary.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod cluster;
mod crash;
mod harness;
mod peers;
mod process;
mod records;
mod start;
mod suite;
mod tls;
mod wire;
