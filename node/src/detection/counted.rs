//! Figures computed from events that were counted, and how much so few of them prove.
//!
//! One failure of eleven requests is 9 %, and says hardly anything; of eleven thousand it says a lot.
//! So a share and a quantile come with the least that the true figure can be taken for
//! ([`Measured::at_least`]), and detectors hold that against limits and against what is usual.

/// Why there is no figure: no series is there.
pub(super) const NO_SERIES: &str = "no series matches";
/// Series are there, and say that they are not a number.
pub(super) const NOT_A_NUMBER: &str = "its series are not a number (NaN)";
/// Nothing was counted, so there is no share.
pub(super) const NOTHING_COUNTED: &str = "nothing was counted since the last scrape";
/// Nothing was observed, so there is no quantile.
pub(super) const NOTHING_OBSERVED: &str = "nothing was observed since the last scrape";

/// One-sided 99 % quantile of the normal distribution.
const Z: f64 = 2.326;

/// A figure of one scrape or push.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// As measured.
    pub value: f64,
    /// With 99 % confidence the true figure is at least this, `0 <= at_least <= value` for figures of
    /// counted events; for all others the value itself.
    pub at_least: f64,
}

impl Measured {
    /// A figure that is no estimate.
    #[must_use]
    pub const fn exact(value: f64) -> Self {
        Self { value, at_least: value }
    }

    /// What speaks for a figure above the usual: never less than the usual, never more than was seen.
    #[must_use]
    pub fn above(self, usual: f64) -> f64 {
        if self.value > usual {
            self.at_least.clamp(usual.min(self.value), self.value)
        } else {
            self.value
        }
    }
}

/// So many events of so many; `None` when there were none to choose from.
///
/// The bound is Wilson's: "Probable inference, the law of succession, and statistical inference",
/// J. American Statistical Association 22 (1927).
pub(super) fn share(of: f64, to: f64) -> Option<Measured> {
    if to.is_nan() || to <= 0.0 {
        return None;
    }
    let share = of / to;
    // Counters of which one is no part of the other can give more than everything.
    let p = share.clamp(0.0, 1.0);
    let z2 = Z * Z / to;
    let half = Z * (p * (1.0 - p) / to + z2 / (4.0 * to)).sqrt();
    let bound = ((p + z2 / 2.0 - half) / (1.0 + z2)).max(0.0);
    Some(Measured { value: share, at_least: if share > 1.0 { share } else { bound.min(share) } })
}

/// Prometheus' `histogram_quantile` for classic histograms: linear within the bucket; in the last,
/// unbounded one its lower bound; the first bucket begins at 0 when its bound is positive. `buckets`:
/// upper bounds, ascending, with cumulative counts.
///
/// The bound is an order statistic: the value that so many lie at or beyond as would lie beyond the true
/// quantile once in a hundred times; Conover, "Practical Nonparametric Statistics" (1999), section 3.2.
pub(super) fn quantile(q: f64, buckets: &[(f64, f64)]) -> Result<Measured, &'static str> {
    let counts = cumulative(buckets)?;
    let total = counts.last().copied().unwrap_or_default();
    let value = at_rank(q * total, buckets, &counts);
    let rank = total - beyond(total, q) + 1.0;
    let at_least = if rank >= 1.0 {
        at_rank(rank.min(q * total), buckets, &counts).min(value)
    } else {
        0.0_f64.min(value)
    };
    Ok(Measured { value, at_least })
}

/// Of `total` values as many as lie beyond the q-quantile with a probability of at most 1 %: exact for the binomial
/// distribution while some thirty are expected, then by its normal approximation. More than there are, where
/// all of them would prove nothing.
fn beyond(total: f64, q: f64) -> f64 {
    const RARE: f64 = 0.01;
    const MANY: f64 = 30.0;
    let expected = total * (1.0 - q);
    if expected > MANY || q <= 0.0 {
        return expected + Z * (expected * q.max(0.0)).sqrt();
    }
    // P(X = k), and P(X > k) so far.
    let mut mass = (total * q.ln()).exp();
    let mut tail = 1.0 - mass;
    let mut count = 1.0;
    while tail > RARE && count <= total {
        mass *= (total - count + 1.0) / count * (1.0 - q) / q;
        tail -= mass;
        count += 1.0;
    }
    count
}

/// Counts made monotone: buckets scraped while they are being counted may contradict each other.
fn cumulative(buckets: &[(f64, f64)]) -> Result<Vec<f64>, &'static str> {
    let Some(&(last_bound, _)) = buckets.last() else { return Err(NO_SERIES) };
    if !last_bound.is_infinite() || buckets.len() < 2 {
        return Err("the histogram has no +Inf bucket");
    }
    let mut highest = 0.0_f64;
    let counts = buckets.iter().map(|&(_, count)| {
        highest = highest.max(count);
        highest
    });
    let counts: Vec<f64> = counts.collect();
    if highest > 0.0 { Ok(counts) } else { Err(NOTHING_OBSERVED) }
}

fn at_rank(rank: f64, buckets: &[(f64, f64)], counts: &[f64]) -> f64 {
    let at = counts.iter().position(|&count| count >= rank).unwrap_or(counts.len() - 1);
    if at == buckets.len() - 1 {
        return buckets[at - 1].0;
    }
    let (lower, below) = match at {
        0 if buckets[0].0 <= 0.0 => return buckets[0].0,
        0 => (0.0, 0.0),
        _ => (buckets[at - 1].0, counts[at - 1]),
    };
    let within = counts[at] - below;
    let share = if within > 0.0 { (rank - below) / within } else { 0.0 };
    lower + (buckets[at].0 - lower) * share
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn few_events_prove_little() {
        for (of, to, least, most) in [
            (0.0, 11.0, 0.0, 0.0),
            (1.0, 11.0, 0.010, 0.015),
            (2.0, 11.0, 0.039, 0.045),
            (6.0, 11.0, 0.23, 0.26),
            (11.0, 11.0, 0.65, 0.70),
            (1_000.0, 11_000.0, 0.084, 0.086),
        ] {
            let measured = share(of, to).unwrap();
            assert_eq!(measured.value, of / to);
            assert!((least..=most).contains(&measured.at_least), "{of} of {to}: {measured:?}");
        }
        assert_eq!(share(1.0, 0.0), None);
        assert_eq!(share(f64::NAN, f64::NAN), None);
        assert_eq!(share(3.0, 2.0), Some(Measured::exact(1.5)));
    }

    #[test]
    fn one_slow_request_of_eleven_is_no_slow_service() {
        // Ten within 50 ms, one within 250 ms.
        let few = [(0.05, 10.0), (0.25, 11.0), (f64::INFINITY, 11.0)];
        let measured = quantile(0.95, &few).unwrap();
        assert!(measured.value > 0.1 && measured.at_least < 0.05, "{measured:?}");
        // All of them are slow; or a tenth of very many.
        let slow = [(0.05, 0.0), (0.25, 11.0), (f64::INFINITY, 11.0)];
        assert!(quantile(0.95, &slow).unwrap().at_least > 0.15);
        let many = [(0.05, 9_000.0), (0.25, 10_000.0), (f64::INFINITY, 10_000.0)];
        assert!(quantile(0.95, &many).unwrap().at_least > 0.1);
        // The more extreme the quantile, the fewer must lie beyond it, but one alone never does.
        let extreme = quantile(0.99, &few).unwrap();
        assert!(extreme.value > 0.1 && extreme.at_least <= 0.05, "{extreme:?}");
        let two = [(0.05, 9.0), (0.25, 11.0), (f64::INFINITY, 11.0)];
        assert!(quantile(0.99, &two).unwrap().at_least > 0.05);
        let one = [(0.05, 0.0), (0.25, 1.0), (f64::INFINITY, 1.0)];
        let alone = quantile(0.99, &one).unwrap();
        assert!(alone.value > 0.1 && alone.at_least <= alone.value);
    }

    #[test]
    fn as_many_lie_beyond_as_do_once_in_a_hundred_times() {
        // P(X >= 2) = 0.0052, P(X >= 1) = 0.105 for 11 of the 0.99-quantile.
        assert_eq!(beyond(11.0, 0.99), 2.0);
        // P(X >= 3) = 0.0152, P(X >= 4) = 0.0016 for 11 of the 0.95-quantile.
        assert_eq!(beyond(11.0, 0.95), 4.0);
        // P(X >= 9) = 0.0327, P(X >= 10) = 0.0059 for 11 of the median.
        assert_eq!(beyond(11.0, 0.5), 10.0);
        let (exact, normal) = (beyond(2_900.0, 0.99), 29.0 + Z * (29.0_f64 * 0.99).sqrt());
        assert!((exact - normal).abs() < 2.5, "{exact} {normal}");
    }

    #[test]
    fn what_speaks_for_a_high_figure_lies_between_the_usual_and_what_was_seen() {
        let measured = Measured { value: 0.3, at_least: 0.1 };
        assert_eq!(measured.above(0.0), 0.1);
        assert_eq!(measured.above(0.2), 0.2);
        assert_eq!(measured.above(0.4), 0.3);
        assert_eq!(Measured::exact(0.3).above(0.0), 0.3);
    }
}
