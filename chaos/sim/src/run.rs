//! One run of one seed, in a thread and a runtime of its own, and what the checkers make of it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use medic_state::{
    Digest,
    planted::{Planted, plant},
};
use tokio::{
    runtime::{Builder, RngSeed},
    time::Instant,
};

use crate::{
    check::{self, Violation},
    clock::Time,
    coverage::Coverage,
    faults::Scheduled,
    history::Recorder,
    layer_a,
    layer_b::{self, Mark},
    wall::Watch,
};

/// What is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// Law, hands and judgement over a simulated log; no sockets.
    #[default]
    A,
    /// Whole nodes with real consensus and RPC over a simulated network and simulated disks. One run
    /// in a process: the next would inherit its chance.
    B,
}

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is simulated.
    pub layer: Layer,
    /// Everything follows from it.
    pub seed: u64,
    /// Only these of the seed's faults, by position.
    pub keep: Option<BTreeSet<usize>>,
    /// Keep the lines of the trace.
    pub trace: bool,
    /// A mistake in the product.
    pub planted: Option<Planted>,
}

/// What a layer gives back.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) schedule: BTreeMap<usize, Scheduled>,
    pub(crate) simulated: Duration,
    pub(crate) committed: u64,
    /// What the layer itself found.
    pub(crate) violations: Vec<Violation>,
    pub(crate) marks: BTreeMap<Mark, u64>,
    pub(crate) calls: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Broken invariants.
    pub violations: Vec<Violation>,
    /// States that were reached.
    pub coverage: Coverage,
    /// Hash over the trace.
    pub hash: Digest,
    /// The trace, if it was to be kept.
    pub trace: Vec<String>,
    /// The faults, by their position among all that the seed draws.
    pub schedule: BTreeMap<usize, Scheduled>,
    /// Simulated time.
    pub simulated: Duration,
    /// Processor time.
    pub spent: Duration,
    /// Entries committed.
    pub committed: u64,
    /// States that only whole nodes reach.
    pub marks: BTreeMap<Mark, u64>,
    /// Calls of clients that were recorded.
    pub calls: u64,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Panics of simulated parts are caught by whoever runs them in production too; here every one is
/// a finding.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let simulated = thread::current().name() == Some(THREAD);
            if simulated {
                PANICS.with_borrow_mut(|all| all.push(panic.to_string()));
            }
            if !simulated || WHOLE_NODES.load(Ordering::Acquire) {
                before(panic);
            }
        }));
    });
}

const THREAD: &str = "simulation";

/// Panics are printed too: one in the midst of tidying up another's host ends the process before it
/// can be told otherwise.
static WHOLE_NODES: AtomicBool = AtomicBool::new(false);

/// Runs a plan.
///
/// # Errors
/// When no thread or runtime can be had.
pub fn run(plan: &Plan) -> std::io::Result<Outcome> {
    note_panics();
    let plan = plan.clone();
    let builder = thread::Builder::new().name(THREAD.to_owned()).stack_size(16 << 20);
    let running = builder.spawn(move || alone(&plan))?;
    running.join().unwrap_or_else(|_| Err(std::io::Error::other("the simulation itself panicked")))
}

fn alone(plan: &Plan) -> std::io::Result<Outcome> {
    let begun = Spent::begin();
    plant(plan.planted);
    WHOLE_NODES.store(plan.layer == Layer::B, Ordering::Release);
    let ran = match plan.layer {
        Layer::A => in_one_runtime(plan),
        Layer::B => layer_b::simulate(plan),
    };
    plant(None);
    let (ran, recorder) = ran?;
    let mut book = recorder.book();
    let mut violations = check::all(&book.events);
    violations.extend(ran.violations);
    let panics = PANICS.with_borrow_mut(std::mem::take);
    violations.extend(panics.into_iter().map(Violation::panic));
    let (hash, _) = book.trace.hash();
    Ok(Outcome {
        violations,
        coverage: book.coverage.clone(),
        hash,
        trace: book.trace.take(),
        schedule: ran.schedule,
        simulated: ran.simulated,
        spent: begun.end(),
        committed: ran.committed,
        marks: ran.marks,
        calls: ran.calls,
    })
}

/// What one thread costs: a run has its thread to itself.
struct Spent {
    wall: Watch,
    on_cpu: Option<Duration>,
}

impl Spent {
    fn begin() -> Self {
        Self { wall: Watch::start(), on_cpu: on_cpu() }
    }

    /// Processor time since; wall time, which is never less, where the kernel counts none.
    fn end(&self) -> Duration {
        let on_cpu = on_cpu().zip(self.on_cpu).map(|(now, then)| now.saturating_sub(then));
        on_cpu.unwrap_or_else(|| self.wall.elapsed())
    }
}

/// Time that this thread has been running; the first field, in nanoseconds (proc_pid_schedstat(5)).
fn on_cpu() -> Option<Duration> {
    let all = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns = all.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

fn in_one_runtime(plan: &Plan) -> std::io::Result<(Ran, Recorder)> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&plan.seed.to_be_bytes()))
        .build()?;
    Ok(runtime.block_on(async {
        let recorder = Recorder::new(plan.trace, Time::Runtime(Instant::now()));
        (Box::pin(layer_a::simulate(plan, recorder.clone())).await, recorder)
    }))
}
