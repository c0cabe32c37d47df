//! The history of many units, read from a table: one row per unit and time.
//!
//! The columns that name the unit, its time and its end are told; every other column is an input, a
//! number, a date (as days) or a word. Rows of one unit stand together, in order of time.

use std::{collections::BTreeMap, ops::Range, path::Path};

use jiff::civil::Date;

use super::{
    BacktestError,
    csv::{COLUMNS_MAX, content, reader, shortened},
};
use crate::{
    detection::predict::{hazard::Outcomes, history::History},
    learn::Table,
};

/// Rows that are held in memory: some 4 GiB with a hundred features.
pub const ROWS_MAX: usize = 8_000_000;

/// Which column is what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Names the unit.
    pub unit: String,
    /// When the row begins.
    pub time: String,
    /// When the row is over; without it the next row's beginning.
    pub until: Option<String>,
    /// 1 where the unit failed at the row's end; without it every unit's last row is its failure.
    pub event: Option<String>,
    /// No inputs.
    pub ignore: Vec<String>,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Rows in order.
    pub history: History,
    /// How they ended; empty without a column that tells.
    pub outcomes: Outcomes,
    /// Unit of each row, as it stands in the file.
    pub names: Vec<String>,
    /// Time of each row, as it stands in the file.
    pub times: Vec<String>,
    /// Column `row`, or the number of the row from 0.
    pub keys: Vec<String>,
    /// Names of the inputs.
    pub inputs: Vec<String>,
}

/// Reads a table.
///
/// # Errors
/// When it cannot be read, lacks a column that was named, or holds something else than was told.
pub fn read(path: &Path, columns: &Columns) -> Result<Read, BacktestError> {
    let mut reader = reader(path)?;
    let header = reader.headers().map_err(|error| content(path, &error))?.clone();
    let names: Vec<String> =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    let mut gathering = Gathering::new(path, &names, columns)?;
    let mut record = ::csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| content(path, &error))? {
        gathering.take(&record)?;
    }
    gathering.finish()
}

/// Where the columns are, and what was gathered so far.
struct Gathering<'a> {
    path: &'a Path,
    columns: &'a Columns,
    unit: usize,
    time: usize,
    until: Option<usize>,
    event: Option<usize>,
    key: Option<usize>,
    inputs: Vec<usize>,
    words: Vec<BTreeMap<String, f32>>,
    table: Table,
    units: Vec<Range<usize>>,
    seen: BTreeMap<String, ()>,
    moments: Vec<f64>,
    read: Read,
}

impl<'a> Gathering<'a> {
    fn new(path: &'a Path, names: &[String], columns: &'a Columns) -> Result<Self, BacktestError> {
        let wrong = |problem| BacktestError::Content { path: path.to_owned(), line: 1, problem };
        if names.len() > COLUMNS_MAX {
            let count = names.len();
            return Err(wrong(format!("{count} columns; at most {COLUMNS_MAX} are read")));
        }
        let find = |name: &String| {
            let place = names.iter().position(|other| other == name);
            place.ok_or_else(|| {
                wrong(format!("no column `{name}`; there are: {}", names.join(", ")))
            })
        };
        let (unit, time) = (find(&columns.unit)?, find(&columns.time)?);
        let until = columns.until.as_ref().map(find).transpose()?;
        let event = columns.event.as_ref().map(find).transpose()?;
        let ignored = columns.ignore.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let key = names.iter().position(|name| name == "row");
        let told = [Some(unit), Some(time), until, event, key];
        let inputs: Vec<usize> = (0..names.len())
            .filter(|at| !told.contains(&Some(*at)) && !ignored.contains(at))
            .collect();
        let read = Read {
            inputs: inputs.iter().map(|&at| names[at].clone()).collect(),
            ..Read::default()
        };
        Ok(Self {
            path,
            columns,
            unit,
            time,
            until,
            event,
            key,
            words: vec![BTreeMap::new(); inputs.len()],
            table: Table::new(inputs.len()),
            inputs,
            units: Vec::new(),
            seen: BTreeMap::new(),
            moments: Vec::new(),
            read,
        })
    }

    fn take(&mut self, record: &::csv::StringRecord) -> Result<(), BacktestError> {
        let line = record.position().map_or(0, ::csv::Position::line);
        let wrong = |problem| BacktestError::Content { path: self.path.to_owned(), line, problem };
        let row = self.moments.len();
        if row >= ROWS_MAX {
            return Err(wrong(format!("more than {ROWS_MAX} rows")));
        }
        let text = |at: usize| record.get(at).unwrap_or("");
        let number = |at: usize, column: &str| {
            let value = text(at).parse::<f64>().ok().filter(|value| value.is_finite());
            value.ok_or_else(|| {
                wrong(format!("column `{column}`: `{}` is not a number", shortened(text(at))))
            })
        };
        let moment = number(self.time, &self.columns.time)?;
        let unit = text(self.unit);
        if self.read.names.last().map(String::as_str) == Some(unit) {
            if self.moments.last().is_some_and(|before| *before > moment) {
                return Err(wrong(format!("`{unit}` goes back in time: sort the rows")));
            }
            if let Some(rows) = self.units.last_mut() {
                rows.end = row + 1;
            }
        } else {
            if self.seen.insert(unit.to_owned(), ()).is_some() {
                return Err(wrong(format!(
                    "rows of `{unit}` do not stand together: sort the rows"
                )));
            }
            self.units.push(row..row + 1);
        }
        if let (Some(at), Some(name)) = (self.event, &self.columns.event) {
            let failed = number(at, name)?;
            if failed != 0.0 && failed != 1.0 {
                return Err(wrong(format!("column `{name}`: {failed} is neither 0 nor 1")));
            }
            self.read.outcomes.failed.push(failed == 1.0);
            let until = match (self.until, &self.columns.until) {
                (Some(at), Some(name)) => number(at, name)?,
                _ => moment,
            };
            self.read.outcomes.until.push(until);
        }
        self.moments.push(moment);
        self.read.names.push(unit.to_owned());
        self.read.times.push(text(self.time).to_owned());
        self.read.keys.push(self.key.map_or_else(|| row.to_string(), |at| text(at).to_owned()));
        let words = &mut self.words;
        let cells = self.inputs.iter().zip(words).map(|(&at, words)| cell(text(at), words));
        self.table.push(cells.collect::<Vec<f32>>());
        Ok(())
    }

    fn finish(self) -> Result<Read, BacktestError> {
        if self.moments.is_empty() {
            let (path, expected) =
                (self.path.to_owned(), "a header line and rows of units over time");
            return Err(BacktestError::Nothing { path, expected });
        }
        let words: Vec<bool> = self.words.iter().map(|words| !words.is_empty()).collect();
        let history = History::new(self.units, self.moments, self.table, &words);
        Ok(Read { history, ..self.read })
    }
}

/// Different words of one column; further ones are "not known".
const WORDS_MAX: usize = 10_000;

/// A number, days since the epoch for a date, a code below zero for a word: in a column of words, one
/// that looks like a number stands for itself.
fn cell(text: &str, words: &mut BTreeMap<String, f32>) -> f32 {
    if text.is_empty() {
        return f32::NAN;
    }
    if let Ok(number) = text.parse::<f32>() {
        return if number.is_finite() { number } else { f32::NAN };
    }
    if let Ok(date) = text.parse::<Date>() {
        let days = date.since(Date::constant(1970, 1, 1)).map(|span| span.get_days());
        return days.map_or(f32::NAN, |days| days as f32);
    }
    let count = words.len();
    if count >= WORDS_MAX && !words.contains_key(text) {
        return f32::NAN;
    }
    *words.entry(text.to_owned()).or_insert(-1.0 - count as f32)
}
