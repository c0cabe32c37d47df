//! Invariant 1: every call to the control API fits one linearizable history.
//!
//! The server says at which log index a call took place, which makes the search for an order
//! unnecessary: that order is claimed, and it is checked against what clients saw.
//!
//! 1. A call that began after another had ended has no smaller index; a write has a greater one.
//! 2. A read gives what the log's last write of that key up to its index wrote.
//! 3. An acknowledged write stands in the log at its index.
//! 4. A key that was not there was absent at some index between the greatest of the calls that had
//!    ended before and what was committed when the answer came.
//!
//! A write without an answer may be in the log or not. (Gibbons and Korach, Testing Shared Memories,
//! 1997: with the order of writes known, checking is easy.)

use std::collections::BTreeMap;

use crate::check::Violation;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) client: String,
    pub(super) key: String,
    pub(super) begin_ms: u64,
    /// Absent: it never ended.
    pub(super) end_ms: Option<u64>,
    pub(super) what: CallKind,
}

/// What was called, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// A write under a request id; acknowledged at an index.
    Write { request: String, index: Option<u64> },
    /// A read.
    Read { value: Option<String>, index: u64 },
    /// A read that found nothing, which is answered without an index; what was committed then.
    Absent { latest: u64 },
}

/// A write that the log holds, and that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) key: String,
    /// Absent: the key was removed.
    pub(super) value: Option<String>,
}

/// The log as far as clients' keys go: effects by index, and the requests at every index.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) effects: BTreeMap<u64, Written>,
    pub(super) requests: BTreeMap<u64, String>,
}

/// See the module.
pub(super) fn check(calls: &[Call], log: &Log) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut wrong = |ms: u64, text: String| {
        found.push(Violation { invariant: 1, checker: "linearizability", ms, text });
    };
    let ended: Vec<(&Call, u64, u64)> = calls
        .iter()
        .filter_map(|call| match &call.what {
            CallKind::Write { index, .. } => Some((call, call.end_ms?, (*index)?)),
            CallKind::Read { index, .. } => Some((call, call.end_ms?, *index)),
            CallKind::Absent { .. } => None,
        })
        .collect();
    let mut by_begin = ended.clone();
    by_begin.sort_by_key(|(call, ..)| call.begin_ms);
    let mut by_end = ended.clone();
    by_end.sort_by_key(|(_, end, _)| *end);
    let mut before = by_end.into_iter().peekable();
    let mut greatest: Option<(u64, &Call)> = None;
    for (call, end, index) in by_begin {
        while let Some((earlier, _, at)) = before.next_if(|(_, end, _)| *end < call.begin_ms) {
            if greatest.is_none_or(|(most, _)| at > most) {
                greatest = Some((at, earlier));
            }
        }
        if let Some((most, earlier)) = greatest {
            let write = matches!(call.what, CallKind::Write { .. });
            if index < most || (write && index == most) {
                let text = format!(
                    "{} of {} took place at {index}, but began after {} of {} had ended, which took place at {most}",
                    name(call),
                    call.client,
                    name(earlier),
                    earlier.client
                );
                wrong(end, text);
            }
        }
        match &call.what {
            CallKind::Write { request, .. } => {
                if log.requests.get(&index) != Some(request) {
                    let there = log.requests.get(&index);
                    wrong(
                        end,
                        format!("{request} was acknowledged at {index}; there is {there:?}"),
                    );
                }
            }
            CallKind::Absent { .. } => {}
            CallKind::Read { value, .. } => {
                let expected = log.value(&call.key, index);
                if *value != expected {
                    let key = &call.key;
                    let text = format!(
                        "{key} was read as {value:?} at {index}, where the log says {expected:?}"
                    );
                    wrong(end, text);
                }
            }
        }
    }
    for call in calls {
        if let (CallKind::Absent { latest }, Some(end)) = (&call.what, call.end_ms) {
            let before = ended.iter().filter(|(_, end, _)| *end < call.begin_ms);
            let least = before.map(|(.., index)| *index).max().unwrap_or_default();
            if !log.absent(&call.key, least, *latest) {
                let key = &call.key;
                let text =
                    format!("{key} was not there, and the log has it from {least} to {latest}");
                wrong(end, text);
            }
        }
    }
    found
}

impl Log {
    /// What a key has at an index.
    fn value(&self, key: &str, index: u64) -> Option<String> {
        let last = self.effects.range(..=index).rev().find(|(_, one)| one.key == key);
        last.and_then(|(_, one)| one.value.clone())
    }

    /// Whether a key is absent at one index of `least..=latest`.
    fn absent(&self, key: &str, least: u64, latest: u64) -> bool {
        let mut removed = self.effects.range(least..=latest.max(least));
        self.value(key, least).is_none()
            || removed.any(|(_, one)| one.key == key && one.value.is_none())
    }
}

fn name(call: &Call) -> String {
    match &call.what {
        CallKind::Write { request, .. } => format!("the write {request}"),
        CallKind::Read { .. } | CallKind::Absent { .. } => format!("a read of {}", call.key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(begin: u64, end: u64, request: &str, index: u64) -> Call {
        let what = CallKind::Write { request: request.to_owned(), index: Some(index) };
        call(begin, end, what)
    }

    fn read(begin: u64, end: u64, value: &str, index: u64) -> Call {
        call(begin, end, CallKind::Read { value: Some(value.to_owned()), index })
    }

    fn call(begin_ms: u64, end: u64, what: CallKind) -> Call {
        let (client, key) = ("c".to_owned(), "k".to_owned());
        Call { client, key, begin_ms, end_ms: Some(end), what }
    }

    fn log(all: &[(u64, &str, &str)]) -> Log {
        let mut log = Log::default();
        for (index, request, value) in all {
            let written = Written { key: "k".to_owned(), value: Some((*value).to_owned()) };
            log.effects.insert(*index, written);
            log.requests.insert(*index, (*request).to_owned());
        }
        log
    }

    #[test]
    fn overlapping_calls_may_take_place_in_either_order() {
        let log = log(&[(5, "a", "1"), (7, "b", "2")]);
        let calls =
            [write(0, 10, "a", 5), write(1, 9, "b", 7), read(2, 8, "1", 6), read(11, 12, "2", 7)];
        assert_eq!(check(&calls, &log), []);
    }

    #[test]
    fn a_stale_read_is_found() {
        let log = log(&[(5, "a", "1"), (7, "b", "2")]);
        let calls = [write(0, 1, "a", 5), write(2, 3, "b", 7), read(4, 5, "1", 6)];
        assert_eq!(check(&calls, &log).len(), 1);
    }

    #[test]
    fn a_lost_write_is_found() {
        let calls = [write(0, 1, "a", 5)];
        assert_eq!(check(&calls, &log(&[])).len(), 1);
        assert_eq!(check(&calls, &log(&[(5, "b", "1")])).len(), 1);
    }

    #[test]
    fn a_read_of_what_nobody_wrote_is_found() {
        let log = log(&[(5, "a", "1")]);
        assert_eq!(check(&[read(0, 1, "2", 5)], &log).len(), 1);
    }

    #[test]
    fn a_key_that_was_not_there_must_have_been_absent() {
        let mut log = log(&[(5, "a", "1"), (7, "b", "2")]);
        let absent = |begin, latest| call(begin, begin + 1, CallKind::Absent { latest });
        // While the write is under way it may not be there yet; later it is.
        assert_eq!(check(&[write(0, 10, "a", 5), absent(2, 5)], &log), []);
        assert_eq!(check(&[write(0, 1, "a", 5), absent(2, 7)], &log).len(), 1);
        log.effects.insert(6, Written { key: "k".to_owned(), value: None });
        assert_eq!(check(&[write(0, 1, "a", 5), absent(2, 7)], &log), []);
    }

    #[test]
    fn an_unanswered_write_may_be_there_or_not() {
        let open = Call { end_ms: None, ..write(0, 0, "a", 5) };
        assert_eq!(check(&[open.clone(), read(1, 2, "1", 5)], &log(&[(5, "a", "1")])), []);
        assert_eq!(check(&[open], &log(&[])), []);
    }
}
