//! What can be wrong inside one service process, as `POST /break` asks for it.
//!
//! All of it is real: memory is held, threads spin, descriptors and sockets are open, workers are
//! taken and never given back. All of it ends with the process, save damage in the data file.

use std::{
    fs::File,
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What `POST /break` takes. Absent fields stay as they are; zero heals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Break {
    /// Memory held for good, bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak_bytes_per_s: Option<u64>,
    /// Share of requests that fail, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_percent: Option<u32>,
    /// Added to each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// Written into the data file: added to each request from now on, restarts or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage_ms: Option<u64>,
    /// Threads that compute nothing, as fast as they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spinning_threads: Option<u32>,
    /// Descriptors opened and forgotten, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors_per_s: Option<u32>,
    /// All workers wait for each other: nothing that needs one is answered any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlock: Option<bool>,
    /// The port is given up while the process goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_lost: Option<bool>,
    /// A port that nobody asked for is listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stray_listener: Option<bool>,
    /// What every dependency is taken to be at (`host:port`), whatever the configuration says; empty:
    /// as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// How often what grows does so.
const TICK: Duration = Duration::from_millis(250);
/// A leak stops here whatever it was told: the machine is shared.
const LEAK_BYTES_MAX: usize = 512 << 20;
/// And a leak of descriptors here.
const DESCRIPTORS_MAX: usize = 2_000;
/// And threads that spin here.
const THREADS_MAX: u32 = 4;

/// The state of all ailments.
#[derive(Debug, Default)]
pub(super) struct Ailments {
    leak_bytes_per_s: AtomicU64,
    pub(super) error_percent: AtomicU32,
    pub(super) latency_ms: AtomicU64,
    pub(super) damage_ms: AtomicU64,
    descriptors_per_s: AtomicU32,
    pub(super) deadlock: AtomicBool,
    pub(super) port_lost: AtomicBool,
    spinning: RwLock<Arc<AtomicBool>>,
    spinners: AtomicU32,
    stray: Mutex<Option<TcpListener>>,
    route: RwLock<String>,
    held: Mutex<Vec<Vec<u8>>>,
    open: Mutex<Vec<File>>,
}

impl Ailments {
    /// Takes what is asked for, save `damage_ms` and what needs the server itself.
    pub(super) fn take(&self, how: &Break) -> std::io::Result<()> {
        if let Some(rate) = how.leak_bytes_per_s {
            self.leak_bytes_per_s.store(rate, Ordering::Relaxed);
        }
        if let Some(percent) = how.error_percent {
            self.error_percent.store(percent, Ordering::Relaxed);
        }
        if let Some(latency) = how.latency_ms {
            self.latency_ms.store(latency, Ordering::Relaxed);
        }
        if let Some(rate) = how.descriptors_per_s {
            self.descriptors_per_s.store(rate, Ordering::Relaxed);
        }
        if let Some(threads) = how.spinning_threads {
            self.spin(threads.min(THREADS_MAX));
        }
        if let Some(deadlock) = how.deadlock {
            self.deadlock.store(deadlock, Ordering::Relaxed);
        }
        if let Some(route) = &how.route {
            self.route.write().unwrap_or_else(PoisonError::into_inner).clone_from(route);
        }
        if let Some(stray) = how.stray_listener {
            let listener = stray.then(|| TcpListener::bind("127.0.0.1:0")).transpose()?;
            *self.stray.lock().unwrap_or_else(PoisonError::into_inner) = listener;
        }
        if let Some(lost) = how.port_lost {
            self.port_lost.store(lost, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Where every dependency is taken to be, when the route is wrong.
    pub(super) fn route(&self) -> Option<String> {
        let route = self.route.read().unwrap_or_else(PoisonError::into_inner);
        (!route.is_empty()).then(|| route.clone())
    }

    /// Anything that is wrong in here now, for the one who broke it.
    pub(super) fn any(&self) -> bool {
        let on = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        self.leak_bytes_per_s.load(Ordering::Relaxed) > 0
            || self.error_percent.load(Ordering::Relaxed) > 0
            || self.latency_ms.load(Ordering::Relaxed) > 0
            || self.damage_ms.load(Ordering::Relaxed) > 0
            || self.descriptors_per_s.load(Ordering::Relaxed) > 0
            || self.spinners.load(Ordering::Relaxed) > 0
            || on(&self.deadlock)
            || on(&self.port_lost)
            || self.route().is_some()
            || self.stray.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn spin(&self, threads: u32) {
        let go_on = Arc::new(AtomicBool::new(true));
        let mut current = self.spinning.write().unwrap_or_else(PoisonError::into_inner);
        current.store(false, Ordering::Relaxed);
        *current = go_on.clone();
        self.spinners.store(threads, Ordering::Relaxed);
        for _ in 0..threads {
            let go_on = go_on.clone();
            std::thread::spawn(move || {
                while go_on.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
    }

    /// Grows what grows, for ever. Memory is touched so that it is resident.
    pub(super) async fn grow(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        let ticks_per_s = 1000 / u64::try_from(TICK.as_millis()).unwrap_or(1000).max(1);
        loop {
            tick.tick().await;
            let bytes = self.leak_bytes_per_s.load(Ordering::Relaxed) / ticks_per_s;
            if let Ok(bytes) = usize::try_from(bytes) {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                let total: usize = held.iter().map(Vec::len).sum();
                if bytes > 0 && total + bytes <= LEAK_BYTES_MAX {
                    held.push(vec![1; bytes]);
                }
            }
            let files = u64::from(self.descriptors_per_s.load(Ordering::Relaxed)) / ticks_per_s;
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            for _ in 0..files {
                if open.len() < DESCRIPTORS_MAX
                    && let Ok(file) = File::open("/dev/null")
                {
                    open.push(file);
                }
            }
        }
    }
}
