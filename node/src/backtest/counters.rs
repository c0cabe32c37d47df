//! Columns that count: judged as rates a second, as they are live.
//!
//! A counter goes by its name, as Prometheus' own do (`_total`, `_count`, `_sum`, `_bucket`), unless its values say
//! otherwise: a counter that falls was reset and begins anew from zero, so one that falls to more than half of what
//! it stood at, or below zero, is a level whatever it is called. Nor is what a manifest declares as another kind of
//! indicator.
//!
//! ```text
//!   requests_total  10  25  40   3  18    fell: its process began anew, and has counted 3 since
//!   a second, at 15 s   -  1.0 1.0 0.2 1.0
//! ```
//!
//! What a column is, is asked of all its values; what a row is worth, of that row and the one before alone.

use medic_state::{Millis, manifest::IndicatorSource};

use super::{
    BacktestError,
    csv::Row,
    watched::{Declared, listed},
};

/// What names of counters end with: the Prometheus text format and OpenMetrics.
const ENDINGS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
/// A counter that has begun anew stands lower than this share of what it was.
const RESET_SHARE: f64 = 0.5;

/// The counters among the metrics of one entity, and where they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    columns: Vec<Counter>,
    /// Between rows without times.
    step: Millis,
    rows_unstamped: i64,
    anew: bool,
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Debug)]
struct Counter {
    at: usize,
    /// When it was seen, milliseconds, and what it stood at.
    last: Option<(i64, f64)>,
    /// The fall, and the row, that no counter has.
    denied: Option<(u64, f64, f64)>,
}

impl Counters {
    /// By name alone; their values have a say yet.
    pub(super) fn named(metrics: &[String], declared: Option<&Declared>, step: Millis) -> Self {
        let is = |name: &str| counts(name) && !declared.is_some_and(|one| is_other(one, name));
        let found = metrics.iter().enumerate().filter(|(_, name)| is(name));
        let columns = found.map(|(at, _)| Counter { at, last: None, denied: None }).collect();
        Self { columns, step, ..Self::default() }
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether the metric of a place is one.
    pub(super) fn has(&self, at: usize) -> bool {
        self.columns.iter().any(|counter| counter.at == at)
    }

    /// Looks at all values of a history for what no counter does.
    pub(super) fn look(
        &mut self,
        mut next: impl FnMut(&mut Row) -> Result<bool, BacktestError>,
    ) -> Result<(), BacktestError> {
        let (mut row, mut number, mut unstamped) = (Row::default(), 0, 0);
        let mut last = vec![None; self.columns.len()];
        while next(&mut row)? {
            let at_ms = time(&row, &mut unstamped, self.step);
            for (counter, last) in self.columns.iter_mut().zip(&mut last) {
                let value = row.values.get(counter.at).copied().unwrap_or(f64::NAN);
                // As for its rate.
                if value.is_nan() || is_late(*last, at_ms) {
                    continue;
                }
                let was = last.replace((at_ms, value)).map_or(f64::NAN, |(_, was)| was);
                let falls = value < was && value > was * RESET_SHARE;
                if value < 0.0 || falls {
                    counter.denied.get_or_insert((number, was, value));
                }
            }
            number += 1;
        }
        Ok(())
    }

    /// Those that their values did not deny, with what is to be known of them.
    pub(super) fn settled(mut self, metrics: &[String]) -> Self {
        let name = |counter: &Counter| metrics.get(counter.at).cloned().unwrap_or_default();
        for counter in &self.columns {
            if let Some((row, from, to)) = counter.denied {
                let does = if to < 0.0 {
                    format!("stands at {to}")
                } else {
                    format!("falls from {from} to {to}")
                };
                self.notes.push(format!(
                    "`{}` has the name of a counter and is none, for it {does} at row {row}: judged as the level \
                     that it stands at",
                    name(counter)
                ));
            }
        }
        self.columns.retain(|counter| counter.denied.is_none());
        if !self.columns.is_empty() {
            let names: Vec<String> = self.columns.iter().map(name).collect();
            self.notes.push(format!(
                "counters by their names, judged as rates a second: {}; a Service that declares one as a gauge has \
                 it judged as it stands",
                listed(&names)
            ));
        }
        self
    }

    /// What follows may begin at any time.
    pub(super) const fn begin_anew(&mut self) {
        self.anew = true;
    }

    /// Puts rates a second in the place of what was counted; nothing where nobody can know.
    pub(super) fn rate(&mut self, row: &mut Row) {
        let at_ms = time(row, &mut self.rows_unstamped, self.step);
        let anew = std::mem::take(&mut self.anew);
        for counter in &mut self.columns {
            if let Some(value) = row.values.get_mut(counter.at) {
                counter.last = counter.last.filter(|(then, _)| !(anew && *then >= at_ms));
                *value = counter.rate(at_ms, *value);
            }
        }
    }
}

impl Counter {
    fn rate(&mut self, at_ms: i64, value: f64) -> f64 {
        if value.is_nan() || is_late(self.last, at_ms) {
            return f64::NAN;
        }
        let Some((then, was)) = self.last.replace((at_ms, value)) else { return f64::NAN };
        let more = if value < was { value } else { value - was };
        more / (at_ms.saturating_sub(then) as f64 / 1e3)
    }
}

/// When a row is; those without times are a step apart.
fn time(row: &Row, unstamped: &mut i64, step: Millis) -> i64 {
    row.at_ms.unwrap_or_else(|| {
        *unstamped += 1;
        unstamped.saturating_mul(i64::try_from(step.0).unwrap_or(i64::MAX))
    })
}

/// Whether a row is no later than the last that said something: it says nothing.
fn is_late(last: Option<(i64, f64)>, at_ms: i64) -> bool {
    last.is_some_and(|(then, _)| then >= at_ms)
}

/// Whether a metric's name is that of a counter: `http_requests_total{code=500}`, but no expression.
fn counts(metric: &str) -> bool {
    let name = metric.split('{').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:.-".contains(c);
    name.chars().all(plain) && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a manifest says that a column is no counter.
fn is_other(declared: &Declared, column: &str) -> bool {
    let known = declared.spec.indicators.iter().find(|one| one.name == column);
    known.is_some_and(|one| !matches!(one.source, IndicatorSource::Rate(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The rates of one column, 15 s apart.
    fn rates(name: &str, values: &[f64]) -> (Vec<f64>, Vec<String>) {
        let rows = values.iter().enumerate().map(|(at, value)| (at as i64 * 15_000, *value));
        rates_at(name, &rows.collect::<Vec<_>>())
    }

    /// The rates of one column that has these values at these milliseconds.
    fn rates_at(name: &str, values: &[(i64, f64)]) -> (Vec<f64>, Vec<String>) {
        let metrics = names(&[name]);
        let row = |(at, value): &(i64, f64)| Row {
            timestamp: String::new(),
            at_ms: Some(*at),
            values: vec![*value],
        };
        let mut rows = values.iter().map(row);
        let mut counters = Counters::named(&metrics, None, Millis(1));
        let look = counters.look(|row| {
            let next = rows.next();
            Ok(next.map(|next| *row = next).is_some())
        });
        look.unwrap();
        let mut counters = counters.settled(&metrics);
        let rated = values.iter().map(row).map(|mut row| {
            counters.rate(&mut row);
            row.values[0]
        });
        (rated.collect(), counters.notes.clone())
    }

    #[test]
    fn a_counter_is_a_rate_and_begins_anew_where_it_falls() {
        let counted = [10.0, 25.0, f64::NAN, 55.0, 3.0, 18.0];
        let (rated, notes) = rates("requests_total{code=200}", &counted);
        assert!(rated[0].is_nan() && rated[2].is_nan(), "nobody knows: {rated:?}");
        assert_eq!((rated[1], rated[3], rated[4], rated[5]), (1.0, 1.0, 0.2, 1.0));
        assert!(
            notes[0].contains("judged as rates a second: `requests_total{code=200}`"),
            "{notes:?}"
        );
    }

    #[test]
    fn what_falls_a_little_is_no_counter_whatever_it_is_called() {
        let levels = [50.0, 52.0, 49.0, 51.0];
        let (kept, notes) = rates("connection_count", &levels);
        assert_eq!(kept, levels);
        assert!(notes[0].contains("falls from 52 to 49 at row 2") && notes.len() == 1, "{notes:?}");
        let (kept, notes) = rates("balance_sum", &[1.0, -1.0]);
        assert_eq!(kept, [1.0, -1.0]);
        assert!(notes[0].contains("stands at -1 at row 1"), "{notes:?}");
        for name in ["load", "totals", "total", "rate(x_total[5m])", "a - b_total"] {
            assert!(!counts(name), "{name}");
        }
    }

    #[test]
    fn a_counter_whose_rows_are_out_of_order_is_one() {
        let mut counted: Vec<(i64, f64)> = (0..60).map(|row| (row * 15_000, row as f64)).collect();
        counted.swap(30, 31);
        // Twice the same time, and nonsense that comes too late to be heard.
        counted.extend([(59 * 15_000, 58.0), (0, -1.0)]);
        let (rated, notes) = rates_at("requests_total", &counted);
        assert!(notes.len() == 1 && notes[0].contains("judged as rates a second"), "{notes:?}");
        for (row, rate) in rated.into_iter().enumerate() {
            let late = [0, 31, 60, 61].contains(&row);
            assert!(if late { rate.is_nan() } else { rate == 1.0 / 15.0 }, "{row}: {rate}");
        }
        // In their order they would say that it is none.
        let (_, notes) = rates_at("requests_total", &[(0, 9.0), (1, 10.0), (2, 9.0)]);
        assert!(notes[0].contains("falls from 10 to 9 at row 2"), "{notes:?}");
    }

    #[test]
    fn rows_without_times_are_a_step_apart_and_rows_out_of_order_say_nothing() {
        let metrics = names(&["a_total", "b"]);
        let mut counters = Counters::named(&metrics, None, Millis::from_secs(2)).settled(&metrics);
        let mut rated = |at_ms, value| {
            let mut row = Row { timestamp: String::new(), at_ms, values: vec![value, value] };
            counters.rate(&mut row);
            assert_eq!(row.values[1], value);
            row.values[0]
        };
        assert!(rated(None, 10.0).is_nan());
        assert_eq!((rated(None, 20.0), rated(Some(8_000), 60.0)), (5.0, 10.0));
        assert!(rated(Some(8_000), 70.0).is_nan() && rated(Some(7_000), 71.0).is_nan());
        assert_eq!(rated(Some(9_000), 80.0), 20.0);
        counters.begin_anew();
        let mut row = Row { timestamp: String::new(), at_ms: Some(1_000), values: vec![5.0, 0.0] };
        counters.rate(&mut row);
        assert!(row.values[0].is_nan(), "another history");
        (row.at_ms, row.values[0]) = (Some(2_000), 6.0);
        counters.rate(&mut row);
        assert_eq!(row.values[0], 1.0);
    }

    #[test]
    fn what_a_manifest_declares_as_a_gauge_is_one() {
        let spec = r#"{"indicators":[{"name":"a_total","source":{"gauge":"a"}},
                                     {"name":"b_total","source":{"rate":"b"}}]}"#;
        let spec = serde_json::from_str(spec).unwrap();
        let declared = Declared { tenant: "t".to_owned(), name: "web".to_owned(), spec };
        let metrics = names(&["a_total", "b_total", "c_total"]);
        let counters = Counters::named(&metrics, Some(&declared), Millis(1));
        assert_eq!([0, 1, 2].map(|at| counters.has(at)), [false, true, true]);
    }
}
