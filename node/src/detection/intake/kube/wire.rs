//! What an API server says: lists of events, and watch streams of one JSON object a line. Pure.
//!
//! Kubernetes API reference, "Event v1 core", and API concepts, "Efficient detection of changes": a watch
//! ends now and then and goes on from the last `resourceVersion`; bookmarks move that without an event; 410
//! (Gone), as a status or as a line, means that the history is lost, and all is listed anew.

use medic_state::{Timestamp, text::head, time::parse_rfc3339};
use serde::Deserialize;

/// Longest line of a watch that is read: an event is some 2 KiB, and no object is above 1.5 MiB.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// A line longer than this never ends: the stream is left.
pub const ENDLESS_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a reason and of a name kept, and of a message.
const NAME_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 240;

/// Bytes of a stream, cut into lines.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    /// Bytes of a line that is too long; zero: it is not.
    skipped: usize,
}

/// What a stream gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'l> {
    /// A line, without its end.
    Line(&'l [u8]),
    /// One that was too long to be kept.
    TooLong,
}

/// A line that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the stream does not end within {ENDLESS_BYTES} bytes")]
pub struct Endless;

impl Lines {
    /// Takes bytes, and gives the lines that end in them.
    ///
    /// # Errors
    /// When a line does not end.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Piece<'_>),
    ) -> Result<(), Endless> {
        while !bytes.is_empty() {
            let (part, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    let part = &bytes[..at];
                    bytes = &bytes[at + 1..];
                    (part, true)
                }
                None => (std::mem::take(&mut bytes), false),
            };
            if self.skipped > 0 || self.held.len() + part.len() > LINE_BYTES_MAX {
                self.skipped += self.held.len() + part.len().max(1);
                self.held = Vec::new();
                if self.skipped > ENDLESS_BYTES {
                    return Err(Endless);
                }
            } else {
                self.held.extend_from_slice(part);
            }
            if ended {
                if self.skipped > 0 {
                    take(Piece::TooLong);
                } else if !self.held.iter().all(u8::is_ascii_whitespace) {
                    take(Piece::Line(&self.held));
                }
                self.held.clear();
                self.skipped = 0;
            }
        }
        Ok(())
    }
}

/// Something that happened to an object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Warning`; else `Normal`.
    pub warning: bool,
    /// `BackOff`, `Killing`, …
    pub reason: String,
    /// In words.
    pub message: String,
    /// Kind of the object that it is about.
    pub kind: String,
    /// Its namespace; empty for nodes.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it last happened, by the cluster's clock; zero: it does not say.
    pub at: Timestamp,
}

/// A line of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It happened, or happened again.
    Event(Event, Option<String>),
    /// Nothing happened up to this version.
    Bookmark(String),
    /// An event was forgotten, or a type that is not known.
    Other(Option<String>),
    /// The history is lost.
    Gone,
    /// The server cannot go on.
    Failed(String),
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What happened before.
    pub events: Vec<Event>,
    /// Where a watch begins.
    pub version: String,
    /// The next page; empty: this is the last.
    pub next: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    metadata: Meta,
    #[serde(rename = "type")]
    form: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    involved_object: Involved,
    series: Option<Series>,
    last_timestamp: Option<String>,
    event_time: Option<String>,
    first_timestamp: Option<String>,
    /// Of a `Status`.
    code: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Involved {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    last_observed_time: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    form: String,
    object: Object,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: Meta,
    items: Vec<Object>,
}

/// Reads a line of a watch.
///
/// # Errors
/// When it is none.
pub fn notice(line: &[u8]) -> Result<Notice, serde_json::Error> {
    let Line { form, object } = serde_json::from_slice(line)?;
    let version = object.metadata.resource_version.clone().filter(|text| fits(text));
    Ok(match (form.as_str(), version) {
        ("ADDED" | "MODIFIED", version) => Notice::Event(object.event(), version),
        ("BOOKMARK", Some(version)) => Notice::Bookmark(version),
        ("ERROR", _) if object.code == Some(410) => Notice::Gone,
        ("ERROR", _) => {
            let (reason, message) = (object.reason, object.message);
            let said = [reason, message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            Notice::Failed(clean(&said, MESSAGE_BYTES_MAX))
        }
        (_, version) => Notice::Other(version),
    })
}

/// Reads a page of a list.
///
/// # Errors
/// When it is none.
pub fn page(body: &[u8]) -> Result<Page, serde_json::Error> {
    let List { metadata, items } = serde_json::from_slice(body)?;
    Ok(Page {
        events: items.into_iter().map(Object::event).collect(),
        version: metadata.resource_version.filter(|text| fits(text)).unwrap_or_default(),
        next: metadata.next.unwrap_or_default(),
    })
}

/// Versions are opaque, and short in every server there is.
fn fits(version: &str) -> bool {
    (1..=64).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Object {
    fn event(self) -> Event {
        let series = self.series.and_then(|series| series.last_observed_time);
        let told = [series, self.last_timestamp, self.event_time, self.first_timestamp];
        let at = told.into_iter().flatten().find_map(|text| parse_rfc3339(&text).ok());
        let short = |text: Option<String>| clean(&text.unwrap_or_default(), NAME_BYTES_MAX);
        Event {
            warning: self.form.as_deref() == Some("Warning"),
            reason: short(self.reason),
            message: clean(&self.message.unwrap_or_default(), MESSAGE_BYTES_MAX),
            kind: short(self.involved_object.kind),
            namespace: short(self.involved_object.namespace),
            name: short(self.involved_object.name),
            at: at.unwrap_or_default(),
        }
    }
}

/// Without control characters, and cut.
fn clean(text: &str, bytes_max: usize) -> String {
    head(text, bytes_max).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const ADDED: &str = r#"{"type":"ADDED","object":{"kind":"Event","apiVersion":"v1","metadata":{
        "name":"web-0.17f","namespace":"prod","resourceVersion":"812"},"type":"Warning","reason":"BackOff",
        "message":"Back-off restarting\nfailed container","involvedObject":{"kind":"Pod","namespace":"prod",
        "name":"web-0","fieldPath":"spec.containers{web}"},"count":3,"eventTime":null,
        "firstTimestamp":"2026-11-18T14:00:00Z","lastTimestamp":"2026-11-18T14:02:10Z"}}"#;

    #[test]
    fn lines_of_a_watch_are_read() {
        let Notice::Event(event, version) = notice(ADDED.as_bytes()).unwrap() else { panic!() };
        assert_eq!(version.as_deref(), Some("812"));
        assert!(event.warning);
        assert_eq!((event.kind.as_str(), event.name.as_str()), ("Pod", "web-0"));
        assert_eq!(event.message, "Back-off restarting failed container");
        assert_eq!(event.at, parse_rfc3339("2026-11-18T14:02:10Z").unwrap());
        for (line, expected) in [
            (
                r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#,
                Notice::Bookmark("9".to_owned()),
            ),
            (
                r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#,
                Notice::Gone,
            ),
            (
                r#"{"type":"ERROR","object":{"code":500,"reason":"Boom","message":"it broke"}}"#,
                Notice::Failed("Boom: it broke".to_owned()),
            ),
            (
                r#"{"type":"DELETED","object":{"metadata":{"resourceVersion":"7"}}}"#,
                Notice::Other(Some("7".to_owned())),
            ),
        ] {
            assert_eq!(notice(line.as_bytes()).unwrap(), expected, "{line}");
        }
        assert!(notice(b"{\"type\":\"ADDED\"}").is_err() && notice(b"nonsense").is_err());
        // The newer form tells time in its series, and in micros.
        let newer = ADDED.replace(
            "\"count\":3",
            r#""series":{"lastObservedTime":"2026-11-18T15:00:00.123456Z"}"#,
        );
        let Notice::Event(event, _) = notice(newer.as_bytes()).unwrap() else { panic!() };
        assert_eq!(event.at, Timestamp(parse_rfc3339("2026-11-18T15:00:00Z").unwrap().0 + 123));
    }

    #[test]
    fn pages_are_read_and_long_texts_cut() {
        let object = ADDED.replace("failed", &"é".repeat(1_000));
        let item = &object[object.find("{\"kind\"").unwrap()..object.len() - 1];
        let list = format!(
            r#"{{"metadata":{{"resourceVersion":"9","continue":"abc"}},"items":[{item},{{}}]}}"#
        );
        let page = page(list.as_bytes()).unwrap();
        assert_eq!((page.version.as_str(), page.next.as_str(), page.events.len()), ("9", "abc", 2));
        assert!(page.events[0].message.len() <= MESSAGE_BYTES_MAX);
        assert!(super::page(b"{}").is_err(), "a list has items");
    }

    fn fed(chunks: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Endless> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |piece| {
                found.push(match piece {
                    Piece::Line(line) => Some(line.to_vec()),
                    Piece::TooLong => None,
                });
            })?;
            assert!(lines.held.len() <= LINE_BYTES_MAX);
        }
        Ok(found)
    }

    #[test]
    fn lines_are_put_together_bounded_and_an_endless_one_is_left() {
        let lines = fed(&[b"{\"a", b"\":1}\n\r\n{}", b"\n"]).unwrap();
        assert_eq!(lines, [Some(b"{\"a\":1}".to_vec()), Some(b"{}".to_vec())]);
        let long = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(fed(&[&long, b"x", b"y\nz\n"]).unwrap(), [None, Some(b"z".to_vec())]);
        assert_eq!(fed(&[&long, b"\n"]).unwrap().len(), 1, "just as long as it may be");
        let many: Vec<&[u8]> = vec![&long; ENDLESS_BYTES / LINE_BYTES_MAX + 2];
        assert_eq!(fed(&many), Err(Endless));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..300, to in any::<u8>()) {
            let mut damaged = ADDED.as_bytes().to_vec();
            damaged[at] = to;
            for line in [&bytes, &damaged] {
                if let Ok(Notice::Event(event, _)) = notice(line) {
                    prop_assert!(event.message.len() <= 2 * MESSAGE_BYTES_MAX);
                }
                prop_assert!(page(line).is_err());
            }
            prop_assert!(fed(&[&bytes]).is_ok());
        }
    }
}
