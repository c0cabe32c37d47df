//! `medic-chaos experiment`: a hypothesis about a system that is well, held against faults.
//!
//! ```text
//!   manifest ──► schedule ──► steady? ──► faults, watched ──► undo ──► steady? ──► report
//!   allow-list ─► resolve ─────────────────┘   │ journal, synced first
//!                                              └ guardian: undoes when this process is gone
//! ```
//!
//! It can be aimed at what it did not start: processes, containers, network namespaces, directories.
//! Invariants: nothing is touched that the allow-list does not name; what takes a fault back is on the
//! disk before the fault; every way to end, SIGKILL too, ends with the undo.

mod crew;
pub mod fault;
mod guard;
pub mod journal;
mod judge;
mod local;
pub mod manifest;
pub mod probe;
pub mod process;
pub mod report;
pub mod resolve;
mod run;
pub mod schedule;
pub mod system;
pub mod undo;
mod validate;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub use self::validate::ValidateArgs;
use self::{
    fault::pressure::BurnArgs,
    journal::{By, Journal},
    manifest::{
        Experiment, Inject, TargetSpec,
        allow::{self, AllowSpec},
    },
    undo::Undo,
};
use crate::campaign::say;

/// Refused before anything was touched: wrong usage, a wrong manifest, not allowed.
const REFUSED: u8 = 2;
/// Something could not be undone.
const NOT_UNDONE: u8 = 4;

/// What can be done with experiments.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ExperimentCommand {
    /// Run one. Exit: 0 steady, 1 hypothesis failed, 2 refused, 3 aborted, 4 undo incomplete.
    #[command(
        after_help = "Examples:\n  medic-chaos experiment run game.yaml --allow staging.yaml --dry-run     the plan, with its undos\n  medic-chaos experiment run game.yaml --allow staging.yaml --out ./reports\n  medic-chaos experiment run deploy/experiments/local-leader.yaml         a cluster of its own\n\nCtrl-C, SIGTERM and SIGHUP undo everything and exit 3. After SIGKILL a guardian undoes at once."
    )]
    Run(RunArgs),
    /// Check an experiment or an allow-list; says problems with line and column.
    ///
    /// All at once, but of a `metadata` or `spec` whose keys or types are wrong the first alone. With
    /// --allow the experiment is held against the list too, as far as the two files tell: which process
    /// is meant, and whether a target is there, `run --dry-run` finds out where it runs.
    #[command(
        after_help = "Examples:\n  medic-chaos experiment validate game.yaml --allow staging.yaml\n  medic-chaos experiment validate staging.yaml\n\nExit: 0 nothing is wrong, 2 something is."
    )]
    Validate(ValidateArgs),
    /// Take back by hand what a journal says is open. May be done any number of times.
    #[command(
        after_help = "Example:\n  medic-chaos experiment undo ./experiment-pause-api-x3Qa1z/journal.jsonl"
    )]
    Undo {
        /// The journal of the experiment.
        journal: PathBuf,
    },
    /// Print the JSON Schema, for editors.
    #[command(after_help = "Example:\n  medic-chaos experiment schema > experiment.schema.json")]
    Schema {
        /// Of allow-lists instead.
        #[arg(long)]
        allow: bool,
    },
    /// Undoes when the experiment is gone.
    #[command(hide = true)]
    Guard {
        /// The journal of the experiment.
        journal: PathBuf,
    },
    /// Works and holds memory.
    #[command(hide = true)]
    Burn(BurnArgs),
}

/// Options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The experiment (`kind: Experiment`).
    pub file: PathBuf,
    /// What may be touched (`kind: AllowList`); without it, nothing that was there before.
    #[arg(long, value_name = "FILE")]
    pub allow: Option<PathBuf>,
    /// Find the targets, say what would be done and undone, touch nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Folder in which a folder for journal and report is made [default: here].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The `medic` binary for `cluster: local`; by default the one beside this program.
    #[arg(long, env = "MEDIC_BIN")]
    pub medic: Option<PathBuf>,
}

/// Does what was asked for.
pub async fn main(command: ExperimentCommand) -> ExitCode {
    let outcome = match command {
        ExperimentCommand::Run(args) => Box::pin(run_one(&args)).await,
        ExperimentCommand::Validate(args) => validate::validate(&args).map(|()| 0),
        ExperimentCommand::Undo { journal } => undo_by_hand(&journal),
        ExperimentCommand::Schema { allow } => {
            let schema = if allow { allow::schema() } else { manifest::schema() };
            say(&serde_json::to_string_pretty(&schema).unwrap_or_default());
            Ok(0)
        }
        ExperimentCommand::Guard { journal } => {
            guard::keep(&journal).await.map(|good| if good { 0 } else { NOT_UNDONE })
        }
        ExperimentCommand::Burn(args) => {
            fault::pressure::burn(&args);
            Ok(0)
        }
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let mut out = std::io::stderr().lock();
            // A reader that went away is told nothing.
            drop(writeln!(out, "{error:#}"));
            ExitCode::from(REFUSED)
        }
    }
}

async fn run_one(args: &RunArgs) -> anyhow::Result<u8> {
    let experiment = manifest::read(&args.file)?;
    let allow = args.allow.as_deref().map(allow::read).transpose()?.unwrap_or_default();
    let lines = preflight(&experiment, &allow)?;
    if args.dry_run {
        lines.iter().for_each(|line| say(line));
        return Ok(0);
    }
    let dir = run::folder(args.out.as_deref(), &experiment.name)?;
    let place = run::Place { dir: dir.clone(), medic: args.medic.clone() };
    let mut report = run::run(&experiment, allow, &place).await?;
    let written = report.write(&dir);
    say(&report.verdict.to_string());
    for left in &report.left {
        say(&format!("  left: {left}"));
    }
    if !report.left.is_empty() {
        say(&format!("again: medic-chaos experiment undo {}", report.journal.display()));
    }
    written?;
    if experiment.spec.cluster.is_some() {
        run::tidy(&dir, &report.verdict);
    }
    say(&format!("report: {}", dir.join("report.html").display()));
    Ok(report.verdict.exit())
}

/// Looks whether everything is allowed and can be done; gives the plan in words. Touches nothing.
fn preflight(experiment: &Experiment, allow: &AllowSpec) -> anyhow::Result<Vec<String>> {
    let spec = &experiment.spec;
    let mut problems = Vec::new();
    let mut plans = Vec::new();
    for probe in &spec.probes {
        if let Some(command) = &probe.command {
            problems.extend(resolve::command(&probe.name, &command.argv, allow).err());
        }
    }
    let mut lines = vec![format!("experiment {}: {}", experiment.name, spec.steady_state.expect)];
    for target in &spec.targets {
        match look_at(target, experiment, allow) {
            Ok((found, faults)) => {
                lines.push(format!("target {}: {found}", target.name));
                plans.extend(faults);
            }
            Err(error) => problems.push(error),
        }
    }
    if !problems.is_empty() {
        let problems: Vec<String> = problems.iter().map(|p| format!("refused: {p}")).collect();
        anyhow::bail!(problems.join("\n"));
    }
    for turn in schedule::turns(spec) {
        let (_, acts, undo) = plans
            .iter()
            .find(|(index, ..)| *index == turn.fault)
            .ok_or_else(|| anyhow::anyhow!("a fault has no target"))?;
        let lasts =
            if turn.lasts.0 > 0 { format!(", {} later", turn.lasts) } else { String::new() };
        lines.push(format!(
            "{:>8}  {}: {acts}",
            turn.at.to_string(),
            spec.faults[turn.fault].title()
        ));
        lines.push(format!("          undo{lasts}: {undo}"));
    }
    Ok(lines)
}

/// A fault's index, what it does, and what undoes it.
type Line = (usize, String, String);

/// Finds a target, and plans each of its faults once.
fn look_at(
    target: &TargetSpec,
    experiment: &Experiment,
    allow: &AllowSpec,
) -> Result<(String, Vec<Line>), system::Trouble> {
    let faults: Vec<(usize, &Inject)> = experiment
        .spec
        .faults
        .iter()
        .enumerate()
        .filter(|(_, fault)| fault.target == target.name)
        .map(|(index, fault)| (index, &fault.inject))
        .collect();
    if target.node.is_some() {
        let plan = |(index, inject): &(usize, &Inject)| {
            (*index, inject.kind().to_string(), "by the cluster that is started for it".to_owned())
        };
        return Ok(("a node of its own cluster".to_owned(), faults.iter().map(plan).collect()));
    }
    let injects: Vec<&Inject> = faults.iter().map(|(_, inject)| *inject).collect();
    let resolved = resolve::resolve(target, &injects, allow)?;
    let mut lines = Vec::new();
    for (index, inject) in faults {
        let planned = fault::plan(inject, &resolved, "dry-run")?;
        let acts: Vec<String> = planned.acts.iter().map(ToString::to_string).collect();
        let undo: Vec<String> = planned.undo.iter().map(Undo::to_string).collect();
        let undo =
            if undo.is_empty() { "nothing takes it back".to_owned() } else { undo.join("; ") };
        lines.push((index, acts.join("; "), undo));
    }
    Ok((resolved.to_string(), lines))
}

fn undo_by_hand(path: &Path) -> anyhow::Result<u8> {
    let mut journal = Journal::open(path, By::Hand)?;
    let undone = journal.undo_all();
    if undone.is_empty() {
        say(&format!("nothing is open{}", before(journal.undone())));
    }
    let mut code = 0;
    for one in undone {
        match one.how {
            Ok(how) => say(&format!("{}: undone: {}", one.name, how.join("; "))),
            Err(why) => {
                say(&format!("{}: NOT UNDONE: {}", one.name, why.join("; ")));
                code = NOT_UNDONE;
            }
        }
    }
    Ok(code)
}

/// Who has taken back what was open when the experiment was gone.
fn before(undone: &[(String, By)]) -> String {
    let of = |who: By, words: &str| {
        let names: Vec<&str> =
            undone.iter().filter(|(_, by)| *by == who).map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { String::new() } else { format!("; {words}: {}", names.join(", ")) }
    };
    of(By::Guardian, "undone by the guardian when the experiment was gone")
        + &of(By::Hand, "undone by hand before")
}
