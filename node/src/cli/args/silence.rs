//! What can be typed about silences: sugar over the manifest of that kind.

use clap::{Args, Subcommand};
use medic_state::Millis;

use super::Connect;

#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum SilenceCommand {
    /// Page nobody, and open nothing new, about what matches
    #[command(after_help = "Examples:
  medic silence add service=orders severity=warning --for 2h --reason 'a known slow query'
  medic silence add 'instance=~orders-[12]' --for 30m --reason 'a load test' --name load-test
  medic silence add service=reports --for 90d --cron '0 2 * * SUN' --timezone Europe/Berlin \\
      --lasting 1h --reason 'the weekly batch'

A matcher is name=value, name!=value, name=~expression or name!~expression, over the labels of a
symptom: service, instance, kind, severity, and those of the service and of the alert.")]
    Add(AddSilenceArgs),
    /// Show silences: those in force and those to come
    #[command(after_help = "Examples:
  medic silence list
  medic silence list --all            also those that are over")]
    List(ListSilencesArgs),
    /// End a silence now
    #[command(after_help = "Example:\n  medic silence expire load-test")]
    Expire(ExpireSilenceArgs),
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct AddSilenceArgs {
    /// What is silenced; all must match
    #[arg(required = true, value_name = "MATCHER")]
    pub matchers: Vec<String>,
    /// How long it is in force, or comes again
    #[arg(long = "for", value_name = "TIME")]
    pub duration: Millis,
    /// Why
    #[arg(short, long)]
    pub reason: String,
    /// Its name; without it one is made up
    #[arg(long)]
    pub name: Option<String>,
    /// When it begins, RFC 3339; without it now
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Comes at these times only, each time for --lasting: five fields of cron
    #[arg(long, requires = "lasting")]
    pub cron: Option<String>,
    /// Of the times of --cron
    #[arg(long, default_value = "UTC", requires = "cron")]
    pub timezone: String,
    /// How long, each time it comes
    #[arg(long, value_name = "TIME", requires = "cron")]
    pub lasting: Option<Millis>,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct ListSilencesArgs {
    /// Also those that are over
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct ExpireSilenceArgs {
    /// Its name
    pub name: String,
    #[command(flatten)]
    pub connect: Connect,
}
