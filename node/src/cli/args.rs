//! What can be typed. Every command shows examples under `--help`.

mod admin;
mod backtest;
mod silence;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use medic_state::Millis;

pub use admin::{
    AuditCommand, CertsCommand, ClusterCommand, ContextCommand, InitArgs, IssueArgs, VerifyArgs,
};

pub use super::daemon::DaemonArgs;
pub use backtest::{AskedArgs, BacktestCommand, ClassifyArgs, DetectArgs, PredictArgs};
pub use silence::{AddSilenceArgs, ExpireSilenceArgs, ListSilencesArgs, SilenceCommand};

/// Heals infrastructure by itself: detects, decides, acts, verifies, and undoes what did not help.
#[derive(Debug, Parser)]
#[command(
    name = "medic",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Start here:
  medic init --cluster demo --out ./demo --agents host-a    make a cluster's directory
  medic serve --config ./demo/node-1.toml                   start a node
  export MEDIC_CONFIG=./demo/medic.toml                     talk to it
  medic apply -f manifests/                                 declare services and playbooks
  medic get incidents                                       what is wrong
  medic explain INC-42                                      what was seen, decided, done, verified

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 unavailable (try again)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new cluster's directory: authority, certificates, configuration
    #[command(after_help = "Examples:
  medic init --cluster demo --out ./demo                          three nodes on this machine
  medic init --cluster prod --out ./prod --nodes 3 \\
      --hosts m1.example.com,m2.example.com,m3.example.com \\
      --regions eu-1,eu-2,eu-3 --agents web-a,web-b --users ann,bob --data-dir /var/lib/medic")]
    Init(InitArgs),
    /// Run a node of the cluster
    #[command(after_help = "Examples:
  medic serve --config ./demo/node-1.toml
  MEDIC_LOG=info,medic_node::action=debug medic serve -c node-1.toml --log-format json")]
    Serve(DaemonArgs),
    /// Run the agent of a host
    #[command(after_help = "Example:\n  medic agent --config ./demo/agent-host-a.toml")]
    Agent(DaemonArgs),
    /// Issue, show and renew certificates
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Check manifests without a cluster
    #[command(after_help = "Examples:
  medic validate -f manifests/
  cat playbook.yaml | medic validate -f -")]
    Validate(ValidateArgs),
    /// Declare or change services, playbooks, policies and the rest
    #[command(after_help = "Examples:
  medic apply -f manifests/ --dry-run      what would change
  medic apply -f manifests/
  medic apply -f - < silence.yaml")]
    Apply(ApplyArgs),
    /// Take a manifest back
    #[command(after_help = "Examples:
  medic delete silence night-shift
  medic delete playbook restart-crashed --tenant payments")]
    Delete(DeleteArgs),
    /// List things
    #[command(after_help = "Examples:
  medic get incidents                           the open ones
  medic get incidents --status escalated
  medic get incidents --all -l 'severity=\"critical\"'
  medic get remediations -l 'service=\"web\"'
  medic get playbooks -o yaml
  medic get health                              how every instance does, and why
  medic get health -l 'service=\"web\"' -l 'performance!=\"healthy\"'
  medic get predictions                         what is foreseen, the likeliest first
  medic get predictions -l 'kind=\"capacity\"' -o json
  medic get scores                              how earlier predictions turned out
  medic get weights                             how far detectors are believed, and why
  medic get approvals | freezes | agents | shards | nodes | manifests")]
    Get(GetArgs),
    /// Show one thing in full
    #[command(after_help = "Examples:
  medic describe INC-42
  medic describe PLAN-57
  medic describe playbook restart-crashed")]
    Describe(DescribeArgs),
    /// Tell the story of an incident: seen, decided, done, verified
    #[command(after_help = "Examples:
  medic explain INC-42
  medic explain INC-42 -o json")]
    Explain(IncidentArgs),
    /// Agree to the plan of an incident
    #[command(after_help = "Examples:
  medic approve INC-42                          shows the plan and asks
  medic approve INC-42 --yes
  medic approve INC-42 --plan-digest 9f21c0…    only this very plan")]
    Approve(ApproveArgs),
    /// Refuse the plan of an incident: a human takes over
    #[command(
        after_help = "Example:\n  medic reject INC-42 --reason 'the store is being migrated'"
    )]
    Reject(RejectArgs),
    /// Say "I am on it"
    #[command(after_help = "Examples:
  medic ack INC-42 -m 'looking at the store'
  medic ack INC-42 --false-alarm -m 'the nightly batch'   see medic judge")]
    Ack(WordArgs),
    /// Close an incident by hand
    #[command(after_help = "Examples:
  medic resolve INC-42 -m 'replaced the disk'
  medic resolve INC-42 --false-alarm                      see medic judge")]
    Resolve(WordArgs),
    /// Say what turned out about the detection of an incident: detectors are believed accordingly
    #[command(after_help = "Examples:
  medic judge INC-42 false-alarm -m 'the nightly batch'    those that called it are believed less
  medic judge INC-43 missed --indicator latency_p99        what should have shown it is believed more
  medic judge INC-43 missed                                all indicators that nobody spoke of
  medic judge INC-42 genuine                               takes an earlier opinion back
  medic get weights                                        what came of it

Incidents that are resolved can be judged too. Said again it moves nothing.
Your word replaces what their outcome said.")]
    Judge(JudgeArgs),
    /// Open an incident again; attempts start anew
    #[command(after_help = "Example:\n  medic reopen INC-42 -m 'it came back'")]
    Reopen(NoteArgs),
    /// Write on the timeline of an incident
    #[command(after_help = "Example:\n  medic note INC-42 -m 'the vendor was called'")]
    Note(NoteArgs),
    /// Stop a remediation: what was started is undone, in reverse
    #[command(after_help = "Examples:
  medic cancel INC-42 -m 'wrong playbook'
  medic cancel PLAN-57")]
    Cancel(NoteArgs),
    /// Hold back all remediation in a scope; running acts finish
    #[command(after_help = "Examples:
  medic freeze all --reason 'datacentre work' --for 2h
  medic freeze region eu-1 --reason 'network maintenance'
  medic freeze service web --reason 'load test' --for 30m
  medic freeze tenant payments | playbook restart-crashed | target web/web-1")]
    Freeze(FreezeArgs),
    /// Lift a freeze
    #[command(after_help = "Examples:
  medic unfreeze all
  medic unfreeze target web/web-1        after an unknown outcome was looked into")]
    Unfreeze(UnfreezeArgs),
    /// Keep quiet about what is known, for a while
    #[command(subcommand)]
    Silence(SilenceCommand),
    /// Follow what happens, through failovers
    #[command(after_help = "Examples:
  medic watch
  medic watch --incident INC-42
  medic watch --after 1200 -o jsonl      everything since log index 1200")]
    Watch(WatchArgs),
    /// Look at and change the cluster itself
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Read and verify the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Try the shipped judgement on data of your own, without a cluster
    #[command(subcommand)]
    Backtest(BacktestCommand),
    /// Choose between clusters and users
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print the JSON Schema of manifests
    #[command(after_help = "Example:\n  medic schema > medic.schema.json    for your editor")]
    Schema,
    /// Print the version of this program
    Version(OutputArgs),
    /// Print a completion script for your shell
    #[command(after_help = "Examples:
  source <(medic completion bash)
  medic completion zsh > ~/.zfunc/_medic")]
    Completion {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// YAML.
    Yaml,
    /// One JSON object per line.
    Jsonl,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, help_heading = "Output")]
    pub output: Format,
}

/// Which cluster to talk to, as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct Connect {
    /// File of contexts [default: ~/.config/medic/config.toml]
    #[arg(long, env = "MEDIC_CONFIG", value_name = "FILE", help_heading = "Connection")]
    pub config: Option<PathBuf>,
    /// Context to use instead of the current one
    #[arg(long, env = "MEDIC_CONTEXT", value_name = "NAME", help_heading = "Connection")]
    pub context: Option<String>,
    /// Tenant to work in; `*`: all [default: the context's]
    #[arg(short, long, env = "MEDIC_TENANT", value_name = "NAME", help_heading = "Connection")]
    pub tenant: Option<String>,
    /// Give up after this long [default: 20s; 90s to add a node]
    #[arg(long, value_name = "TIME", help_heading = "Connection")]
    pub timeout: Option<Millis>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct ValidateArgs {
    /// Files, directories (`*.yaml`, `*.yml`, `*.json`, below too), or `-`
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct ApplyArgs {
    /// Files, directories (`*.yaml`, `*.yml`, `*.json`, below too), or `-`
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// Show what would change; change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct DeleteArgs {
    /// Kind, for example `playbook`
    pub kind: String,
    /// Name
    pub name: String,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct GetArgs {
    /// incidents, decisions, remediations, approvals, health, predictions, scores (of predictions), weights (of
    /// detectors), freezes, nodes, agents, shards, manifests, or a kind of manifest
    pub what: String,
    /// Only those that match, as in Prometheus; may be repeated
    #[arg(short = 'l', long = "match", value_name = "MATCHER")]
    pub matchers: Vec<String>,
    /// Only incidents, remediations or health of this status; short for a matcher
    #[arg(long, conflicts_with = "all")]
    pub status: Option<String>,
    /// Resolved incidents too
    #[arg(short, long)]
    pub all: bool,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct DescribeArgs {
    /// `INC-42`, `PLAN-57`, or a kind of manifest
    pub what: String,
    /// Name, for manifests
    pub name: Option<String>,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct IncidentArgs {
    /// For example `INC-42`
    pub incident: String,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct ApproveArgs {
    /// For example `INC-42`
    pub incident: String,
    /// Approve only the plan with this digest (or its beginning)
    #[arg(long, value_name = "HEX")]
    pub plan_digest: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct RejectArgs {
    /// For example `INC-42`
    pub incident: String,
    /// Why
    #[arg(short, long)]
    pub reason: String,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct NoteArgs {
    /// For example `INC-42`
    pub incident: String,
    /// What to say
    #[arg(short = 'm', long = "message", default_value = "")]
    pub note: String,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct WordArgs {
    #[command(flatten)]
    pub note: NoteArgs,
    /// Nothing was wrong: whoever called it is believed less
    #[arg(long)]
    pub false_alarm: bool,
}

/// What turned out about the detection of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Opinion {
    /// Nothing was wrong.
    FalseAlarm,
    /// Something was wrong, and no detector said so.
    Missed,
    /// Something was wrong, as the detectors said.
    Genuine,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct JudgeArgs {
    /// For example `INC-42`
    pub incident: String,
    /// What turned out
    pub opinion: Opinion,
    /// For `missed`: an indicator that should have shown it; may be repeated
    #[arg(short, long = "indicator", value_name = "NAME")]
    pub indicators: Vec<String>,
    /// What to say
    #[arg(short = 'm', long = "message", default_value = "")]
    pub note: String,
    #[command(flatten)]
    pub connect: Connect,
}

/// What a freeze covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeKind {
    /// Everything.
    #[value(alias = "global")]
    All,
    /// One tenant.
    Tenant,
    /// Instances of one region.
    Region,
    /// One service.
    Service,
    /// One playbook.
    Playbook,
    /// One instance, `service/instance`.
    Target,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct ScopeArgs {
    /// What is covered
    pub scope: ScopeKind,
    /// Its name; not for `all`
    #[arg(required_if_eq_any([("scope", "tenant"), ("scope", "region"), ("scope", "service"),
        ("scope", "playbook"), ("scope", "target")]))]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct FreezeArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Why
    #[arg(short, long)]
    pub reason: String,
    /// For how long; without it until it is lifted
    #[arg(long = "for", value_name = "TIME")]
    pub duration: Option<Millis>,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct UnfreezeArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct WatchArgs {
    /// Begin after this log index; without it: from now on
    #[arg(long, value_name = "INDEX")]
    pub after: Option<u64>,
    /// Only this incident
    #[arg(long)]
    pub incident: Option<String>,
    /// Only these commands, for example `AdoptDecision`
    #[arg(long = "command", value_delimiter = ',', value_name = "NAME,…")]
    pub commands: Vec<String>,
    #[command(flatten)]
    pub connect: Connect,
}
