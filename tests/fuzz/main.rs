//! Fuzzing of every parser that is ours, with a bounded number of cases, so that it runs with all tests.
//!
//! Good inputs are damaged by a generator with a fixed seed: the same cases on every machine.
//! `MEDIC_FUZZ_CASES` sets how many (per parser). The same parsers stand behind libFuzzer, which is led by
//! coverage, in `libfuzzer/` (see its manifest).
//!
//! | what is read | by | target |
//! |---|---|---|
//! | remote write, OTLP, snappy, gRPC's frames | `node/src/detection/intake`, `api/src/http` | `remote_write_1`, `remote_write_2`, `metrics`, `logs`, `otlp_json`, `snappy`, `frames` |
//! | scrapes, PromQL's answers, lists of targets, DNS | `node/src/detection/exposition.rs`, `intake/{promql,discovery,srv}.rs` | `exposition`, `promql`, `discovery`, `srv` |
//! | alerts, events of Kubernetes | `api/src/http/alerts.rs`, `intake/kube/wire.rs` | `alerts`, `kubernetes` |
//! | labels: whose a series is, and who selects it | `intake/mapper.rs`, `raft/state/src/matcher.rs` | `mapper`, `matchers`, `selectors` |
//! | manifests, and words in them | `api/src/manifest`, `raft/state/src/{ids,manifest}` | `manifests`, `quantities`, `words` |
//! | what nodes tell each other: consensus | `raft/src/wire.rs` | `raft` |
//! | and parcels: what was learnt, is foreseen, how instances do | `node/src/detection/{entity/carried,foresight,health/book}` | `checkpoints`, `predictions`, `healths_told` |
//! | the law's entries, records, state | `raft/state/src/{codec,form}.rs`, `law/snapshot.rs` | `commands`, `records`, `snapshots` |
//! | files of a node: snapshots, RocksDB's log | `raft/src/store/{snapshot,wal}.rs` | `snapshot_files`, `logs_of_stores` |
//! | an agent's journal | `node/src/action/agent/record.rs` | `journals` |
//! | an audit chain that was exported | `node/src/cli/chain.rs` | `links` |
//! | recordings for backtests | `node/src/backtest/{series,csv}.rs` | `recordings`, `tables` |
//!
//! Without one: what the kernel says (`/proc`: `node/src/action/agent/{procfs,guard,host}`), files that one build of
//! ours writes whole and serde alone reads (an agent's `state.json`, a context of the CLI), tokens of pages, and what
//! libraries parse (CEL, certificates, TLS, HTTP, YAML, JSON).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail where it stands")]

mod damage;
mod parsers;

use damage::Damage;

/// Cases of one parser, where `MEDIC_FUZZ_CASES` does not say.
const CASES: u64 = 2_000;

fn cases() -> u64 {
    std::env::var("MEDIC_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// Good inputs, each of which is taken, and damaged ones, each of which is taken or refused.
fn fuzz(parser: &parsers::Parser) {
    let seeds = (parser.seeds)();
    for seed in &seeds {
        assert!((parser.run)(seed), "{}: a good input is refused", parser.name);
    }
    let mut damage = Damage::new(parser.name);
    let (mut taken, cases) = (0, cases());
    for case in 0..cases {
        let input = damage.done_to(&seeds);
        let ran = std::panic::catch_unwind(|| (parser.run)(&input));
        match ran {
            Ok(good) => taken += u64::from(good),
            Err(_) => {
                let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("{}, case {case}: panicked over {hex}", parser.name);
            }
        }
    }
    // Else the damage is too small or too large to find anything.
    assert!(taken < cases, "{}: everything is taken", parser.name);
    assert!(taken > 0, "{}: nothing is taken", parser.name);
}

macro_rules! fuzzed {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                fuzz(&parsers::$name());
            }
        )+

        #[test]
        fn every_parser_has_a_libfuzzer_target() {
            let manifest = include_str!("libfuzzer/Cargo.toml");
            for name in [$(stringify!($name)),+] {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has none");
            }
        }
    };
}

fuzzed!(
    alerts,
    checkpoints,
    commands,
    discovery,
    exposition,
    frames,
    healths_told,
    journals,
    kubernetes,
    links,
    logs,
    logs_of_stores,
    manifests,
    mapper,
    matchers,
    metrics,
    otlp_json,
    predictions,
    promql,
    quantities,
    raft,
    recordings,
    records,
    remote_write_1,
    remote_write_2,
    selectors,
    snappy,
    snapshot_files,
    snapshots,
    srv,
    tables,
    words,
);
