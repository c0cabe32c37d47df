//! What can be typed to try the shipped judgement on one's own data.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use medic_state::Millis;

use super::OutputArgs;
use crate::backtest::ask::{Query, When};

/// Kinds of judgement that can be tried.
#[derive(Debug, Subcommand)]
pub enum BacktestCommand {
    /// What would the detectors have raised?
    #[command(after_help = "Examples:
  medic backtest detect --input history/ --out results/          every CSV below history/
  medic backtest detect --input web-1.csv --out results/         one entity
  medic backtest detect -i history/ --out results/ --plot        with a drawing of each
  medic backtest detect -i hosts/ --out results/ -o json         the summary for a program
  medic backtest detect -i history/ --out results/ --alpha 0.001 alert on one usual row in a thousand
  medic backtest detect --prometheus http://prometheus:9090 --query '{job=\"web\"}' --start 7d --step 15s --out results/
                                                                 what Prometheus remembers of the last week
  medic backtest detect --prometheus https://prom.example --token-file token --ca ca.pem --start 2024-05-01 --end 2024-05-08 \
      --query 'error_rate=sum by (job, instance) (rate(errors_total[5m])) / sum by (job, instance) (rate(requests_total[5m]))' \
      --query process_resident_memory_bytes --out results/ --service web.yaml
  medic backtest detect -i load.json --out results/              an answer of its API (/api/v1/query_range), saved before
  medic backtest detect -i metrics.jsonl --out results/          what an OpenTelemetry collector wrote
  medic backtest detect -i web-1.csv --out results/ --service web.yaml
                                                                 with the limits and the objective of a Service

Input: the answer of Prometheus to a range query (*.json), one entity per `job` and `instance`, every
other combination of labels a metric of it; lines of OTLP metrics as the collector's file exporter writes
them (*.jsonl), one entity per `service.name` and `service.instance.id` (else `host.name`), sums that only
grow as rates a second; or CSV, plain or gzip, one file per entity: a column `timestamp`, every other column a metric of
it; empty fields are missing values; columns `row` and `label` are not looked at. In a folder that holds
train.csv.gz and test.csv.gz, train warms the detectors up and test is judged. Or --prometheus, asked for as
many points at once as it gives: series of one `job` and `instance` are one entity; a series without a name, as
most expressions give, goes by its query, or by NAME where that is NAME=EXPR.

A metric that ends in _total, _count, _sum or _bucket and never falls, but to less than half, is a counter, and
judged as its rate a second; the summary names it. One that a --service declares as anything else is judged as it stands.

Results never take each other's place, that of what is read or of a file which is no such result, or lie within --input.
All of it is looked at before anything is judged. A summary of another kind of backtest is no such result.

Output, under the same relative name:
NAME.findings.json  what the owner of such an instance would have raised, row by row: kind, severity, summary, since,
                    raised, until, p-value (0: a fact), and what it rests on. A column is an indicator: --service
                    says which limit it has and what it measures; without it, its name does. A value is in the
                    unit in which it would be scraped: seconds, bytes, a share of 1
NAME.csv            row,timestamp,anomaly_score,score,alert,p_value of the panel, which is one voter of many:
  anomaly_score  0..1, high when something begins
  score          higher is odder, high as long as it lasts
  alert          1: worth telling
  p_value        share of rows with a score as high, which holds while the series drifts; at least one in
                 the number of rows seen
summary.json        both, counted, and what is to be known of how each was watched

Findings come of the very code that watches live, predictions among them (saturation-predicted, …).")]
    Detect(Box<DetectArgs>),
    /// What can be learned from your own units: failures within a horizon, or remaining lives
    #[command(after_help = "Examples:
  medic backtest predict -i drives.csv.gz --unit drive --time start --until stop --event failed \
      --horizon 720 --out results/         will a drive fail within 720 hours of a row?
  medic backtest predict -i engines.csv --unit engine --time cycle --out results/
                                           no events: each engine's last row is its end; how long will it last?

Input: CSV, plain or gzip, one row per unit and time, rows of a unit together and in order of time. Every
column that is not named is an input: a number, a date, or a word; empty fields are missing values; a
column `row` is a key. In a folder, train.csv.gz is read.

This fits a model to your own units (boosted trees, calibrated), for histories that no node has: it says what
could be foreseen of them, not what a node would. A node foresees from what it watches itself (trends, restarts,
error budgets, certificates); `medic backtest detect` shows what it would have foreseen in metrics of yours.

Nothing is known beforehand, and nothing is kept. The history is split by unit, and each part is predicted by a
model that has seen the others only, so the figures are those of units nobody has seen.

Output: predictions.csv, with `row,UNIT,TIME,probability` or `UNIT,TIME,rul,lower,upper` (a 90 %
interval), and summary.json with the figures. They never take the place of what is read, or of a file that is
no such result.")]
    Predict(PredictArgs),
    /// What can be learned from your own incidents: their classes, and where they began
    #[command(after_help = "Examples:
  medic backtest classify -i incidents/ --out results/
  medic backtest classify -i incidents/ --out results/ --accuracy 0.99      answer only what is surer

Input: every folder, at any depth, with a truth.csv (case, truth, instance) and what was seen:
  *.json               by case, lists of words; words that nodes.json of the case lists are instances
  nodes.json           by case, the instances; edges.json: who calls whom, as pairs of places in that list
or
  faults.csv           case, time_unix; and *.csv with time_unix, a name and metrics

This fits a model to your own labelled incidents (trees, calibrated): it says how far they tell their classes, not
what a node would have called them. A node classes by rules, from the symptoms that it found.

Nothing is known beforehand, and nothing is kept: a folder's cases are split, and each part is classed by what was
learned from the others. A case is answered where such answers were right often enough, on cases not seen.

Output, under the same relative name: predictions.csv with case,predicted,confidence,abstain,cause, and
summary.json with the figures. They never lie in a folder that is read, or take the place of a file that is no such result.")]
    Classify(ClassifyArgs),
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct DetectArgs {
    /// Folder of such files, or one file
    #[arg(short, long, value_name = "DIR|FILE", required_unless_present = "prometheus")]
    pub input: Option<PathBuf>,
    #[command(flatten)]
    pub asked: AskedArgs,
    /// Folder for the results, outside of --input; made where it is missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Draw an SVG beside each result, of the metrics that matter; for a single series it always is
    #[arg(long)]
    pub plot: bool,
    /// Service manifest whose instances these are: its indicators that go by the name of a column say what that is
    #[arg(long, value_name = "FILE", conflicts_with = "scores_only")]
    pub service: Option<PathBuf>,
    /// The columns of the panel alone, sooner: not what would have been raised
    #[arg(long)]
    pub scores_only: bool,
    /// What lies between two rows, where they have no timestamps, or are asked for
    #[arg(long, value_name = "SPAN", default_value = "1m")]
    pub step: Millis,
    /// Alert where the p-value is at most this share of rows, above 0 and below 1
    #[arg(long, value_name = "SHARE")]
    pub alpha: Option<f64>,
    /// After each so many rows another owner goes on from the checkpoint of the one before, as when a
    /// shard moves: NAME.csv must be that of one that never moved, and findings but for the moment of a move
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub handover_every: Option<u64>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A Prometheus that is asked instead of files.
#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct AskedArgs {
    /// Ask this Prometheus, or what has its API, instead of reading files
    #[arg(
        long,
        value_name = "URL",
        conflicts_with = "input",
        requires = "queries",
        requires = "start"
    )]
    pub prometheus: Option<String>,
    /// What to ask for; may be repeated. NAME names series that an expression leaves without one
    #[arg(long = "query", value_name = "[NAME=]EXPR", requires = "prometheus")]
    pub queries: Vec<Query>,
    /// Since when: a span before now such as 7d, RFC 3339, a date, or seconds since 1970
    #[arg(long, value_name = "TIME", requires = "prometheus", allow_hyphen_values = true)]
    pub start: Option<When>,
    /// Until when, likewise
    #[arg(
        long,
        value_name = "TIME",
        requires = "prometheus",
        allow_hyphen_values = true,
        default_value = "now"
    )]
    pub end: When,
    /// File with a token that Prometheus, or a proxy before it, wants (Authorization: Bearer)
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub token_file: Option<PathBuf>,
    /// User that Prometheus, or a proxy before it, knows (Authorization: Basic)
    #[arg(
        long,
        value_name = "NAME",
        requires = "prometheus",
        requires = "password_file",
        conflicts_with = "token_file"
    )]
    pub user: Option<String>,
    /// File with that user's password, one line
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) that are trusted instead of the system's
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct PredictArgs {
    /// CSV file, or a folder that holds train.csv.gz
    #[arg(short, long, value_name = "DIR|FILE")]
    pub input: PathBuf,
    /// Folder for the results; made where it is missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Column that names the unit (a drive, an engine, a host)
    #[arg(long, value_name = "COLUMN")]
    pub unit: String,
    /// Column with the time, a number that grows
    #[arg(long, value_name = "COLUMN")]
    pub time: String,
    /// Column with the time at which a row is over
    #[arg(long, value_name = "COLUMN", requires = "event")]
    pub until: Option<String>,
    /// Column that is 1 where the unit failed at the row's end
    #[arg(long, value_name = "COLUMN", requires = "horizon")]
    pub event: Option<String>,
    /// How far ahead a failure is to be foreseen, in the unit of the time column
    #[arg(long, value_name = "TIME", requires = "event")]
    pub horizon: Option<f64>,
    /// Longest remaining life that is told apart, in the unit of the time column
    #[arg(long, value_name = "TIME", default_value_t = 125.0)]
    pub cap: f64,
    /// Columns that are no inputs
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub ignore: Vec<String>,
    /// Parts that the units are split into
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=20))]
    pub folds: u8,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct ClassifyArgs {
    /// Folder of labelled incidents
    #[arg(short, long, value_name = "DIR")]
    pub input: PathBuf,
    /// Folder for the results; made where it is missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Answer where answers were right at least this often
    #[arg(long, default_value_t = 0.95)]
    pub accuracy: f64,
    /// Parts that the cases are split into
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=20))]
    pub folds: u8,
    #[command(flatten)]
    pub output: OutputArgs,
}
