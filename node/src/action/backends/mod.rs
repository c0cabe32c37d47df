//! Backends: how an act reaches the world.
//!
//! Each says honestly what it knows: an act that was provably not sent has failed and may be tried
//! again; one that was sent and not answered is unknown.

pub mod channel;
pub mod fleet;
pub mod webhook;

pub use fleet::{FleetWorld, HubView};
