//! What noisy readings tell of wear: temperatures, pressures, speeds, latencies.
//!
//! For each reading three running means of different reach, how far the middle one has moved from the
//! unit's own beginning and from the slow one, and its slope over two windows; and the unit's age.

use std::ops::Range;

use super::history::{History, InputKind};
use crate::learn::Table;

/// Reach of the running means, in rows.
const REACH: [f32; 3] = [4.0, 12.0, 30.0];
/// Rows that are a unit's beginning.
const BEGINNING: usize = 20;
/// Windows of slopes, in rows.
const SLOPES: [usize; 2] = [15, 40];
/// Fewer rows have no slope.
const SLOPE_ROWS_MIN: usize = 8;

/// Features of all rows.
#[must_use]
pub fn features(history: &History) -> Table {
    let varying = history.of_kind(InputKind::Varying);
    let width = 1 + varying.len() * (REACH.len() + 2 + SLOPES.len());
    let mut table = Table::new(width);
    for unit in &history.units {
        let mut means = vec![[f32::NAN; REACH.len()]; varying.len()];
        for row in unit.clone() {
            let mut cells = Vec::with_capacity(width);
            cells.push((history.times[row] - history.times[unit.start]) as f32);
            for (means, &column) in means.iter_mut().zip(&varying) {
                let value = history.inputs.row(row)[column];
                let rows = (row - unit.start + 1) as f32;
                for (mean, reach) in means.iter_mut().zip(REACH) {
                    follow(mean, value, (2.0 / (reach + 1.0)).max(1.0 / rows));
                }
                let begun =
                    mean_of(history, column, unit.start..(row + 1).min(unit.start + BEGINNING));
                cells.extend(*means);
                cells.extend([means[1] - begun, means[0] - means[2]]);
                cells.extend(SLOPES.map(|window| slope(history, column, unit, row, window)));
            }
            table.push(cells);
        }
    }
    table
}

fn follow(mean: &mut f32, value: f32, share: f32) {
    if mean.is_nan() {
        *mean = value;
    } else if !value.is_nan() {
        *mean += share * (value - *mean);
    }
}

fn mean_of(history: &History, column: usize, rows: Range<usize>) -> f32 {
    let known = rows.map(|row| history.inputs.row(row)[column]).filter(|value| !value.is_nan());
    let (sum, count) = known.fold((0.0f64, 0u32), |(sum, n), v| (sum + f64::from(v), n + 1));
    (sum / f64::from(count)) as f32
}

/// Least squares over the last rows, a row being one step.
fn slope(history: &History, column: usize, unit: &Range<usize>, row: usize, window: usize) -> f32 {
    let rows = (row + 1).saturating_sub(window).max(unit.start)..row + 1;
    if rows.len() < SLOPE_ROWS_MIN {
        return f32::NAN;
    }
    let middle = (rows.len() - 1) as f32 / 2.0;
    let mean = mean_of(history, column, rows.clone());
    let (mut along, mut across) = (0.0, 0.0);
    for (step, row) in rows.enumerate() {
        let value = history.inputs.row(row)[column];
        let from_middle = step as f32 - middle;
        if !value.is_nan() {
            along += from_middle * (value - mean);
            across += from_middle * from_middle;
        }
    }
    along / across
}
