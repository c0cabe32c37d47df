//! `medic-sim`: runs seeds, shows one, cuts one down, and measures itself with planted mistakes.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    ops::Range,
    process::ExitCode,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};
use medic_sim::{
    campaign::{Report, campaign},
    history::lock,
    planted::{Caught, hunt, hunt_in_processes},
    processes::{self, Told},
    run::{self, Outcome, Plan, run},
    shrink::shrink,
    wall::Watch,
};
use medic_state::planted::Planted;

/// Simulates whole clusters of Medic, and checks every invariant.
///
/// One seed is one history: the same seed of the same build does the same, to the byte.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  medic-sim run --seeds 0..1000                 a thousand seeds, and what they reached\n  medic-sim run --seed 42 --trace               one seed, with everything that happened\n  medic-sim run --seed 42 --shrink              the fewest faults with which it still fails\n  medic-sim run --seed 42 --keep 3,17 --trace   those faults alone\n  medic-sim run --layer b --seeds 0..100        whole nodes, a process for each seed\n  medic-sim planted-bugs                        is every mistake found?\n  medic-sim planted-bugs --only UndoInOrder     is this one?"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds.
    Run(RunArgs),
    /// Plant every mistake in turn and look whether it is found.
    PlantedBugs(PlantedArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// What is simulated.
    #[arg(long, value_enum, default_value = "a")]
    layer: Layer,
    /// Seeds from..to, the last one excluded.
    #[arg(long, value_parser = range, default_value = "0..200", conflicts_with = "seed")]
    seeds: Range<u64>,
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Show what happened (one seed).
    #[arg(long, requires = "seed", conflicts_with_all = ["seeds", "json"])]
    trace: bool,
    /// Cut the faults of a failing seed down.
    #[arg(long, requires = "seed", conflicts_with_all = ["seeds", "json"])]
    shrink: bool,
    /// Only these of the seed's faults, by position; empty: none of them.
    #[arg(long, requires = "seed", conflicts_with = "seeds", value_parser = positions)]
    keep: Option<Positions>,
    /// Plant a mistake (one seed); those of whole nodes need layer b.
    #[arg(long, requires = "seed", conflicts_with = "seeds")]
    planted: Option<Planted>,
    /// Threads; by default one per core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
    /// Fail when a state was never reached (many seeds).
    #[arg(long, conflicts_with = "seed")]
    full: bool,
}

#[derive(Debug, clap::Args)]
struct PlantedArgs {
    /// Seeds tried for each, from..to, the last one excluded.
    #[arg(long, value_parser = range, default_value = "0..400")]
    seeds: Range<u64>,
    /// Only this one.
    #[arg(long)]
    only: Option<Planted>,
    /// Threads; by default one per core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// Law, hands and judgement over a simulated log; no sockets.
    A,
    /// Whole nodes with real consensus and RPC over a simulated network and simulated disks.
    B,
}

impl From<Layer> for run::Layer {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::A => Self::A,
            Layer::B => Self::B,
        }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` is no range of seeds; write for example 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if from < to { Ok(from..to) } else { Err(wrong()) }
}

/// Positions of faults.
#[derive(Clone, Debug)]
struct Positions(BTreeSet<usize>);

fn positions(text: &str) -> Result<Positions, String> {
    let wrong = |part: &str| format!("`{part}` is no position of a fault; write for example 3,17");
    let parts = text.split(',').filter(|part| !part.is_empty());
    let all: Result<_, _> =
        parts.map(|part| part.trim().parse().map_err(|_| wrong(part))).collect();
    all.map(Positions)
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => match args.seed {
            Some(seed) if args.shrink => cut_down(seed, &args),
            Some(seed) => show(seed, &args),
            None => many(&args),
        },
        Command::PlantedBugs(args) => planted_bugs(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error:#}")).unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

/// The only place that prints.
fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}").context("writing to standard output")
}

fn threads(asked: Option<u16>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.map_or_else(cores, usize::from)
}

fn plan_of(seed: u64, args: &RunArgs) -> Plan {
    let keep = args.keep.as_ref().map(|Positions(keep)| keep.clone());
    Plan { layer: args.layer.into(), seed, keep, trace: args.trace, planted: args.planted }
}

/// The command that does it again.
fn again(plan: &Plan) -> String {
    let Plan { layer, seed, keep, planted, .. } = plan;
    let layer = match layer {
        run::Layer::A => "a",
        run::Layer::B => "b",
    };
    // This very program: another build may do otherwise.
    let program = std::env::current_exe().unwrap_or_else(|_| "medic-sim".into());
    let mut text = format!("{} run --layer {layer} --seed {seed}", program.display());
    if let Some(keep) = keep {
        let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
        text.push_str(&format!(" --keep '{}'", keep.join(",")));
    }
    if let Some(planted) = planted {
        text.push_str(&format!(" --planted {}", planted.name()));
    }
    text
}

/// A mistake of whole nodes is nowhere in layer a.
fn fits(plan: &Plan) -> anyhow::Result<()> {
    match plan.planted {
        Some(planted) if planted.of_whole_nodes() && plan.layer == run::Layer::A => {
            bail!("{} is a mistake of whole nodes: add `--layer b`", planted.name())
        }
        Some(_) | None => Ok(()),
    }
}

fn show(seed: u64, args: &RunArgs) -> anyhow::Result<bool> {
    let plan = plan_of(seed, args);
    fits(&plan)?;
    let begun = Watch::start();
    if !args.json && plan.layer == run::Layer::B {
        say("simulating some two minutes of whole nodes, which are told when they are over")?;
    }
    let outcome = run(&plan)?;
    let of_seed = |at: &&usize| !outcome.schedule.contains_key(*at);
    if let Some(none) = plan.keep.iter().flatten().find(of_seed) {
        bail!("seed {seed} has no fault {none}; without `--keep` it lists those it has");
    }
    if args.json {
        say(&serde_json::to_string(&Told::of(seed, &outcome))?)?;
        return Ok(outcome.violations.is_empty());
    }
    let Outcome { violations, hash, trace, schedule, simulated, spent, committed, .. } = outcome;
    for line in &trace {
        say(line)?;
    }
    for (position, fault) in &schedule {
        say(&format!("fault {position:>3} {fault}"))?;
    }
    for violation in &violations {
        say(&format!("{violation}"))?;
    }
    say(&format!(
        "seed {seed}: {:.0} s simulated in {:.2} s ({:.0} × real time per core), {committed} entries, trace {}, {} violations",
        simulated.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        simulated.as_secs_f64() / spent.as_secs_f64().max(1e-9),
        hash.short(),
        violations.len()
    ))?;
    if !violations.is_empty() {
        say(&format!("again: {} --trace", again(&plan)))?;
    }
    Ok(violations.is_empty())
}

fn cut_down(seed: u64, args: &RunArgs) -> anyhow::Result<bool> {
    let plan = plan_of(seed, args);
    fits(&plan)?;
    let told = |left: usize| say(&format!("still fails with {left} faults")).unwrap_or_default();
    let program = std::env::current_exe().context("finding this program")?;
    // Whole nodes are simulated once in a process.
    let tried = |plan: &Plan| match plan.layer {
        run::Layer::A => run(plan).map(|outcome| Told::of(plan.seed, &outcome).tried()),
        run::Layer::B => processes::ask(&program, plan).map(Told::tried),
    };
    let Some(shrunk) = shrink(&plan, &tried, &told)? else {
        say(&format!("seed {seed} does not fail: nothing to cut down"))?;
        return Ok(true);
    };
    let smallest = Plan { keep: Some(shrunk.keep), ..plan };
    let outcome = run(&smallest)?;
    for violation in &outcome.violations {
        say(&format!("{violation}"))?;
    }
    let (left, of, runs) = (outcome.schedule.len(), shrunk.of, shrunk.runs);
    say(&format!("{left} of {of} faults are enough ({runs} runs):"))?;
    for (position, fault) in &outcome.schedule {
        say(&format!("fault {position:>3} {fault}"))?;
    }
    say(&format!("again: {} --trace", again(&smallest)))?;
    Ok(false)
}

fn many(args: &RunArgs) -> anyhow::Result<bool> {
    let threads = threads(args.threads);
    let begun = Watch::start();
    let last = Mutex::new(begun);
    let total = args.seeds.end - args.seeds.start;
    let progress = |report: &Report| {
        let mut last = lock(&last);
        if !args.json && last.elapsed() > Duration::from_secs(5) {
            *last = Watch::start();
            let rate = f64::from(u32::try_from(report.seeds).unwrap_or(u32::MAX))
                / begun.elapsed().as_secs_f64();
            let text = format!(
                "{} of {total} seeds, {rate:.1} seeds/s, {:.1} simulated hours, {:.0} × real time per core, {} failed",
                report.seeds,
                report.simulated.as_secs_f64() / 3_600.0,
                report.speed(),
                report.failures
            );
            say(&text).unwrap_or_default();
        }
    };
    let report = match args.layer {
        Layer::A => campaign(args.seeds.clone(), threads, &progress)?,
        Layer::B => {
            let program = std::env::current_exe().context("finding this program")?;
            processes::campaign(&program, args.seeds.clone(), threads, &progress)?
        }
    };
    if args.json {
        say(&serde_json::to_string_pretty(&report.summary())?)?;
    } else {
        tell(&report, begun.elapsed())?;
    }
    let missing = report.missing();
    Ok(report.failures == 0 && (!args.full || missing.is_empty()))
}

fn tell(report: &Report, took: Duration) -> anyhow::Result<()> {
    say("sometimes:")?;
    for (state, count) in report.states() {
        say(&format!("  {count:>8}  {state}"))?;
    }
    for (seed, violations) in &report.failed {
        for violation in violations.iter().take(3) {
            say(&format!("seed {seed}: {violation}"))?;
        }
        let plan = Plan { layer: report.layer, seed: *seed, ..Plan::default() };
        say(&format!("  again: {} --trace", again(&plan)))?;
    }
    let missing = report.missing();
    if !missing.is_empty() {
        say(&format!("never reached: {}", missing.join("; ")))?;
    }
    if report.without_drill() > 0 {
        say(&format!(
            "{} of {} seeds without a drill: nothing was whole enough to break after the faults",
            report.without_drill(),
            report.seeds
        ))?;
    }
    say(&format!(
        "{} seeds ({} twice), {:.1} simulated hours in {:.1} s, {:.0} × real time per core, {} entries, {} calls, {} failed",
        report.seeds,
        report.twice,
        report.simulated.as_secs_f64() / 3_600.0,
        took.as_secs_f64(),
        report.speed(),
        report.committed,
        report.calls,
        report.failures
    ))
}

fn planted_bugs(args: &PlantedArgs) -> anyhow::Result<bool> {
    let todo: Vec<Planted> = match args.only {
        Some(one) => vec![one],
        None => Planted::ALL.to_vec(),
    };
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results: Mutex<Vec<anyhow::Result<Caught>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads(args.threads).min(todo.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(planted) = todo.get(at) else { return };
                    let caught = hunted(*planted, args.seeds.clone());
                    if let Ok(caught) = &caught {
                        say(&told(caught)).unwrap_or_default();
                    }
                    lock(&results).push(caught);
                }
            });
        }
    });
    let mut missed = Vec::new();
    for result in results.into_inner().unwrap_or_default() {
        let caught = result?;
        if caught.by.is_none() {
            missed.push(caught.planted.name());
        }
    }
    if todo.is_empty() {
        bail!("no mistakes can be planted in this build: build it with the feature `planted`");
    }
    if !missed.is_empty() {
        missed.sort_unstable();
        say(&format!("missed: {}", missed.join(", ")))?;
    }
    let (caught, of) = (todo.len() - missed.len(), todo.len());
    say(&format!("{caught} of {of} planted bugs caught"))?;
    Ok(missed.is_empty())
}

fn hunted(planted: Planted, seeds: Range<u64>) -> anyhow::Result<Caught> {
    if planted.of_whole_nodes() {
        let program = std::env::current_exe().context("finding this program")?;
        return Ok(hunt_in_processes(&program, planted, seeds)?);
    }
    Ok(hunt(planted, seeds)?)
}

fn told(caught: &Caught) -> String {
    let name = caught.planted.name();
    let took = caught.took.as_secs_f64();
    match &caught.by {
        Some((seed, found)) => {
            let layer = if caught.planted.of_whole_nodes() { "b" } else { "a" };
            format!("caught {name} (layer {layer}, seed {seed}, {took:.1} s): {found}")
        }
        None => {
            let (tried, what) = (caught.tried, caught.planted.what());
            format!("MISSED {name} ({tried} seeds, {took:.1} s): {what}")
        }
    }
}
