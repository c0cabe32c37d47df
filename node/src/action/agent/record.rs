//! The records of an agent's journal: how they are written, and what they come to when they are read.
//!
//! ```text
//!   crc32c of the rest, in hexadecimal │ blank │ JSON │ newline        the first one is the header
//! ```
//!
//! Pure; the file is the [`super::journal`]'s. Invariant: what is read and written again is read as the same
//! [`Book`]. A torn last record is left out, damage before it is an error that says where.

use serde::{Deserialize, Serialize};

use super::book::{Begin, Book, Outcome};

/// Version of the records.
const VERSION: u32 = 1;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Record {
    Header { version: u32 },
    Fence { fence: u64 },
    Begin(Begin),
    Outcome { key: String, attempt: u32, fence: u64, at_ms: u64, outcome: Outcome },
}

impl Record {
    /// The first of every file.
    pub(super) const HEADER: Self = Self::Header { version: VERSION };
}

/// What a file comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What is known by it.
    pub book: Book,
    /// Bytes of whole records: what is behind them is a torn one.
    pub length: usize,
    /// Whole records.
    pub records: usize,
}

/// A record that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// At which byte it begins.
    pub at: usize,
    /// What is wrong.
    pub problem: String,
}

/// Reads a file.
///
/// # Errors
/// When a record is damaged that is not the last, or the first is no header that this build knows.
pub fn replay(bytes: &[u8]) -> Result<Replayed, BadRecord> {
    let mut all = Replayed::default();
    while all.length < bytes.len() {
        let at = all.length;
        let rest = &bytes[at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let last = end.is_none_or(|end| at + end + 1 == bytes.len());
        match parse(line) {
            Ok(record) if end.is_some() => {
                take(&mut all.book, record, at).map_err(|problem| BadRecord { at, problem })?;
            }
            // Whole, but its newline never came: as torn as any.
            Ok(_) => break,
            // The header is written with the file; a wrong one is no torn append.
            Err(_) if last && at > 0 => break,
            Err(_) if end.is_none() => break,
            Err(problem) => return Err(BadRecord { at, problem }),
        }
        all.length = at + line.len() + 1;
        all.records += 1;
    }
    Ok(all)
}

fn take(book: &mut Book, record: Record, at: usize) -> Result<(), String> {
    match (record, at) {
        (Record::Header { version: VERSION }, 0) => {}
        (Record::Header { version }, 0) => {
            return Err(format!("version {version}, this build reads {VERSION}"));
        }
        (Record::Header { .. }, _) => return Err("a second header".to_owned()),
        (_, 0) => return Err("no header".to_owned()),
        (Record::Fence { fence }, _) => book.raise(fence),
        (Record::Begin(begin), _) => book.begin(begin),
        (Record::Outcome { key, outcome, .. }, _) => {
            book.finish(&key, outcome);
        }
    }
    Ok(())
}

/// The fewest records that come to a book, and how many they are.
#[must_use]
pub fn written(book: &Book) -> (Vec<u8>, usize) {
    let mut records = vec![Record::HEADER, Record::Fence { fence: book.highest() }];
    for known in book.all() {
        records.push(Record::Begin(known.first.clone()));
        if known.last != known.first {
            records.push(Record::Begin(known.last.clone()));
        }
        if let Some(outcome) = known.outcome.clone() {
            let Begin { key, attempt, fence, at_ms, .. } = known.last.clone();
            records.push(Record::Outcome { key, attempt, fence, at_ms, outcome });
        }
    }
    (records.iter().flat_map(line).collect(), records.len())
}

/// A record as it is written.
pub(super) fn line(record: &Record) -> Vec<u8> {
    match serde_json::to_string(record) {
        Ok(json) => sealed(&json).into_bytes(),
        Err(error) => unreachable!("records hold text and numbers only: {error}"),
    }
}

/// A line with its checksum.
#[must_use]
pub fn sealed(json: &str) -> String {
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let (sum, json) = text.split_once(' ').ok_or("no checksum")?;
    let sum = u32::from_str_radix(sum, 16).map_err(|_| "no checksum")?;
    if sum != crc32c::crc32c(json.as_bytes()) {
        return Err("wrong checksum".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("unknown record: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(lines: &[&str]) -> Option<(usize, String)> {
        let file: String = lines.iter().map(|json| sealed(json)).collect();
        replay(file.as_bytes()).err().map(|bad| (bad.at, bad.problem))
    }

    #[test]
    fn what_is_refused_says_what_is_wrong() {
        let header = r#"{"record":"header","version":1}"#;
        let fence = r#"{"record":"fence","fence":7}"#;
        assert_eq!(problem(&[header, fence]), None);
        assert_eq!(problem(&[fence]), Some((0, "no header".to_owned())));
        let newer = r#"{"record":"header","version":2}"#;
        assert_eq!(problem(&[newer]), Some((0, "version 2, this build reads 1".to_owned())));
        let again = Some((sealed(header).len(), "a second header".to_owned()));
        assert_eq!(problem(&[header, header, fence]), again);
        let (_, said) = problem(&[header, r#"{"record":"dance"}"#, fence]).unwrap_or_default();
        assert!(said.contains("unknown record"), "{said}");
    }
}
