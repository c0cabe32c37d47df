//! What detection costs: the core loop over 100,000 series, and a row of an entity of 38 metrics.
//!
//! Run with `make bench`. Figures depend on the machine; nothing is asserted.
#![allow(missing_docs, reason = "criterion's macros")]

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use medic_node::detection::detector::{Panel, Pulse};

const SERIES: u64 = 100_000;
/// Samples of a message that are looked up before the first is judged: the memory is then waited for once.
const BATCH: usize = 64;
const METRICS: usize = 38;
/// Rows before the panel is measured: its memory is full then.
const ROWS_BEFORE: usize = 4_000;

/// Numbers in 0..1 without a generator's cost in the loop.
fn number(at: u64) -> f64 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Ids are hashes already, as in the table of pushed series: they are their own place in the map.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

fn hashed(id: u64) -> u64 {
    id.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// One point of each series in turn, as scrapes come. Each is looked up by its id, in a map of slots: series
/// that came together lie together.
fn core_loop(c: &mut Criterion) {
    let mut series = vec![Pulse::default(); SERIES as usize];
    let slots: HashMap<u64, usize, BuildHasherDefault<Hashed>> =
        (0..SERIES).map(|slot| (hashed(slot), slot as usize)).collect();
    let mut found = Vec::with_capacity(BATCH);
    let mut round = 0_u64;
    let mut group = c.benchmark_group("core loop, 100,000 series");
    group.throughput(Throughput::Elements(SERIES)).sample_size(10);
    group.bench_function(format!("{} B per series", size_of::<Pulse>()), |b| {
        b.iter(|| {
            round += 1;
            let hour = Some((round / 720 % 24) as u8);
            let mut sum = 0.0;
            for first in (0..SERIES).step_by(BATCH) {
                let ids = first..SERIES.min(first + BATCH as u64);
                found.clear();
                found.extend(ids.clone().map(|id| slots.get(&hashed(id)).copied()));
                for (id, slot) in ids.zip(&found) {
                    if let Some(pulse) = slot.and_then(|slot| series.get_mut(slot)) {
                        sum += pulse.judge(number(id ^ (round << 20)), hour).reach;
                    }
                }
            }
            black_box(sum)
        });
    });
    group.finish();
}

fn panel(c: &mut Criterion) {
    let mut panel = Panel::new(METRICS);
    let mut at = 0_u64;
    let mut row = || {
        at += METRICS as u64;
        let first = at;
        (0..METRICS as u64).map(|metric| number(first + metric)).collect::<Vec<f64>>()
    };
    for _ in 0..ROWS_BEFORE {
        panel.update(None, &row());
    }
    c.bench_function("panel, a row of 38 metrics", |b| {
        b.iter(|| black_box(panel.update(None, &row())));
    });
}

criterion_group!(benches, core_loop, panel);
criterion_main!(benches);
