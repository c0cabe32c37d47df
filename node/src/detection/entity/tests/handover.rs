//! An instance whose shard moves, against one that never moved and one whose owner starts cold: the score of its
//! detectors before, through and after, on the same data.

use std::time::Duration;

use super::*;
use crate::detection::{exposition, indicator::Indicators, observe::computed};

/// Rows, 5 s apart: some four hours and a half, and so long that the panel's slow means have begun.
const ROWS: u64 = 3_200;
/// Every so many rows something goes wrong, for so many.
const EVERY: u64 = 150;
const LASTS: u64 = 12;
/// In the middle of a fault.
const MOVES: u64 = 1_205;

#[derive(Clone, Copy, PartialEq)]
enum Heir {
    /// It stays where it is.
    Stays,
    /// Its new owner goes on from the checkpoint.
    Warm,
    /// Its new owner knows nothing.
    Cold,
}

/// Some noise from -1 to 1, the same each time.
fn noise(row: u64, of: u64) -> f64 {
    let mixed = (row * 6 + of + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((mixed >> 40) as f64 / f64::from(1_u32 << 24)) * 2.0 - 1.0
}

fn faulty(row: u64) -> bool {
    row >= EVERY && row % EVERY < LASTS
}

/// What one row was judged as: by each series, by the panel of all, and how far out the one is that is furthest, in
/// deviations.
#[derive(Clone, Debug, PartialEq)]
struct Judged {
    by_series: Vec<(f64, f64, u16)>,
    panel: f64,
    score: f64,
}

/// Judges all rows; the shard moves at [`MOVES`].
fn judged(heir: Heir) -> Vec<Judged> {
    let mut bench = Bench::new();
    let mut all = Vec::new();
    for row in 0..ROWS {
        if row == MOVES && heir != Heir::Stays {
            // As it travels; the clock of the new owner began at another time.
            let told = medic_state::codec::encode(&bench.entity.checkpoint(bench.now));
            let wall = bench.now.wall;
            bench = Bench::new();
            bench.now = Now { mono_ms: 77_000, wall };
            if heir == Heir::Warm {
                let checkpoint = medic_state::codec::decode(&told).unwrap();
                bench.entity.restore(checkpoint, bench.now);
            }
        }
        (0..5).for_each(|_| bench.tick());
        let slow = if faulty(row) { 2.5 } else { 1.0 };
        let errors = (0.002 + 0.002 * noise(row, 0)) + if faulty(row) { 0.03 } else { 0.0 };
        let wave = (row as f64 / 200.0).sin();
        bench.scrape(
            errors,
            0.12 * slow * (1.0 + 0.1 * noise(row, 1)),
            30.0 + 5.0 * wave + noise(row, 2),
        );
        let last = |one: &Series| {
            let judged = &one.last.as_ref().unwrap().judged;
            (judged.z, judged.p_value, judged.streak)
        };
        let by_series: Vec<_> = bench.entity.series.values().map(last).collect();
        let score = by_series.iter().map(|(z, ..)| z.abs()).fold(0.0, f64::max);
        all.push(Judged { by_series, panel: bench.entity.together.score(), score });
    }
    all
}

/// Average precision of the scores of some rows: the mean, over faulty rows, of the share of faulty ones among
/// those that score as high.
fn average_precision(all: &[Judged], rows: std::ops::Range<u64>) -> f64 {
    let mut scored: Vec<(f64, bool)> =
        rows.map(|row| (all[usize::try_from(row).unwrap()].score, faulty(row))).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let (mut found, mut sum) = (0.0, 0.0);
    for (rank, _) in scored.iter().enumerate().filter(|(_, (_, faulty))| *faulty) {
        found += 1.0;
        sum += found / (rank as f64 + 1.0);
    }
    sum / found
}

/// Before, through (the fault it moves in, and the next) and after the handover.
fn scores(all: &[Judged]) -> [f64; 3] {
    [600..MOVES, MOVES..MOVES + 160, MOVES + 160..ROWS]
        .map(|rows| (average_precision(all, rows) * 1e3).round() / 1e3)
}

#[test]
fn a_detector_that_moves_scores_as_one_that_never_moved() {
    let [stays, warm, cold] = [Heir::Stays, Heir::Warm, Heir::Cold].map(judged);
    assert_eq!(warm, stays, "every row is judged alike");
    let panels = |all: &[Judged]| all.iter().map(|row| row.panel).collect::<Vec<_>>();
    let told = panels(&stays).split_off(usize::try_from(MOVES).unwrap());
    assert!(told.iter().any(|score| *score >= 1.0), "the panel has something to tell");
    assert_ne!(panels(&cold), panels(&stays), "and who starts cold tells something else");
    let [stays, warm, cold] = [stays, warm, cold].map(|all| scores(&all));
    assert_eq!(warm, stays);
    assert!(stays.iter().all(|score| *score > 0.95), "{stays:?}");
    // The measure would see a loss: who starts cold misses what is left of the fault, and learns from it.
    assert_eq!(cold[0], stays[0]);
    assert!(cold[1] < stays[1] - 0.2, "cold {cold:?}, warm {warm:?}");
}

/// The new owner forgot what had risen: it took a process that nobody knows for one that had just begun.
#[test]
fn what_rises_goes_on_rising_where_nobody_knows_the_process() {
    let foreseen = |moves: bool| -> Vec<_> {
        let new = || Bench::with_spec(SPEC, r#"{"name":"web-1"}"#);
        let mut bench = new();
        let rows = (0..60_u64).map(|row| {
            if moves && row == 50 {
                let told = medic_state::codec::encode(&bench.entity.checkpoint(bench.now));
                let now = Now { mono_ms: super::super::BEGUN_MS, wall: bench.now.wall };
                bench = new();
                bench.now = now;
                bench.entity.watched_since_ms = now.mono_ms;
                bench.entity.restore(medic_state::codec::decode(&told).unwrap(), now);
            }
            (0..5).for_each(|_| bench.tick());
            bench.scrape(0.0, 0.05, 20.0 + row as f64);
            bench.entity.series["memory"].last.as_ref().unwrap().foreseen
        });
        rows.collect()
    };
    let stays = foreseen(false);
    assert!(stays[49..].iter().all(Option::is_some));
    assert_eq!(foreseen(true), stays);
}

#[test]
fn failures_and_what_is_spent_of_the_budget_travel_too() {
    let mut bench = Bench::with_spec(
        r#"{"slo":{"availability":0.99,"indicator":"error_rate","window":"1h"},
            "indicators":[{"name":"error_rate","source":{"ratio":{"of":"e","to":"r"}}}]}"#,
        r#"{"name":"web-1","agent":"a"}"#,
    );
    for second in 0..2_400_u64 {
        bench.tick();
        bench.process(if second % 600 == 599 { ProcessState::Dead } else { ProcessState::Running });
        if second % 5 == 0 {
            bench.scrape(0.012 + 0.001 * noise(second, 0), 0.1, 20.0);
        }
    }
    let before = bench.entity.forecasts(bench.now);
    let kinds: Vec<&str> = before.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["failure", "performance"], "{before:?}");
    let told = medic_state::codec::encode(&bench.entity.checkpoint(bench.now));
    let mut heir = Bench::with_spec(
        r#"{"slo":{"availability":0.99,"indicator":"error_rate","window":"1h"},
            "indicators":[{"name":"error_rate","source":{"ratio":{"of":"e","to":"r"}}}]}"#,
        r#"{"name":"web-1","agent":"a"}"#,
    );
    heir.now = Now { mono_ms: 5, wall: bench.now.wall };
    assert!(heir.entity.forecasts(heir.now).is_empty());
    heir.entity.restore(medic_state::codec::decode(&told).unwrap(), heir.now);
    assert_eq!(heir.entity.forecasts(heir.now), before);
    // Whoever knows more already keeps it.
    heir.entity.restore(medic_state::codec::decode(&told).unwrap(), heir.now);
    assert_eq!(heir.entity.forecasts(heir.now), before);
}

/// An instance whose memory rises towards its limit, which is foreseen; gives it some seconds later.
fn leaking(spec: Option<&str>) -> Bench {
    let mut bench = Bench::settled();
    for second in 0..20_u32 {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.scrape(0.0, 0.05, 20.0 + 1.5 * f64::from(second));
    }
    assert!(!bench.entity.limits_foretold().is_empty());
    if let Some(limit) = spec {
        let told = bench.entity.checkpoint(bench.now);
        let spec = SPEC.replace("128MiB", limit);
        let mut heir = Bench::with_spec(&spec, r#"{"name":"web-1","agent":"a"}"#);
        heir.now = Now { mono_ms: 77_000, wall: bench.now.wall };
        heir.entity.begun_ms = heir.now.mono_ms;
        let told = medic_state::codec::decode(&medic_state::codec::encode(&told)).unwrap();
        heir.entity.restore(told, heir.now);
        return heir;
    }
    bench
}

/// What becomes of forecasts when the memory is this much after so many seconds.
fn scored(bench: &mut Bench, seconds: u64, memory_mib: f64) -> Vec<(f64, &'static str, bool)> {
    bench.now.mono_ms += seconds * 1_000;
    bench.now.wall = bench.now.wall.plus(Millis(seconds * 1_000));
    for _ in 0..2 {
        bench.tick();
        bench.scrape(0.0, 0.05, memory_mib);
    }
    let scored = bench.entity.take_scored(&bench.circumstances, bench.now);
    scored.into_iter().map(|one| (one.probability, one.outcome.as_str(), one.on_time)).collect()
}

#[test]
fn what_waits_for_its_outcome_is_scored_by_the_next_owner_as_by_one_who_stays() {
    // It comes true; and it does not, which is known after a day.
    for (seconds, memory, outcome) in [(50, 140.0, "came_true"), (86_400, 20.0, "did_not")] {
        let stays = scored(&mut leaking(None), seconds, memory);
        assert_eq!((stays.len(), stays[0].1), (1, outcome), "{stays:?}");
        let mut moves = leaking(Some("128MiB"));
        assert_eq!(scored(&mut moves, seconds, memory), stays);
        assert_eq!(moves.entity.take_scored(&moves.circumstances, moves.now), [], "once");
    }
    // With another limit it is another event: nobody is held to it.
    let other = scored(&mut leaking(Some("160MiB")), 86_400, 20.0);
    assert_eq!(other, []);
}

#[test]
fn a_checkpoint_of_an_older_build_tells_of_nothing_that_waits_and_takes_nothing() {
    let mut bench = leaking(None);
    let mut told = bench.entity.checkpoint(bench.now);
    assert_eq!(told.waited.as_ref().map(Vec::len), Some(1));
    told.waited = None;
    bench.entity.restore(told, bench.now);
    assert_eq!(scored(&mut bench, 86_400, 20.0).len(), 1);
}

const COUNTED: &str = r#"{"indicators":[
  {"name":"error_rate","source":{"ratio":{"of":"requests_total{code=\"500\"}","to":"requests_total"}}},
  {"name":"latency_p50","source":{"quantile":{"histogram":"seconds","q":0.5}}},
  {"name":"traffic","source":{"rate":"requests_total"}}]}"#;

/// An instance whose counters are scraped: its owner, and the process that goes on whoever watches.
struct Counted {
    bench: Bench,
    indicators: Indicators,
    requests: f64,
    errors: f64,
}

impl Counted {
    fn new() -> Self {
        let service: ServiceSpec = serde_json::from_str(COUNTED).unwrap();
        let bench = Bench::with_spec(COUNTED, r#"{"name":"web-1"}"#);
        Self { bench, indicators: Indicators::of(&service), requests: 0.0, errors: 0.0 }
    }

    /// Five seconds later: a scrape, as the watch takes it. Gives what could be judged.
    fn scrape(&mut self, row: u64) -> Vec<(String, Option<f64>)> {
        self.bench.now.mono_ms += 5_000;
        self.bench.now.wall = self.bench.now.wall.plus(Millis(5_000));
        let requests = 500.0 + (20.0 * noise(row, 0)).round();
        self.requests += requests;
        self.errors += if faulty(row) { (requests * 0.1).round() } else { 1.0 };
        let (good, bad) = (self.requests - self.errors, self.errors);
        let (fast, all) = ((self.requests * 0.9).round(), self.requests);
        let body = format!(
            "requests_total{{code=\"200\"}} {good}\nrequests_total{{code=\"500\"}} {bad}\n\
             seconds_bucket{{le=\"0.1\"}} {fast}\nseconds_bucket{{le=\"+Inf\"}} {all}\n"
        );
        let read = exposition::parse(&body, |name| self.indicators.wants(name)).unwrap();
        let at = Duration::from_millis(self.bench.now.mono_ms);
        let (entity, now) = (&mut self.bench.entity, self.bench.now);
        let (values, _) = computed(&self.indicators, &read, at, &mut entity.counters);
        entity.on_scrape(Ok(&values), now);
        let given = |name: &String| (name.clone(), values.values.get(name).copied());
        entity.series.keys().map(given).collect()
    }

    /// Its shard moves to a node whose clock began at another time.
    fn moves(&mut self, service: &str, travels: u64) -> Misfits {
        let told = medic_state::codec::encode(&self.bench.entity.checkpoint(self.bench.now));
        let wall = self.bench.now.wall;
        self.bench = Bench::with_spec(service, r#"{"name":"web-1"}"#);
        self.indicators = Indicators::of(&serde_json::from_str(service).unwrap());
        self.bench.now = Now { mono_ms: travels, wall };
        let checkpoint = medic_state::codec::decode(&told).unwrap();
        self.bench.entity.restore(checkpoint, self.bench.now)
    }
}

#[test]
fn counters_go_on_where_they_were_so_that_the_first_scrape_after_a_handover_is_judged() {
    let mut stays = Counted::new();
    let mut moves = Counted::new();
    for row in 0..900 {
        if row == 605 {
            assert_eq!(moves.moves(COUNTED, 1_077_000), Misfits::default());
        }
        let given = stays.scrape(row);
        assert_eq!(moves.scrape(row), given, "row {row}");
        assert_eq!(given.iter().all(|(_, value)| value.is_some()), row > 0, "row {row}: {given:?}");
        let last = |counted: &Counted| {
            let of =
                |one: &Series| one.last.as_ref().map(|last| (last.judged.z, last.judged.streak));
            counted.bench.entity.series.values().map(of).collect::<Vec<_>>()
        };
        assert_eq!(last(&moves), last(&stays), "row {row}");
    }
    assert_eq!(stays.bench.entity.look_again(), None);
}

#[test]
fn where_no_counters_came_along_a_second_scrape_comes_soon_and_once() {
    let mut cold = Counted::new();
    assert!(cold.scrape(1).iter().all(|(_, value)| value.is_none()));
    assert_eq!(cold.bench.entity.look_again(), Some(Millis(SECOND_MS)));
    assert!(cold.scrape(2).iter().all(|(_, value)| value.is_some()));
    assert_eq!(cold.bench.entity.look_again(), None);
    // Counters of a watch that ended long ago, or of another clock than can be told, are none.
    (3..20).for_each(|row| drop(cold.scrape(row)));
    assert_eq!(cold.moves(COUNTED, 1_000_003), Misfits::default());
    assert!(cold.bench.entity.counters.is_some(), "scraped at the moment it moved");
    cold.bench.now.mono_ms += 121_000;
    let told = cold.bench.entity.checkpoint(cold.bench.now);
    let mut late = Bench::with_spec(COUNTED, r#"{"name":"web-1"}"#);
    late.entity.restore(told, Now { mono_ms: 2_000_000, ..late.now });
    assert!(late.entity.counters.is_none(), "more than two minutes old");
}

#[test]
fn what_was_learnt_of_one_query_is_not_taken_for_another_of_the_same_name() {
    let learnt = |counted: &Counted| counted.bench.entity.checkpoint(counted.bench.now);
    let warm = || {
        let mut counted = Counted::new();
        (0..600).for_each(|row| drop(counted.scrape(row)));
        counted
    };
    // As many indicators, under the same names; one asks for something else.
    let other = COUNTED.replace(r#""rate":"requests_total""#, r#""rate":"bytes_total""#);
    let mut counted = warm();
    assert_eq!(counted.moves(&other, 1_077_000), Misfits { series: 1, panel: 1 });
    assert!(counted.bench.entity.counters.is_none(), "other counters would count from zero");
    let cold = Bench::with_spec(&other, r#"{"name":"web-1"}"#);
    let fresh = cold.entity.checkpoint(cold.now);
    let now = learnt(&counted);
    assert_eq!((&now.panel, &now.series["traffic"]), (&fresh.panel, &fresh.series["traffic"]));
    assert_ne!(now.series["error_rate"], fresh.series["error_rate"], "this one goes on");

    // Renamed: as many columns, another order.
    let renamed = COUNTED.replace("traffic", "arrivals");
    assert_eq!(warm().moves(&renamed, 1_077_000), Misfits { series: 0, panel: 1 });
    // Swapped: each name is there, with the other's query.
    let swapped = COUNTED.replace("latency_p50", "x").replace("error_rate", "latency_p50");
    let swapped = swapped.replace("\"x\"", "\"error_rate\"");
    assert_eq!(warm().moves(&swapped, 1_077_000), Misfits { series: 2, panel: 1 });
    // The same again.
    let mut counted = warm();
    let before = learnt(&counted);
    assert_eq!(counted.moves(COUNTED, 1_077_000), Misfits::default());
    assert_eq!(learnt(&counted).panel, before.panel);
}
