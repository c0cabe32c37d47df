//! Tests over the whole law. The tests of one command stand beneath its file and use the [`lab`].
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod golden;
pub(crate) mod lab;
mod properties;
mod unwinding;
mod upheaval;
