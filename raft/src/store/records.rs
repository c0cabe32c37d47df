//! Records: what `apply` emits and nobody holds in memory; the audit chain and closed incidents.
//!
//! Keyed by (log index, ordinal), so writing the records of an entry again changes nothing: replay
//! after a crash and the transfer before a snapshot are idempotent. They are durable at the latest
//! when a snapshot that covers them is, since both pass the same writer.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
};

use medic_state::Record;

use super::{
    disk::{Disk, Op, Table, invalid, parse_record_key, record_key, seal, unseal},
    index::{self, About},
    upgrade::index_op,
    writer::{Done, Job, Writer},
};
use crate::ledger::{RecordQuery, StoredRecord};

/// Most records one query gives.
pub const MAX_RECORDS: usize = 1_000;
/// Bytes of records sent in one piece of a snapshot.
const PIECE_BYTES: usize = 512 << 10;
/// Records read from the disk at a time.
const PAGE: usize = 256;
/// More than any entry emits: one link, and the incidents it closes.
const RECORDS_PER_ENTRY: usize = 1_024;

/// A record as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawRecord {
    pub(crate) index: u64,
    pub(crate) ordinal: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Encoded records by log index and ordinal.
type Page = BTreeMap<(u64, u32), Vec<u8>>;

/// Keys of one record in the index.
type Keys = Vec<Vec<u8>>;

/// Records on their way through the writer.
#[derive(Default)]
struct Queued {
    /// Each with its keys in the index.
    records: BTreeMap<(u64, u32), (Vec<u8>, Keys)>,
    /// All their keys.
    keys: BTreeSet<Vec<u8>>,
}

impl Queued {
    /// Forgets what is on disk.
    fn shrink(&mut self, landed: u64) {
        while self.records.first_key_value().is_some_and(|((index, _), _)| *index < landed) {
            for key in self.records.pop_first().map(|(_, (_, keys))| keys).unwrap_or_default() {
                self.keys.remove(&key);
            }
        }
    }
}

/// The record store; clones share it.
#[derive(Clone)]
pub struct RecordStore {
    disk: Arc<dyn Disk>,
    writer: Writer,
    queued: Arc<RwLock<Queued>>,
}

impl RecordStore {
    pub(crate) fn new(disk: Arc<dyn Disk>, writer: Writer) -> Self {
        Self { disk, writer, queued: Arc::default() }
    }

    /// Stores the records of one entry; readable when this returns.
    pub(crate) async fn push(&self, index: u64, records: &[Record]) -> io::Result<()> {
        let raw = records.iter().zip(0..).map(|(record, ordinal)| {
            let raw = RawRecord { index, ordinal, bytes: record.to_bytes() };
            (raw, index::keys(index, ordinal, record))
        });
        self.push_raw(raw.collect()).await
    }

    /// Stores records that came with a snapshot. Refuses what this build cannot read.
    pub(crate) async fn import(&self, records: Vec<RawRecord>) -> io::Result<()> {
        let with_keys = records.into_iter().map(|raw| {
            let record = decode(raw.index, raw.ordinal, &raw.bytes)?;
            let keys = index::keys(raw.index, raw.ordinal, &record);
            Ok((raw, keys))
        });
        self.push_raw(with_keys.collect::<io::Result<_>>()?).await
    }

    async fn push_raw(&self, records: Vec<(RawRecord, Keys)>) -> io::Result<()> {
        let Some(last) = records.iter().map(|(raw, _)| raw.index).max() else { return Ok(()) };
        let mut ops = Vec::with_capacity(records.len());
        {
            let mut queued = self.queued.write().unwrap_or_else(PoisonError::into_inner);
            let landed = self.writer.landed.records.load(Ordering::Acquire);
            queued.shrink(landed);
            for (RawRecord { index, ordinal, bytes }, keys) in records {
                let key = record_key(index, ordinal);
                let value = seal(&key, &bytes);
                ops.push(Op::Put { table: Table::Records, key, value });
                ops.extend(keys.iter().cloned().map(index_op));
                queued.keys.extend(keys.iter().cloned());
                queued.records.insert((index, ordinal), (bytes, keys));
            }
        }
        let job = Job { ops, done: Done::Nobody, log_through: None, records_through: Some(last) };
        self.writer.send(job).await
    }

    /// Waits until all records stored so far survive a power cut.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.writer.sync(Vec::new()).await
    }

    /// Raw records of entries in `first..=last`, about [`PIECE_BYTES`] of them; entries are not
    /// split. Empty: there are no more.
    pub(crate) fn piece(&self, first: u64, last: u64) -> io::Result<Vec<RawRecord>> {
        self.collect(first, last, usize::MAX, PIECE_BYTES)
    }

    /// Records of entries after `query.after`, through `applied`.
    pub(crate) fn query(&self, query: RecordQuery, applied: u64) -> io::Result<Vec<StoredRecord>> {
        let limit = query.limit.min(MAX_RECORDS);
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.collect(query.after.saturating_add(1), applied, limit, usize::MAX)?
            .into_iter()
            .map(|raw| {
                let record = decode(raw.index, raw.ordinal, &raw.bytes)?;
                Ok(StoredRecord { index: raw.index, record })
            })
            .collect()
    }

    /// Records about something, of entries after `query.after`, through `applied`: found by the
    /// index, so that it costs what it gives.
    pub(crate) fn query_about(
        &self,
        about: About,
        query: RecordQuery,
        applied: u64,
    ) -> io::Result<Vec<StoredRecord>> {
        let limit = query.limit.min(MAX_RECORDS);
        let low = about.key(query.after.saturating_add(1), 0);
        let high = about.key(applied.saturating_add(1), 0);
        if limit == 0 || low >= high {
            return Ok(Vec::new());
        }
        // Entries are not split: as many more as one entry emits at most.
        let most = limit + RECORDS_PER_ENTRY;
        // The queue first: what lands in between is then found twice, never missed.
        let mut keys: BTreeSet<Vec<u8>> = {
            let queued = self.queued.read().unwrap_or_else(PoisonError::into_inner);
            queued.keys.range(low.clone()..high.clone()).take(most).cloned().collect()
        };
        let stored = self.disk.scan(Table::Index, &low, &high, most, usize::MAX)?;
        keys.extend(stored.into_iter().map(|(key, _)| key));
        let mut found: Vec<StoredRecord> = Vec::new();
        for key in keys {
            let place = index::place(&key).ok_or_else(|| invalid("the index has a bad key"))?;
            if found.len() >= limit && found.last().is_some_and(|last| last.index != place.0) {
                break;
            }
            let record = self.at(place)?;
            found.push(StoredRecord { index: place.0, record });
        }
        Ok(found)
    }

    /// The record at a place that the index names.
    fn at(&self, (index, ordinal): (u64, u32)) -> io::Result<Record> {
        let queued = {
            let queued = self.queued.read().unwrap_or_else(PoisonError::into_inner);
            queued.records.get(&(index, ordinal)).map(|(bytes, _)| bytes.clone())
        };
        if let Some(bytes) = queued {
            return decode(index, ordinal, &bytes);
        }
        let key = record_key(index, ordinal);
        let sealed = self.disk.get(Table::Records, &key)?;
        let sealed = sealed.ok_or_else(|| {
            invalid(format!("the record {index}.{ordinal}, which the index names, is missing"))
        })?;
        decode(index, ordinal, opened(&key, &sealed)?.1)
    }

    /// Records of entries in `first..=last`, until one of the limits is reached and the entry that
    /// reached it is complete.
    fn collect(
        &self,
        first: u64,
        last: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<RawRecord>> {
        let mut found: Vec<RawRecord> = Vec::new();
        let (mut next, mut bytes) = ((first, 0), 0);
        loop {
            let page = self.page(next, last)?;
            let Some(&(index, ordinal)) = page.last_key_value().map(|(key, _)| key) else {
                return Ok(found);
            };
            next = (index, ordinal + 1);
            for ((index, ordinal), value) in page {
                let full = found.len() >= max_records || bytes >= max_bytes;
                if full && found.last().is_some_and(|raw| raw.index != index) {
                    return Ok(found);
                }
                bytes += value.len();
                found.push(RawRecord { index, ordinal, bytes: value });
            }
        }
    }

    /// The next records in order, from the disk and from the queue.
    fn page(&self, from: (u64, u32), last: u64) -> io::Result<Page> {
        if from.0 > last {
            return Ok(BTreeMap::new());
        }
        let end = last.saturating_add(1);
        // The queue first: a record that lands in between is then found twice, never missed.
        let mut page: BTreeMap<_, _> = {
            let queued = self.queued.read().unwrap_or_else(PoisonError::into_inner);
            let range = queued.records.range(from..(end, 0)).take(PAGE);
            range.map(|(place, (bytes, _))| (*place, bytes.clone())).collect()
        };
        let (low, high) = (record_key(from.0, from.1), record_key(end, 0));
        let stored = self.disk.scan(Table::Records, &low, &high, PAGE, PIECE_BYTES)?;
        // Where one source was cut off, the other's later records must wait.
        let bytes: usize = stored.iter().map(|(_, value)| value.len()).sum();
        let stored_cut = (stored.len() >= PAGE || bytes >= PIECE_BYTES)
            .then(|| stored.last().and_then(|(key, _)| parse_record_key(key)))
            .flatten();
        let queued_cut =
            (page.len() >= PAGE).then(|| page.last_key_value().map(|(key, _)| *key)).flatten();
        let cut = [stored_cut, queued_cut].into_iter().flatten().min();
        for (key, sealed) in stored {
            let (at, value) = opened(&key, &sealed)?;
            page.insert(at, value.to_vec());
        }
        if let Some(cut) = cut {
            page.retain(|key, _| *key <= cut);
        }
        Ok(page)
    }
}

/// Where a stored record belongs, and its bytes.
pub(super) fn opened<'a>(key: &[u8], sealed: &'a [u8]) -> io::Result<((u64, u32), &'a [u8])> {
    let at = parse_record_key(key).ok_or_else(|| invalid("a record has a bad key"))?;
    let value = unseal(key, sealed)
        .map_err(|damage| invalid(format!("the record {}.{} is damaged: {damage}", at.0, at.1)))?;
    Ok((at, value))
}

pub(super) fn decode(index: u64, ordinal: u32, bytes: &[u8]) -> io::Result<Record> {
    Record::from_bytes(bytes)
        .map_err(|error| invalid(format!("the record {index}.{ordinal} cannot be read: {error}")))
}
