//! One run of one seed, in a thread and a runtime of its own, and what the checkers make of it.

use std::{cell::RefCell, collections::BTreeSet, sync::Once, thread, time::Duration};

use medic_state::{
    Digest,
    planted::{Planted, plant},
};
use tokio::runtime::{Builder, RngSeed};

use crate::{
    check::{self, Violation},
    coverage::Coverage,
    faults::Scheduled,
    history::Recorder,
    layer_a,
};

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
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
    pub(crate) schedule: Vec<Scheduled>,
    pub(crate) simulated: Duration,
    pub(crate) committed: u64,
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
    /// The faults.
    pub schedule: Vec<Scheduled>,
    /// Simulated time.
    pub simulated: Duration,
    /// Entries committed.
    pub committed: u64,
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
            if thread::current().name() == Some(THREAD) {
                PANICS.with_borrow_mut(|all| all.push(panic.to_string()));
            } else {
                before(panic);
            }
        }));
    });
}

const THREAD: &str = "simulation";

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
    plant(plan.planted);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&plan.seed.to_be_bytes()))
        .build()?;
    let (ran, recorder) = runtime.block_on(async {
        let recorder = Recorder::new(plan.trace);
        (Box::pin(layer_a::simulate(plan, recorder.clone())).await, recorder)
    });
    drop(runtime);
    plant(None);
    let mut book = recorder.book();
    let mut violations = check::all(&book.events);
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
        committed: ran.committed,
    })
}
