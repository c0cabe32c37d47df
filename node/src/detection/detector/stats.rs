//! Formulas, with their sources.

/// Upper tail of Student's t with 4 degrees of freedom.
///
/// Heavy tails on purpose: telemetry is not normal, and a normal tail would call 6 sigma impossible.
/// Closed form: Shaw, "Sampling Student's T distribution", J. Comput. Finance 9 (2006), section 2.
#[must_use]
pub fn student_t4_tail(t: f64) -> f64 {
    if t.is_nan() {
        return 1.0;
    }
    if t > 1e3 {
        // Leading term of the asymptotic tail, 12 / t^4; the closed form cancels out here.
        return 12.0 / t.powi(4);
    }
    let q = 1.0 + t * t / 4.0;
    let cdf = 0.5 + 0.375 * t / q.sqrt() * (1.0 - t * t / (12.0 * q));
    (1.0 - cdf).clamp(1e-12, 1.0)
}

/// Upper tail of the standard normal: Abramowitz & Stegun 26.2.17, absolute error below 7.5e-8.
#[must_use]
pub(in crate::detection) fn normal_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - normal_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (poly * (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()).clamp(0.0, 1.0)
}

/// Median; reorders. Zero of nothing.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    f64::midpoint(lower, upper)
}

/// Median absolute deviation, scaled to the standard deviation of a normal (factor 1.4826:
/// Rousseeuw & Croux, JASA 88 (1993)).
pub(super) fn scaled_mad(values: &[f64], center: f64) -> f64 {
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
    1.4826 * median(&mut deviations)
}

/// A robust line through points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Median of the pairwise slopes.
    pub slope: f64,
    /// Its 95 % confidence interval.
    pub slope_low: f64,
    /// Its 95 % confidence interval.
    pub slope_high: f64,
    /// Value of the line at the last point's time.
    pub last: f64,
    /// One-sided p-value of the Mann–Kendall test against "no upward trend".
    pub p_up: f64,
    /// Share of the variance that the line explains.
    pub r_squared: f64,
}

/// Theil–Sen line with Sen's interval, and Mann–Kendall's test, through `(t, x)` in order of time.
///
/// Sen, JASA 63 (1968); variance and interval: Gilbert, "Statistical Methods for Environmental
/// Pollution Monitoring" (1987), sections 16.4 and 17.3 (without the correction for ties: with ties the
/// variance is overstated, hence the test conservative). `None` for fewer than 4 points.
#[must_use]
pub fn theil_sen(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len();
    if n < 4 {
        return None;
    }
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    let mut s = 0.0;
    for (i, &(t0, x0)) in points.iter().enumerate() {
        for &(t1, x1) in &points[i + 1..] {
            if x1 != x0 {
                s += (x1 - x0).signum();
            }
            if t1 > t0 {
                slopes.push((x1 - x0) / (t1 - t0));
            }
        }
    }
    if slopes.len() < 4 {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let slope = sorted_median(&slopes);
    let count = n as f64;
    let deviation = (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    let z = if s > 0.0 { (s - 1.0) / deviation } else { (s + 1.0) / deviation };
    let reach = 1.96 * deviation;
    let at = |rank: f64| {
        let index = rank.round().clamp(0.0, (slopes.len() - 1) as f64);
        slopes[index as usize]
    };
    let pairs = slopes.len() as f64;
    let mut offsets: Vec<f64> = points.iter().map(|(t, x)| x - slope * t).collect();
    let offset = median(&mut offsets);
    let mean = points.iter().map(|(_, x)| x).sum::<f64>() / count;
    let total: f64 = points.iter().map(|(_, x)| (x - mean).powi(2)).sum();
    let left: f64 = points.iter().map(|(t, x)| (x - offset - slope * t).powi(2)).sum();
    Some(Line {
        slope,
        slope_low: at((pairs - reach) / 2.0 - 1.0),
        slope_high: at((pairs + reach) / 2.0),
        last: offset + slope * points[n - 1].0,
        p_up: normal_tail(z),
        r_squared: if total > 0.0 { 1.0 - left / total } else { 0.0 },
    })
}

fn sorted_median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2])
}
