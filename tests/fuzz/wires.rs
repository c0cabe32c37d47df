//! More of the parsers that are fuzzed: alerts, frames of gRPC, what Kubernetes says, what nodes write
//! to their logs and say to each other, and files that backtests read.

use medic_api::http::{
    alerts::{self, AlertForm},
    otlp::{FRAME_BYTES, Framed},
    push::Encoding,
};
use medic_node::{
    backtest::{csv, series},
    detection::intake::{
        kube::wire::{LINE_BYTES_MAX, Lines, Notice, Piece, notice, page},
        wire::{put_bytes, put_number},
    },
};
use medic_proto::peer::v1 as pb;
use medic_raft::wire;
use medic_state::{
    Command, Digest, Entry, State, Timestamp, TraceId, codec,
    command::{ApplyManifest, NoteTold},
    rbac::Principal,
};

use super::{BUNDLE, Parser, texts};

const ALERT: &str = r#"{"status":"firing","labels":{"alertname":"Slow","service":"web"},
    "annotations":{"summary":"a \"b\""},"startsAt":"2026-11-23T22:30:00Z","endsAt":"0001-01-01T00:00:00Z"}"#;

pub(crate) fn alerts() -> Parser {
    Parser {
        name: "alerts",
        seeds: || {
            texts(&[&format!(r#"{{"version":"4","alerts":[{ALERT}]}}"#), &format!("[{ALERT}]")])
        },
        run: |bytes| {
            let read = |form| alerts::read(form, bytes, Timestamp(1));
            let both = [read(AlertForm::Webhook), read(AlertForm::Api)];
            for alert in both.iter().flatten().flatten() {
                assert!(alert.labels.len() <= alerts::PAIRS_MAX);
                assert!(alert.annotations.len() <= alerts::PAIRS_MAX);
            }
            both.iter().any(Result::is_ok)
        },
    }
}

pub(crate) fn frames() -> Parser {
    Parser {
        name: "frames",
        seeds: || vec![b"\x00\x00\x00\x00\x03abc".to_vec(), b"\x01\x00\x00\x00\x01z".to_vec()],
        run: |bytes| {
            let encoding = Encoding { gzip: true, json: false };
            let framed = Framed { encoding, bytes_max: 8 << 10 };
            framed.message(bytes.to_vec()).is_ok_and(|(encoding, message)| {
                assert_eq!(message, bytes[FRAME_BYTES..]);
                assert!(message.len() <= framed.bytes_max);
                assert_eq!(encoding.gzip, bytes[0] == 1);
                true
            })
        },
    }
}

const WATCHED: &str = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"resourceVersion\":\"8\"},\"type\":\"Warning\",\"reason\":\"BackOff\",\"message\":\"again\\nand again\",\"involvedObject\":{\"kind\":\"Pod\",\"namespace\":\"prod\",\"name\":\"web-0\"},\"lastTimestamp\":\"2026-11-18T14:02:10Z\"}}\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n";
const LISTED: &str = r#"{"metadata":{"resourceVersion":"9","continue":"abc"},"items":[{"reason":"Killing","involvedObject":{"name":"web-1"}},{}]}"#;

/// A stream cut into lines wherever it is cut, and a page of a list.
pub(crate) fn kubernetes() -> Parser {
    Parser {
        name: "kubernetes",
        seeds: || texts(&[WATCHED, LISTED]),
        run: |bytes| {
            let gathered = |chunk: usize| {
                let (mut lines, mut found) = (Lines::default(), Vec::new());
                for part in bytes.chunks(chunk) {
                    let fed = lines.feed(part, |piece| {
                        if let Piece::Line(line) = piece {
                            assert!(line.len() <= LINE_BYTES_MAX);
                            found.push(line.to_vec());
                        }
                    });
                    assert!(fed.is_ok(), "the input is short");
                }
                found
            };
            let found = gathered(bytes.len().max(1));
            assert_eq!(found, gathered(7), "where a stream is cut is no matter");
            let mut events = 0;
            for line in found {
                if let Ok(Notice::Event(event, _)) = notice(&line) {
                    assert!(!event.message.contains(char::is_control));
                    events += 1;
                }
            }
            events > 0 || page(bytes).is_ok_and(|page| page.events.len() < bytes.len())
        },
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let manifests = medic_api::manifest::parse_bundle(BUNDLE).unwrap();
    let applied = manifests.into_iter().map(|manifest| {
        Command::ApplyManifest(Box::new(ApplyManifest {
            manifest,
            expected: Some(Digest([7; 32])),
        }))
    });
    let told = NoteTold { incident: medic_state::IncidentId(4), text: Digest([9; 32]), on: None };
    let commands = [Command::Tick, Command::SetClusterVersion(8), Command::NoteTold(told)];
    let entry = |command| Entry {
        at: Timestamp(1_764_000_000_000),
        principal: Principal::user("alice"),
        request: None,
        trace: TraceId([5; 16]),
        command,
    };
    commands.into_iter().chain(applied).map(entry).collect()
}

/// Entries of the law, as logs and nodes hold them.
pub(crate) fn commands() -> Parser {
    Parser {
        name: "commands",
        seeds: || entries().iter().map(codec::encode).collect(),
        run: |bytes| {
            let Ok(entry) = codec::decode::<Entry>(bytes) else { return false };
            // Whatever is read says the same when it is written and read again: nodes agree on it.
            let written = codec::encode(&entry);
            assert_eq!(codec::decode::<Entry>(&written).unwrap(), entry);
            true
        },
    }
}

pub(crate) fn snapshots() -> Parser {
    Parser {
        name: "snapshots",
        seeds: || vec![State::new().to_snapshot(), super::state().to_snapshot()],
        run: |bytes| {
            let Ok(state) = State::from_snapshot(bytes) else { return false };
            let written = state.to_snapshot();
            assert_eq!(State::from_snapshot(&written).unwrap().to_snapshot(), written);
            true
        },
    }
}

fn message(parts: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    parts.iter().for_each(|(field, bytes)| put_bytes(&mut out, *field, bytes));
    out
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, number) in (1..).zip(numbers) {
        put_number(&mut out, field, *number);
    }
    out
}

/// What members say to each other: log entries, replication, votes, what a snapshot covers.
pub(crate) fn raft() -> Parser {
    Parser {
        name: "raft",
        seeds: || {
            let (id, vote) = (numbers(&[3, 1, 9]), numbers(&[3, 1, 1]));
            let mut member = numbers(&[1]);
            put_bytes(&mut member, 2, b"10.0.0.1:7001");
            let members = message(&[(1, &numbers(&[1])), (2, &member)]);
            let entry = message(&[(1, &id), (3, &codec::encode(&entries()[0]))]);
            let change = message(&[(1, &id), (4, &members)]);
            let append = message(&[(1, &vote), (2, &id), (4, &entry), (4, &change)]);
            let covers = message(&[(1, &id), (2, &message(&[(1, &id), (2, &members)]))]);
            vec![entry, change, append, message(&[(1, &vote), (2, &id)]), covers]
        },
        run: |bytes| {
            let entry = wire::decode::<pb::LogEntry>("log entry", bytes).and_then(wire::entry_in);
            if let Ok(entry) = &entry {
                assert!(wire::entry_in(wire::entry_out(entry)).is_ok());
            }
            let append =
                wire::decode::<pb::AppendRequest>("request", bytes).and_then(wire::append_in);
            let vote = wire::decode::<pb::VoteRequest>("vote", bytes)
                .and_then(|vote| wire::vote_request_in(&vote));
            let covers = wire::decode::<pb::SnapshotMeta>("snapshot", bytes)
                .and_then(wire::snapshot_meta_in);
            entry.is_ok() || append.is_ok() || vote.is_ok() || covers.is_ok()
        },
    }
}

/// Runs with a file of these bytes.
fn with_file<T>(name: &str, bytes: &[u8], run: impl FnOnce(&std::path::Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    run(&path)
}

/// What others have recorded: a range query's answer, and lines of OTLP.
pub(crate) fn recordings() -> Parser {
    const RANGE: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[
        {"metric":{"__name__":"up","job":"web","instance":"a:1"},"values":[[1700000000,"1"],[1700000015.5,"NaN"]]},
        {"metric":{"__name__":"load","job":"web"},"values":[[1700000000,"+Inf"],[1700000030,"2e3"]]}]}}"#;
    const OTLP: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"h"}}]},"scopeMetrics":[{"metrics":[{"name":"mem","gauge":{"dataPoints":[{"timeUnixNano":"1700000000000000000","asInt":"7"},{"timeUnixNano":"1700000015000000000","asDouble":0.5}]}},{"name":"reqs","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"timeUnixNano":"1700000000000000000","asDouble":1},{"timeUnixNano":"1700000015000000000","asDouble":4}]}}]}]}]}"#;
    Parser {
        name: "recordings",
        seeds: || texts(&[RANGE, OTLP]),
        run: |bytes| {
            with_file("a.json", bytes, |path| {
                let Ok(frames) = series::read(path) else { return false };
                assert!(!frames.is_empty());
                for frame in &frames {
                    assert!(frame.rows.iter().all(|(_, row)| row.len() == frame.metrics.len()));
                    assert!(frame.rows.is_sorted_by(|a, b| a.0 < b.0));
                }
                true
            })
        },
    }
}

pub(crate) fn tables() -> Parser {
    Parser {
        name: "tables",
        seeds: || {
            texts(&[
                "timestamp,cpu,mem\n2026-01-01 00:00:00,0.5,\n2026-01-01T00:01:00Z,1e3,NaN\n",
                "row,\"a,b\"\n1,2\n",
            ])
        },
        run: |bytes| {
            with_file("a.csv", bytes, |path| {
                let Ok(mut table) = csv::Table::open(path) else { return false };
                let metrics = table.metrics().len();
                let mut row = csv::Row::default();
                loop {
                    match table.read(&mut row) {
                        Ok(true) => assert_eq!(row.values.len(), metrics),
                        Ok(false) => return true,
                        Err(_) => return false,
                    }
                }
            })
        },
    }
}
