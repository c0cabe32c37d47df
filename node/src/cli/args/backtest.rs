//! What can be typed to try the shipped judgement on one's own data.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;

/// Kinds of judgement that can be tried.
#[derive(Debug, Subcommand)]
pub enum BacktestCommand {
    /// What would the detectors have raised?
    #[command(after_help = "Examples:
  medic backtest detect --input history/ --out results/          every CSV below history/
  medic backtest detect --input web-1.csv --out results/         one entity
  medic backtest detect -i hosts/ --out results/ -o json         the summary for a program

Input: CSV, plain or gzip, one file per entity: a column `timestamp`, every other column a metric of
it; empty fields are missing values; columns `row` and `label` are not looked at. In a folder that holds
train.csv.gz and test.csv.gz, train warms the detectors up and test is judged.

Output, under the same relative name: row,timestamp,anomaly_score,score,alert
  anomaly_score  0..1, high when something begins
  score          higher is odder, high as long as it lasts
  alert          1: an incident would have been raised or kept")]
    Detect(DetectArgs),
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct DetectArgs {
    /// Folder of CSV files, or one file
    #[arg(short, long, value_name = "DIR|FILE")]
    pub input: PathBuf,
    /// Folder for the results; made where it is missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub output: OutputArgs,
}
