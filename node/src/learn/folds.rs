//! Cross-validation by group: all rows of one drive, engine or case share a fold.

use std::collections::BTreeMap;

use super::chance::Chance;

/// The fold of each row, 0..count. Groups are dealt out in a seeded order, within `kind` evenly, so
/// that rare kinds (failed drives, rare classes) reach every fold.
#[must_use]
pub fn folds<G: Ord, K: Ord>(rows: &[(G, K)], count: usize, seed: u64) -> Vec<usize> {
    let mut kinds: BTreeMap<&G, &K> = BTreeMap::new();
    for (group, kind) in rows {
        let known = kinds.entry(group).or_insert(kind);
        *known = (*known).max(kind);
    }
    let mut by_kind: BTreeMap<&K, Vec<&G>> = BTreeMap::new();
    for (group, kind) in kinds {
        by_kind.entry(kind).or_default().push(group);
    }
    let mut chance = Chance::new(seed);
    let mut fold_of: BTreeMap<&G, usize> = BTreeMap::new();
    let mut turn = 0;
    for groups in by_kind.values_mut() {
        for at in (1..groups.len()).rev() {
            groups.swap(at, chance.below(at + 1));
        }
        for group in groups.iter() {
            fold_of.insert(group, turn % count.max(1));
            turn += 1;
        }
    }
    rows.iter().map(|(group, _)| fold_of.get(group).copied().unwrap_or(0)).collect()
}
