//! Trees, forests and calibration on small histories.

#![allow(clippy::unwrap_used)]

use super::*;

const GROWTH: Growth = Growth { leaves: 8, weight_min: 1e-3, rows_min: 2, lambda: 1.0 };
const SETTINGS: Settings =
    Settings { rounds: 60, rate: 0.2, rows: 0.7, columns: 1.0, growth: GROWTH, seed: 5 };

/// Rows of (x, noise), and whether x is above a half, with some of x not known.
fn steps(seed: u64, rows: usize) -> (Table, Vec<f32>) {
    let mut chance = Chance::new(seed);
    let (mut table, mut targets) = (Table::new(2), Vec::new());
    for at in 0..rows {
        let x = chance.unit() as f32;
        let known = at % 10 != 0;
        table.push([if known { x } else { f32::NAN }, chance.unit() as f32]);
        targets.push(if known { f32::from(u8::from(x > 0.5)) } else { 1.0 });
    }
    (table, targets)
}

#[test]
fn boosting_learns_a_step_and_what_is_missing() {
    let (table, targets) = steps(1, 600);
    let rows: Vec<usize> = (0..600).collect();
    let weights = vec![1.0; 600];
    let model = Boost::fit(&table, &rows, (&targets, &weights), Loss::Event, &SETTINGS);
    let mut asked = Table::new(2);
    asked.push([0.2, 0.9]);
    asked.push([0.8, 0.1]);
    asked.push([f32::NAN, 0.5]);
    let p = model.predict(&asked);
    assert!(p[0] < 0.1 && p[1] > 0.9 && p[2] > 0.9, "{p:?}");
}

#[test]
fn equal_histories_and_seeds_give_equal_models() {
    let (table, targets) = steps(2, 300);
    let rows: Vec<usize> = (0..300).collect();
    let weights = vec![1.0; 300];
    let fit = |seed| {
        let settings = Settings { seed, ..SETTINGS };
        Boost::fit(&table, &rows, (&targets, &weights), Loss::Event, &settings).predict(&table)
    };
    assert_eq!(fit(1), fit(1));
    assert_ne!(fit(1), fit(2));
    let grow = |seed| {
        let aims = Aims { outputs: 1, targets: &targets, weights: &weights };
        let shape = Shape { trees: 10, columns: 1.0, leaf_min: 1, seed };
        Forest::fit(&table, &rows[..200], aims, &shape).predict(&table)
    };
    assert_eq!(grow(1), grow(1));
    assert_ne!(grow(1), grow(2));
}

#[test]
fn weights_count_like_rows() {
    // The same x with both outcomes: the probability is the weighted share.
    let mut table = Table::new(1);
    let (mut targets, mut weights) = (Vec::new(), Vec::new());
    for at in 0..200 {
        table.push([1.0]);
        targets.push(f32::from(u8::from(at % 2 == 0)));
        weights.push(if at % 2 == 0 { 3.0 } else { 1.0 });
    }
    let rows: Vec<usize> = (0..200).collect();
    let p = Boost::fit(&table, &rows, (&targets, &weights), Loss::Event, &SETTINGS).predict(&table);
    assert!((p[0] - 0.75).abs() < 0.02, "{}", p[0]);
}

#[test]
fn a_forest_tells_classes_apart() {
    let (table, targets) = steps(3, 400);
    let shares: Vec<f32> = targets.iter().flat_map(|&target| [target, 1.0 - target]).collect();
    let weights = vec![1.0; 400];
    let (train, asked): (Vec<usize>, Vec<usize>) = (0..400).partition(|row| row % 4 != 0);
    let aims = Aims { outputs: 2, targets: &shares, weights: &weights };
    let shape = Shape { trees: 50, columns: 0.5, leaf_min: 1, seed: 1 };
    let forest = Forest::fit(&table, &train, aims, &shape);
    let found = forest.predict(&table.only(&asked));
    let right = asked
        .iter()
        .zip(found.chunks(2))
        .filter(|(row, p)| (p[0] > p[1]) == (targets[**row] > 0.5))
        .count();
    assert!(right * 10 >= asked.len() * 9, "{right} of {}", asked.len());
    assert!(found.chunks(2).all(|p| (p[0] + p[1] - 1.0).abs() < 1e-4));
}

#[test]
fn folds_keep_groups_whole_and_kinds_even() {
    let rows: Vec<(u32, bool)> = (0..1000).map(|row| (row / 10, row / 10 % 20 == 0)).collect();
    let fold = folds(&rows, 5, 1);
    for group in fold.chunks(10) {
        assert!(group.iter().all(|fold| *fold == group[0]));
    }
    for turn in 0..5 {
        let rare = rows.iter().zip(&fold).filter(|(row, fold)| row.1 && **fold == turn).count();
        assert_eq!(rare, 10, "fold {turn}");
    }
}

#[test]
fn steps_part_values_and_know_the_unknown() {
    let mut table = Table::new(1);
    (0..5000).for_each(|value| table.push([value as f32]));
    table.push([f32::NAN]);
    let rows: Vec<usize> = (0..5001).collect();
    let binned = Bins::of(&table, &rows, table::STEPS_MAX).apply(&table);
    assert_eq!(binned.row(5000), [0]);
    let steps: std::collections::BTreeSet<u8> = binned.cells[..5000].iter().copied().collect();
    assert!(steps.len() > 240 && !steps.contains(&0), "{} steps", steps.len());
    assert!(binned.cells[..5000].is_sorted());
}

#[test]
fn calibration_is_monotone_and_hits_the_shares() {
    let seen = |score: f32, right: usize, of: usize| {
        (0..of).map(move |at| (score, f32::from(u8::from(at < right)), 1.0))
    };
    let pairs =
        seen(0.2, 1, 10).chain(seen(0.5, 3, 10)).chain(seen(0.6, 1, 10)).chain(seen(0.9, 9, 10));
    let curve = Isotonic::fit(pairs.collect());
    assert!((curve.at(0.2) - 0.1).abs() < 1e-6);
    // 0.5 and 0.6 are the wrong way round: both become their common share.
    assert!((curve.at(0.55) - 0.2).abs() < 1e-6);
    assert!((curve.at(1.0) - 0.9).abs() < 1e-6);
    assert!(curve.at(0.7) > curve.at(0.55) && curve.at(0.7) < 0.9);
    assert_eq!(Isotonic::default().at(0.3), 0.3);
}
