//! What survives the process: vote, log, records, snapshots.
//!
//! ```text
//!             openraft
//!      ┌─────────┴──────────┐
//!   LogStore             Machine ── State in memory
//!      │            ┌───────┴──────┐
//!      │       RecordStore     snapshot files
//!      └─────┬──────┘              │
//!         Writer (one queue)       │
//!            └───────── Disk ──────┘
//! ```
//!
//! Invariants: nothing is acknowledged that is not durable; what is damaged is refused with its
//! place and a way out, never skipped. Absent on purpose: any knowledge of leaders or peers.

mod births;
mod disk;
mod index;
mod log;
mod machine;
mod memory;
mod offline;
mod records;
mod rocks;
mod snapshot;
mod upgrade;
mod wal;
mod writer;

use std::{sync::Arc, time::Duration};

use medic_proto::peer::v1 as pb;
use medic_state::{Applied, Entry, NodeId, State};

pub(crate) use self::{births::Births, machine::Shared, records::RawRecord, writer::Writer};
use self::{
    disk::unseal,
    log::{meta, put_meta},
};
pub use self::{
    disk::{Disk, Op, Pair, Table, log_key, record_key},
    index::About,
    log::LogStore,
    machine::{Builder, Machine},
    memory::{Fate, Fates, Kept, MemoryDisk},
    offline::read_audit,
    records::{MAX_RECORDS, RecordStore},
    rocks::RocksDisk,
    snapshot::{SnapshotError, decode as decode_snapshot, encode as encode_snapshot},
    wal::{End, scan as scan_log},
    writer::{FatalFlag, WriterMode},
};
use crate::config::StartError;

/// Version of the whole data directory; see `upgrade` for what each changed.
pub const FORMAT: u32 = 2;
const FORMAT_KEY: &[u8] = b"format";
const IDENTITY_KEY: &[u8] = b"identity";

/// Sees what a node's state machine does, in order: simulations check it from outside.
pub trait Witness: std::fmt::Debug + Send + Sync + 'static {
    /// An entry was applied; `state` is the state after it.
    fn applied(&self, index: u64, entry: &Entry, applied: &Applied, state: &State);
    /// The state was replaced by a snapshot's.
    fn installed(&self, index: u64, state: &State);
}

/// What a node stands on.
pub struct Ground {
    /// Its disk.
    pub disk: Arc<dyn Disk>,
    /// How the disk is written.
    pub mode: WriterMode,
    /// Who looks on.
    pub witness: Option<Arc<dyn Witness>>,
}

impl Ground {
    /// Without a witness.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, mode: WriterMode) -> Self {
        Self { disk, mode, witness: None }
    }
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Whose data this is.
    pub node_id: NodeId,
    /// Of which cluster.
    pub cluster_id: String,
    /// A write that takes longer takes the node out.
    pub fsync_deadline: Duration,
    /// How the writer runs.
    pub mode: WriterMode,
    /// Who looks on.
    pub witness: Option<Arc<dyn Witness>>,
}

/// An open store.
pub struct Store {
    /// The log and the vote.
    pub log: LogStore,
    /// The state.
    pub machine: Machine,
    /// Set when the disk fails.
    pub fatal: FatalFlag,
    pub(crate) writer: Writer,
    pub(crate) disk: Arc<dyn Disk>,
}

impl Store {
    /// Opens a store, and claims an empty one for this node.
    ///
    /// # Errors
    /// When it belongs to another node or cluster, was written by a newer build, or is damaged.
    pub async fn open(disk: Arc<dyn Disk>, options: &StoreOptions) -> Result<Self, StartError> {
        let format = check_format(&*disk)?;
        let stored = meta::<pb::Identity>(&*disk, IDENTITY_KEY)?;
        let fatal = FatalFlag::default();
        if let Some(stored) = &stored {
            check_identity(stored, options)?;
        }
        if let Some(older) = format.filter(|format| *format < FORMAT) {
            upgrade::lift(&*disk, older)?;
        }
        let writer =
            Writer::start(disk.clone(), fatal.clone(), options.mode, options.fsync_deadline)?;
        let opened = Self::open_parts(disk.clone(), writer.clone(), options, stored.is_none());
        match opened.await {
            Ok((log, machine)) => Ok(Self { log, machine, fatal, writer, disk }),
            Err(error) => {
                writer.stop().await;
                disk.close();
                Err(error)
            }
        }
    }

    async fn open_parts(
        disk: Arc<dyn Disk>,
        writer: Writer,
        options: &StoreOptions,
        claim: bool,
    ) -> Result<(LogStore, Machine), StartError> {
        let log = LogStore::open(disk.clone(), writer.clone())?;
        let records = RecordStore::new(disk.clone(), writer.clone());
        let machine = Machine::open(disk, records, options, log.begins())?;
        if claim {
            let identity =
                pb::Identity { cluster_id: options.cluster_id.clone(), node: options.node_id.0 };
            let identity = put_meta(IDENTITY_KEY, &identity);
            let ops = vec![upgrade::format_op(), identity, births::claim_op()];
            writer.sync(ops).await?;
        }
        Ok((log, machine))
    }

    /// Finishes the queue and lets go of the disk.
    pub async fn close(&self) {
        self.writer.stop().await;
        self.disk.close();
    }
}

/// The format of a directory; `None`: it is empty.
fn check_format(disk: &dyn Disk) -> Result<Option<u32>, StartError> {
    let Some(sealed) = disk.get(Table::Meta, FORMAT_KEY)? else { return Ok(None) };
    let bad = |reason| StartError::CorruptMeta { what: "format version".to_owned(), reason };
    let value = unseal(FORMAT_KEY, &sealed).map_err(|damage| bad(damage.to_string()))?;
    let stored = value.try_into().map_err(|_| bad(format!("{} bytes", value.len())))?;
    let stored = u32::from_be_bytes(stored);
    if stored > FORMAT {
        return Err(StartError::NewerFormat { stored, known: FORMAT });
    }
    Ok(Some(stored))
}

fn check_identity(stored: &pb::Identity, options: &StoreOptions) -> Result<(), StartError> {
    if stored.cluster_id != options.cluster_id {
        return Err(StartError::OtherCluster {
            stored: stored.cluster_id.clone(),
            configured: options.cluster_id.clone(),
        });
    }
    if stored.node != options.node_id.0 {
        let stored = NodeId(stored.node);
        return Err(StartError::WrongNode { stored, configured: options.node_id });
    }
    Ok(())
}
