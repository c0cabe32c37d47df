//! The log and the vote.
//!
//! Entries are readable as soon as they are appended (from the tail kept in memory) and acknowledged
//! when the writer has made them durable. The tail also keeps the newest durable entries, so that
//! replication rarely reads the disk.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use medic_proto::peer::v1 as pb;
use medic_state::planted::{Planted, planted};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use prost::Message as _;

use super::{
    disk::{Damage, Disk, Op, Table, end_key, invalid, log_key, seal, unseal},
    writer::{Done, Job, Writer},
};
use crate::{
    config::{MAX_BATCH_BYTES, StartError},
    types::{LogEntry, LogId, TypeConfig, Vote},
    wire::{self, WireError},
};

/// Durable entries kept in memory.
const TAIL_BYTES: usize = 16 << 20;
/// Pairs read from the disk at a time.
const PAGE: usize = 1_024;

pub(crate) const VOTE: &[u8] = b"vote";
pub(crate) const COMMITTED: &[u8] = b"committed";
pub(crate) const PURGED: &[u8] = b"purged";

/// The log and the vote; clones share them.
#[derive(Clone)]
pub struct LogStore(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    writer: Writer,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Where an empty, never purged log was begun: zero, but for openraft's test suite.
    begun: u64,
    /// Consecutive entries up to `last`, with their encoded sizes.
    tail: VecDeque<(LogEntry, usize)>,
    tail_bytes: usize,
}

impl Log {
    fn push(&mut self, entry: LogEntry, size: usize) {
        if self.last.is_none() {
            self.begun = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.tail_bytes += size;
        self.tail.push_back((entry, size));
    }

    /// A log has no gap: whatever sends one, it is not taken.
    fn follows(&self, entries: &[LogEntry]) -> io::Result<()> {
        let mut next = self.last.map(|_| self.end());
        for entry in entries {
            let index = entry.log_id.index;
            if let Some(next) = next.filter(|next| *next != index) {
                return Err(invalid(format!(
                    "log entry {index} does not follow entry {}",
                    next - 1
                )));
            }
            next = Some(index.saturating_add(1));
        }
        Ok(())
    }

    /// Forgets the oldest entries that are on disk, down to the budget.
    fn shrink(&mut self, landed: u64) {
        while self.tail_bytes > TAIL_BYTES
            && self.tail.front().is_some_and(|(entry, _)| entry.log_id.index < landed)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, size)) = self.tail.pop_front() {
            self.tail_bytes -= size;
        }
    }

    fn pop_back(&mut self) {
        if let Some((_, size)) = self.tail.pop_back() {
            self.tail_bytes -= size;
        }
    }

    fn first(&self) -> u64 {
        self.purged.map_or(self.begun, |id| id.index + 1)
    }

    fn end(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }
}

impl LogStore {
    /// Reads vote and log from the disk and checks every entry.
    pub(crate) fn open(disk: Arc<dyn Disk>, writer: Writer) -> Result<Self, StartError> {
        let mut log = Log {
            vote: meta::<pb::Vote>(&*disk, VOTE)?.as_ref().map(wire::vote_in),
            committed: meta::<pb::LogId>(&*disk, COMMITTED)?.as_ref().map(wire::log_id_in),
            purged: meta::<pb::LogId>(&*disk, PURGED)?.as_ref().map(wire::log_id_in),
            ..Log::default()
        };
        log.last = log.purged;
        let mut from = log_key(log.first());
        loop {
            let page = disk.scan(Table::Log, &from, &end_key(), PAGE, MAX_BATCH_BYTES)?;
            let Some((last_key, _)) = page.last() else { break };
            from.clone_from(last_key);
            from.push(0);
            for (key, value) in &page {
                let index = log.end();
                let entry = read_entry(key, value).map_err(|error| match error {
                    EntryError::Wire(error @ WireError::UnknownEntry { .. }) => {
                        StartError::UnknownEntry(error)
                    }
                    other => StartError::CorruptLog { index, reason: other.to_string() },
                })?;
                if log_key(index) != *key || entry.log_id.index != index {
                    let reason = format!("found entry {} in its place", entry.log_id.index);
                    return Err(StartError::CorruptLog { index, reason });
                }
                log.push(entry, value.len());
                log.shrink(u64::MAX);
            }
        }
        writer.landed.log.store(log.end(), Ordering::Release);
        Ok(Self(Arc::new(Inner { disk, writer, log: Mutex::new(log) })))
    }

    /// First index in the log.
    pub(crate) fn begins(&self) -> u64 {
        self.log().first()
    }

    /// Whether nothing was ever written.
    pub(crate) fn pristine(&self) -> bool {
        let log = self.log();
        log.vote.is_none() && log.last.is_none()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries of `start..end` that exist, up to a number of bytes (at least one).
    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<LogEntry>> {
        let (start, stored_end, tail) = {
            let log = self.log();
            let (start, end) = (start.max(log.first()), end.min(log.end()));
            let tail_first = log.tail.front().map_or(log.end(), |(entry, _)| entry.log_id.index);
            let skip = usize::try_from(start.saturating_sub(tail_first)).unwrap_or(usize::MAX);
            let take = usize::try_from(end.saturating_sub(start.max(tail_first))).unwrap_or(0);
            let tail: Vec<_> = log.tail.iter().skip(skip).take(take).cloned().collect();
            (start, end.min(tail_first), tail)
        };
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut next = start;
        while next < stored_end {
            let left = max_bytes.saturating_sub(bytes).max(1);
            let pairs = usize::try_from(stored_end - next).unwrap_or(PAGE).min(PAGE);
            let (from, to) = (log_key(next), log_key(stored_end));
            let page = self.0.disk.scan(Table::Log, &from, &to, pairs, left)?;
            if page.is_empty() {
                return Err(invalid(format!("log entry {next} is missing on disk")));
            }
            for (key, value) in page {
                let entry = read_entry(&key, &value)
                    .map_err(|error| invalid(format!("log entry {next}: {error}")))?;
                if entry.log_id.index != next {
                    return Err(invalid(format!("log entry {next} is missing on disk")));
                }
                bytes += value.len();
                next += 1;
                found.push(entry);
            }
            if bytes >= max_bytes {
                return Ok(found);
            }
        }
        for (entry, size) in tail {
            if !found.is_empty() && bytes + size > max_bytes {
                break;
            }
            bytes += size;
            found.push(entry);
        }
        Ok(found)
    }
}

/// A sealed protobuf message of the meta table.
pub(crate) fn meta<M: prost::Message + Default>(
    disk: &dyn Disk,
    key: &[u8],
) -> Result<Option<M>, StartError> {
    let Some(sealed) = disk.get(Table::Meta, key)? else { return Ok(None) };
    let what = String::from_utf8_lossy(key).into_owned();
    let bad = |reason: String| StartError::CorruptMeta { what: what.clone(), reason };
    let value = unseal(key, &sealed).map_err(|damage| bad(damage.to_string()))?;
    wire::decode("stored value", value).map(Some).map_err(|error| bad(error.to_string()))
}

pub(crate) fn put_meta(key: &[u8], message: &impl prost::Message) -> Op {
    let value = seal(key, &message.encode_to_vec());
    Op::Put { table: Table::Meta, key: key.to_vec(), value }
}

/// A log entry that cannot be read back.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    Damage(#[from] Damage),
    #[error(transparent)]
    Wire(#[from] WireError),
}

fn read_entry(key: &[u8], sealed: &[u8]) -> Result<LogEntry, EntryError> {
    let entry = wire::decode::<pb::LogEntry>("log entry", unseal(key, sealed)?)?;
    Ok(wire::entry_in(entry)?)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log().vote)
    }

    /// Entries from `start` on; none where that one is purged, which openraft takes for a heartbeat. A stream of
    /// replication that has been called off may ask once more, when nothing holds the purge back any longer: what
    /// is behind the gap would be sent as if it followed what is before it.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let found = self.read(start, end, MAX_BATCH_BYTES)?;
        let whole = found.first().is_some_and(|entry| entry.log_id.index == start);
        Ok(if whole { found } else { Vec::new() })
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.log();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        crate::crash_point!("raft_vote_before_save");
        if !planted(Planted::VoteNotDurable) {
            self.0.writer.sync(vec![put_meta(VOTE, &wire::vote_out(vote))]).await?;
        }
        crate::crash_point!("raft_vote_after_save");
        self.log().vote = Some(*vote);
        Ok(())
    }

    /// Not synced: it only tells where a restarted node may resume, and never runs ahead of the log,
    /// which goes through the same queue.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(id) = committed else { return Ok(()) };
        self.log().committed = committed;
        let ops = vec![put_meta(COMMITTED, &wire::log_id_out(&id))];
        let job = Job { ops, done: Done::Nobody, log_through: None, records_through: None };
        self.0.writer.send(job).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let log = self.log();
        // A commit point beyond the log can be left by a power cut between the two.
        Ok(log.committed.filter(|id| id.index < log.end()))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let (ops, log_through) = {
            let mut log = self.log();
            log.follows(&entries)?;
            let mut ops = Vec::new();
            for entry in entries {
                let key = log_key(entry.log_id.index);
                let value = seal(&key, &wire::entry_out(&entry).encode_to_vec());
                log.push(entry, value.len());
                ops.push(Op::Put { table: Table::Log, key, value });
            }
            log.shrink(self.0.writer.landed.log.load(Ordering::Acquire));
            (ops, log.last.map(|id| id.index))
        };
        crate::crash_point!("raft_log_append");
        let done = if planted(Planted::AcknowledgedEarly) {
            flushed.io_completed(Ok(()));
            Done::Nobody
        } else {
            Done::Flushed(flushed)
        };
        self.0.writer.send(Job { ops, done, log_through, records_through: None }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let end = {
            let mut log = self.log();
            let last = last.min(log.last).max(log.purged);
            let end = last.map_or(0, |id| id.index + 1);
            while log.tail.back().is_some_and(|(entry, _)| entry.log_id.index >= end) {
                log.pop_back();
            }
            log.last = last;
            end
        };
        crate::crash_point!("raft_log_before_truncate");
        let op = Op::DeleteRange { table: Table::Log, from: log_key(end), to: end_key() };
        self.0.writer.sync(vec![op]).await?;
        // Appends queued before this may have counted further.
        self.0.writer.landed.log.store(end, Ordering::Release);
        Ok(())
    }

    /// Not synced: entries that come back after a power cut are purged again.
    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut log = self.log();
            log.purged = Some(upto);
            log.last = log.last.max(Some(upto));
            while log.tail.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
                log.pop_front();
            }
        }
        crate::crash_point!("raft_log_before_purge");
        let ops = vec![
            put_meta(PURGED, &wire::log_id_out(&upto)),
            Op::DeleteRange { table: Table::Log, from: log_key(0), to: log_key(upto.index + 1) },
        ];
        let job = Job { ops, done: Done::Nobody, log_through: None, records_through: None };
        self.0.writer.send(job).await
    }
}
