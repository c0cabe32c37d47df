//! Detection: from signals to symptoms.
//!
//! ```text
//!  probes ──────────────────────────────────────────────┐
//!  agents (process, safety) ────────────────────────────┤ facts
//!  scrapes ┐               ┌ limit crossed ─────────────┤
//!  pushes  ├► indicators ──┼ level, small shifts ┐      ├─► votes ─► ensemble ─► Finding ─► ReportSymptom
//!  beside  ┘               ├ trend to the limit  ├ trust┘      (agreement) │    (hysteresis)
//!                          └ panel of all        ┘       detectors alone: lord
//!                                                       (false discoveries)
//!  indicators, deaths, certificates ─► predict ─► forecasts ─► foretell ─► ReportSymptom
//!                                                     └─► record: what came of them
//!  votes, and who is silent ─► health: five monitors of each instance
//! ```
//!
//! What others push comes in through [`intake`] and goes the way of scrapes.
//!
//! [`observe`] looks once (the validation and planning layers use it too); [`runtime`] watches the
//! shards this node owns. [`detector`], [`ensemble`], [`entity`], [`predict`], [`lord`] and [`health`] are pure: no
//! clock, no I/O.
//!
//! Invariant: no data is never "bad" and never "good"; every finding names the observations it
//! rests on. Deliberately absent: what a finding means and what to do about it (intelligence), and
//! deduplication, grouping, silences and windows (the law).

pub mod alerts;
mod beside;
pub mod counted;
pub mod detector;
pub mod ensemble;
pub mod entity;
pub mod exposition;
pub mod fill;
pub mod foresight;
pub mod handover;
pub mod health;
pub mod indicator;
pub mod intake;
pub mod lord;
pub mod metrics;
pub mod observe;
pub mod predict;
pub mod probe;
pub mod runtime;
pub mod scrape;
pub mod senses;
pub mod share;

pub use alerts::Alerts;
pub use fill::fill;
pub use foresight::Foresight;
pub use handover::Handover;
pub use health::HealthBook;
pub use observe::Observer;
pub use runtime::Runtime;
pub use share::Sharing;
