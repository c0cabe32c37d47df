//! `medic-chaos demo`: three nodes heal a sample fleet, and lose their leader in the middle of it.
//!
//! ```text
//!   stage ──► for each fault: inject ─► watch until it ends ─► row ──► table ──► clean up
//! ```
//!
//! Every process is real and separate: nodes, agents, services. The demo only breaks things and
//! reads the control API, like any other client.

mod narrator;
mod report;
mod scenario;
mod stage;
mod watcher;

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    narrator::{Narrator, Tone},
    report::Report,
    scenario::Fault,
    stage::Stage,
};

/// Options of the demo.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Run all faults, print the table, clean up and exit: 0 when everything ended as it should.
    #[arg(long)]
    pub script: bool,
    /// Only these faults, by number (1 to 8); may be repeated.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub only: Vec<u8>,
    /// Print the table as JSON as well, into this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The `medic` binary; by default the one beside this program.
    #[arg(long, env = "MEDIC_BIN")]
    pub medic: Option<PathBuf>,
    /// Keep the folder with logs and data.
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo. True when everything ended as it should.
///
/// # Errors
/// When the stage cannot be set up.
pub async fn run(args: DemoArgs) -> anyhow::Result<bool> {
    let narrator = Narrator::new();
    let mut stage = None;
    // Whatever happens, what was started is ended: on Ctrl-C, on errors, at the end.
    let outcome = tokio::select! {
        outcome = perform(&args, &narrator, &mut stage) => outcome,
        signal = told_to_stop() => {
            narrator.line(Tone::Dim, "\ninterrupted");
            signal.map(|()| !args.script)
        }
    };
    if let Some(stage) = stage {
        narrator.line(Tone::Dim, "cleaning up: nodes, agents and services end");
        stage.clean_up(args.keep || outcome.is_err()).await?;
    }
    outcome
}

async fn perform(
    args: &DemoArgs,
    narrator: &Narrator,
    slot: &mut Option<Stage>,
) -> anyhow::Result<bool> {
    let began = Instant::now();
    narrator
        .line(Tone::Title, "Medic: three nodes, three agents, eight real services on this machine");
    let stage = slot.insert(Stage::prepare(args.medic.as_deref())?);
    stage.raise(narrator).await.context("setting the stage")?;
    let faults = Fault::ALL
        .iter()
        .zip(1_u8..)
        .filter(|(_, n)| args.only.is_empty() || args.only.contains(n));
    let mut rows = Vec::new();
    for (fault, number) in faults {
        narrator.line(Tone::Title, &format!("\n{number}/8  {}: {}", fault.title(), fault.story()));
        narrator.restart_clock();
        let row = watcher::play(stage, narrator, *fault, args.script).await?;
        for problem in &row.problems {
            narrator.timed(Tone::Bad, "demo", problem);
        }
        rows.push(row);
    }
    let (served, failed) = stage.traffic_counts();
    let report = Report { rows, served, failed, seconds: began.elapsed().as_secs() };
    narrator.line(Tone::Title, &format!("\n{}", report.table()));
    narrator.line(Tone::Title, &report.traffic());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let good = report.all_as_expected();
    let verdict =
        if good { "everything ended as it should" } else { "NOT everything ended as it should" };
    narrator.line(if good { Tone::Good } else { Tone::Bad }, verdict);
    if !args.script {
        narrator.line(Tone::Title, &stage.guide());
        told_to_stop().await?;
    }
    Ok(good)
}

/// Ctrl-C, or SIGTERM.
async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}
