//! Room for bodies: what is being read counts by its bytes, what is being taken by its number.
//!
//! ```text
//!   head ─► may it come in? ─► body, read under a budget of bytes ─► turn ─► sink
//!                              all senders together, each address       so many at once
//! ```
//!
//! A sender that is slow holds the bytes it has sent and nothing else: no turn, so nobody waits for it.
//! Invariant: the bytes held never exceed the budget, nor a sender's its share; who comes beyond that
//! is told to come again (429), its body read and thrown away so that the answer reaches it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Body;
use futures::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes that a request counts for besides its body: what a connection's task and buffers cost.
const REQUEST_BYTES: usize = 16 << 10;
/// Bytes of a body that is too large which are read and thrown away before it is refused. Closing a
/// connection on data that was not read resets it, and the sender never sees why.
const DISCARDED_BYTES_MAX: usize = 32 << 20;
/// Time a body may take to come in. Senders of telemetry and alerts have theirs whole before they
/// begin.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a body waits for its turn before its sender is told to come again.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// Of the budget, what one address may hold: a quarter.
const SHARES: usize = 4;

/// Why a body was not read, or has no turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It cannot be read.
    Broken(String),
    /// Larger than so many bytes.
    TooLarge(usize),
    /// It did not come in in time.
    TooSlow,
    /// Too many at once.
    Crowded,
}

/// Turns of those who push, and of those who send alerts: neither waits for the other.
#[derive(Clone, Debug)]
pub struct Turns {
    pub(super) pushes: Lane,
    pub(super) alerts: Lane,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            // 16 bodies of the largest size at once.
            pushes: Lane::new(16, 64 << 20),
            // What a megabyte of JSON becomes is some ten times as large while it is taken.
            alerts: Lane::new(4, 8 << 20),
        }
    }
}

/// Room for one kind of bodies.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    turns: Arc<Semaphore>,
    budget: Arc<Budget>,
}

impl Lane {
    fn new(turns: usize, bytes_max: usize) -> Self {
        let budget = Budget { bytes_max, held: Mutex::default() };
        Self { turns: Arc::new(Semaphore::new(turns)), budget: Arc::new(budget) }
    }

    /// The body, if there is room for it.
    ///
    /// # Errors
    /// Why there is none; the body has been read and thrown away by then, within bounds.
    pub(super) async fn read(
        &self,
        address: IpAddr,
        body: Body,
        bytes_max: usize,
    ) -> Result<Kept, NoRoom> {
        let kept = Kept { bytes: Vec::new(), room: Room::new(self.budget.clone(), address) };
        let reading = tokio::time::timeout(BODY_TIMEOUT, kept.read(body, bytes_max));
        reading.await.unwrap_or(Err(NoRoom::TooSlow))
    }

    /// A turn.
    ///
    /// # Errors
    /// When there was none in time.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, NoRoom> {
        match tokio::time::timeout(TURN_TIMEOUT, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(NoRoom::Crowded),
        }
    }

    #[cfg(test)]
    pub(super) const fn semaphore(&self) -> &Arc<Semaphore> {
        &self.turns
    }

    /// The most bytes that were held at once.
    #[cfg(test)]
    pub(super) fn bytes_peak(&self) -> usize {
        self.budget.held().peak
    }
}

/// Reads a body that nobody wants, so that the answer is read by its sender.
pub(super) async fn discard(body: Body) {
    let reading = async {
        let (mut chunks, mut total) = (body.into_data_stream(), 0);
        while let Some(Ok(chunk)) = chunks.next().await {
            total += chunk.len();
            if total > DISCARDED_BYTES_MAX {
                return;
            }
        }
    };
    // One that does not end in time is left unread.
    drop(tokio::time::timeout(BODY_TIMEOUT, reading).await);
}

/// A body, and the room it takes for as long as it is held.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    room: Room,
}

impl Kept {
    async fn read(mut self, body: Body, bytes_max: usize) -> Result<Self, NoRoom> {
        let (mut chunks, mut total) = (body.into_data_stream(), 0);
        let mut crowded = !self.room.grow(REQUEST_BYTES);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| NoRoom::Broken(error.to_string()))?;
            total += chunk.len();
            crowded = crowded || (total <= bytes_max && !self.room.grow(chunk.len()));
            if total > DISCARDED_BYTES_MAX {
                break;
            }
            if crowded || total > bytes_max {
                self.bytes = Vec::new();
                self.room.shrink();
            } else {
                self.bytes.extend_from_slice(&chunk);
            }
        }
        match (total > bytes_max, crowded) {
            (true, _) => Err(NoRoom::TooLarge(bytes_max)),
            (false, true) => Err(NoRoom::Crowded),
            (false, false) => Ok(self),
        }
    }

    /// The bytes, and the room that they take until it is dropped.
    pub(super) fn into_parts(self) -> (Vec<u8>, Room) {
        (self.bytes, self.room)
    }
}

/// Bytes held, in all and by address.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    #[cfg(test)]
    peak: usize,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Budget {
    bytes_max: usize,
    held: Mutex<Held>,
}

impl Budget {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one body holds of a budget.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<Budget>,
    address: IpAddr,
    bytes: usize,
}

impl Room {
    const fn new(budget: Arc<Budget>, address: IpAddr) -> Self {
        Self { budget, address, bytes: 0 }
    }

    /// Whether there is room for so many bytes more; if so, they are held.
    fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.budget.held();
        let of_address = held.by_address.get(&self.address).copied().unwrap_or_default();
        let fits = held.all + bytes <= self.budget.bytes_max
            && of_address + bytes <= self.budget.bytes_max / SHARES;
        if fits {
            held.all += bytes;
            held.by_address.insert(self.address, of_address + bytes);
            self.bytes += bytes;
            #[cfg(test)]
            {
                held.peak = held.peak.max(held.all);
            }
        }
        fits
    }

    /// Holds nothing from now on.
    fn shrink(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.budget.held();
        held.all = held.all.saturating_sub(self.bytes);
        if let Some(of_address) = held.by_address.get_mut(&self.address) {
            *of_address = of_address.saturating_sub(self.bytes);
            if *of_address == 0 {
                held.by_address.remove(&self.address);
            }
        }
        self.bytes = 0;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shrink();
    }
}

#[cfg(test)]
mod tests;
