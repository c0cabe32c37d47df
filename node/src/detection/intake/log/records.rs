//! OTLP logs (`ExportLogsServiceRequest`, protobuf): lines with their resource's labels. Pure.
//!
//! ```text
//!   1 ResourceLogs { 1 Resource{1 attributes}, 2 ScopeLogs { 2 LogRecord {
//!       1 time, 2 severity number, 3 severity text, 5 body, 11 observed time } } }
//! ```
//!
//! Of a record only its level and its text are read. A body that is a list of keys gives its `message`
//! (or `msg`, or `body`); others have no text and are counted.

use std::collections::BTreeMap;

use medic_state::text::head;

use super::{
    super::{
        otlp::{self, BadOtlp, Labels},
        wire::Reader,
    },
    drain::{LINE_BYTES_MAX, Level},
};

/// Lines of one message. Collectors send some 8,000 at their defaults.
pub const LINES_MAX: usize = 50_000;
/// Keys under which structured bodies have their text.
const TEXT_KEYS: [&str; 3] = ["message", "msg", "body"];

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How bad it is.
    pub level: Level,
    /// What it says, cut at [`LINE_BYTES_MAX`].
    pub text: String,
    /// When, by its sender; zero: it does not say.
    pub at_ms: i64,
}

/// The lines of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its labels, by which sources find instances.
    pub labels: BTreeMap<String, String>,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Records without a text.
    pub unread: usize,
}

/// Reads a message.
///
/// # Errors
/// When it cannot be taken.
pub fn read(body: &[u8]) -> Result<Vec<Batch>, BadOtlp> {
    let (mut batches, mut records) = (Vec::new(), 0);
    let mut reader = Reader::new(body);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            let batch = resource_logs(value.bytes(number)?, &mut records)?;
            // Resources without a line cost nothing.
            if !batch.lines.is_empty() || batch.unread > 0 {
                batches.push(batch);
            }
        }
    }
    Ok(batches)
}

fn resource_logs(bytes: &[u8], records: &mut usize) -> Result<Batch, BadOtlp> {
    let labels = otlp::resource(bytes)?;
    let owned = labels.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
    let mut batch = Batch { labels: owned.collect(), ..Batch::default() };
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number != 2 {
            continue;
        }
        let mut scope = Reader::new(value.bytes(number)?);
        while let Some((number, value)) = scope.field()? {
            if number != 2 {
                continue;
            }
            *records += 1;
            if *records > LINES_MAX {
                return Err(BadOtlp::TooManyLines);
            }
            match record(value.bytes(number)?)? {
                Some(line) => batch.lines.push(line),
                None => batch.unread += 1,
            }
        }
    }
    Ok(batch)
}

fn record(bytes: &[u8]) -> Result<Option<Line>, BadOtlp> {
    let (mut at_ns, mut observed_ns, mut severity) = (0, 0, 0);
    let (mut severity_text, mut text) = ("", None);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => at_ns = value.fixed64(number)?,
            2 => severity = value.varint(number)?,
            3 => severity_text = value.text(number)?,
            5 => text = body(value.bytes(number)?)?,
            11 => observed_ns = value.fixed64(number)?,
            _ => {}
        }
    }
    let at_ns = if at_ns == 0 { observed_ns } else { at_ns };
    let level = Level::of(severity, severity_text);
    Ok(text.map(|text| Line { level, text, at_ms: otlp::millis(at_ns) }))
}

fn body(bytes: &[u8]) -> Result<Option<String>, BadOtlp> {
    if let Some(text) = otlp::plain(bytes)? {
        return Ok(Some(cut(&text)));
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == 6 {
            let mut keys = Labels::new();
            otlp::attributes(value.bytes(number)?, 1, &mut keys)?;
            let named = |wanted: &&str| keys.iter().find(|(name, _)| name == *wanted);
            return Ok(TEXT_KEYS.iter().find_map(named).map(|(_, text)| cut(text)));
        }
    }
    Ok(None)
}

fn cut(text: &str) -> String {
    head(text, LINE_BYTES_MAX).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::{super::super::otlp_json, *};

    const LOGS: &str = r#"{"resourceLogs":[
        {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"web"}},
            {"key":"service.instance.id","value":{"stringValue":"web-1"}}]},
         "scopeLogs":[{"logRecords":[
            {"timeUnixNano":"1544712660300000000","severityNumber":17,"body":{"stringValue":"pool is empty"}},
            {"observedTimeUnixNano":"5000000","severityText":"Information","body":{"kvlistValue":{"values":[
                {"key":"user","value":{"stringValue":"ann"}},{"key":"msg","value":{"stringValue":"served"}}]}}},
            {"body":{"kvlistValue":{"values":[]}}},
            {"severityNumber":9}]}]},
        {"resource":{},"scopeLogs":[{}]}]}"#;

    #[test]
    fn records_are_read_with_their_resource() {
        let batches = read(&otlp_json::logs(LOGS.as_bytes()).unwrap()).unwrap();
        assert_eq!(batches.len(), 1, "a resource without records says nothing");
        let batch = &batches[0];
        assert_eq!(
            (batch.labels["service"].as_str(), batch.labels["instance"].as_str()),
            ("web", "web-1")
        );
        let line = |level, text: &str, at_ms| Line { level, text: text.to_owned(), at_ms };
        assert_eq!(
            batch.lines,
            [
                line(Level::Error, "pool is empty", 1_544_712_660_300),
                line(Level::Info, "served", 5),
            ]
        );
        assert_eq!(batch.unread, 2);
    }

    #[test]
    fn long_lines_are_cut_and_many_refused() {
        let long = LOGS.replace("pool is empty", &"é".repeat(10_000));
        let batches = read(&otlp_json::logs(long.as_bytes()).unwrap()).unwrap();
        assert_eq!(batches[0].lines[0].text.len(), LINE_BYTES_MAX);
        let many = vec!["{}"; LINES_MAX + 1].join(",");
        let many = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{many}]}}]}}]}}"#);
        assert_eq!(read(&otlp_json::logs(many.as_bytes()).unwrap()), Err(BadOtlp::TooManyLines));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..150, to in any::<u8>()) {
            prop_assert!(read(&bytes).map_or(0, |batches| batches.len()) <= bytes.len());
            let mut damaged = otlp_json::logs(LOGS.as_bytes()).unwrap();
            if let Some(byte) = damaged.get_mut(at) {
                *byte = to;
            }
            if let Ok(batches) = read(&damaged) {
                prop_assert!(batches.iter().all(|batch| batch.lines.len() <= 4));
            }
        }
    }
}
