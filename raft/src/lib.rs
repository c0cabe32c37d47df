//! Consensus: the law, replicated. openraft, a RocksDB store, peers over tonic, behind [`Ledger`].

pub mod clock;
pub mod config;
pub mod consensus;
pub mod env;
pub mod failpoint;
pub mod ledger;
pub mod metrics;
pub mod network;
pub mod parcel;
pub mod runtime;
pub mod store;
pub mod types;
pub mod wire;

pub use clock::LawClock;
pub use config::{Config, MAX_ENTRY_BYTES, StartError, Timing};
pub use consensus::Consensus;
pub use env::{Clock, Entropy, Env};
pub use ledger::{
    ClusterAdmin, ClusterStatus, Committed, Leadership, Ledger, LedgerError, LedgerExt,
    LocalLedger, Member, RecordQuery, StoredRecord,
};
pub use network::{
    ConnectError, IdentityCheck, PeerConnector, PlainConnector, TlsConnector, trust_metadata,
};
pub use parcel::{Courier, MAX_PARCEL_BYTES, Parcel, ParcelKind};
pub use store::About;
