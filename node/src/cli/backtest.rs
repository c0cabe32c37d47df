//! `medic backtest`: runs, shows how far it is, prints what came out.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use medic_raft::env::{Clock as _, SystemClock};
use medic_state::{
    Millis,
    manifest::{Manifest, Spec},
    symptom::Severity,
};

use super::{
    args::{AskedArgs, BacktestCommand, ClassifyArgs, DetectArgs, PredictArgs},
    error::CliError,
    local,
    out::Out,
    render::{Style, Table, words::plural},
};
use crate::backtest::{
    BacktestError, Declared,
    ask::{Credentials, Prometheus, Range},
    classify, detect,
    history::Columns,
    predict,
    series::Frame,
};

pub(super) fn run(command: &BacktestCommand) -> Result<(), CliError> {
    match command {
        BacktestCommand::Detect(args) => detect(args),
        BacktestCommand::Predict(args) => predict(args),
        BacktestCommand::Classify(args) => classify(args),
    }
}

/// Entities between two remarks on progress.
const PROGRESS_EVERY: usize = 25;
/// Findings, of all entities, that are shown; their files hold all.
const WORST_SHOWN: usize = 8;
/// Remarks that are shown.
const NOTES_SHOWN: usize = 12;
/// Bytes of a file with a token or with certificates.
const SECRET_BYTES_MAX: u64 = 1 << 20;

fn detect(args: &DetectArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    if args.alpha.is_some_and(|alpha| !(alpha > 0.0 && alpha < 1.0)) {
        return Err(CliError::Usage("--alpha is above 0 and below 1".to_owned()));
    }
    if args.step == Millis(0) {
        return Err(CliError::Usage("--step is above 0".to_owned()));
    }
    let service = args.service.as_deref().map(declared).transpose()?;
    let progress = |number: usize, all: usize, name: &str| {
        if number > 0 && number.is_multiple_of(PROGRESS_EVERY) {
            out.note(&format!("{number} of {all}, next {name}"));
        }
    };
    let options = detect::Options {
        plots: args.plot.then_some(true),
        alpha: args.alpha,
        handover: args.handover_every,
        service: service.as_ref(),
        scores_only: args.scores_only,
        step: args.step,
    };
    let summary = match &args.input {
        Some(input) => detect::run(input, &args.out, &options, progress)?,
        None => {
            let frames = asked(args, out)?;
            detect::run_over(&frames, &args.out, &options, progress)?
        }
    };
    out.value(&summary, |summary| detect_text(summary, args, Style::new(out.color())))
}

/// What a Prometheus remembers.
fn asked(
    DetectArgs { asked: args, step, .. }: &DetectArgs,
    out: Out,
) -> Result<Vec<Frame>, CliError> {
    let (Some(url), Some(start)) = (&args.prometheus, args.start) else {
        return Err(CliError::Usage("neither --input nor --prometheus".to_owned()));
    };
    let ca = args.ca.as_deref().map(bytes).transpose()?;
    let credentials = credentials(args)?;
    let prometheus = Prometheus::new(url, credentials, ca.as_deref()).map_err(CliError::Usage)?;
    let now_ms = i64::try_from(SystemClock.now().0).unwrap_or(i64::MAX);
    let range = Range::new(start, args.end, *step, now_ms).map_err(CliError::Usage)?;
    let mut frames = Vec::new();
    super::wait(async {
        frames = prometheus.ask(&args.queries, range, |line| out.note(line)).await?;
        Ok(())
    })?;
    Ok(frames)
}

/// What a small file holds.
fn bytes(path: &Path) -> Result<Vec<u8>, CliError> {
    let most = SECRET_BYTES_MAX;
    let file = File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    match file {
        Ok(bytes) if bytes.len() as u64 <= most => Ok(bytes),
        Ok(_) => Err(CliError::Usage(format!("{} is larger than {most} bytes", path.display()))),
        Err(error) => Err(CliError::Failed(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Who asks, where anybody is to know. What is in a file of theirs is not shown.
fn credentials(args: &AskedArgs) -> Result<Option<Credentials>, CliError> {
    let text = |path: &Path| bytes(path).map(|text| String::from_utf8(text).unwrap_or_default());
    let unsound =
        |path: &Path, what: &str| CliError::Usage(format!("{} holds no {what}", path.display()));
    if let Some(path) = &args.token_file {
        let token = text(path)?.trim().to_owned();
        let sound = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let found = sound.then_some(Some(Credentials::Token(token)));
        return found.ok_or_else(|| unsound(path, "token, which is one word"));
    }
    let (Some(user), Some(path)) = (&args.user, &args.password_file) else { return Ok(None) };
    if user.contains(|c: char| c == ':' || c.is_control()) {
        return Err(CliError::Usage("--user has neither colons nor ends of lines".to_owned()));
    }
    let password = text(path)?.trim_end_matches(['\n', '\r']).to_owned();
    let sound = !password.is_empty() && !password.contains(char::is_control);
    let found = sound.then(|| Some(Credentials::Basic { user: user.clone(), password }));
    found.ok_or_else(|| unsound(path, "password, which is one line"))
}

/// The service of a file that holds one, and what else it likes.
fn declared(path: &Path) -> Result<Declared, CliError> {
    let sources = local::sources(&[path.to_owned()])?;
    let (manifests, problems) = local::parse(&sources);
    if !problems.is_empty() {
        let text = local::problem_text(&problems);
        return Err(CliError::Failed(format!("nothing was judged:\n{text}")));
    }
    let mut services: Vec<Declared> = manifests
        .into_iter()
        .filter_map(|Manifest { metadata, spec }| match spec {
            Spec::Service(spec) => {
                Some(Declared { tenant: metadata.tenant, name: metadata.name, spec })
            }
            _ => None,
        })
        .collect();
    match (services.pop(), services.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => {
            Err(CliError::Usage(format!("{} holds no manifest of a Service", path.display())))
        }
        (Some(_), others) => Err(CliError::Usage(format!(
            "{} holds {}: a history is of one of them",
            path.display(),
            plural(others + 1, "Service")
        ))),
    }
}

fn detect_text(summary: &detect::Summary, args: &DetectArgs, style: Style) -> String {
    let mut table =
        Table::new(["NAME", "METRICS", "ROWS", "FINDINGS", "PANEL ALERTS", "ALERT ROWS"]);
    for entity in &summary.entities {
        let findings = if args.scores_only {
            "-".to_owned()
        } else {
            entity.findings.values().sum::<u64>().to_string()
        };
        table.row([
            style.name(&entity.name),
            entity.metrics.to_string(),
            entity.rows.to_string(),
            findings,
            entity.alerts.to_string(),
            entity.alert_rows.to_string(),
        ]);
    }
    let mut text = table.render(&style);
    if !args.scores_only {
        text.push_str(&findings_text(summary, style));
    }
    text.push_str(&notes_text(summary, style));
    text.push_str(&format!("\n\nresults are in {}", args.out.display()));
    if !summary.passed_over.is_empty() {
        let count = plural(summary.passed_over.len(), "file");
        text.push_str(&format!("; {count} without series passed over"));
    }
    text
}

/// Findings by kind, and the worst of them.
fn findings_text(summary: &detect::Summary, style: Style) -> String {
    let mut by_kind: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in summary.entities.iter().flat_map(|one| &one.findings) {
        *by_kind.entry(kind).or_default() += count;
    }
    let mut text = "\n\nwould have been raised: ".to_owned();
    if by_kind.is_empty() {
        text.push_str("nothing");
    } else {
        let mut kinds: Vec<(&str, u64)> = by_kind.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let kinds = kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
        text.push_str(&style.head(&kinds.collect::<Vec<_>>().join(", ")));
        text.push_str("\nthe worst of it:");
        let each = summary.entities.iter();
        let mut worst: Vec<_> =
            each.flat_map(|one| one.worst.iter().map(move |found| (&one.name, found))).collect();
        worst.sort_by_key(|(_, found)| found.rank());
        for (name, found) in worst.into_iter().take(WORST_SHOWN) {
            let says = found.says();
            let says = match found.severity {
                Severity::Critical => style.bad(&says),
                Severity::Warning => style.warn(&says),
                Severity::Info => says,
            };
            text.push_str(&format!("\n  {} {says}", style.name(name)));
        }
    }
    text
}

/// What is to be known of how entities were watched.
fn notes_text(summary: &detect::Summary, style: Style) -> String {
    let mut text = String::new();
    let mut notes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entity in &summary.entities {
        for note in &entity.notes {
            notes.entry(note).or_default().push(&entity.name);
        }
    }
    for (note, of) in notes.iter().take(NOTES_SHOWN) {
        let of = match of.as_slice() {
            [one] => (*one).to_owned(),
            many => format!("{} of them", many.len()),
        };
        text.push_str(&format!("\n{} {of}: {note}", style.dim("note:")));
    }
    if notes.len() > NOTES_SHOWN {
        let more = notes.len() - NOTES_SHOWN;
        text.push_str(&format!("\n{} and {more} more in summary.json", style.dim("note:")));
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
            BacktestError::Content { .. }
            | BacktestError::Nothing { .. }
            | BacktestError::Clash { .. }
            | BacktestError::Inside { .. }
            | BacktestError::NoResult { .. }
            | BacktestError::IsRead { .. }
            | BacktestError::Either { .. } => Self::Usage(error.to_string()),
            BacktestError::Read { .. }
            | BacktestError::Write { .. }
            | BacktestError::Refused { .. } => Self::Failed(error.to_string()),
            BacktestError::Unanswered { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SERVICE: &str = "apiVersion: medic/v1\nkind: Service\nmetadata: {name: web}\nspec:\n  instances: [{name: web-1}]\n  \
                           indicators:\n    - {name: memory, source: {gauge: m}, limit: 64MiB}\n";

    #[test]
    fn a_manifest_that_is_none_of_one_service_is_refused_with_what_is_wrong_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            declared(&path).map_err(|error| error.to_string())
        };
        let good = read(SERVICE).unwrap();
        assert_eq!((good.tenant.as_str(), good.name.as_str()), ("default", "web"));
        assert_eq!(good.spec.indicators[0].limit.as_deref(), Some("64MiB"));
        let two = format!("{SERVICE}---\n{}", SERVICE.replace("name: web}", "name: shop}"));
        for (text, expected) in [
            (SERVICE.replace("64MiB", "64 apples"), "web.yaml:7:"),
            (SERVICE.replace("64MiB", "64 apples"), "spec.indicators[0].limit: `64 apples`"),
            (SERVICE.replace("limit", "limits"), "web.yaml:7:"),
            (two, "2 Services: a history is of one of them"),
            (String::new(), "holds no manifest of a Service"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let missing = declared(&folder.path().join("none.yaml")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read"), "{missing}");
    }

    #[test]
    fn who_asks_is_read_of_files_and_what_is_in_them_is_not_shown() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            detect: DetectArgs,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let read = |user: &[&str], secret: &[u8]| {
            std::fs::write(&path, secret).unwrap();
            let asked = [
                "medic",
                "--out",
                "o",
                "--prometheus",
                "http://a",
                "--query",
                "up",
                "--start",
                "1d",
            ];
            let line = asked.iter().chain(user).copied().chain([path.to_str().unwrap()]);
            let line = <Line as clap::Parser>::try_parse_from(line);
            let args = line.map_err(|error| error.to_string())?.detect.asked;
            credentials(&args).map_err(|error| error.to_string())
        };
        let token = ["--token-file"];
        let password = ["--user", "ann", "--password-file"];
        let basic = |password: &str| {
            Ok(Some(Credentials::Basic { user: "ann".to_owned(), password: password.to_owned() }))
        };
        let is = |found: Result<Option<Credentials>, String>, expected| assert!(found == expected);
        is(read(&token, b" word\n"), Ok(Some(Credentials::Token("word".to_owned()))));
        is(read(&password, b" two words\r\n"), basic(" two words"));
        is(read(&password, "h\u{fc}sh".as_bytes()), basic("h\u{fc}sh"));
        for (user, secret, expected) in [
            (&token[..], "two words", "secret holds no token, which is one word"),
            (&token, "", "secret holds no token"),
            (&password, "two\nlines", "secret holds no password, which is one line"),
            (&password, "\n", "secret holds no password"),
            (&["--user", "a:b", "--password-file"], "words", "--user has neither colons"),
            (&["--password-file"], "words", "--user <NAME>"),
            (&["--user", "ann", "--token-file"], "words", "--password-file <FILE>"),
        ] {
            let error = read(user, secret.as_bytes()).err().unwrap();
            assert!(error.contains(expected), "{error}");
            assert!(secret.trim().is_empty() || !error.contains(secret), "{error}");
        }
    }
}
