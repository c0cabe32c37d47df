//! Try before you trust: the shipped judgement over data of one's own, without a cluster.
//!
//! ```text
//!  folder or file ─► inputs (what is a series?) ─┬► csv (rows, bounded) ────────────┬► judgement ─► results
//!                                                └► series (range query, OTLP file) ┤     counters as rates,
//!  Prometheus ─────► ask (by parts) ─────────────► series ──────────────────────────┘     each in its place
//! ```
//!
//! [`findings`] goes through a history as the owner of an instance would have; [`detect`] tells what comes out. That
//! is the code that runs live, predictions of it included. [`predict`] and [`classify`] are not: they fit models to
//! units and incidents of one's own (`learn`, `detection::predict::{hazard, life}`, `intelligence::cases`), which no
//! node does. A node foretells from what it watches itself and classes by rules.
//!
//! One file per kind of judgement ([`detect`], [`predict`], [`classify`]); [`csv`] reads for all of them.
//! Invariant: the answer for a row uses that row and earlier ones only (what is a counter is asked of all of a column).
//! No result takes another's place (`places`).
//! Deliberately absent: labels. A column `label` is never shown to a detector, and what
//! [`predict`] learns from a history it is asked about units that it has not seen.

pub mod ask;
pub mod cases;
pub mod classify;
mod counters;
pub mod csv;
mod departures;
pub mod detect;
pub mod findings;
pub mod history;
pub mod inputs;
mod otlp;
mod places;
pub mod plot;
pub mod predict;
mod prometheus;
pub mod series;
mod watched;

pub use watched::Declared;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// Why a backtest stopped.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A result could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content makes no sense at one place.
    #[error("{path}:{line}: {problem}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong, with the column where there is one, and what was expected.
        problem: String,
    },
    /// Nothing to do.
    #[error("{path} holds no series: {expected}")]
    Nothing {
        /// Where was looked.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// Two inputs would write over each other's results.
    #[error(
        "`{first}` and `{second}` would both have their results in `{name}.csv`: rename one of them, or judge \
         each with an --out of its own"
    )]
    Clash {
        /// Of the results.
        name: String,
        /// One input.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The next run would take results for histories.
    #[error(
        "--out {out} lies in --input {input}: results are not kept among what is read, choose another folder"
    )]
    Inside {
        /// Where results were to go.
        out: PathBuf,
        /// What is read.
        input: PathBuf,
    },
    /// Nobody answers there.
    #[error("{url}: {why}")]
    Unanswered {
        /// Who was asked.
        url: String,
        /// Why nothing came.
        why: String,
    },
    /// It answers, and gives nothing.
    #[error("{url}, query `{query}`: {problem}")]
    Refused {
        /// Who was asked.
        url: String,
        /// For what.
        query: String,
        /// What it says.
        problem: String,
    },
    /// A file that a result would replace.
    #[error(
        "{path} is there, and no result of such a backtest: it is not written over, choose another --out"
    )]
    NoResult {
        /// Which.
        path: PathBuf,
    },
    /// A result would replace what it comes of.
    #[error("{path} is what is read: no result is written over it, choose another --out")]
    IsRead {
        /// Which.
        path: PathBuf,
    },
    /// The same rows twice, or not the same.
    #[error("`{first}` and `{second}`: nobody knows which of them is meant, take one of them away")]
    Either {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

impl BacktestError {
    fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), BacktestError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other);
    text.and_then(|text| fs::write(path, text + "\n")).map_err(BacktestError::write(path))
}

#[cfg(test)]
mod tests;
