//! When will the limit be reached, if things go on like this?
//!
//! Three rings of points: every value, means of 16 and means of 256, so that a leak of seconds, of hours
//! and of a day are all seen in a fixed size. Over the last 8, 10, 16 and 24 points of each: a Theil–Sen line and
//! Mann–Kendall's test. A prediction is made only when all of this holds, several times in a row:
//!
//! * the rise is significant and the slope's interval lies above zero, else no time is named;
//! * the line explains the points (R²), and the rise does not slow down (what fills a cache does);
//! * the value is above every peak it has come down from by itself (garbage collection saws);
//! * the time to the limit is at most ten times the time looked at: no hour from ten seconds;
//! * the process is past its first [`SETTLE_MS`]: a fresh one always grows.
//!
//! Eight points say no more than that it rises with a chance of one in two thousand: too little for a finding
//! where several indicators are watched. With what came before them, and with each that follows, they say more.
//!
//! Deliberately absent: leaks that are slower than the slowest ring's ten-fold reach; the limit itself
//! still catches those.

use minicbor::{Decode, Encode};

use super::stats::{Line, theil_sen};

/// Points per ring: 24 × 8 bytes.
const RING: usize = 24;
/// Points of a ring per point of the next slower one.
const STRIDE: u16 = 16;
/// Windows looked at, shortest first: the most recent evidence of a change. Eight points are the fewest
/// whose order alone can be less likely than [`P_MAX`] by the normal approximation of Mann–Kendall's test.
const WINDOWS: [usize; 4] = [8, 10, 16, 24];
/// Mann–Kendall's one-sided p-value must be below.
const P_MAX: f64 = 1e-3;
/// The line explains at least this share.
const R_SQUARED_MIN: f64 = 0.8;
/// The later half rises at least at this share of the earlier half's speed.
const STEADY_MIN: f64 = 0.6;
/// Reach of an extrapolation as a multiple of the time looked at.
const REACH: f64 = 10.0;
/// Predictions in a row that count.
const CONFIRM: u16 = 2;
/// Growth of a process this young says nothing.
pub const SETTLE_MS: u64 = 15_000;
/// Coming down from a peak by this share is a descent of its own.
const DESCENT: f32 = 0.1;

/// When the limit will be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Expected time from now, seconds.
    pub seconds: f64,
    /// Earliest, by the slope's 95 % interval.
    pub earliest: f64,
    /// Latest, by the slope's 95 % interval.
    pub latest: f64,
    /// Rise per second.
    pub slope: f64,
    /// Mann–Kendall p-value, the least of the windows from that of the slope on.
    pub p_value: f64,
}

/// The state: three rings.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Trend {
    #[n(0)]
    fast: Ring,
    #[n(1)]
    slow: Ring,
    #[n(2)]
    sum: f64,
    #[n(3)]
    count: u16,
    /// Highest value since the last descent.
    #[n(4)]
    top: f32,
    /// Highest value it has come down from.
    #[n(5)]
    peak: f32,
    #[n(6)]
    confirmed: u16,
    #[n(7)]
    slowest: Ring,
    #[n(8)]
    slow_sum: f64,
    #[n(9)]
    slow_count: u16,
}

impl Trend {
    /// Forgets everything: the process is another.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes a value; gives the confirmed prediction of reaching `limit` within `within_s` seconds.
    /// `settled`: the process is older than [`SETTLE_MS`].
    pub fn update(
        &mut self,
        at_ms: u64,
        value: f64,
        limit: f64,
        within_s: f64,
        settled: bool,
    ) -> Option<Prediction> {
        if !settled {
            self.reset();
            return None;
        }
        self.note_peaks(value as f32);
        self.fast.push(at_ms, value);
        self.sum += value;
        self.count += 1;
        if self.count == STRIDE {
            self.push_slow(at_ms, self.sum / f64::from(STRIDE));
            (self.sum, self.count) = (0.0, 0);
        }
        let found = (value < limit && value as f32 > self.peak)
            .then(|| self.predict(value, limit, within_s))
            .flatten();
        self.confirmed = if found.is_some() { self.confirmed.saturating_add(1) } else { 0 };
        found.filter(|_| self.confirmed >= CONFIRM)
    }

    /// Whether it has a point: the process is past its first seconds.
    #[must_use]
    pub const fn begun(&self) -> bool {
        !self.fast.times.is_empty()
    }

    /// Moves all points in time, so that `then_ms` on the clock of the checkpoint is `now_ms` here.
    pub fn rebase(&mut self, then_ms: u64, now_ms: u64) {
        for ring in [&mut self.fast, &mut self.slow, &mut self.slowest] {
            if !ring.times.is_empty() {
                ring.base_ms = (ring.base_ms + now_ms).saturating_sub(then_ms);
            }
        }
    }

    fn push_slow(&mut self, at_ms: u64, mean: f64) {
        self.slow.push(at_ms, mean);
        self.slow_sum += mean;
        self.slow_count += 1;
        if self.slow_count == STRIDE {
            self.slowest.push(at_ms, self.slow_sum / f64::from(STRIDE));
            (self.slow_sum, self.slow_count) = (0.0, 0);
        }
    }

    fn note_peaks(&mut self, value: f32) {
        if value < self.top * (1.0 - DESCENT) {
            self.peak = self.peak.max(self.top);
            self.top = value;
        }
        self.top = self.top.max(value);
    }

    /// The speed is that of the shortest window that shows one; that it rises at all is as sure as the longest
    /// ones make it.
    fn predict(&self, value: f64, limit: f64, within_s: f64) -> Option<Prediction> {
        [&self.fast, &self.slow, &self.slowest].into_iter().find_map(|ring| {
            let found = |(at, &window)| {
                Some((at, predict_over(&ring.last(window)?, value, limit, within_s)?))
            };
            let (at, prediction) = WINDOWS.iter().enumerate().find_map(found)?;
            let longer =
                WINDOWS[at + 1..].iter().filter_map(|&window| theil_sen(&ring.last(window)?));
            let p_value = longer.map(|line| line.p_up).fold(prediction.p_value, f64::min);
            Some(Prediction { p_value, ..prediction })
        })
    }
}

fn predict_over(
    points: &[(f64, f64)],
    value: f64,
    limit: f64,
    within_s: f64,
) -> Option<Prediction> {
    let (first, last) = (points.first()?, points.last()?);
    let span = last.0 - first.0;
    let reach = within_s.min(REACH * span);
    let rise = last.1 - first.1;
    // Cheap refusal first: at twice the speed from end to end it would still be out of reach.
    if rise <= 0.0 || (limit - value) * span > 2.0 * rise * reach {
        return None;
    }
    let line = theil_sen(points)?;
    let sound = line.p_up < P_MAX && line.slope_low > 0.0 && line.r_squared >= R_SQUARED_MIN;
    if !sound || !steady(points, &line) {
        return None;
    }
    let left = (limit - value).max(0.0);
    let seconds = left / line.slope;
    (seconds <= reach).then(|| Prediction {
        seconds,
        earliest: left / line.slope_high,
        latest: left / line.slope_low,
        slope: line.slope,
        p_value: line.p_up,
    })
}

/// Whether the later half rises about as fast as the whole, at least.
fn steady(points: &[(f64, f64)], whole: &Line) -> bool {
    let half = points.len() / 2;
    let slope = |points: &[(f64, f64)]| theil_sen(points).map_or(whole.slope, |line| line.slope);
    slope(&points[half..]) >= STEADY_MIN * slope(&points[..half]).max(whole.slope)
}

/// The last [`RING`] points.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct Ring {
    #[n(0)]
    base_ms: u64,
    /// Milliseconds since the base.
    #[n(1)]
    times: Vec<u32>,
    #[n(2)]
    values: Vec<f32>,
    /// Where the next point goes once the ring is full.
    #[n(3)]
    next: u8,
}

impl Ring {
    fn push(&mut self, at_ms: u64, value: f64) {
        if self.times.is_empty() {
            self.base_ms = at_ms;
        }
        let Ok(offset) = u32::try_from(at_ms.saturating_sub(self.base_ms)) else {
            // 49 days since the base: begin anew rather than move it.
            *self = Self::default();
            return self.push(at_ms, value);
        };
        if self.times.len() < RING {
            self.times.push(offset);
            self.values.push(value as f32);
        } else {
            let at = usize::from(self.next) % RING;
            (self.times[at], self.values[at]) = (offset, value as f32);
            self.next = ((at + 1) % RING) as u8;
        }
    }

    /// The newest `count` points, oldest first, in seconds; `None` while there are fewer.
    fn last(&self, count: usize) -> Option<Vec<(f64, f64)>> {
        let n = self.times.len();
        let skip = n.checked_sub(count)?;
        // A checkpoint from elsewhere is only as good as its lengths.
        (self.values.len() == n && n <= RING).then(|| {
            let start = if n == RING { usize::from(self.next) } else { 0 };
            (skip..n)
                .map(|i| (start + i) % n)
                .map(|i| (f64::from(self.times[i]) / 1e3, f64::from(self.values[i])))
                .collect()
        })
    }
}
