//! Logs: lines become templates, templates become series.
//!
//! ```text
//!   OTLP logs ─► records ─► whose? (mapper) ─► owner's Book ─► Drain of the instance
//!                                                                ├─► medic_log_… samples ─► indicators
//!                                                                └─► news: error templates never seen before
//! ```
//!
//! [`records`], [`drain`] and [`book`] are pure. Invariants: what a log can cost in memory is bounded
//! per instance and per node; a line is kept in no form but its template. What was learnt of a log travels with
//! its instance ([`handed`]). Deliberately absent: the lines themselves.

pub mod book;
pub mod drain;
pub mod handed;
pub mod records;

pub use book::Book;
pub use handed::HandedLog;
