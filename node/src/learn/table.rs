//! Rows of numbers, and the same numbers in steps.
//!
//! Trees ask only "is it above this step?", so a table is cut once into at most [`STEPS_MAX`] steps a
//! column, of about equal count, and a byte a cell is all that fitting reads. Step 0 is "not known".

/// Steps of a column, beside "not known": what fits a byte.
pub const STEPS_MAX: usize = 254;

/// Rows of `width` numbers; NaN is "not known".
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Numbers in a row.
    pub width: usize,
    /// All numbers, row by row.
    pub cells: Vec<f32>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width, cells: Vec::new() }
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }

    /// One row.
    #[must_use]
    pub fn row(&self, at: usize) -> &[f32] {
        &self.cells[at * self.width..(at + 1) * self.width]
    }

    /// Adds a row, cut or filled with "not known" to the width.
    pub fn push(&mut self, row: impl IntoIterator<Item = f32>) {
        let end = self.cells.len() + self.width;
        self.cells.extend(row.into_iter().take(self.width));
        self.cells.resize(end, f32::NAN);
    }

    /// The rows named, in that order.
    #[must_use]
    pub fn only(&self, rows: &[usize]) -> Self {
        let cells = rows.iter().flat_map(|&row| self.row(row).iter().copied()).collect();
        Self { width: self.width, cells }
    }
}

/// Where each column is cut.
#[derive(Clone, Debug, Default)]
pub struct Bins {
    cuts: Vec<Vec<f32>>,
}

impl Bins {
    /// Cuts of about equal count, from the rows named.
    #[must_use]
    pub fn of(table: &Table, rows: &[usize], steps: usize) -> Self {
        let steps = steps.clamp(2, STEPS_MAX);
        let cuts = (0..table.width).map(|column| cuts_of(table, rows, column, steps)).collect();
        Self { cuts }
    }

    /// The table in steps.
    #[must_use]
    pub fn apply(&self, table: &Table) -> Binned {
        let mut cells = Vec::with_capacity(table.cells.len());
        for at in 0..table.rows() {
            cells.extend(table.row(at).iter().zip(&self.cuts).map(|(&value, cuts)| {
                if value.is_nan() {
                    0
                } else {
                    // At most STEPS_MAX cuts: it fits.
                    (1 + cuts.partition_point(|&cut| cut < value)) as u8
                }
            }));
        }
        Binned { width: table.width, cells }
    }
}

fn cuts_of(table: &Table, rows: &[usize], column: usize, steps: usize) -> Vec<f32> {
    let mut values: Vec<f32> =
        rows.iter().map(|&row| table.row(row)[column]).filter(|value| !value.is_nan()).collect();
    values.sort_unstable_by(f32::total_cmp);
    let mut distinct: Vec<(f32, usize)> = Vec::new();
    for &value in &values {
        match distinct.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => distinct.push((value, 1)),
        }
    }
    if distinct.len() < steps {
        return between(distinct.windows(2).map(|pair| (pair[0].0, pair[1].0)));
    }
    // Equal counts, where a value that fills more than its share stands alone.
    let mut left = values.len();
    let mut room = steps - 1;
    let (mut filled, mut cuts) = (0, Vec::new());
    for pair in distinct.windows(2) {
        filled += pair[0].1;
        if room > 0 && filled * (room + 1) >= left {
            cuts.push((pair[0].0, pair[1].0));
            left -= filled;
            filled = 0;
            room -= 1;
        }
    }
    between(cuts.into_iter())
}

fn between(pairs: impl Iterator<Item = (f32, f32)>) -> Vec<f32> {
    pairs
        .map(|(low, high)| {
            let middle = low + (high - low) / 2.0;
            if middle < high { middle } else { low }
        })
        .collect()
}

/// A table in steps.
#[derive(Clone, Debug)]
pub struct Binned {
    /// Steps in a row.
    pub width: usize,
    /// All steps, row by row; 0 is "not known".
    pub cells: Vec<u8>,
}

impl Binned {
    /// One row.
    #[must_use]
    pub fn row(&self, at: usize) -> &[u8] {
        &self.cells[at * self.width..(at + 1) * self.width]
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }
}
