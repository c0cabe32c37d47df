//! `medic-chaos campaign --healing`: how well a fleet is healed, measured against the customer's table.
//!
//! ```text
//!   faults        a fleet with Medic: faults at drawn times, singly and overlapping; leaders die
//!   without-medic the same fleet, traffic and faults; a person mends each after a while
//!   quiet         a fleet with Medic and a day's noise: every incident is a false alarm
//! ```
//!
//! Each injected fault has its ground truth (kind, target, expected class, beginning, end), told by
//! the processes and files themselves. Everything is drawn from the seed.

mod cases;
mod inject;
pub mod kinds;
mod life;
mod load;
mod measure;
mod noise;
mod report;
pub mod schedule;
mod stage;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::JoinSet;

pub(crate) use self::stage::medic;
use self::{
    cases::{Case, Desk},
    kinds::Kind,
    life::{Ground, Injected, live, wall_ms},
    load::Second,
    measure::measure,
    report::Report,
    schedule::{Kill, Planned},
    stage::{Plan, Stage},
};
use crate::{
    campaign::{CampaignArgs, say, seconds},
    fleet::SampleFleet,
};

/// Options of the healing campaign.
#[derive(Clone, Debug, clap::Args)]
pub struct HealingArgs {
    /// Measure how well faults of a fleet are healed, instead of checking the invariants.
    #[arg(long)]
    pub healing: bool,
    /// Only this phase; may be repeated. Each takes --minutes.
    #[arg(long, value_enum, requires = "healing")]
    pub phase: Vec<Phase>,
    /// Only faults of this kind; may be repeated.
    #[arg(long, requires = "healing")]
    pub kind: Vec<Kind>,
    /// Seconds after which a person mends what is not healed.
    #[arg(long, default_value_t = 90, requires = "healing")]
    pub person_after: u64,
    /// Seconds between scrapes, and between probes, of every instance.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60), requires = "healing")]
    pub scrape_interval: u64,
}

/// Parts of a healing campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Faults, and Medic.
    Faults,
    /// The same faults, and a person.
    WithoutMedic,
    /// No faults, and Medic.
    Quiet,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Faults, Self::WithoutMedic, Self::Quiet];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Faults => "faults",
            Self::WithoutMedic => "without-medic",
            Self::Quiet => "quiet",
        }
    }
}

/// What one phase left behind.
#[derive(Debug, Serialize)]
struct Record {
    phase: Phase,
    began_wall_ms: u64,
    /// Normal life before that.
    warm_up_ms: u64,
    length_ms: u64,
    faults: Vec<Injected>,
    kills: Vec<Killed>,
    noise: Vec<noise::Noted>,
    cases: Vec<Case>,
    load: BTreeMap<u64, Second>,
    /// Incidents that a person had to close at the end.
    left_open: usize,
}

/// A node that was killed.
#[derive(Clone, Debug, Serialize)]
struct Killed {
    at_ms: u64,
    node: u64,
    leader: bool,
}

/// Scrapes of normal life before the first fault, so that detectors know what is usual.
const WARM_UP: u32 = 20;
/// After the last fault, incidents are given this long to close.
const SETTLE: Duration = Duration::from_secs(120);

/// Runs the campaign. Gives the exit code: 0 when every bound of the customer's table was kept, 1 when
/// one was not, 3 when it was told to stop, 4 when a phase could not be played. There is a report of
/// the phases before in any case.
///
/// # Errors
/// When nothing can be set up, or the report cannot be written.
pub async fn run(args: &CampaignArgs) -> anyhow::Result<u8> {
    let phases = if args.healing.phase.is_empty() {
        Phase::ALL.to_vec()
    } else {
        args.healing.phase.clone()
    };
    let total_ms = u64::try_from(Duration::try_from_secs_f64(args.minutes * 60.0)?.as_millis())?;
    let kinds =
        if args.healing.kind.is_empty() { Kind::ALL.to_vec() } else { args.healing.kind.clone() };
    let dir = folder(args)?;
    let medic = medic(args.medic.as_deref());
    let plan = Plan {
        dir: dir.clone(),
        medic,
        nodes: args.nodes,
        seed: args.seed,
        scrape_interval: args.healing.scrape_interval,
        with_medic: true,
    };
    if args.dry_run {
        let stage = Stage::prepare(&plan).await?;
        dry_run(args, total_ms, &kinds, &phases, &stage);
        std::fs::remove_dir_all(&dir)?;
        return Ok(0);
    }
    say(&format!(
        "healing campaign: {} nodes, seed {}, {} kinds of faults, folder {}",
        args.nodes,
        args.seed,
        kinds.len(),
        dir.display()
    ));
    let mut report = Report::new(args, phases.clone(), &dir);
    let mut broken = None;
    for phase in phases {
        let dir = dir.join(phase.name());
        let with_medic = phase != Phase::WithoutMedic;
        let plan = Plan { dir, with_medic, ..plan.clone() };
        let run = Run { args, phase, total_ms, kinds: &kinds };
        let (record, fleet) = match run.play(&plan).await {
            Ok(played) => played,
            Err(error) => {
                report.broken_off = Some(format!("in phase {}: {error:#}", phase.name()));
                let told = error.is::<Interrupted>();
                broken =
                    Some(if told { crate::report::INTERRUPTED } else { crate::report::BROKEN });
                break;
            }
        };
        let (rows, figures, false_alarms) =
            measure(&record.faults, &record.cases, &record.load, &fleet);
        report.add(record, rows, figures, false_alarms, fleet.instances.len());
    }
    report.machine.look_again();
    let path = report.write(&dir)?;
    say(&report.terminal());
    say(&report.headline());
    say(&format!("report: {}", path.display()));
    Ok(broken.unwrap_or(u8::from(!report.good())))
}

/// It was told to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

fn folder(args: &CampaignArgs) -> anyhow::Result<PathBuf> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("medic-healing-");
    Ok(match &args.out {
        Some(out) => {
            std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
            builder.tempdir_in(std::fs::canonicalize(out)?)?.keep()
        }
        None => builder.tempdir()?.keep(),
    })
}

fn dry_run(args: &CampaignArgs, total_ms: u64, kinds: &[Kind], phases: &[Phase], stage: &Stage) {
    for phase in phases {
        say(&format!("{}:", phase.name()));
        if *phase == Phase::Quiet {
            for one in schedule::quiet(args.seed, total_ms, &stage.fleet) {
                let (at, who) = (seconds(one.at_ms), one.instances.join(", "));
                say(&format!("  {at:>7.1} s  {:<18} {who}", one.noise.name()));
            }
            continue;
        }
        let faults = schedule::faults(args.seed, total_ms, kinds, &stage.fleet);
        let with_medic = *phase == Phase::Faults;
        let kills = if with_medic { schedule::kills(args.seed, total_ms) } else { Vec::new() };
        for (at_ms, what) in foreseen(&faults, &kills) {
            say(&format!("  {:>7.1} s  {what}", seconds(at_ms)));
        }
    }
}

/// Faults and kills, as they will come.
fn foreseen(faults: &[Planned], kills: &[Kill]) -> Vec<(u64, String)> {
    let faults = faults.iter().map(|fault| {
        let (kind, who) = (fault.kind, fault.instances.join(", "));
        (fault.at_ms, format!("{kind:<18} {who}: {}", kind.story()))
    });
    let kills = kills.iter().map(|kill| (kill.at_ms, format!("SIGKILL for {}", kill.who())));
    let mut all: Vec<(u64, String)> = faults.chain(kills).collect();
    all.sort_by_key(|(at_ms, _)| *at_ms);
    all
}

struct Run<'a> {
    args: &'a CampaignArgs,
    phase: Phase,
    total_ms: u64,
    kinds: &'a [Kind],
}

impl Run<'_> {
    /// Raises a stage, plays the phase, and ends whatever was started.
    async fn play(&self, plan: &Plan) -> anyhow::Result<(Record, Arc<SampleFleet>)> {
        std::fs::create_dir_all(&plan.dir)?;
        say(&format!("phase {}: {:.1} minutes", self.phase.name(), self.args.minutes));
        let mut stage = Stage::prepare(plan).await?;
        let outcome = tokio::select! {
            outcome = self.perform(plan, &mut stage) => outcome,
            told = crate::campaign::told_to_stop() => told.and(Err(Interrupted.into())),
        };
        stage.end().await;
        Ok((outcome?, stage.fleet.clone()))
    }

    async fn perform(&self, plan: &Plan, stage: &mut Stage) -> anyhow::Result<Record> {
        stage.raise(plan).await.context("setting the stage")?;
        let desk = match &stage.cluster {
            Some(cluster) => Some(Arc::new(Desk::new(cluster.dialer("oncall")?))),
            None => None,
        };
        let watching = desk.clone().map(|desk| tokio::spawn(async move { desk.watch().await }));
        let warm_up = Duration::from_secs(plan.scrape_interval) * WARM_UP;
        tokio::time::sleep(warm_up).await;
        let (began, began_wall_ms) = (Instant::now(), wall_ms());
        let mut tasks = JoinSet::new();
        let ground = Ground {
            hands: stage.hands.clone(),
            keeper: stage.keeper.clone(),
            desk: desk.clone(),
            crowd: stage.load.as_ref().map(load::Load::crowd),
            began,
            person_after: Duration::from_secs(self.args.healing.person_after),
        };
        let mut noise = JoinSet::new();
        if self.phase == Phase::Quiet {
            for one in schedule::quiet(self.args.seed, self.total_ms, &stage.fleet) {
                noise.spawn(noise::make(ground.clone(), stage.fleet.clone(), one));
            }
        } else {
            for fault in schedule::faults(self.args.seed, self.total_ms, self.kinds, &stage.fleet) {
                tasks.spawn(live(ground.clone(), fault));
            }
        }
        let kills = if self.phase == Phase::Faults {
            self.kill_nodes(stage, began).await
        } else {
            Vec::new()
        };
        let end = began + Duration::from_millis(self.total_ms);
        tokio::time::sleep_until(end.into()).await;
        let faults = tasks.join_all().await;
        let noise = noise.join_all().await;
        let left_open = match &desk {
            Some(desk) => settle(desk).await,
            None => 0,
        };
        if let Some(watching) = watching {
            watching.abort();
        }
        Ok(Record {
            phase: self.phase,
            began_wall_ms,
            warm_up_ms: u64::try_from(warm_up.as_millis()).unwrap_or(u64::MAX),
            length_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            faults: in_order(faults),
            kills,
            noise,
            cases: desk.map(|desk| desk.cases()).unwrap_or_default(),
            load: stage.load.as_ref().map(load::Load::seconds).unwrap_or_default(),
            left_open,
        })
    }

    /// Kills nodes of Medic's, one at a time, until the phase is over.
    async fn kill_nodes(&self, stage: &mut Stage, began: Instant) -> Vec<Killed> {
        let mut killed = Vec::new();
        let Some(cluster) = stage.cluster.as_mut() else { return killed };
        for kill in schedule::kills(self.args.seed, self.total_ms) {
            tokio::time::sleep_until((began + Duration::from_millis(kill.at_ms)).into()).await;
            let node = match kill_one(cluster, kill, self.args.nodes).await {
                Ok(node) => node,
                Err(error) => {
                    tracing::warn!("killing a node: {error:#}");
                    continue;
                }
            };
            // It may have taken a while until there was a leader.
            let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (at, who) = (seconds(at_ms), kill.who());
            say(&format!("  {at:>7.1} s  node-{node}, {who}, gets SIGKILL"));
            killed.push(Killed { at_ms, node, leader: kill.leader });
            tokio::time::sleep(Duration::from_millis(kill.away_ms)).await;
            if let Err(error) = cluster.node_mut(node).and_then(crate::harness::Process::start) {
                tracing::warn!("starting node-{node} again: {error:#}");
            }
        }
        killed
    }
}

async fn kill_one(
    cluster: &mut crate::harness::Cluster,
    kill: Kill,
    nodes: u64,
) -> anyhow::Result<u64> {
    let leader = cluster.wait_for_leader(Duration::from_secs(10)).await?;
    let node = if kill.leader { leader } else { leader % nodes + 1 };
    cluster.node_mut(node)?.kill().await?;
    Ok(node)
}

fn in_order(mut faults: Vec<Injected>) -> Vec<Injected> {
    faults.sort_by_key(|fault| fault.planned.at_ms);
    faults
}

/// Waits until every incident is closed; what stays open a person closes. Gives how many.
async fn settle(desk: &Desk) -> usize {
    let deadline = Instant::now() + SETTLE;
    loop {
        let looked = desk.look().await;
        let waiting = desk.cases().iter().any(|case| {
            !case.closed() && !matches!(case.status.as_str(), "escalated" | "awaiting-approval")
        });
        if looked.is_ok() && !waiting {
            break;
        }
        if Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    desk.close_rest().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_foreseen_is_told_in_the_order_of_time() {
        let fault = |at_ms| Planned {
            at_ms,
            kind: Kind::Crash,
            service: "orders".to_owned(),
            instances: vec!["orders-1".to_owned()],
        };
        let kill = |at_ms| Kill { at_ms, leader: true, away_ms: 3_000 };
        let told = foreseen(&[fault(2_000), fault(38_000)], &[kill(20_000), kill(60_000)]);
        let times: Vec<u64> = told.iter().map(|(at_ms, _)| *at_ms).collect();
        assert_eq!(times, [2_000, 20_000, 38_000, 60_000]);
        assert_eq!(told[1].1, "SIGKILL for the leader");
    }
}
