//! `medic backtest`: runs, shows how far it is, prints what came out.

use super::{
    args::{BacktestCommand, ClassifyArgs, DetectArgs, PredictArgs},
    error::CliError,
    out::Out,
    render::{Style, Table, words::plural},
};
use crate::backtest::{BacktestError, classify, detect, history::Columns, predict};

pub(super) fn run(command: &BacktestCommand) -> Result<(), CliError> {
    match command {
        BacktestCommand::Detect(args) => detect(args),
        BacktestCommand::Predict(args) => predict(args),
        BacktestCommand::Classify(args) => classify(args),
    }
}

/// Entities between two remarks on progress.
const PROGRESS_EVERY: usize = 25;

fn detect(args: &DetectArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    if args.alpha.is_some_and(|alpha| !(alpha > 0.0 && alpha < 1.0)) {
        return Err(CliError::Usage("--alpha is above 0 and below 1".to_owned()));
    }
    let plots = args.plot.then_some(true);
    let progress = |number: usize, all: usize, name: &str| {
        if number > 0 && number.is_multiple_of(PROGRESS_EVERY) {
            out.note(&format!("{number} of {all}, next {name}"));
        }
    };
    let summary =
        detect::run(&args.input, &args.out, plots, (args.alpha, args.handover_every), progress)?;
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
        let count = plural(summary.passed_over.len(), "file");
        text.push_str(&format!("; {count} without series passed over"));
    }
    text
}

fn predict(args: &PredictArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    let positive = |name: &str, value: f64| {
        let fits = value.is_finite() && value > 0.0;
        fits.then_some(value).ok_or_else(|| CliError::Usage(format!("--{name} is above 0")))
    };
    let question = match args.horizon {
        Some(horizon) => predict::Question::Failure { horizon: positive("horizon", horizon)? },
        None => predict::Question::Life { cap: positive("cap", args.cap)? },
    };
    let columns = Columns {
        unit: args.unit.clone(),
        time: args.time.clone(),
        until: args.until.clone(),
        event: args.event.clone(),
        ignore: args.ignore.clone(),
    };
    let folds = usize::from(args.folds);
    let told = |turn, all| out.note(&format!("part {} of {all}", turn + 1));
    let summary = predict::run(&args.input, &args.out, &columns, question, folds, told)?;
    out.value(&summary, |summary| predict_text(summary, Style::new(out.color())))
}

fn predict_text(summary: &predict::Summary, style: Style) -> String {
    let mut table = Table::new(["FIGURE", "VALUE", ""]);
    let mut row = |name: &str, value: String, says: &str| {
        table.row([style.name(name), value, says.to_owned()]);
    };
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    row("units", summary.units.to_string(), "");
    row("rows", summary.rows.to_string(), "");
    if let Some(figures) = &summary.failure {
        let calibration = &figures.calibration;
        row("base rate", percent(calibration.base_rate), "rows whose unit failed in the horizon");
        row(
            "Brier skill",
            format!("{:.3}", calibration.brier_skill),
            "1 is perfect, 0 knows nothing",
        );
        row("ECE", format!("{:.4}", calibration.ece), "how far probabilities are off");
        row("recall", percent(figures.recall), "failed units warned of in the horizon");
        row("false alarms", percent(figures.false_alarms), "healthy units ever warned of");
        row("threshold", format!("{:.3}", figures.alarm_threshold), "above it a unit is warned of");
    }
    if let Some(figures) = &summary.life {
        row("RMSE", format!("{:.2}", figures.rmse), "");
        row("MAE", format!("{:.2}", figures.mae), "");
        row("coverage", percent(figures.coverage), "lives within their 90 % interval");
        row("width", format!("{:.1}", figures.width), "of the interval, in the mean");
    }
    format!("{}\n\npredictions are in {}", table.render(&style), summary.predictions.display())
}

fn classify(args: &ClassifyArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    if !(0.0..=1.0).contains(&args.accuracy) {
        return Err(CliError::Usage("--accuracy is a share from 0 to 1".to_owned()));
    }
    let told = |name: &str| out.note(name);
    let folds = usize::from(args.folds);
    let summary = classify::run(&args.input, &args.out, folds, args.accuracy, told)?;
    out.value(&summary, |summary| classify_text(summary, args, Style::new(out.color())))
}

fn classify_text(summary: &classify::Summary, args: &ClassifyArgs, style: Style) -> String {
    let mut table = Table::new([
        "NAME",
        "CASES",
        "CLASSES",
        "ACCURACY",
        "ANSWERED",
        "OF THEM RIGHT",
        "CAUSE FOUND",
    ]);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    for folder in &summary.folders {
        table.row([
            style.name(&folder.name),
            folder.cases.to_string(),
            folder.classes.to_string(),
            percent(folder.accuracy),
            percent(folder.coverage),
            folder.selective_accuracy.map_or_else(|| "-".to_owned(), percent),
            percent(folder.cause),
        ]);
    }
    format!("{}\n\nresults are in {}", table.render(&style), args.out.display())
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
