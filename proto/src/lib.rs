//! Generated types of Medic's wire protocols. By hand: the module tree, and how they look as JSON.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

mod json;

pub use prost_types::Timestamp;

/// Descriptors of all services, for reflection and for tests that walk every RPC.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Agents and nodes.
pub mod fleet {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("medic.fleet.v1");
    }
}

/// Nodes of one cluster among themselves, and what they store.
pub mod peer {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("medic.peer.v1");
    }
}

/// The control API. All messages are `serde::Serialize`, see `json`.
pub mod v1 {
    tonic::include_proto!("medic.v1");
}
