//! More of the parsers that are fuzzed: files that nodes, agents and people keep.

use std::{collections::BTreeMap, str::FromStr};

use medic_node::{
    action::agent::{
        book::{Begin, Book, Outcome},
        record,
    },
    cli::chain,
};
use medic_raft::{
    store::{End, SnapshotError, decode_snapshot, encode_snapshot, scan_log},
    types::SnapshotMeta,
};
use medic_state::{
    Digest, IncidentId, Millis, Ppm, Record, State,
    applied::verify_chain,
    manifest::{MaxUnavailable, Rate},
};

use super::{Parser, entries, text, texts};

fn book() -> Book {
    let mut book = Book::default();
    for (attempt, key) in [(1, "a"), (1, "b"), (2, "a"), (1, "c")] {
        book.begin(Begin {
            key: key.to_owned(),
            attempt,
            fence: 7,
            at_ms: 1_764_000_000_000,
            action: "config.restore".to_owned(),
            target: "default/web/web-1".to_owned(),
            config_before: "c0ffee".to_owned(),
            config_wanted: String::new(),
            running: key == "b",
        });
    }
    book.finish("a", Outcome::Failed { reason: "é\n".to_owned(), retryable: true });
    book.finish("b", Outcome::Done { evidence: BTreeMap::from([("pid".into(), "7".into())]) });
    book.raise(9);
    book
}

/// An agent's journal, as it stands and with the checksums that its lines should have: else nearly all damage ends
/// at them.
pub(crate) fn journals() -> Parser {
    Parser {
        name: "journals",
        seeds: || vec![record::written(&book()).0],
        run: |bytes| {
            let resealed = text(bytes).map(|text| {
                let lines =
                    text.lines().map(|line| line.split_once(' ').map_or(line, |(_, json)| json));
                lines.map(record::sealed).collect::<String>().into_bytes()
            });
            let taken = [Some(bytes.to_vec()), resealed].into_iter().flatten().map(|bytes| {
                let replayed = match record::replay(&bytes) {
                    Ok(replayed) => replayed,
                    Err(bad) => {
                        assert!(bad.at < bytes.len() && !bad.problem.is_empty());
                        return false;
                    }
                };
                assert!(replayed.length <= bytes.len());
                // What is kept of it is read as the same, and is all there is to keep.
                let (written, records) = record::written(&replayed.book);
                let again = record::replay(&written).expect("it was just written");
                assert_eq!((again.length, again.records), (written.len(), records));
                assert_eq!(again.book, replayed.book);
                replayed.records > 0
            });
            taken.collect::<Vec<bool>>().contains(&true)
        },
    }
}

const LINK: &str = r#"{"seq":3,"index":9,"at":"2026-11-23T22:30:00Z","principal":{"kind":"user","name":"alice"},"command":"ApplyManifest","subject":"Service default/web","outcome":"ok","entry":"ENTRY","traceId":"05050505050505050505050505050505","previous":"ENTRY","hash":"ENTRY","tenant":"default","incident":"INC-42"}"#;

/// Lines of an audit chain that was exported.
pub(crate) fn links() -> Parser {
    Parser {
        name: "links",
        seeds: || texts(&[&LINK.replace("ENTRY", &Digest([7; 32]).to_string())]),
        run: |bytes| {
            let Some(text) = text(bytes) else { return false };
            match chain::read(text) {
                Ok(link) => {
                    // Whoever changed a link cannot have made a whole chain of it.
                    assert!(verify_chain(&[link]).is_err());
                    true
                }
                Err(reason) => {
                    assert!(!reason.is_empty());
                    false
                }
            }
        },
    }
}

/// Records of the law, as nodes hold and send them.
pub(crate) fn records() -> Parser {
    Parser {
        name: "records",
        seeds: || {
            let mut state = State::new();
            let applied =
                (1..).zip(entries()).flat_map(|(at, entry)| state.apply(at, &entry).records);
            applied.map(|record| record.to_bytes()).collect()
        },
        run: |bytes| {
            let Ok(record) = Record::from_bytes(bytes) else { return false };
            assert_eq!(record.to_bytes(), bytes, "it has one form");
            true
        },
    }
}

/// A snapshot as a file and on its way, with the checksum that it should have.
pub(crate) fn snapshot_files() -> Parser {
    Parser {
        name: "snapshot_files",
        seeds: || {
            let states = [State::new(), super::state()];
            states
                .iter()
                .map(|state| encode_snapshot(&SnapshotMeta::default(), state).into())
                .collect()
        },
        run: |bytes| {
            let body = &bytes[..bytes.len().saturating_sub(4)];
            let resealed = [body, &crc32c(body).to_be_bytes()].concat();
            let taken = [bytes, &resealed].map(|file| match decode_snapshot(file) {
                Ok((meta, state)) => {
                    let (_, again) = decode_snapshot(&encode_snapshot(&meta, &state)).unwrap();
                    assert_eq!(again.to_snapshot(), state.to_snapshot());
                    true
                }
                Err(SnapshotError::Newer(reason) | SnapshotError::Damaged(reason)) => {
                    assert!(!reason.is_empty());
                    false
                }
            });
            taken.contains(&true)
        },
    }
}

/// CRC-32C (Castagnoli), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)))
    })
}

/// A write-ahead log of `RocksDB`'s: records of these payloads.
fn log(payloads: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    for payload in payloads {
        let sum = crc32c(&[&[1], *payload].concat()).rotate_right(15).wrapping_add(0xa282_ead8);
        file.extend(sum.to_le_bytes());
        file.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
        file.push(1);
        file.extend(*payload);
    }
    file
}

pub(crate) fn logs_of_stores() -> Parser {
    Parser {
        name: "logs_of_stores",
        seeds: || vec![log(&[b"first", b"", &[7; 700], b"last"]), log(&[&[0; 300], b"x"])],
        run: |bytes| {
            let (end, records) = scan_log(bytes).expect("memory can be read");
            match end {
                End::Whole => assert!(records || bytes.len() < 7),
                End::Torn(at) | End::Damaged(at) => assert!(at < bytes.len() as u64),
            }
            end == End::Whole && records
        },
    }
}

/// Whether a word is one of these, which is written so that it is read as the same.
fn is<T: FromStr + ToString + PartialEq>(word: &str) -> bool {
    let Ok(read) = word.parse::<T>() else { return false };
    assert!(read.to_string().parse::<T>().is_ok_and(|again| again == read), "{word}");
    true
}

/// Single words with a meaning: ids, durations, shares, rates.
pub(crate) fn words() -> Parser {
    Parser {
        name: "words",
        seeds: || {
            let digest = Digest([0xa7; 32]).to_string();
            texts(&["INC-42", "250ms", "7d", "0.805", "34%", "2/1h", &digest])
        },
        run: |bytes| {
            let Some(word) = text(bytes) else { return false };
            let all = [
                is::<IncidentId>(word),
                is::<Millis>(word),
                is::<Ppm>(word),
                is::<MaxUnavailable>(word),
                is::<Rate>(word),
                is::<Digest>(word),
            ];
            all.contains(&true)
        },
    }
}
