//! THE LAW: the replicated state of Medic and the one function that changes it.
//!
//! ```text
//!   Entry{at, principal, request, command} ──► State::apply ──► Applied{answer, effects, records}
//!                                                  │
//!                                        equal on every node
//! ```
//!
//! Pure by manifest: nothing here reads a clock, draws a random number, uses a float, does I/O or
//! awaits. What judgement concluded arrives as data; what hands should do leaves as effects.
//! Absent on purpose: any knowledge of who is leader beyond the fence number, of sockets, of disks.

#![deny(clippy::wildcard_enum_match_arm, clippy::float_arithmetic)]

pub mod action;
pub mod applied;
pub mod codec;
pub mod command;
pub mod decision;
pub mod form;
pub mod ids;
pub mod incident;
mod law;
pub mod manifest;
pub mod matcher;
pub mod notice;
pub mod plan;
pub mod planted;
pub mod rbac;
pub mod saga;
pub mod state;
pub mod symptom;
pub mod text;
pub mod time;
pub mod voice;
pub mod weight;

pub use applied::{Answer, Applied, AuditRecord, ClosedIncident, Effect, Record, Refusal, Reply};
pub use command::{CLUSTER_VERSION, Command, Entry};
pub use form::FormError;
pub use ids::{
    BootId, Digest, Epoch, Fence, IncidentId, Millis, NodeId, PlanId, Ppm, RequestId, Revision,
    ShardId, Timestamp, TraceId,
};
pub use state::State;
