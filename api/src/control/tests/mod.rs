//! Tests of the control API over real TLS and the real law.

#![allow(clippy::unwrap_used, reason = "tests")]

mod calls;
mod roles;
mod watching;
