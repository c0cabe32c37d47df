//! What a run wrote down: lines with the simulated time, and one hash over all of them.
//!
//! Invariant: two runs of one seed by one build write the same bytes.

use std::fmt;

use medic_state::Digest;

use crate::clock::Time;

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    time: Time,
    hash: Digest,
    count: u64,
    kept: Option<Vec<String>>,
}

impl Trace {
    /// Begins. `keep`: the lines themselves, not their hash alone.
    #[must_use]
    pub fn new(keep: bool, time: Time) -> Self {
        let kept = keep.then(Vec::new);
        Self { time, hash: Digest::default(), count: 0, kept }
    }

    /// Simulated milliseconds since the run began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.time.ms()
    }

    /// Writes a line.
    pub fn line(&mut self, text: fmt::Arguments<'_>) {
        let ms = self.now_ms();
        let line = format!("{:>7}.{:03} {text}", ms / 1000, ms % 1000);
        self.hash = Digest::of(&[&self.hash.0, line.as_bytes()]);
        self.count += 1;
        if let Some(kept) = &mut self.kept {
            kept.push(line);
        }
    }

    /// Hash over all lines so far, and how many they are.
    #[must_use]
    pub const fn hash(&self) -> (Digest, u64) {
        (self.hash, self.count)
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn take(&mut self) -> Vec<String> {
        self.kept.take().unwrap_or_default()
    }
}
