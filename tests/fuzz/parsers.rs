//! The parsers that are fuzzed, each with good inputs and with what must hold of whatever it takes.
//!
//! `run` says whether the input was taken; it panics when something is taken that must not be.

#[path = "files.rs"]
mod files;
#[path = "parcels.rs"]
mod parcels;
#[path = "wires.rs"]
mod wires;

use std::{collections::BTreeMap, sync::LazyLock};

use medic_node::detection::{
    entity::{
        Entity, Now,
        carried::{Carried, unpack},
    },
    exposition,
    indicator::{Values, parse_quantity},
    intake::{
        discovery, log,
        mapper::{Allowed, Mapper},
        otlp, otlp_json, promql,
        sample::{LABELS_MAX, SERIES_BYTES_MAX, Sample, SeriesView},
        srv, wire,
        write::{self, Version},
    },
};
use medic_state::{
    Millis, State, Timestamp,
    manifest::{ServiceSpec, Stored},
    matcher::{Matcher, Selector},
    symptom::Target,
};

use self::wires::entries;
pub(crate) use self::{
    files::{journals, links, logs_of_stores, records, snapshot_files, words},
    parcels::{healths_told, predictions},
    wires::{alerts, commands, frames, kubernetes, raft, recordings, snapshots, tables},
};

/// A parser under test.
pub(crate) struct Parser {
    /// Its name.
    pub(crate) name: &'static str,
    /// Good inputs.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Takes an input, or refuses it.
    pub(crate) run: fn(&[u8]) -> bool,
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn exposition() -> Parser {
    Parser {
        name: "exposition",
        seeds: || {
            texts(&[
                "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"\\\"\\n\"} 5 1395066363000\nb 1e3\n",
                "lat_bucket{le=\"+Inf\"} 7 # {trace_id=\"x\"} 0.5 1395066363.4\nreqs_total 5\n# EOF\n",
                "up 1\ndown{} NaN\ncold -Inf\n",
            ])
        },
        run: |bytes| {
            let Some(text) = text(bytes) else { return false };
            let Ok(read) = exposition::parse(text, |_| true) else { return false };
            assert!(read.samples.len() <= read.total && read.total <= text.lines().count());
            for sample in &read.samples {
                assert!(!sample.name.is_empty() && sample.labels.len() <= exposition::LABELS_MAX);
            }
            // What is not wanted is read over in the same way.
            let none =
                exposition::parse(text, |_| false).expect("it has samples, or only comments");
            assert_eq!(none.total, read.total);
            assert!(none.samples.is_empty());
            true
        },
    }
}

fn series() -> Vec<u8> {
    let mut message = Vec::new();
    for (name, value) in [("up", 1.0), ("load", f64::NAN), ("mem", f64::INFINITY)] {
        let labels = [("__name__", name), ("instance", "a:1"), ("job", "web")];
        write::put_series(&mut message, labels.into_iter(), &[Sample { at_ms: 1, value }]);
    }
    message
}

fn series_of_version_2() -> Vec<u8> {
    let mut message = Vec::new();
    for symbol in ["", "__name__", "up", "job", "web"] {
        wire::put_bytes(&mut message, 4, symbol.as_bytes());
    }
    let (mut series, mut sample, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
    wire::put_bytes(&mut series, 1, &[1, 2, 3, 4]);
    wire::put_double(&mut sample, 1, 5.0);
    wire::put_number(&mut sample, 2, 1_000);
    wire::put_bytes(&mut series, 2, &sample);
    wire::put_number(&mut metadata, 1, 1);
    wire::put_bytes(&mut series, 5, &metadata);
    wire::put_bytes(&mut message, 5, &series);
    message
}

/// Walks a message; whatever passes the check is within bounds.
fn walk(version: Version, message: &[u8]) -> bool {
    let mut seen = 0;
    let read = write::read(version, message, |view, _| {
        seen += 1;
        if view.check().is_ok() {
            let bytes: usize = view.labels.iter().map(|(n, v)| n.len() + v.len()).sum();
            assert!(view.labels.len() <= LABELS_MAX && bytes <= SERIES_BYTES_MAX);
            assert!(view.labels.is_sorted() && !view.name().is_empty());
        }
    });
    assert_eq!(read, write::survey(version, message));
    let mut skimmed = 0;
    let skim = write::skim(version, message, |view, _| {
        skimmed += 1;
        write::read_labels(view)
    });
    assert_eq!(read.is_ok(), skim.is_ok());
    read.is_ok_and(|survey| {
        assert_eq!((survey.series, skimmed), (seen, seen));
        true
    })
}

pub(crate) fn remote_write_1() -> Parser {
    Parser {
        name: "remote_write_1",
        seeds: || {
            let (mut family, mut told) = (Vec::new(), series());
            wire::put_number(&mut family, 1, 1);
            wire::put_bytes(&mut family, 2, b"up");
            wire::put_bytes(&mut told, 3, &family);
            vec![series(), told]
        },
        run: |bytes| walk(Version::V1, bytes),
    }
}

pub(crate) fn remote_write_2() -> Parser {
    Parser {
        name: "remote_write_2",
        seeds: || vec![series_of_version_2()],
        run: |bytes| walk(Version::V2, bytes),
    }
}

pub(crate) fn snappy() -> Parser {
    Parser {
        name: "snappy",
        seeds: || {
            // Two elements: a literal of four bytes, and a copy of them.
            vec![b"\x08\x0cabcd\x01\x04".to_vec()]
        },
        run: |bytes| {
            let Ok(opened) = write::open(bytes) else { return false };
            assert!(opened.len() <= write::MESSAGE_BYTES_MAX);
            walk(Version::V1, &opened);
            true
        },
    }
}

const METRICS: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"web"}}]},"scopeMetrics":[{"metrics":[
    {"name":"a.b","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[
      {"asInt":"5","timeUnixNano":"1000000","attributes":[{"key":"k","value":{"intValue":"-1"}}]}]}},
    {"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"2","sum":2,
      "bucketCounts":["1","1"],"explicitBounds":[1]}]}}]}]}]}"#;
const LOGS: &str = r#"{"resourceLogs":[{"resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"web"}}]},"scopeLogs":[{"logRecords":[
    {"timeUnixNano":"5","severityNumber":17,"body":{"stringValue":"pool is empty"}},
    {"body":{"kvlistValue":{"values":[{"key":"msg","value":{"stringValue":"served"}}]}}}]}]}]}"#;

fn translated(bytes: &[u8]) -> bool {
    let Ok(translated) = otlp::translate(bytes, true) else { return false };
    // What is translated is a message of the other form.
    let survey = write::read(Version::V1, &translated.message, |_, _| {}).unwrap();
    assert_eq!(survey.samples, translated.samples);
    true
}

pub(crate) fn metrics() -> Parser {
    Parser {
        name: "metrics",
        seeds: || vec![otlp_json::metrics(METRICS.as_bytes()).unwrap()],
        run: translated,
    }
}

pub(crate) fn otlp_json() -> Parser {
    Parser {
        name: "otlp_json",
        seeds: || texts(&[METRICS, LOGS]),
        run: |bytes| {
            let metrics = otlp_json::metrics(bytes).is_ok_and(|message| translated(&message));
            let logs = otlp_json::logs(bytes).is_ok_and(|message| mined(&message));
            metrics || logs
        },
    }
}

fn mined(bytes: &[u8]) -> bool {
    let Ok(batches) = log::records::read(bytes) else { return false };
    let mut drain = log::drain::Drain::new(0);
    let mut lines = 0;
    for line in batches.iter().flat_map(|batch| &batch.lines) {
        assert!(line.text.len() <= log::drain::LINE_BYTES_MAX);
        drain.take(line.level, &line.text, 1);
        lines += 1;
    }
    let counted: u64 = drain.templates().map(|template| template.lines).sum();
    assert!(counted <= lines && drain.templates().count() <= log::drain::TEMPLATES_MAX);
    true
}

pub(crate) fn logs() -> Parser {
    Parser { name: "logs", seeds: || vec![otlp_json::logs(LOGS.as_bytes()).unwrap()], run: mined }
}

pub(crate) fn promql() -> Parser {
    Parser {
        name: "promql",
        seeds: || {
            texts(&[
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"web"},"value":[1435781451.781,"1"]}]}}"#,
            ])
        },
        run: |bytes| {
            let mut given = 0;
            let told = promql::read(bytes, "up", |labels, _| {
                assert!(labels["__name__"] == "up" && labels.len() <= LABELS_MAX + 1);
                given += 1;
            });
            assert!(given <= promql::SERIES_MAX);
            told.is_ok_and(|told| {
                assert_eq!(told.series, given);
                true
            })
        },
    }
}

pub(crate) fn discovery() -> Parser {
    Parser {
        name: "discovery",
        seeds: || {
            texts(&[
                r#"[{"targets": ["host:9100"], "labels": {"job": "node", "__x": "y"}}]"#,
                "- targets: ['a:1', 'b:2']\n  labels: {job: node}\n",
            ])
        },
        run: |bytes| {
            let Some(text) = text(bytes) else { return false };
            discovery::read(text).is_ok_and(|found| {
                let found = found.endpoints;
                assert!(found.iter().all(|one| discovery::is_address(&one.address)));
                assert!(found.len() <= discovery::TARGETS_MAX);
                true
            })
        },
    }
}

const SRV_NAME: &str = "_m._tcp.example.org";

pub(crate) fn srv() -> Parser {
    Parser {
        name: "srv",
        seeds: || {
            let mut answer = srv::question(7, SRV_NAME).unwrap();
            // It is an answer, with one record whose name is that of the question.
            (answer[2], answer[7]) = (0x81, 1);
            answer.extend_from_slice(b"\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x3c\x00\x0a");
            answer.extend_from_slice(b"\x00\x01\x00\x01\x23\x8c\x01a\xc0\x14");
            vec![answer]
        },
        run: |bytes| {
            srv::read(bytes, 7, SRV_NAME).is_ok_and(|found| {
                assert!(found.iter().all(|address| discovery::is_address(address)));
                true
            })
        },
    }
}

pub(crate) fn matchers() -> Parser {
    Parser {
        name: "matchers",
        seeds: || texts(&["env=\"prod\"", "code=~\"5..\"", "team!=\"a\\\"b\"", "x !~ \"(a|b)+\""]),
        run: |bytes| {
            let Some(matcher) = text(bytes).and_then(|text| text.parse::<Matcher>().ok()) else {
                return false;
            };
            let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
            let said = matcher.matches(&labels);
            // Written and read back it says the same; odd characters are written for people alone.
            let written = matcher.to_string();
            if bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
                assert_eq!(written.parse::<Matcher>().unwrap().matches(&labels), said);
            }
            true
        },
    }
}

pub(crate) fn selectors() -> Parser {
    Parser {
        name: "selectors",
        seeds: || texts(&["up", "http_requests_total{code=~\"5..\",job=\"web\"}", "{a=\"b\"}"]),
        run: |bytes| {
            let Some(selector) = text(bytes).and_then(|text| text.parse::<Selector>().ok()) else {
                return false;
            };
            assert!(!(selector.metric.is_empty() && selector.matchers.is_empty()));
            // Another metric than the named one is never selected.
            let selected = selector.selects("up", &BTreeMap::new());
            assert!(!selected || selector.metric.is_empty() || selector.metric == "up");
            true
        },
    }
}

pub(crate) fn quantities() -> Parser {
    Parser {
        name: "quantities",
        seeds: || texts(&["0.05", "80%", "64MiB", "1.5GB", "250ms", "1e6"]),
        run: |bytes| {
            let Some(text) = text(bytes) else { return false };
            parse_quantity(text).is_ok_and(|value| {
                assert!(value >= 0.0 && value.is_finite(), "{text} is {value}");
                true
            })
        },
    }
}

const BUNDLE: &str = "apiVersion: medic/v1
kind: Service
metadata: {name: web}
spec:
  instances: [{name: web-1, port: 81}, {name: web-2, host: b, port: 82}]
  indicators:
    - {name: memory, source: {gauge: 'mem{kind=\"rss\"}'}, limit: 64MiB}
    - {name: latency, source: {quantile: {histogram: lat, q: 0.99}}}
---
apiVersion: medic/v1
kind: Source
metadata: {name: prom}
spec: {type: remote-write, serviceLabel: job, match: ['env!=\"test\"']}
";

pub(crate) fn manifests() -> Parser {
    Parser {
        name: "manifests",
        seeds: || texts(&[BUNDLE]),
        run: |bytes| {
            let Some(text) = text(bytes) else { return false };
            match medic_api::manifest::parse_bundle(text) {
                Ok(_) => true,
                Err(problems) => {
                    assert!(!problems.is_empty(), "refused without a reason");
                    false
                }
            }
        },
    }
}

fn state() -> State {
    let mut state = State::new();
    for (index, manifest) in (1..).zip(medic_api::manifest::parse_bundle(BUNDLE).unwrap()) {
        let stored = Stored {
            digest: manifest.digest(),
            manifest: std::sync::Arc::new(manifest),
            index,
            by: "user:test".to_owned(),
            at: Timestamp(0),
        };
        state.manifests.insert(stored.manifest.key(), stored);
    }
    state
}

static MAPPER: LazyLock<Mapper> = LazyLock::new(|| Mapper::of(&state(), "default"));

/// Labels as lines, `name=value`.
pub(crate) fn mapper() -> Parser {
    Parser {
        name: "mapper",
        seeds: || {
            texts(&[
                "__name__=mem\njob=web\ninstance=b:82\nkind=rss",
                "__name__=lat_bucket\njob=web\ninstance=web-1\nle=0.5",
            ])
        },
        run: |bytes| {
            let Some(text) = text(bytes) else { return false };
            let labels = text.lines().filter_map(|line| line.split_once('=')).collect();
            let mut view = SeriesView { labels, ..SeriesView::default() };
            if view.check().is_err() {
                return false;
            }
            let Ok(place) = MAPPER.place(Allowed(u64::MAX), &view) else { return false };
            assert_eq!(place.service, "web");
            assert!(["web-1", "web-2"].contains(&place.instance.as_str()));
            assert!(!place.parts.is_empty());
            true
        },
    }
}

fn entity() -> Entity {
    let service: ServiceSpec = serde_json::from_value(serde_json::json!({
        "instances": [{"name": "web-1"}],
        "indicators": [{"name": "memory", "source": {"gauge": "mem"}, "limit": "64MiB"},
            {"name": "latency", "source": {"gauge": "lat"}}],
    }))
    .unwrap();
    let target = Target {
        tenant: "default".to_owned(),
        service: "web".to_owned(),
        instance: "web-1".to_owned(),
    };
    let lead = Millis::from_secs(600);
    Entity::new(target, "fuzz".to_owned(), &service, &service.instances[0], lead, Now::default())
}

fn feed(entity: &mut Entity, rounds: u64) {
    for round in 1..=rounds {
        let now = Now { mono_ms: round * 5_000, wall: Timestamp(round * 5_000) };
        let values = [("memory", 1e6 + (round * 7_919 % 101) as f64), ("latency", 0.1)];
        let values = values.map(|(name, value)| (name.to_owned(), value)).into();
        entity.on_scrape(Ok(&Values { values, ..Values::default() }), now);
    }
}

/// What another node hands over: taken in, the entity goes on judging.
pub(crate) fn checkpoints() -> Parser {
    Parser {
        name: "checkpoints",
        seeds: || {
            let mut entity = entity();
            feed(&mut entity, 40);
            let now = Now { mono_ms: 200_000, wall: Timestamp(200_000) };
            let carried = Carried::new(medic_state::Epoch(3), &entity.checkpoint(now));
            vec![medic_state::codec::encode(&vec![carried])]
        },
        run: |bytes| {
            let Ok(all) = unpack(bytes) else { return false };
            let mut entity = entity();
            for checkpoint in all.iter().filter_map(|carried| carried.open().ok()) {
                entity.restore(checkpoint, Now::default());
            }
            feed(&mut entity, 20);
            true
        },
    }
}
