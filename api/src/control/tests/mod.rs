//! Tests of the control API over real TLS and the real law.

#![allow(clippy::unwrap_used, reason = "tests")]

mod calls;
mod draining;
mod foreseeing;
mod judging;
mod roles;
mod vitals;
mod watching;
