//! `medic-chaos campaign`: a cluster of real processes, clients that record, trouble in the fleet,
//! and faults drawn from a seed; then everything that was left behind is checked.
//!
//! ```text
//!   stage ─► rounds: faults … heal … recovered? ─► settle ─► evidence ─► verdicts ─► report
//!     └ clients, trouble and eyes run all the while ┘        ▲
//!                            └ told to stop, or broken ──────┘ heal, settle for a shorter while
//! ```
//!
//! Once the stage stands there is a report, however the rounds end: the worst outcome must not be the
//! one that says nothing.

mod arena;
mod ask;
mod bystanders;
mod clients;
mod evidence;
mod ground;
mod people;
mod plan;
mod sources;
mod stage;
mod told;
mod trouble;
mod usage;
pub mod watch;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Context as _;

pub use self::arena::{Cause, Death, Hits};
pub use self::ground::NetworkChoice;
pub(crate) use self::told::told_to_stop;
use self::{
    arena::Proof,
    ground::{Entered, Ground},
    plan::{Plan, describe},
    stage::{SETTLE_PATIENCE, Stage, Workers},
    told::Told,
};
use crate::{
    bench::Machine,
    harness::kill_processes_with,
    nemesis::{Fault, Round, disk},
    report::{BROKEN, Ended, Event, INTERRUPTED, Report},
};

/// Options of a campaign.
#[derive(Clone, Debug, clap::Args)]
pub struct CampaignArgs {
    /// How long faults go on; checking comes on top.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    pub minutes: f64,
    /// What the schedule, the trouble and the clients are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    pub nodes: u64,
    /// The `medic` binary; by default `medic-under-test` (with failpoints) or `medic` beside this
    /// program.
    #[arg(long, env = "MEDIC_BIN")]
    pub medic: Option<PathBuf>,
    /// Where nodes live.
    #[arg(long, value_enum, default_value_t = NetworkChoice::Auto)]
    pub network: NetworkChoice,
    /// Folder for report, history and logs; by default a fresh one.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Show the schedule, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How well a fleet is healed, measured.
    #[command(flatten)]
    pub healing: crate::healing::HealingArgs,
}

/// Exit code of wrong usage, as clap's.
const REFUSED: u8 = 2;
/// Recovery is expected within this; invariant 14.
const RECOVERY_MAX_MS: u64 = 30_000;
/// And waited for this long, to go on.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(90);
/// After an interruption plans are given this long to come to their end.
const HURRY: Duration = Duration::from_secs(45);
/// After a round, plans are given this long to come to their end …
const BREATH: Duration = Duration::from_secs(9);
/// … unless there are fewer than this under way.
const UNDER_WAY_FEW: usize = 2;
/// Nobody means more than a week, and a schedule is held in memory.
const MINUTES_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Between looks at who has died.
const TICK: Duration = Duration::from_millis(100);
/// Normal life comes about within this, before the first fault.
const WARM_UP_MAX: Duration = Duration::from_secs(60);

/// The variable that names a mistake which nodes that have any make: the measure of the checkers.
pub const PLANTED: &str = "MEDIC_PLANTED";

/// Runs a campaign, and says with its exit code how it ended: 0 when all is well; 1 when an invariant
/// was violated, or something was not checked or reached that must be (`--healing`: a bound was not
/// kept); 3 when it was told to stop, and nothing is wrong so far; 4 when the harness itself failed.
pub async fn main(args: CampaignArgs) -> ExitCode {
    match run(args).await {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            say(&format!("the campaign could not be held: {error:#}"));
            ExitCode::from(BROKEN)
        }
    }
}

async fn run(args: CampaignArgs) -> anyhow::Result<u8> {
    if let Err(wrong) = usage::check(&args, std::env::var_os(PLANTED).as_deref()).await {
        say(&format!("{wrong:#}"));
        return Ok(REFUSED);
    }
    if args.healing.healing {
        if args.network == NetworkChoice::Namespaces {
            say("--healing measures on loopback only: leave --network namespaces out");
            return Ok(REFUSED);
        }
        return Box::pin(crate::healing::run(&args)).await;
    }
    if args.dry_run {
        Plan::foresee(&args)?.tell();
        return Ok(0);
    }
    let mut ground = match ground::enter(args.network, args.nodes).await? {
        Entered::Here(ground) => ground,
        Entered::Elsewhere(exit) => return Ok(exit),
    };
    disk::go_private()?;
    let plan = Plan::draw(&args)?;
    // From here on nobody is ended by a signal; it is told instead.
    let mut told = Told::listen()?;
    let raised = raise(&args, &plan, &ground, &mut told).await?;
    let Some(mut stage) = raised else {
        say("interrupted before the first fault: there is nothing to report");
        return Ok(INTERRUPTED);
    };
    // Whatever happens, what was started is ended and what was done is undone.
    let outcome = hold(&args, &plan, &mut stage, &mut ground, &mut told).await;
    stage.end().await;
    outcome
}

/// Sets the stage; nothing, when it was told to stop meanwhile.
async fn raise(
    args: &CampaignArgs,
    plan: &Plan,
    ground: &Ground,
    told: &mut Told,
) -> anyhow::Result<Option<Stage>> {
    say(&format!(
        "campaign: {} nodes, seed {}, {} minutes, up to {} rounds of faults",
        args.nodes,
        args.seed,
        args.minutes,
        plan.schedule.len()
    ));
    say(&format!("  network: {ground}"));
    for absent in plan.absent() {
        say(&format!("  not here: {absent}"));
    }
    let dir = Stage::folder(args)?;
    let raising = Stage::raise(args, plan.can, ground.network(), dir.clone());
    let raised = tokio::select! {
        stage = raising => stage.context("setting the stage").map(Some),
        _ = told.next() => Ok(None),
    };
    if !matches!(raised, Ok(Some(_))) {
        // Nodes and agents ended as their handles were dropped; services outlive their agents.
        kill_processes_with(&dir.to_string_lossy());
    }
    raised
}

/// Rounds, then the report, however they end. Gives the exit code.
async fn hold(
    args: &CampaignArgs,
    plan: &Plan,
    stage: &mut Stage,
    ground: &mut Ground,
    told: &mut Told,
) -> anyhow::Result<u8> {
    say(&format!("  folder: {}", stage.dir.display()));
    let mut report = blank(args, plan, stage, ground);
    let mut workers = None;
    let outcome = tokio::select! {
        outcome = perform(args, plan, stage, &mut report, &mut workers) => outcome,
        by = told.next() => Err(Stopped::Told(by.as_str())),
        () = ground.lost() => Err(Stopped::Told("the end of whoever keeps the network")),
    };
    if let Err(stopped) = outcome {
        report.ended = stopped.at(stage.arena.eyes.now_ms());
        report.full = false;
        say(&format!(
            "{}; what there is will be checked (tell it again to end at once)",
            report.headline()
        ));
    }
    let closing = conclude(stage, &mut report, workers);
    tokio::select! {
        () = closing => {}
        _ = told.next() => {
            say("told to stop again: ended without a report");
            return Ok(INTERRUPTED);
        }
    }
    let path = report.write(&stage.dir)?;
    say(report.terminal().trim_end());
    say(&format!("report: {}", path.display()));
    Ok(report.exit())
}

/// Why rounds did not go on.
enum Stopped {
    /// By whom it was told.
    Told(&'static str),
    /// The harness could not go on.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl Stopped {
    fn at(self, after_ms: u64) -> Ended {
        match self {
            Self::Told(by) => Ended::Interrupted { by: by.to_owned(), after_ms },
            Self::Broken(error) => Ended::Broken { why: format!("{error:#}"), after_ms },
        }
    }
}

/// A report that knows what is to be done, and where.
fn blank(args: &CampaignArgs, plan: &Plan, stage: &Stage, ground: &Ground) -> Report {
    let mut report = Report::new(args.seed, args.nodes, stage.wall_began_ms());
    report.minutes = args.minutes;
    report.medic.clone_from(&args.medic);
    report.network_choice = Some(args.network);
    report.network = ground.to_string();
    report.build = sources::build(&stage.medic);
    report.machine = Some(Machine::look(&stage.dir));
    report.can = plan.can;
    report.full = plan.full;
    report.absent = plan.absent();
    report
}

async fn perform(
    args: &CampaignArgs,
    plan: &Plan,
    stage: &mut Stage,
    report: &mut Report,
    workers: &mut Option<Workers>,
) -> Result<(), Stopped> {
    *workers = Some(stage.work(args.seed)?);
    stage.normal(WARM_UP_MAX).await.context("before the first fault")?;
    let began = Instant::now();
    for (number, round) in plan.schedule.iter().enumerate() {
        if u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) >= plan.total_ms {
            break;
        }
        say(&format!("round {}: {}", number + 1, describe(round)));
        let unproved = play(stage, round, report).await?;
        recover(stage, report).await?;
        count_felt(stage, &unproved, report)?;
        breathe(stage).await;
    }
    Ok(())
}

/// Settles, and gathers whatever can be had. After an interruption it heals first.
async fn conclude(stage: &mut Stage, report: &mut Report, workers: Option<Workers>) {
    let whole = report.ended == Ended::Whole;
    if !whole && let Err(error) = recover(stage, report).await {
        report.missing.push(format!("healing after it was broken off: {error:#}"));
    }
    say("settling: no more trouble, plans come to their end");
    let patience = if whole { SETTLE_PATIENCE } else { HURRY };
    if let Err(error) = stage.settle(workers, patience).await {
        report.missing.push(format!("settling: {error:#}"));
    }
    report.troubles = stage.troubles.load(Ordering::Relaxed);
    evidence::gather(stage, report).await;
    report.length_ms = stage.arena.eyes.now_ms();
    if let Some(machine) = &mut report.machine {
        machine.look_again();
    }
}

/// What must be found of each fault of a round that was begun.
type Unproved = BTreeMap<Fault, Vec<Proof>>;

/// Plays the faults of one round, each step at its time.
async fn play(stage: &mut Stage, round: &Round, report: &mut Report) -> anyhow::Result<Unproved> {
    let began = Instant::now();
    for (fault, from, to) in &round.faults {
        let now = stage.arena.eyes.now_ms();
        report.faults.push((*fault, now + from, now + to));
        report.nemeses.entry(*fault).or_default().drawn += 1;
    }
    let mut unproved = Unproved::new();
    for timed in &round.steps {
        wait(stage, began + Duration::from_millis(timed.at_ms), report).await?;
        let at_ms = stage.arena.eyes.now_ms();
        let done = stage.arena.perform(&timed.step).await;
        let proofs = stage.arena.take_unproved();
        let begun = done.is_ok() && !timed.step.undoes();
        let text = match done {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            // Whom it was meant for died of another fault meanwhile.
            Err(error) => format!("{:?} could not be done: {error:#}", timed.step),
        };
        if begun {
            unproved.entry(timed.fault).or_default().extend(proofs);
        }
        say(&format!("  {:>7.1} s  {}: {text}", seconds(at_ms), timed.fault));
        report.events.push(Event { at_ms, fault: Some(timed.fault), text });
    }
    wait(stage, began + Duration::from_millis(round.length_ms), report).await?;
    Ok(unproved)
}

/// Counts what was begun, and what was felt: what needs a proof, when one is found; the rest (a signal, a
/// certificate, a failpoint) is felt when it is done.
fn count_felt(stage: &Stage, unproved: &Unproved, report: &mut Report) -> anyhow::Result<()> {
    for (fault, proofs) in unproved {
        let tally = report.nemeses.entry(*fault).or_default();
        tally.begun += 1;
        let mut felt = proofs.is_empty();
        for proof in proofs {
            felt |= stage.arena.proved(proof)?;
        }
        tally.felt += u64::from(felt);
    }
    Ok(())
}

/// Waits, with an eye on who dies meanwhile.
async fn wait(stage: &mut Stage, until: Instant, report: &mut Report) -> anyhow::Result<()> {
    loop {
        if let Some(text) = stage.arena.tick()? {
            note(stage, text, report);
        }
        let now = Instant::now();
        if now >= until {
            return Ok(());
        }
        tokio::time::sleep(TICK.min(until - now)).await;
    }
}

/// Something that happened by itself.
fn note(stage: &Stage, text: String, report: &mut Report) {
    let at_ms = stage.arena.eyes.now_ms();
    say(&format!("  {:>7.1} s  {text}", seconds(at_ms)));
    report.events.push(Event { at_ms, fault: None, text });
}

/// Undoes everything and takes the time until all is well.
async fn recover(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    let at_ms = stage.arena.eyes.now_ms();
    let began = Instant::now();
    let mut why = String::new();
    let took = loop {
        // Again and again: a fault may take a node down a moment after the heal, and whoever cannot
        // live with its damage is replaced.
        if let Some(text) = stage.arena.heal().await? {
            note(stage, text, report);
        }
        match stage.well().await {
            Ok(()) => match stage.arena.read_through().await {
                Ok(None) => break u64::try_from(began.elapsed().as_millis()).ok(),
                Ok(Some(text)) => note(stage, text, report),
                Err(error) => why = format!("{error:#}"),
            },
            Err(error) => why = format!("{error:#}"),
        }
        if began.elapsed() > RECOVERY_PATIENCE {
            break None;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let text = match took {
        Some(took) => format!("healed; all well after {:.1} s", seconds(took)),
        None => format!("healed, and not well after {RECOVERY_PATIENCE:?}: {why}"),
    };
    say(&format!("  {:>7.1} s  {text}", seconds(at_ms)));
    report.events.push(Event { at_ms, fault: None, text });
    report.recoveries.push((at_ms, took));
    if took.is_none_or(|took| took > RECOVERY_MAX_MS) {
        report.late.insert(at_ms, why);
    }
    Ok(())
}

/// Lets verifications come to their end: a leader that has just taken office looks for some seconds
/// before it judges, and without this no plan would ever end and no new one begin.
async fn breathe(stage: &Stage) {
    let began = Instant::now();
    while began.elapsed() < BREATH && stage.arena.eyes.under_way().len() >= UNDER_WAY_FEW {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A length that a campaign can have.
fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let length = Duration::try_from_secs_f64(minutes * 60.0).ok();
    let whole = length.filter(|length| length.as_millis() > 0 && *length <= MINUTES_MAX);
    whole.map(|_| minutes).ok_or_else(|| "must be positive, and no more than a week".to_owned())
}

/// Milliseconds as seconds, for people.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// A line of progress. A reader that went away is no reason to stop.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::minutes;

    #[test]
    fn a_campaign_has_a_length() {
        assert_eq!(minutes("0.25"), Ok(0.25));
        for wrong in ["0", "-1", "NaN", "inf", "1e-9", "20000", "five"] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }
}
