//! Cases as tables: one row per entity, and one row per case.

use std::collections::{BTreeMap, BTreeSet};

use super::Case;
use crate::learn::Table;

/// A sign must have been seen in this many cases to be looked at.
const SEEN_MIN: usize = 3;
/// Signs looked at, the most frequent first: bounds a row's width.
const SIGNS_MAX: usize = 400;

/// The signs of a set of cases, numbered.
#[derive(Clone, Debug, Default)]
pub(super) struct Vocabulary {
    /// Signs of an entity.
    of_entity: BTreeMap<String, usize>,
    /// Signs of a case: as those, and by service.
    of_case: BTreeMap<String, usize>,
}

impl Vocabulary {
    /// The signs of the cases given.
    pub(super) fn of<'a>(cases: impl Iterator<Item = &'a Case>) -> Self {
        let (mut own, mut whole) = (BTreeMap::new(), BTreeMap::new());
        for case in cases {
            let signs = case.signs.iter().filter(|sign| sign.entity.is_some());
            for what in signs.map(|sign| sign.what.as_str()).collect::<BTreeSet<_>>() {
                *own.entry(what.to_owned()).or_insert(0usize) += 1;
            }
            for what in sums_of_case(case).into_keys() {
                *whole.entry(what).or_insert(0usize) += 1;
            }
        }
        Self { of_entity: numbered(own), of_case: numbered(whole) }
    }

    /// One row per entity.
    pub(super) fn entities(&self, case: &Case) -> Table {
        let signs = self.of_entity.len();
        let mut own = vec![vec![0.0f32; signs]; case.entities.len()];
        let mut all = vec![0.0f32; signs];
        let mut weight = vec![0.0f32; case.entities.len()];
        for sign in &case.signs {
            let Some(&place) = self.of_entity.get(&sign.what) else { continue };
            all[place] += sign.strength;
            if let Some(entity) = sign.entity {
                own[entity][place] += sign.strength;
                weight[entity] += sign.strength;
            }
        }
        let total = weight.iter().sum::<f32>().max(1.0);
        let mut table = Table::new(5 + 4 * signs);
        for entity in 0..case.entities.len() {
            let replicas = replicas(case, entity);
            let neighbours = neighbours(case, entity);
            let sum = |of: &dyn Fn(usize) -> f32, among: &BTreeSet<usize>| -> f32 {
                among.iter().map(|&other| of(other)).sum()
            };
            let mut row = vec![
                weight[entity],
                weight[entity] / total,
                weight.iter().filter(|other| **other > weight[entity]).count() as f32,
                sum(&|other| weight[other], &replicas),
                sum(&|other| weight[other], &neighbours),
            ];
            for place in 0..signs {
                let value = own[entity][place];
                row.extend([
                    value,
                    sum(&|other| own[other][place], &replicas),
                    all[place] - value,
                    sum(&|other| own[other][place], &neighbours),
                ]);
            }
            table.push(row);
        }
        table
    }

    /// One row for the case.
    pub(super) fn case(&self, case: &Case) -> Vec<f32> {
        let mut row = vec![0.0; self.of_case.len()];
        for (what, strength) in sums_of_case(case) {
            if let Some(&place) = self.of_case.get(&what) {
                row[place] = strength;
            }
        }
        row
    }

    /// Numbers in the row of a case.
    pub(super) fn case_width(&self) -> usize {
        self.of_case.len()
    }
}

fn sums_of_case(case: &Case) -> BTreeMap<String, f32> {
    let mut sums: BTreeMap<String, f32> = BTreeMap::new();
    for sign in &case.signs {
        *sums.entry(sign.what.clone()).or_default() += sign.strength;
        if let Some(entity) = sign.entity {
            let of_service = format!("{} {}", case.entities[entity].service, sign.what);
            *sums.entry(of_service).or_default() += sign.strength;
        }
    }
    sums
}

fn numbered(seen: BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let mut frequent: Vec<(String, usize)> =
        seen.into_iter().filter(|(_, cases)| *cases >= SEEN_MIN).collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    frequent.truncate(SIGNS_MAX);
    frequent.into_iter().enumerate().map(|(place, (what, _))| (what, place)).collect()
}

fn replicas(case: &Case, entity: usize) -> BTreeSet<usize> {
    let service = &case.entities[entity].service;
    let same = |other: &usize| *other != entity && case.entities[*other].service == *service;
    (0..case.entities.len()).filter(same).collect()
}

fn neighbours(case: &Case, entity: usize) -> BTreeSet<usize> {
    let other = |&(from, to): &(usize, usize)| match (from == entity, to == entity) {
        (true, false) => Some(to),
        (false, true) => Some(from),
        (true, true) | (false, false) => None,
    };
    case.calls.iter().filter_map(other).collect()
}
