//! Deterministic simulation of whole clusters: one seed, one history, every invariant checked.
//!
//! ```text
//!   seed ─► faults ─► layer ─► history ─► check ─► violations ─► shrink ─► one command
//!                       │         └─────► coverage
//!                       ├─ layer_a: real law, hands and judgement; simulated log, clocks and world
//!                       └─ layer_b: whole nodes; simulated network, disks, clocks and world
//! ```
//!
//! Shared by layers: [`world`], [`faults`], [`history`], [`check`], [`coverage`], [`trace`].
//! Deliberately absent: real sockets, real disks, real time. Those are for campaigns on real processes.

pub mod campaign;
pub mod check;
pub mod clock;
pub mod coverage;
mod drill;
pub mod faults;
pub mod history;
pub mod layer_a;
pub mod layer_b;
pub mod planted;
pub mod processes;
pub mod rng;
pub mod run;
pub mod shrink;
mod tell;
pub mod trace;
pub mod wall;
pub mod world;
