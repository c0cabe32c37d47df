//! `medic backtest`: runs, shows how far it is, prints what came out.

use super::{
    args::{BacktestCommand, DetectArgs},
    error::CliError,
    out::Out,
    render::{Style, Table, words::plural},
};
use crate::backtest::{BacktestError, detect};

pub(super) fn run(command: &BacktestCommand) -> Result<(), CliError> {
    match command {
        BacktestCommand::Detect(args) => detect(args),
    }
}

/// Entities between two remarks on progress.
const PROGRESS_EVERY: usize = 25;

fn detect(args: &DetectArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    let summary = detect::run(&args.input, &args.out, |number, all, name| {
        if number > 0 && number % PROGRESS_EVERY == 0 {
            out.note(&format!("{number} of {all}, next {name}"));
        }
    })?;
    out.value(&summary, |summary| detect_text(summary, args, Style::new(out.color())))
}

fn detect_text(summary: &detect::Summary, args: &DetectArgs, style: Style) -> String {
    let mut table = Table::new(["NAME", "METRICS", "ROWS", "ALERTS", "ALERT ROWS"]);
    for entity in &summary.entities {
        table.row([
            style.name(&entity.name),
            entity.metrics.to_string(),
            entity.rows.to_string(),
            entity.alerts.to_string(),
            entity.alert_rows.to_string(),
        ]);
    }
    let mut text = table.render(&style);
    text.push_str(&format!("\n\nresults are in {}", args.out.display()));
    if !summary.passed_over.is_empty() {
        let count = plural(summary.passed_over.len(), "CSV file");
        text.push_str(&format!("; {count} without a column `timestamp` passed over"));
    }
    text
}

impl From<BacktestError> for CliError {
    fn from(error: BacktestError) -> Self {
        match error {
            BacktestError::Content { .. } | BacktestError::Nothing { .. } => {
                Self::Usage(error.to_string())
            }
            BacktestError::Read { .. } | BacktestError::Write { .. } => {
                Self::Failed(error.to_string())
            }
        }
    }
}
