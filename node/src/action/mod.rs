//! The hands: the only code that acts on the outside world, after the law has admitted the act.
//!
//! ```text
//!            leadership                 pending_effects()
//!   Ledger ─────────────► leader ──────────────────────────┬─► deciding   observe, judge, AdoptDecision
//!     ▲                     │  Fence, Tick                  ├─► driver     StartStep, act, FinishStep
//!     │                     │                               ├─► verifying  observe, judge, RecordVerdict
//!     │                     └─► shards  MarkNode, Assign    └─► notifying  channels
//!     └───────────────────────── every one proposes; none changes state ──┘
//! ```
//!
//! Invariant: an act has a committed `StartStep`, applied here, under the fence this node holds.
//! Deliberately absent: any opinion. What to do was decided by judgement and admitted by the law.

pub mod agent;
pub mod backends;
pub mod driver;
#[cfg(test)]
mod fixture;
pub mod judge;
pub mod leader;
pub mod metrics;
pub mod office;
pub mod resources;
pub mod shards;

pub use driver::{Driver, DriverConfig};
pub use leader::{Leader, LeaderConfig};
pub use office::Office;
