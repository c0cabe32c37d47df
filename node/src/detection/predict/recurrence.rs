//! How the hazard of a component goes on after a failure, learnt from all components of a service.
//!
//! Time after a failure is cut into periods, each with a hazard of its own; and those who failed three times
//! within a day are apart. The hazard of a component in a cell is its own constant rate times the ratio of
//! the cell: failures seen there, over those that the constant rates of their components would have
//! had there. So a service whose processes crash in bursts is calm once one is over, and one that wears
//! out is calm at first. Discrete-time hazards: Singer and Willett, "It's about time" (1993); ratios of
//! observed to expected: Breslow and Day, "Statistical methods in cancer research" II (1987), chapter 2.
//!
//! A ratio is shrunk towards that of the tenant, and that towards one: without a history of many, a rate
//! that is constant is what remains. Bounded: a dozen sums a service.

/// Ends of the periods, seconds since the last failure.
const PERIODS: [f64; 6] = [3_600.0, 14_400.0, 57_600.0, 230_400.0, 604_800.0, f64::INFINITY];
/// Cells: each period, and each period of those that fail often.
pub const CELLS: usize = 2 * PERIODS.len();
/// Failing often: so many times, the last included, ...
const OFTEN: usize = 3;
/// ... within this time.
const OFTEN_WITHIN: f64 = 86_400.0;
/// Expected failures that the ratio of a cell is shrunk with.
const SHRUNK_BY: f64 = 1.0;

/// Ratio of the hazard in each cell to the constant rate of the same component.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratios([f64; CELLS]);

impl Default for Ratios {
    /// All constant.
    fn default() -> Self {
        Self([1.0; CELLS])
    }
}

impl Ratios {
    /// Of a cell.
    #[must_use]
    pub fn of(&self, cell: usize) -> f64 {
        self.0.get(cell).copied().unwrap_or(1.0)
    }
}

/// Failures seen, and those that constant rates expect, by cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    seen: [f64; CELLS],
    expected: [f64; CELLS],
}

impl Baseline {
    /// Takes in a component: its failures in order, watched until `until` (seconds), at its constant rate.
    pub fn note(&mut self, failures: &[f64], until: f64, rate: f64) {
        stretches(failures, until, |cell, from, to| self.expected[cell] += rate * (to - from));
        for at in 1..failures.len() {
            self.seen[cell(&failures[..at], failures[at])] += 1.0;
        }
    }

    /// Takes in what others have noted.
    pub fn add(&mut self, other: &Self) {
        for at in 0..CELLS {
            self.seen[at] += other.seen[at];
            self.expected[at] += other.expected[at];
        }
    }

    /// The ratios, shrunk towards those of `wider`.
    #[must_use]
    pub fn ratios(&self, wider: &Ratios) -> Ratios {
        let of = |at: usize| {
            let (seen, expected) = (self.seen[at], self.expected[at]);
            (seen + SHRUNK_BY * wider.0[at]) / (expected + SHRUNK_BY)
        };
        Ratios(std::array::from_fn(of))
    }
}

/// The cell of a component at a time, which has failed at these times before.
#[must_use]
pub fn cell(failures: &[f64], at: f64) -> usize {
    let age = failures.last().map_or(f64::INFINITY, |last| at - last);
    let period = PERIODS.iter().position(|end| age < *end).unwrap_or(PERIODS.len() - 1);
    let often = at < often_until(failures);
    period + if often { PERIODS.len() } else { 0 }
}

/// Until when a component counts as failing often.
fn often_until(failures: &[f64]) -> f64 {
    let first = failures.len().checked_sub(OFTEN).and_then(|at| failures.get(at));
    first.map_or(f64::NEG_INFINITY, |first| first + OFTEN_WITHIN)
}

/// The stretches of time after the first failure, each in one cell: (cell, from, to).
pub fn stretches(failures: &[f64], until: f64, mut each: impl FnMut(usize, f64, f64)) {
    for at in 0..failures.len() {
        let end = failures.get(at + 1).copied().unwrap_or(until).min(until);
        after(&failures[..=at], failures[at], end, &mut each);
    }
}

/// The stretches from a time after the last failure to another without a further one.
pub fn after(failures: &[f64], from: f64, until: f64, mut each: impl FnMut(usize, f64, f64)) {
    let Some(last) = failures.last() else { return };
    let often = often_until(failures);
    let ends = PERIODS.iter().map(|end| last + end).chain([often]);
    let mut cuts: Vec<f64> = ends.filter(|at| *at > from && *at < until).collect();
    cuts.sort_unstable_by(f64::total_cmp);
    let mut start = from;
    for end in cuts.into_iter().chain([until]) {
        if end > start {
            each(cell(failures, f64::midpoint(start, end)), start, end);
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: f64 = 3_600.0;

    #[test]
    fn time_is_cut_where_the_hazard_changes_and_none_of_it_is_lost() {
        let failures = [0.0, 2.0 * HOUR, 3.0 * HOUR];
        let mut all = Vec::new();
        stretches(&failures, 30.0 * HOUR, |cell, from, to| all.push((cell, from, to)));
        assert_eq!(all[..2], [(0, 0.0, HOUR), (1, HOUR, 2.0 * HOUR)]);
        assert!(all.iter().any(|(cell, ..)| *cell >= PERIODS.len()), "three within a day: {all:?}");
        assert!(all.windows(2).all(|two| two[0].2 == two[1].1), "{all:?}");
        assert_eq!(all.last().map(|(cell, _, to)| (*cell, *to)), Some((3, 30.0 * HOUR)));
    }

    #[test]
    fn ratios_are_those_seen_over_those_expected() {
        let mut service = Baseline::default();
        // In bursts: two more within the hour, and then none for long.
        for _ in 0..50 {
            service.note(&[0.0, 600.0, 1_200.0], 1e6, 3.0 / 1e6);
        }
        let ratios = service.ratios(&Ratios::default());
        assert!(ratios.of(0) > 30.0 && ratios.of(4) < 0.1, "{ratios:?}");
        let other = Baseline::default().ratios(&ratios);
        assert_eq!(other, ratios, "who knows nothing goes by the tenant");
        let mut twice = service.clone();
        twice.add(&service);
        assert!(twice.ratios(&Ratios::default()).of(0) > ratios.of(0));
    }
}
