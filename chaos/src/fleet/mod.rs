//! The sample fleet: small real services that depend on each other and can be broken.
//!
//! ```text
//!   traffic ──► gateway ──┬──► orders-1,2,3 ──┬──► datastore
//!                         └──► users-1,2 ─────┘
//!   traffic ──► ledger (critical, pci, one instance)
//! ```

mod service;
mod topology;
pub mod traffic;

pub use service::{Break, Files, Ill, SPOOL_BYTES_MAX, ServiceArgs, ServiceConfig, run};
pub use topology::{Layout, MEMORY_LIMIT, SampleFleet, SampleInstance};
