//! The node: detection, intelligence, action, validation, security, and what ties them together.
//!
//! Layers do not import each other's insides: they meet in the law's types (`medic_state`) and in
//! [`world`].

pub mod action;
pub mod backtest;
mod cause;
pub mod cli;
pub mod config;
pub mod detection;
pub mod expr;
mod figures;
#[cfg(test)]
mod fixture;
pub mod intelligence;
pub mod learn;
mod meaning;
pub mod secrets;
pub mod security;
pub mod serve;
pub mod topology;
pub mod validation;
pub mod world;

pub use medic_raft::{crash_point, failpoint};
