//! What readings that change in steps tell: counters of errors, of restarts, of bad sectors.
//!
//! For each reading its value, by how much it has moved since one and three rows ago, since the first
//! and over a quarter and one and a half horizons, and how long it has stood still; for the unit its
//! age, the pace of its rows, and what it is. A row begins when something changes, so the pace itself
//! is a signal: a failing drive is noisy.

use std::ops::Range;

use super::history::{History, InputKind};
use crate::learn::Table;

/// Rows back whose distance in time is told.
const GAPS: [usize; 4] = [1, 2, 4, 8];
/// Windows in which rows are counted, as shares of the horizon.
const PACE: [f64; 4] = [1.0 / 30.0, 0.25, 1.0, 3.0];
/// Rows back that a reading is compared with.
const BACK: [usize; 2] = [1, 3];
/// Times back that a reading is compared with, as shares of the horizon.
const SPANS: [f64; 2] = [0.25, 1.5];

/// Features of all rows. `horizon` is in the history's unit of time.
#[must_use]
pub fn features(history: &History, horizon: f64) -> Table {
    let varying = history.of_kind(InputKind::Varying);
    let fixed = history.of_kind(InputKind::Fixed);
    let of_reading = 3 + BACK.len() + SPANS.len();
    let of_unit = 3 + GAPS.len() + PACE.len();
    let width = of_unit + fixed.len() + varying.len() * of_reading;
    let mut table = Table::new(width);
    let mut cells = Vec::with_capacity(width);
    for unit in &history.units {
        for row in unit.clone() {
            let past = Past { history, unit, row };
            cells.clear();
            past.of_unit(horizon, &mut cells);
            cells.extend(fixed.iter().map(|&column| history.inputs.row(row)[column]));
            for &column in &varying {
                past.of_reading(column, horizon, &mut cells);
            }
            table.push(cells.iter().copied());
        }
    }
    table
}

/// One row, and what came before it.
struct Past<'a> {
    history: &'a History,
    unit: &'a Range<usize>,
    row: usize,
}

impl Past<'_> {
    fn of_unit(&self, horizon: f64, cells: &mut Vec<f32>) {
        let (times, first, row) = (&self.history.times, self.unit.start, self.row);
        let now = times[row];
        let before = row - first;
        cells.extend([now as f32, (now - times[first]) as f32, before as f32]);
        cells.extend(
            GAPS.iter().map(|&gap| {
                self.back(gap).map_or(f32::NAN, |earlier| (now - times[earlier]) as f32)
            }),
        );
        cells.extend(PACE.iter().map(|share| {
            let since = now - share * horizon;
            (before - times[first..row].partition_point(|&time| time < since)) as f32
        }));
    }

    fn of_reading(&self, column: usize, horizon: f64, cells: &mut Vec<f32>) {
        let times = &self.history.times;
        let value = |row: usize| self.history.inputs.row(row)[column];
        let (now, own, first) = (times[self.row], value(self.row), self.unit.start);
        let moved = |earlier: Option<usize>| earlier.map_or(f32::NAN, |row| own - value(row));
        cells.push(own);
        cells.extend(BACK.iter().map(|&rows| moved(self.back(rows))));
        let begun = (self.row > first).then_some(first);
        cells.push(moved(begun));
        cells.extend(SPANS.iter().map(|share| {
            let then = now - share * horizon;
            // The row in force at that time; the first one for a unit younger than that.
            let after = first + times[first..self.row].partition_point(|&time| time <= then);
            moved(begun.map(|first| after.saturating_sub(1).max(first)))
        }));
        let other = (first..self.row).rev().find(|&row| value(row) != own);
        cells.push(other.map_or(f32::NAN, |row| (now - times[row + 1]) as f32));
    }

    fn back(&self, rows: usize) -> Option<usize> {
        self.row.checked_sub(rows).filter(|row| *row >= self.unit.start)
    }
}
