//! What a pushed sample costs, from the snappy block to the detector: figures for `medic-chaos bench`.
//!
//! The very functions of the hub and of the watched entities, on one thread, over services and
//! messages made here: so many gauges with eight labels each, in messages of 2,000 samples, as
//! Prometheus sends them. Times are the thread's own on a core: what else the machine does is not in
//! them. Sockets, and the hand-over to other owners, are not in it either.
//!
//! Memory is what the process holds more than before the first round: manifests, places of series, watched
//! entities. What detectors remember is full after some 2,100 rounds; a node has its consensus and its stores besides.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use medic_api::manifest::parse_bundle;
use medic_state::{
    NodeId, ShardId, State, Timestamp,
    manifest::{Spec, Stored, TenantSpec},
    state::ShardState,
};
use serde::Serialize;

use super::{
    hub::{Tenant, Walk, walk_through},
    mapper::{Allowed, Mapper},
    sample::{NAME, Sample},
    tally::Moment,
    write::{self, BadWrite, Version},
};
use crate::{
    detection::entity::{Entity, Now},
    topology,
};

/// Instances of a service, and indicators of each.
const INSTANCES: usize = 100;
const INDICATORS: usize = 50;
/// Samples of a message, as Prometheus has it.
const SAMPLES: usize = 2_000;
/// Between two rounds, by the senders' clock.
const ROUND_MS: i64 = 15_000;
const ME: NodeId = NodeId(1);
const BEGUN_MS: i64 = 1_700_000_000_000;

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Series, all watched.
    pub series: usize,
    /// Samples, all rounds together.
    pub samples: usize,
    /// Of them, how many reached a detector.
    pub detected: usize,
    /// Bytes of a sample within its snappy block.
    pub bytes_per_sample: f64,
    /// Opening blocks, walking messages, finding series, taking samples.
    pub take_ns: f64,
    /// Adding indicators up and running their detectors, per sample.
    pub detect_ns: f64,
    /// Samples a second on one thread, all of it.
    pub per_second: f64,
    /// Rounds, those that warm up among them: rows that each detector has seen.
    pub rounds: usize,
    /// Resident memory gained, MiB.
    pub resident_mib: f64,
}

/// Sends `rounds` of some `series` through.
///
/// # Errors
/// When a message made here is refused.
pub fn run(series: usize, rounds: usize) -> Result<Cost, String> {
    let services = series.div_ceil(INSTANCES * INDICATORS).max(1);
    let resident = resident_kib(std::process::id())?;
    let state = fleet(services)?;
    let quotas = TenantSpec { max_series: Some(u32::MAX), ..TenantSpec::default() };
    let tenant = Mutex::new(Tenant::of(Mapper::of(&state, "default"), quotas, 0));
    let mut entities = entities(&state);
    let (mut cost, mut bytes) = (Cost::none(entities.len() * INDICATORS), 0);
    let (mut taking, mut detecting) = (Duration::ZERO, Duration::ZERO);
    // The first rounds find places and warm the detectors; they are not counted.
    let warm = rounds.div_ceil(4).min(3);
    for round in 0..rounds + warm {
        let at_ms = BEGUN_MS + ROUND_MS * i64::try_from(round).unwrap_or_default();
        let mono_ms = at_ms.abs_diff(BEGUN_MS);
        let blocks = blocks(services, at_ms)?;
        let moment = Moment { mono_ms, wall_ms: at_ms };
        let walk = Walk {
            owners: vec![Some(ME); medic_state::state::SHARDS as usize],
            me: ME,
            allowed: Allowed(u64::MAX),
            now: moment,
            last: false,
        };
        let begun = cpu_time()?;
        let mut taken = 0;
        for block in &blocks {
            taken += take(&tenant, block, &walk).map_err(|error| error.to_string())?;
        }
        let took = cpu_time()?.saturating_sub(begun);
        let begun = cpu_time()?;
        let now = Now { mono_ms: mono_ms + 1_000, wall: Timestamp(at_ms.unsigned_abs()) };
        let detected = detect(&tenant, &mut entities, now);
        let done = cpu_time()?;
        if round >= warm {
            taking += took;
            detecting += done.saturating_sub(begun);
            bytes += blocks.iter().map(Vec::len).sum::<usize>();
            cost.samples += usize::try_from(taken).unwrap_or_default();
            cost.detected += detected;
        }
    }
    cost.rounds = rounds + warm;
    cost.resident_mib = resident_kib(std::process::id())?.saturating_sub(resident) as f64 / 1024.0;
    let samples = cost.samples.max(1) as f64;
    cost.bytes_per_sample = bytes as f64 / samples;
    cost.take_ns = taking.as_secs_f64() * 1e9 / samples;
    cost.detect_ns = detecting.as_secs_f64() * 1e9 / samples;
    cost.per_second = samples / (taking + detecting).as_secs_f64().max(1e-9);
    Ok(cost)
}

impl Cost {
    const fn none(series: usize) -> Self {
        Self {
            series,
            samples: 0,
            detected: 0,
            bytes_per_sample: 0.0,
            take_ns: 0.0,
            detect_ns: 0.0,
            per_second: 0.0,
            rounds: 0,
            resident_mib: 0.0,
        }
    }
}

/// Time that this thread has had a core (Linux: the scheduler's statistics).
fn cpu_time() -> Result<Duration, String> {
    const PATH: &str = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    let nanos = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| format!("{PATH} says `{text}`"))
}

/// Memory of a process that is in RAM, KiB (Linux).
///
/// # Errors
/// When there is no such process, or its memory is not told.
pub fn resident_kib(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or_else(|| format!("{path} names no VmRSS"))
}

fn take(tenant: &Mutex<Tenant>, block: &[u8], walk: &Walk) -> Result<u64, BadWrite> {
    let message = write::open(block)?;
    write::survey(Version::V1, &message)?;
    Ok(walk_through(tenant, Version::V1, &message, walk)?.counts.known())
}

fn detect(tenant: &Mutex<Tenant>, entities: &mut [(String, String, Entity)], now: Now) -> usize {
    let mut detected = 0;
    for (service, instance, entity) in entities {
        let values = crate::detection::runtime::lock(tenant).values(service, instance, now.mono_ms);
        detected += values.as_ref().map_or(0, |values| values.values.len());
        entity.on_pushed(values.as_ref(), now);
    }
    detected
}

fn fleet(services: usize) -> Result<State, String> {
    let mut text = "apiVersion: medic/v1\nkind: Source\nmetadata: {name: prom}\n\
                    spec: {type: remote-write, serviceLabel: job}\n"
        .to_owned();
    for service in 0..services {
        text.push_str(&format!(
            "---\napiVersion: medic/v1\nkind: Service\nmetadata: {{name: service-{service}}}\nspec:\n  instances:\n"
        ));
        for instance in 0..INSTANCES {
            text.push_str(&format!("    - {{name: i{instance}, host: h{instance}, port: 80}}\n"));
        }
        text.push_str("  indicators:\n");
        for indicator in 0..INDICATORS {
            text.push_str(&format!(
                "    - {{name: gauge{indicator}, source: {{gauge: some_measured_value_{indicator}}}}}\n"
            ));
        }
    }
    let manifests = parse_bundle(&text)
        .map_err(|problems| problems.first().map_or_else(String::new, ToString::to_string))?;
    let mut state = State::new();
    for (index, manifest) in (1..).zip(manifests) {
        let stored = Stored {
            digest: manifest.digest(),
            manifest: Arc::new(manifest),
            index,
            by: "user:bench".to_owned(),
            at: Timestamp(0),
        };
        state.manifests.insert(stored.manifest.key(), stored);
    }
    for shard in 0..medic_state::state::SHARDS {
        let owned = ShardState { owner: Some(ME), ..ShardState::default() };
        state.shards.insert(ShardId(shard), owned);
    }
    Ok(state)
}

fn entities(state: &State) -> Vec<(String, String, Entity)> {
    let mut entities = Vec::new();
    for (key, stored) in &state.manifests {
        let Spec::Service(spec) = &stored.manifest.spec else { continue };
        for instance in &spec.instances {
            let target = topology::target("default", &key.name, &instance.name);
            let lead = medic_state::Millis::from_secs(600);
            let entity =
                Entity::new(target, "bench".to_owned(), spec, instance, lead, Now::default());
            entities.push((key.name.clone(), instance.name.clone(), entity));
        }
    }
    entities
}

/// One round: a sample of every series.
fn blocks(services: usize, at_ms: i64) -> Result<Vec<Vec<u8>>, String> {
    let (mut blocks, mut message, mut count) = (Vec::new(), Vec::new(), 0);
    let mut close = |message: &mut Vec<u8>| {
        let block = snap::raw::Encoder::new().compress_vec(message);
        message.clear();
        block.map(|block| blocks.push(block)).map_err(|error| error.to_string())
    };
    for service in 0..services {
        let job = format!("service-{service}");
        for instance in 0..INSTANCES {
            let address = format!("h{instance}:80");
            for indicator in 0..INDICATORS {
                let name = format!("some_measured_value_{indicator}");
                let labels = [
                    (NAME, name.as_str()),
                    ("cluster", "production-eu-west-1"),
                    ("container", "application"),
                    ("instance", address.as_str()),
                    ("job", job.as_str()),
                    ("namespace", "customer-facing"),
                    ("pod", "application-7d9c6c5b9-x2k4p"),
                    ("team", "checkout"),
                ];
                // Noise without a generator: digits of a quadratic residue.
                let noise = (at_ms / ROUND_MS + 31 * instance as i64 + 7 * indicator as i64).pow(2);
                let value = 100.0 + (noise % 17) as f64;
                write::put_series(&mut message, labels.into_iter(), &[Sample { at_ms, value }]);
                count += 1;
                if count % SAMPLES == 0 {
                    close(&mut message)?;
                }
            }
        }
    }
    if !message.is_empty() {
        close(&mut message)?;
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_sample_reaches_its_detector() {
        let cost = run(5_000, 2).unwrap();
        assert_eq!((cost.series, cost.samples, cost.detected), (5_000, 10_000, 10_000));
        assert!(cost.per_second > 0.0 && cost.bytes_per_sample > 1.0);
        assert_eq!(cost.rounds, 3);
        assert!(cost.resident_mib > 1.0, "{cost:?}");
    }
}
