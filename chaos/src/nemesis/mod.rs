//! What is done to a cluster to see whether it keeps its word, and when.
//!
//! ```text
//!   seed ──► schedule: rounds of one to four overlapping faults ──► steps, each with its time
//!                                                              round's end: everything is undone
//! ```
//!
//! The schedule is a function of the seed. Whom a fault hits ("the leader") and at which failpoint
//! ("the least-hit one") is looked up when it strikes, since only then it is known.

pub mod clock;
pub mod disk;
mod fault;
pub mod flip;
pub mod schedule;
mod step;
mod tools;

pub use clock::Skew;
pub use fault::Fault;
pub use schedule::{Round, Timed, rounds};
pub use step::{Aim, Step, Weather, Whom};
pub use tools::{Capabilities, descriptors_max, memory_max, trace_syncs};
pub(crate) use tools::{find, run};
