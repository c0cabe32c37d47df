//! Intake: telemetry that others send, up to the detectors of the shard's owner.
//!
//! ```text
//!  HTTP door ─► Hub ─► open, walk (write, otlp) ─► Table: whose is it? (mapper) ─┬─► Tally of the instance
//!   any node            bounded   in place                                       │   ▲     │ indicators
//!                                                                     another    ▼   │     ▼
//!                                                             owner ─► Forward ─► peer     watch ─► Entity
//! ```
//!
//! [`wire`], [`write`], [`otlp`], [`otlp_json`], [`sample`], [`mapper`], [`tally`], [`table`], [`counts`], [`quota`] and [`log`] are pure: bytes, state
//! and time are arguments. [`hub`] and [`forward`] are hands.
//!
//! Invariants: whatever is sent, memory is bounded, nothing panics, and every sample that is not taken is
//! counted under its reason; a message that is no message leaves nothing behind. Deliberately absent: storage. Only the newest value of a series is kept; who wants
//! history asks the Prometheus that sent it.

pub mod counts;
pub mod discovery;
pub mod fetch;
pub mod forward;
pub mod hub;
pub mod kube;
pub mod log;
pub mod mapper;
pub mod measure;
pub mod otlp;
pub mod otlp_json;
pub mod promql;
pub mod quota;
pub mod sample;
pub mod scraped;
pub mod srv;
pub mod table;
pub mod tally;
pub mod wire;
pub mod write;

pub use fetch::Fetcher;
pub(in crate::detection) use forward::admit;
pub use forward::{PeerForward, TelemetryService};
pub use hub::Hub;
pub use kube::{KubeConfig, KubeWatch};
