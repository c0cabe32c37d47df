//! Traffic as users make it: a daily cycle, compressed, with bursts, through the gateways.
//!
//! ```text
//!   rate(t) = base × (1 + 0.6 sin(2πt / day)) × (burst ? 2.2 : 1)      arrivals: Poisson
//! ```
//!
//! Open loop: a slow fleet gets no fewer requests. A request that fails at one gateway is sent to the
//! next, once, as a load balancer would; it counts as served when either answers well.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Semaphore, task::JoinHandle};

/// Requests per second in the middle of a day.
const BASE_PER_S: f64 = 14.0;
/// Length of a day.
pub(super) const DAY: Duration = Duration::from_secs(180);
/// How much more a burst brings.
const BURST: f64 = 2.2;
/// Length of a burst.
const BURST_MS: std::ops::Range<u64> = 3_000..8_000;
/// Chance that one begins, per request: one in some 40 s.
const BURST_CHANCE: f64 = 1.0 / 600.0;
/// Requests under way at most: a hung fleet must not pile them up.
const IN_FLIGHT_MAX: usize = 256;
/// Time one request may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Requests of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Second {
    /// Answered well.
    pub served: u32,
    /// Not.
    pub failed: u32,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    seconds: Mutex<BTreeMap<u64, Second>>,
    burst_until_ms: AtomicU64,
}

/// Asks for more traffic.
#[derive(Clone, Debug)]
pub(super) struct Crowd(Arc<Shared>);

impl Crowd {
    /// More traffic for a while.
    pub(super) fn burst(&self) {
        let until = self.0.now_ms() + BURST_MS.end;
        self.0.burst_until_ms.store(until, Ordering::Relaxed);
    }
}

/// Running traffic; ends when dropped.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    /// Sends requests to the gateways (`host:port`) from now on.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub(super) fn start(gateways: Vec<String>, seed: u64) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let shared = Arc::new(Shared {
            began: Instant::now(),
            seconds: Mutex::default(),
            burst_until_ms: AtomicU64::new(0),
        });
        let task = tokio::spawn(send(shared.clone(), client, gateways, seed));
        Ok(Self { shared, task })
    }

    /// What more traffic can be asked of.
    #[must_use]
    pub(super) fn crowd(&self) -> Crowd {
        Crowd(self.shared.clone())
    }

    /// What became of the requests, by the second of their beginning.
    #[must_use]
    pub(super) fn seconds(&self) -> BTreeMap<u64, Second> {
        self.shared.seconds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn count(&self, second: u64, good: bool) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = seconds.entry(second).or_default();
        if good {
            counts.served += 1;
        } else {
            counts.failed += 1;
        }
    }
}

/// Requests per second at a time of the day.
fn rate(at: Duration, bursting: bool) -> f64 {
    let angle = std::f64::consts::TAU * at.as_secs_f64() / DAY.as_secs_f64();
    BASE_PER_S * (1.0 + 0.6 * angle.sin()) * if bursting { BURST } else { 1.0 }
}

async fn send(shared: Arc<Shared>, client: reqwest::Client, gateways: Vec<String>, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed ^ 0x6c6f_6164);
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut next = tokio::time::Instant::now();
    let mut turn = 0_usize;
    loop {
        let now_ms = shared.now_ms();
        let bursting = shared.burst_until_ms.load(Ordering::Relaxed) > now_ms;
        if !bursting && chance.random_bool(BURST_CHANCE) {
            let until = now_ms + chance.random_range(BURST_MS);
            shared.burst_until_ms.store(until, Ordering::Relaxed);
        }
        let wait =
            -chance.random_range(f64::EPSILON..1.0).ln() / rate(shared.began.elapsed(), bursting);
        next += Duration::from_secs_f64(wait);
        tokio::time::sleep_until(next).await;
        let second = shared.now_ms() / 1_000;
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            shared.count(second, false);
            continue;
        };
        turn = turn.wrapping_add(1);
        let (shared, client, gateways) = (shared.clone(), client.clone(), gateways.clone());
        tokio::spawn(async move {
            let mut good = false;
            for attempt in 0..2 {
                let Some(address) = gateways.get((turn + attempt) % gateways.len().max(1)) else {
                    break;
                };
                let answer = client.get(format!("http://{address}/work")).send().await;
                good = answer.is_ok_and(|answer| answer.status().is_success());
                if good {
                    break;
                }
            }
            shared.count(second, good);
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_its_hours_and_a_burst_is_more() {
        let (morning, evening) = (rate(DAY / 4, false), rate(DAY * 3 / 4, false));
        assert!(morning > 3.0 * evening, "{morning} {evening}");
        assert!((rate(DAY, false) - BASE_PER_S).abs() < 1e-6);
        assert!(rate(DAY, true) > 2.0 * rate(DAY, false));
    }
}
