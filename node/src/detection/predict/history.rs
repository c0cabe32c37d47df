//! What is known of many units over time: drives, engines, hosts, services.
//!
//! Rows in order of unit and time; inputs are numbers (NaN: not known) or categories (a code each).
//! Invariant: features of a row are made of that row and earlier rows of the same unit only.

use std::{collections::BTreeMap, ops::Range};

use crate::learn::Table;

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A number, the same in all rows of a unit.
    Fixed,
    /// A number that changes.
    Varying,
    /// A code that stands for a word.
    Category,
}

/// The history of many units.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Rows of each unit, in order of time.
    pub units: Vec<Range<usize>>,
    /// When each row began, in any one unit of time.
    pub times: Vec<f64>,
    /// Inputs, row by row.
    pub inputs: Table,
    /// What each input is.
    pub kinds: Vec<InputKind>,
}

impl History {
    /// Makes a history of rows already in order; `words[i]` tells whether input `i` is a category.
    #[must_use]
    pub fn new(units: Vec<Range<usize>>, times: Vec<f64>, inputs: Table, words: &[bool]) -> Self {
        let varies = |column: usize| {
            units.iter().any(|unit| {
                let known = unit.clone().map(|row| inputs.row(row)[column]);
                let mut known = known.filter(|value| !value.is_nan());
                known.next().is_some_and(|first| known.any(|value| value != first))
            })
        };
        let kind = |column: usize| match words.get(column) {
            Some(true) => InputKind::Category,
            Some(false) | None if varies(column) => InputKind::Varying,
            Some(false) | None => InputKind::Fixed,
        };
        let kinds = (0..inputs.width).map(kind).collect();
        Self { units, times, inputs, kinds }
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// The unit of each row.
    #[must_use]
    pub fn unit_of_rows(&self) -> Vec<usize> {
        let mut all = vec![0; self.rows()];
        for (number, unit) in self.units.iter().enumerate() {
            all[unit.clone()].fill(number);
        }
        all
    }

    /// Columns of one kind.
    #[must_use]
    pub fn of_kind(&self, kind: InputKind) -> Vec<usize> {
        (0..self.kinds.len()).filter(|&column| self.kinds[column] == kind).collect()
    }
}

/// Rows (by weight) that the rate of a category is shrunk with towards the rate of all.
const PRIOR_ROWS: f64 = 50.0;

/// How often each word of a category was followed by the event, learned on some rows.
#[derive(Clone, Debug)]
pub struct Rates {
    column: usize,
    all: f64,
    by_code: BTreeMap<u32, (f64, f64)>,
}

impl Rates {
    /// Learns one category's rates.
    #[must_use]
    pub fn of(
        history: &History,
        column: usize,
        rows: &[usize],
        (targets, weights): (&[f32], &[f32]),
    ) -> Self {
        let mut by_code: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        let (mut events, mut total) = (0.0, 0.0);
        for &row in rows {
            let (weight, target) = (f64::from(weights[row]), f64::from(targets[row]));
            let entry = by_code.entry(code(history.inputs.row(row)[column])).or_default();
            *entry = (entry.0 + weight * target, entry.1 + weight);
            (events, total) = (events + weight * target, total + weight);
        }
        Self { column, all: if total > 0.0 { events / total } else { 0.0 }, by_code }
    }

    /// The rate of a row's word; that of all for a word never seen.
    #[must_use]
    pub fn at(&self, history: &History, row: usize) -> f32 {
        let known = self.by_code.get(&code(history.inputs.row(row)[self.column]));
        let (events, total) = known.copied().unwrap_or_default();
        ((events + PRIOR_ROWS * self.all) / (total + PRIOR_ROWS)) as f32
    }
}

/// A word's code as a key; a missing word has one of its own.
fn code(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}
