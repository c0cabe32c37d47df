//! The one writer: every change of the tables goes through its queue, in order.
//!
//! ```text
//!   append ─┐                      ┌─ write, sync ─► acknowledge all of the group
//!   vote   ─┼─► queue ─► a group ──┤
//!   records ┘                      └─ error or too slow ─► the node is out
//! ```
//!
//! While one group is being synced the next one gathers: under load many appends share one sync,
//! without load none waits. Invariant: vote and log are never reordered, and nothing is acknowledged
//! that is not durable. After the first failed write nothing is written any more: what a failed
//! sync left on disk is unknown.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use medic_state::planted::{Planted, planted};
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{Disk, Op};
use crate::{metrics::Metric, types::TypeConfig};

/// Jobs waiting: a full queue holds back whoever appends.
const QUEUE_JOBS: usize = 1_024;
/// Jobs written together: bounds the memory of one batch.
const GROUP_JOBS: usize = 256;

/// Why this node can no longer serve; set once.
#[derive(Clone, Debug)]
pub struct FatalFlag(Arc<watch::Sender<Option<String>>>);

impl Default for FatalFlag {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl FatalFlag {
    /// Takes the node out. The first reason stays.
    pub fn set(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.0.send_if_modified(|now| {
            if now.is_some() {
                return false;
            }
            tracing::error!(reason, "this node can no longer serve");
            *now = Some(reason);
            true
        });
    }

    /// The reason, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Changes when the node is taken out.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }
}

/// Whom to tell when a job is durable.
pub(crate) enum Done {
    /// Nobody waits, and no sync is needed for its sake.
    Nobody,
    /// openraft waits for an append.
    Flushed(IOFlushed<TypeConfig>),
    /// A caller waits.
    Reply(oneshot::Sender<io::Result<()>>),
}

/// A change of the tables.
pub(crate) struct Job {
    pub(crate) ops: Vec<Op>,
    pub(crate) done: Done,
    /// The last log index among the changes.
    pub(crate) log_through: Option<u64>,
    /// The last index of records among the changes.
    pub(crate) records_through: Option<u64>,
}

/// How far the queue has got, so that caches may forget: index + 1, zero for nothing.
#[derive(Debug, Default)]
pub(crate) struct Landed {
    pub(crate) log: AtomicU64,
    pub(crate) records: AtomicU64,
}

/// How the writer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterMode {
    /// On a thread of its own.
    Thread,
    /// As a task of the runtime: for simulations, whose disk does not block.
    Task,
}

/// The queue.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: Arc<RwLock<Option<mpsc::Sender<Job>>>>,
    stopped: watch::Receiver<bool>,
    pub(crate) landed: Arc<Landed>,
}

struct Loop {
    disk: Arc<dyn Disk>,
    landed: Arc<Landed>,
    fatal: FatalFlag,
    /// Number of the write in progress; zero between writes.
    busy: Arc<AtomicU64>,
    writes: u64,
    failed: Option<String>,
    stopped: watch::Sender<bool>,
}

impl Writer {
    /// Starts the writer and the watch over it.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        fatal: FatalFlag,
        mode: WriterMode,
        deadline: Duration,
    ) -> io::Result<Self> {
        let (queue, mut jobs) = mpsc::channel(QUEUE_JOBS);
        let landed = Arc::new(Landed::default());
        let busy = Arc::new(AtomicU64::new(0));
        let stopped = watch::Sender::new(false);
        let stopped_rx = stopped.subscribe();
        tokio::spawn(watch_over(busy.clone(), fatal.clone(), deadline, stopped.subscribe()));
        let mut this =
            Loop { disk, landed: landed.clone(), fatal, busy, writes: 0, failed: None, stopped };
        match mode {
            WriterMode::Thread => {
                std::thread::Builder::new().name("medic-log".to_owned()).spawn(move || {
                    let mut group = Vec::new();
                    while jobs.blocking_recv_many(&mut group, GROUP_JOBS) > 0 {
                        this.write(&mut group);
                    }
                    this.stopped.send_replace(true);
                })?;
            }
            WriterMode::Task => {
                tokio::spawn(async move {
                    let mut group = Vec::new();
                    while jobs.recv_many(&mut group, GROUP_JOBS).await > 0 {
                        this.lag().await;
                        this.write(&mut group);
                    }
                    this.stopped.send_replace(true);
                });
            }
        }
        let queue = Arc::new(RwLock::new(Some(queue)));
        Ok(Self { queue, stopped: stopped_rx, landed })
    }

    /// Queues a job. Waits only while the queue is full.
    pub(crate) async fn send(&self, job: Job) -> io::Result<()> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has stopped");
        queue.ok_or_else(gone)?.send(job).await.map_err(|_| gone())
    }

    /// Queues changes and waits until they, and all before them, are durable.
    pub(crate) async fn sync(&self, ops: Vec<Op>) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        let done = Done::Reply(reply);
        self.send(Job { ops, done, log_through: None, records_through: None }).await?;
        answer.await.unwrap_or_else(|_| Err(io::Error::other("the log writer has stopped")))
    }

    /// Lets the writer finish its queue, and waits for that.
    pub(crate) async fn stop(&self) {
        self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        let mut stopped = self.stopped.clone();
        if stopped.wait_for(|stopped| *stopped).await.is_err() {
            tracing::debug!("the log writer was gone already");
        }
    }
}

impl Loop {
    /// Waits as long as a simulated disk takes.
    async fn lag(&mut self) {
        let lag = self.disk.lag();
        if !lag.is_zero() {
            self.busy.store(self.writes + 1, Ordering::Release);
            tokio::time::sleep(lag).await;
        }
    }

    fn write(&mut self, group: &mut Vec<Job>) {
        Metric::LogGroupJobs.observe(u32::try_from(group.len()).unwrap_or(u32::MAX).into());
        let sync = group.iter().any(|job| !matches!(job.done, Done::Nobody))
            && !planted(Planted::FsyncSkipped);
        let ops: Vec<Op> = group.iter_mut().flat_map(|job| job.ops.drain(..)).collect();
        let result = self.write_ops(&ops, sync);
        for job in group.drain(..) {
            if result.is_ok() {
                if let Some(index) = job.log_through {
                    self.landed.log.store(index + 1, Ordering::Release);
                }
                if let Some(index) = job.records_through {
                    self.landed.records.fetch_max(index + 1, Ordering::AcqRel);
                }
            }
            let answer = result.clone().map_err(io::Error::other);
            match job.done {
                Done::Nobody => {}
                Done::Flushed(flushed) => flushed.io_completed(answer),
                Done::Reply(reply) => {
                    if reply.send(answer).is_err() {
                        tracing::debug!("nobody waits for this write any more");
                    }
                }
            }
        }
    }

    fn write_ops(&mut self, ops: &[Op], sync: bool) -> Result<(), String> {
        if let Some(reason) = self.failed.clone().or_else(|| self.fatal.get()) {
            return Err(reason);
        }
        self.writes += 1;
        let began = Instant::now();
        self.busy.store(self.writes, Ordering::Release);
        crate::crash_point!("raft_log_before_write");
        let result = self.disk.write(ops, sync);
        crate::crash_point!("raft_log_after_write");
        self.busy.store(0, Ordering::Release);
        Metric::LogWriteSeconds.observe(began.elapsed().as_secs_f64());
        result.map_err(|error| {
            let reason = format!("the log cannot be written: {error}");
            self.fatal.set(reason.clone());
            self.failed = Some(reason.clone());
            reason
        })
    }
}

/// Takes the node out when one write is in progress for longer than the deadline.
async fn watch_over(
    busy: Arc<AtomicU64>,
    fatal: FatalFlag,
    deadline: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    const LOOKS: u32 = 4;
    let mut ticks = tokio::time::interval(deadline / LOOKS);
    let (mut seen, mut looks) = (0, 0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let now = busy.load(Ordering::Acquire);
        looks = if now != 0 && now == seen { looks + 1 } else { 0 };
        seen = now;
        if looks >= LOOKS {
            fatal.set(format!(
                "the disk has not completed a write for {} s; the node stops so that another can lead",
                deadline.as_secs_f32()
            ));
            return;
        }
    }
}
