//! What one entry costs: apply, encode, decode; and a snapshot of a state with 500 incidents.
//!
//! Run with `make bench`. Figures depend on the machine; nothing is asserted.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a broken bench should stop"
)]

use std::{collections::BTreeMap, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use medic_state::{
    BootId, Command, Entry, NodeId, Ppm, ShardId, State, Timestamp, TraceId, codec,
    command::{AssignShards, RegisterNode, ReportSymptom},
    rbac::Principal,
    symptom::{Severity, Signal, Symptom, Target},
};

const NODE: NodeId = NodeId(1);
/// Incidents in the state that is measured.
const INCIDENTS: u32 = 500;

fn entry(at: u64, command: Command) -> Entry {
    let principal = Principal::node(NODE);
    Entry { at: Timestamp(at), principal, request: None, trace: TraceId::default(), command }
}

fn report(state: &State, service: u32) -> Command {
    let target = Target {
        tenant: "default".to_owned(),
        service: format!("service-{service}"),
        instance: "one".to_owned(),
    };
    let shard = State::shard_of(&target);
    let signal = Signal {
        name: "probe.http_ok".to_owned(),
        value: "0".to_owned(),
        expected: "1".to_owned(),
        detector: "probe".to_owned(),
        p_value: Ppm(10_000),
    };
    let symptom = Symptom {
        target,
        kind: "down".to_owned(),
        severity: Severity::Critical,
        summary: "connection refused".to_owned(),
        p_value: Ppm(1),
        signals: vec![signal; 3],
        since: Timestamp(0),
        time_to_event: None,
        labels: BTreeMap::from([("process".to_owned(), "dead".to_owned())]),
        source: shard.to_string(),
    };
    let epoch = state.shards.get(&shard).map(|shard| shard.epoch).unwrap_or_default();
    Command::ReportSymptom(ReportSymptom { shard, epoch, symptom })
}

fn populated() -> State {
    let mut state = State::new();
    let register = Command::RegisterNode(RegisterNode {
        node: NODE,
        region: String::new(),
        api_addr: "127.0.0.1:1".to_owned(),
        boot: BootId(1),
        version: "bench".to_owned(),
        understands: None,
        weight: None,
    });
    let moves = (0..medic_state::state::SHARDS).map(|shard| (ShardId(shard), NODE)).collect();
    let assign = Command::AssignShards(AssignShards { moves });
    for (index, command) in (1..).zip([register, assign]) {
        state.apply(index, &entry(1, command)).answer.unwrap();
    }
    for service in 0..INCIDENTS {
        let command = report(&state, service);
        state.apply(state.applied + 1, &entry(2, command)).answer.unwrap();
    }
    state
}

fn law(c: &mut Criterion) {
    let mut state = populated();
    let repeat = entry(3, report(&state, 7));
    let bytes = codec::encode(&repeat);
    c.bench_function("apply a repeated report among 500 incidents", |b| {
        b.iter(|| {
            let index = state.applied + 1;
            black_box(state.apply(index, &repeat))
        });
    });
    c.bench_function("pending effects of 500 open incidents", |b| {
        b.iter(|| black_box(state.pending_effects()));
    });
    c.bench_function("encode a report", |b| b.iter(|| black_box(codec::encode(&repeat))));
    c.bench_function("decode a report", |b| {
        b.iter(|| black_box(codec::decode::<Entry>(&bytes).unwrap()));
    });
    c.bench_function("encode a state of 500 incidents", |b| {
        b.iter(|| black_box(codec::encode(&state)));
    });
}

criterion_group!(benches, law);
criterion_main!(benches);
