//! What the clients of a campaign did: every call with its key, its times and what came of it.
//!
//! Times are microseconds of one monotonic clock, so that "before" and "after" mean the same for
//! every client. A call whose outcome nobody knows has no end: it may take effect whenever it likes
//! after its start, or never.

use std::{
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// What is it?
    Read,
    /// Make it this.
    Write(u64),
    /// Make it the second, if it is the first now.
    Swap(Option<u64>, u64),
    /// Make it absent, if it is there.
    Delete,
    /// Put this behind what is there.
    Append(u64),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A read of a register.
    Saw(Option<u64>),
    /// A read of a list, with the log index of each element.
    Listed(Vec<(u64, u64)>),
    /// It took effect.
    Done,
    /// Its condition did not hold: a swap of another value, a deletion of what was not there.
    Missed,
    /// Nobody knows.
    Open,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who called.
    pub client: u32,
    /// The node that was asked last.
    pub node: u64,
    /// Of what.
    pub key: String,
    /// What was asked.
    pub act: Act,
    /// What came of it.
    pub outcome: Outcome,
    /// When the first request was sent.
    pub start_us: u64,
    /// When the answer was there; none for open ones.
    pub end_us: Option<u64>,
    /// Log index: of the entry for a write, of the state that was read for a read.
    pub index: Option<u64>,
    /// Reads: log index of the entry that set what was seen, where the server says.
    pub set_at: Option<u64>,
    /// Requests sent, under one request id.
    pub tries: u32,
}

/// Collects calls; clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    began: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recorder {
    /// An empty history whose clock starts now.
    #[must_use]
    pub fn new(began: Instant) -> Self {
        Self { began, calls: Arc::default() }
    }

    /// Now, on the history's clock.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes a call down.
    pub fn record(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    /// All calls so far, by start.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        calls.sort_by_key(|call| call.start_us);
        calls
    }
}

/// Writes a history, one call per line.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, calls: &[Call]) -> anyhow::Result<()> {
    let file =
        std::fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut file = std::io::BufWriter::new(file);
    for call in calls {
        serde_json::to_writer(&mut file, call)?;
        file.write_all(b"\n")?;
    }
    file.flush().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::{Act, Call, Outcome};

    /// A call on key `k`; `end` of zero: open.
    pub(crate) fn call(act: Act, outcome: Outcome, start_us: u64, end: u64) -> Call {
        let end_us = (end > 0).then_some(end);
        let key = "k".to_owned();
        let (index, set_at) = (None, None);
        Call { client: 1, node: 1, key, act, outcome, start_us, end_us, index, set_at, tries: 1 }
    }

    /// The same with its log index.
    pub(crate) fn at(index: u64, mut call: Call) -> Call {
        call.index = Some(index);
        call
    }
}
