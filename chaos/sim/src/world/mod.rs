//! The simulated world: services, hosts, agents and other people's automation, as the nodes observe
//! it and act on it. It writes down every order that reaches it, which makes it the oracle.
//!
//! ```text
//!   Node ─ NodeSenses (probe, scrape, reports) ─┐
//!        ─ NodeWorld (act, query, observe) ─────┤──► Fleet ─► Agent (the real `Book`) ─► Instance
//!                                      network ─┘         └─► vendor (nobody's fence)
//! ```
//!
//! Shared by every layer of simulation: nothing here knows how the nodes agree.

mod act;
mod agent;
mod fleet;
mod hands;
mod instance;
pub mod manifests;
mod struck;

pub(crate) use fleet::REPORT_WITHIN_MS;
pub use fleet::{Fleet, Mood};
pub use hands::{NodeSenses, NodeWorld};
pub use instance::{Cure, Ill, Illness, Life};
pub(crate) use struck::{Relief, Struck};
