//! `medic-chaos campaign`: a cluster of real processes, clients that record, trouble in the fleet,
//! and faults drawn from a seed; then everything that was left behind is checked.
//!
//! ```text
//!   stage ─► rounds: faults … heal … recovered? ─► settle ─► evidence ─► verdicts ─► report
//!     └ clients, trouble and eyes run all the while ┘
//! ```

mod arena;
mod ask;
mod bystanders;
mod clients;
mod evidence;
mod ground;
mod people;
mod stage;
mod told;
mod trouble;
pub mod watch;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

pub use self::arena::{Cause, Death, Hits};
pub use self::ground::NetworkChoice;
pub(crate) use self::told::told_to_stop;
use self::{arena::Proof, ground::Entered, stage::Stage};
use crate::{
    nemesis::{Capabilities, Fault, Round, disk, rounds},
    netns::Network,
    report::{Event, Report},
};

/// Options of a campaign.
#[derive(Clone, Debug, clap::Args)]
pub struct CampaignArgs {
    /// How long faults go on; checking comes on top.
    #[arg(long, default_value_t = 5.0)]
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

/// Recovery is expected within this; invariant 14.
const RECOVERY_MAX_MS: u64 = 30_000;
/// And waited for this long, to go on.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(90);
/// What a round's recovery is reckoned with in the schedule.
const REST_MS: u64 = 2_000;
/// After a round, plans are given this long to come to their end …
const BREATH: Duration = Duration::from_secs(9);
/// … unless there are fewer than this under way.
const UNDER_WAY_FEW: usize = 2;
/// From this length on a campaign must have reached every failpoint often enough.
const FULL_MINUTES: f64 = 60.0;
/// Between looks at who has died.
const TICK: Duration = Duration::from_millis(100);
/// Normal life before the first fault.
const WARM_UP: Duration = Duration::from_secs(4);

/// Runs a campaign. True when no invariant was violated.
///
/// # Errors
/// When the stage cannot be set up or the report cannot be written.
pub async fn run(args: CampaignArgs) -> anyhow::Result<bool> {
    if args.healing.healing {
        if args.network == NetworkChoice::Namespaces {
            bail!("--healing measures on loopback only: leave --network namespaces out");
        }
        return Box::pin(crate::healing::run(&args)).await;
    }
    if args.dry_run {
        for (number, round) in Plan::draw(&args)?.schedule.iter().enumerate() {
            say(&format!("round {}: {}", number + 1, describe(round)));
        }
        return Ok(true);
    }
    let mut ground = match ground::enter(args.network, args.nodes).await? {
        Entered::Here(ground) => ground,
        Entered::Elsewhere(good) => return Ok(good),
    };
    disk::go_private()?;
    let plan = Plan::draw(&args)?;
    let (words, network) = (ground.to_string(), ground.network());
    let mut slot = None;
    // Whatever happens, what was started is ended and what was done is undone.
    let outcome = tokio::select! {
        outcome = perform(&args, &plan, &words, network, &mut slot) => outcome,
        told = told_to_stop() => told.and(Err(anyhow::anyhow!("interrupted"))),
        () = ground.lost() => Err(anyhow::anyhow!("whoever keeps the network is gone")),
    };
    if let Some(mut stage) = slot {
        stage.end().await;
    }
    outcome
}

/// What is to be done.
struct Plan {
    can: Capabilities,
    total_ms: u64,
    schedule: Vec<Round>,
}

impl Plan {
    fn draw(args: &CampaignArgs) -> anyhow::Result<Self> {
        let can = Capabilities::look(stage::has_failpoints(&stage::medic(args.medic.as_deref())));
        let total_ms = Duration::try_from_secs_f64(args.minutes * 60.0)
            .context("--minutes must be positive")?
            .as_millis();
        let total_ms = u64::try_from(total_ms)?;
        let schedule = rounds(args.seed, total_ms, REST_MS, args.nodes, &can);
        Ok(Self { can, total_ms, schedule })
    }
}

async fn perform(
    args: &CampaignArgs,
    plan: &Plan,
    ground: &str,
    network: Option<Network>,
    slot: &mut Option<Stage>,
) -> anyhow::Result<bool> {
    let Plan { can, total_ms, schedule } = plan;
    say(&format!(
        "campaign: {} nodes, seed {}, {} minutes, up to {} rounds of faults",
        args.nodes,
        args.seed,
        args.minutes,
        schedule.len()
    ));
    say(&format!("  network: {ground}"));
    for fault in Fault::ALL {
        if let Some(why) = can.missing(fault) {
            say(&format!("  not here: {fault}: {why}"));
        }
    }
    let stage = slot.insert(Stage::raise(args, *can, network).await.context("setting the stage")?);
    say(&format!("  folder: {}", stage.dir.display()));
    let mut report = Report::new(args.seed, args.nodes, stage.wall_began_ms());
    report.network = ground.to_owned();
    report.full = args.minutes >= FULL_MINUTES;
    report.absent = Fault::ALL
        .into_iter()
        .filter_map(|fault| Some(format!("{fault}: {}", can.missing(fault)?)))
        .collect();
    let workers = stage.work(args.seed)?;
    tokio::time::sleep(WARM_UP).await;
    let began = Instant::now();
    for (number, round) in schedule.iter().enumerate() {
        if u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) >= *total_ms {
            break;
        }
        say(&format!("round {}: {}", number + 1, describe(round)));
        let unproved = play(stage, round, &mut report).await?;
        recover(stage, &mut report).await?;
        count_felt(stage, &unproved, &mut report)?;
        breathe(stage).await;
    }
    say("settling: no more trouble, plans come to their end");
    stage.settle(workers).await?;
    report.incidents = stage.troubles.load(Ordering::Relaxed);
    evidence::gather(stage, &mut report).await?;
    let path = report.write(&stage.dir)?;
    for verdict in &report.verdicts {
        let word = if verdict.holds() { "holds" } else { "VIOLATED" };
        say(&format!(
            "  {:>2} {word:<8} {:>7} {:<28} {}",
            verdict.invariant,
            verdict.checked,
            verdict.of,
            verdict.title()
        ));
        for violation in verdict.violations.iter().take(5) {
            say(&format!("       {}", violation.what));
        }
    }
    say(&report.summary());
    say(&report.ground());
    for short in report.short() {
        say(&format!("NOT reached: {short}"));
    }
    say(&format!("report: {}", path.display()));
    Ok(report.good())
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
        let text = match done {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            // Whom it was meant for died of another fault meanwhile.
            Err(error) => {
                let text = format!("{:?} could not be done: {error:#}", timed.step);
                say(&format!("  {:>7.1} s  {}: {text}", seconds(at_ms), timed.fault));
                report.events.push(Event { at_ms, fault: Some(timed.fault), text });
                continue;
            }
        };
        if !timed.step.undoes() {
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

fn describe(round: &Round) -> String {
    let faults: Vec<String> = round
        .faults
        .iter()
        .map(|(fault, from, to)| {
            format!("{fault} ({:.1} s to {:.1} s)", seconds(*from), seconds(*to))
        })
        .collect();
    faults.join(", ")
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
