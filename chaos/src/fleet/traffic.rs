//! Light steady traffic through the gateway, counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Counts of requests so far.
#[derive(Debug, Default)]
pub struct Counts {
    served: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Requests answered with success.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Requests that failed, timed out, or were answered with an error.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Requests under way at most: a hung fleet must not pile them up.
const IN_FLIGHT_MAX: usize = 64;
/// Time one request may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends `per_second` requests to each of `addresses` (`host:port`) until the handle is dropped.
///
/// # Errors
/// When the HTTP client cannot be built.
pub fn start(addresses: Vec<String>, per_second: u32) -> anyhow::Result<Traffic> {
    let counts = Arc::new(Counts::default());
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let (shared, permits) = (counts.clone(), Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT_MAX)));
    let task = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            for address in &addresses {
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let (client, counts) = (client.clone(), shared.clone());
                let url = format!("http://{address}/work");
                tokio::spawn(async move {
                    let good =
                        matches!(client.get(url).send().await, Ok(r) if r.status().is_success());
                    let counter = if good { &counts.served } else { &counts.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    drop(permit);
                });
            }
        }
    });
    Ok(Traffic { counts, task })
}

/// Running traffic; ends when dropped.
#[derive(Debug)]
pub struct Traffic {
    counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}
