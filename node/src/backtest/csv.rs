//! Tables of numbers, read row by row: bounded memory, and errors that name file, line and column.
//!
//! Plain or gzip-compressed (by content, not by name). The column `timestamp` is kept as text and read
//! as a time where it is one; `row` and `label` are no metrics; every other column is one. An empty
//! field, `NaN` or an infinity is a missing value.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{BacktestError, places};

/// A longer line is no row of numbers: what is read ahead stays below this.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Metrics of one entity.
pub const COLUMNS_MAX: usize = 4096;
/// Columns that are no metric.
const NO_METRICS: [&str; 3] = ["timestamp", "row", "label"];
/// What a time is.
const A_TIME: &str =
    "a time: RFC 3339, a date and time (of UTC), or seconds or milliseconds since 1970";
/// What others call the column `timestamp`.
const TIMES: [&str; 7] = ["time", "date", "datetime", "ts", "@timestamp", "_time", "time_unix"];

/// One row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// As it stands in the file; empty without such a column.
    pub timestamp: String,
    /// Milliseconds since the epoch; times without a zone are read as UTC.
    pub at_ms: Option<i64>,
    /// One per metric, `NaN` where there is none.
    pub values: Vec<f64>,
}

/// A table being read.
pub struct Table {
    path: PathBuf,
    reader: ::csv::Reader<Box<dyn Read>>,
    record: ::csv::StringRecord,
    timestamp: Option<usize>,
    columns: Vec<usize>,
    metrics: Vec<String>,
    result: bool,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("path", &self.path).field("metrics", &self.metrics).finish()
    }
}

impl Table {
    /// Opens a file and reads its header line.
    ///
    /// # Errors
    /// When it cannot be read, or has no header.
    pub fn open(path: &Path) -> Result<Self, BacktestError> {
        let mut reader = reader(path)?;
        let header = reader.headers().map_err(|error| content(path, &error))?.clone();
        if header.len() > COLUMNS_MAX {
            let problem = format!("{} columns; at most {COLUMNS_MAX} are read", header.len());
            return Err(BacktestError::Content { path: path.to_owned(), line: 1, problem });
        }
        let name = |text: &str| text.trim_start_matches('\u{feff}').to_owned();
        let names: Vec<String> = header.iter().map(name).collect();
        let columns: Vec<usize> =
            (0..names.len()).filter(|&i| !NO_METRICS.contains(&names[i].as_str())).collect();
        Ok(Self {
            path: path.to_owned(),
            reader,
            record: ::csv::StringRecord::new(),
            timestamp: names.iter().position(|name| name == "timestamp"),
            metrics: columns.iter().map(|&i| names[i].clone()).collect(),
            columns,
            result: names.join(",") == places::HEADER,
        })
    }

    /// Names of the metrics, in the order of [`Row::values`].
    #[must_use]
    pub fn metrics(&self) -> &[String] {
        &self.metrics
    }

    /// Whether its rows are stamped, and no results of a backtest.
    #[must_use]
    pub const fn is_history(&self) -> bool {
        self.timestamp.is_some() && !self.result
    }

    /// The metric that goes by the name of a time, where no column is `timestamp`.
    #[must_use]
    pub fn unnamed_time(&self) -> Option<&str> {
        if self.timestamp.is_some() {
            return None;
        }
        let is_time = |name: &&str| TIMES.contains(&name.to_ascii_lowercase().as_str());
        self.metrics.iter().map(String::as_str).find(is_time)
    }

    /// Reads the next row into `row`; `false` at the end.
    ///
    /// # Errors
    /// When it cannot be read, has another number of fields than the header, or holds something that is
    /// neither a number nor empty.
    pub fn read(&mut self, row: &mut Row) -> Result<bool, BacktestError> {
        let more = self.reader.read_record(&mut self.record);
        if !more.map_err(|error| content(&self.path, &error))? {
            return Ok(false);
        }
        let line = self.record.position().map_or(0, ::csv::Position::line);
        let wrong = |column: &str, text: &str, expected: &str| BacktestError::Content {
            path: self.path.clone(),
            line,
            problem: format!("column `{column}`: `{}` is not {expected}", shortened(text)),
        };
        row.timestamp.clear();
        row.at_ms = None;
        if let Some(text) = self.timestamp.and_then(|at| self.record.get(at)) {
            row.timestamp.push_str(text);
            let at = parse_time(text).ok_or_else(|| wrong("timestamp", text, A_TIME))?;
            row.at_ms = Some(at);
        }
        row.values.clear();
        for (&at, name) in self.columns.iter().zip(&self.metrics) {
            let text = self.record.get(at).unwrap_or("");
            let value = if text.is_empty() { Some(f64::NAN) } else { text.parse().ok() };
            let value = value.ok_or_else(|| match self.unnamed_time() {
                Some(other) if other == name => wrong(
                    name,
                    text,
                    "a number: if it is when the row was seen, call it `timestamp`",
                ),
                _ => wrong(name, text, "a number"),
            })?;
            row.values.push(if value.is_finite() { value } else { f64::NAN });
        }
        Ok(true)
    }
}

/// RFC 3339, a date and time without a zone (read as UTC), or seconds or milliseconds since the epoch.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<f64>() {
        // Seconds until the year 5138, milliseconds beyond.
        let ms = if number.abs() < 1e11 { number * 1e3 } else { number };
        return number.is_finite().then_some(ms as i64);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let civil: DateTime = text.parse().ok()?;
    Some(TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond())
}

/// A reader of a file's records: fields are trimmed, an endless line is an error.
pub(super) fn reader(path: &Path) -> Result<::csv::Reader<Box<dyn Read>>, BacktestError> {
    let source = bytes(path).map_err(BacktestError::read(path))?;
    let source = Box::new(LineBound::new(source)) as Box<dyn Read>;
    Ok(::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(source))
}

/// A file's bytes, unpacked if they are gzip.
pub(super) fn bytes(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::new(File::open(path)?);
    Ok(if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    })
}

/// Refuses a line without end, which would be gathered in memory as one record.
struct LineBound {
    source: Box<dyn Read>,
    run: usize,
}

impl LineBound {
    const fn new(source: Box<dyn Read>) -> Self {
        Self { source, run: 0 }
    }
}

impl Read for LineBound {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        for &byte in &buffer[..count] {
            self.run = if byte == b'\n' { 0 } else { self.run + 1 };
            if self.run > LINE_BYTES_MAX {
                return Err(io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} B")));
            }
        }
        Ok(count)
    }
}

pub(super) fn content(path: &Path, error: &::csv::Error) -> BacktestError {
    let line = error.position().map_or(0, ::csv::Position::line);
    let problem = match error.kind() {
        ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        ::csv::ErrorKind::Utf8 { err, .. } => {
            format!("column {} is not UTF-8", err.field() + 1)
        }
        ::csv::ErrorKind::Io(source) => source.to_string(),
        _ => error.to_string(),
    };
    BacktestError::Content { path: path.to_owned(), line, problem }
}

pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
