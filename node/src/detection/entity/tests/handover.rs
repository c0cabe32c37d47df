//! An instance whose shard moves, against one that never moved and one whose owner starts cold: the score of its
//! detectors before, through and after, on the same data.

use super::*;

/// Rows, 5 s apart: some three hours.
const ROWS: u64 = 2_400;
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

/// What one row was judged as: by each series, and how odd all together are.
#[derive(Clone, Debug, PartialEq)]
struct Judged {
    by_series: Vec<(f64, f64, u16)>,
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
        all.push(Judged { by_series, score });
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
    let [stays, warm, cold] = [stays, warm, cold].map(|all| scores(&all));
    assert_eq!(warm, stays);
    assert!(stays.iter().all(|score| *score > 0.95), "{stays:?}");
    // The measure would see a loss: who starts cold misses what is left of the fault, and learns from it.
    assert_eq!(cold[0], stays[0]);
    assert!(cold[1] < stays[1] - 0.2, "cold {cold:?}, warm {warm:?}");
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
