//! The `medic` command: parses what was typed, asks the cluster, prints through one door.
//!
//! ```text
//!   args ──► local (no cluster)  ──┐
//!     └────► session ──► gRPC ─────┴──► render (pure) ──► out (the one door)
//! ```

mod apply;
pub mod args;
mod audit;
mod backtest;
pub mod chain;
mod cluster;
mod context;
mod daemon;
mod error;
mod foresee;
mod list;
mod local;
mod operate;
pub mod out;
pub mod render;
mod session;
mod setup;
mod silence;
mod vitals;
mod watch;

use std::{future::Future, path::Path, process::ExitCode};

use clap::{CommandFactory as _, Parser as _};
use medic_api::client::Client;
use medic_state::Millis;

use args::{Cli, Command, Format};
pub use context::{Context, Contexts};
pub use error::CliError;
use operate::Word;
use out::Out;

/// A client of the cluster that a context names, for other programs of Medic; absent: the file and
/// the context that `medic` itself would use. Talks to nobody yet.
///
/// # Errors
/// When there is no such context, or its certificate is not good.
pub fn client(
    config: Option<&Path>,
    context: Option<&str>,
    patience: Millis,
) -> Result<Client, CliError> {
    let connect = args::Connect {
        config: config.map(Path::to_owned),
        context: context.map(str::to_owned),
        ..args::Connect::default()
    };
    Ok(session::Session::open_with(&connect, patience)?.client().clone())
}

/// Runs what was typed.
#[must_use]
pub fn main() -> ExitCode {
    crate::security::provide_crypto();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::error(&error);
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let plain = Out::new(Format::Table);
    match cli.command {
        Command::Init(args) => setup::init(args),
        Command::Serve(args) => daemon::serve(&args),
        Command::Agent(args) => daemon::agent(&args),
        Command::Certs(command) => setup::certs(command),
        Command::Validate(args) => local::validate(&args),
        Command::Context(command) => local::contexts(command),
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&medic_api::manifest::schema());
            plain.text(&schema.map_err(CliError::failed)?)
        }
        Command::Version(output) => version(&Out::new(output.output)),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "medic", &mut script);
            plain.text(&String::from_utf8_lossy(&script))
        }
        Command::Backtest(command) => backtest::run(&command),
        Command::Apply(args) => wait(apply::apply(args)),
        Command::Delete(args) => wait(apply::delete(args)),
        Command::Get(args) => wait(list::get(args)),
        Command::Describe(args) => wait(list::describe(args)),
        Command::Explain(args) => wait(list::explain_incident(args)),
        Command::Approve(args) => wait(operate::approve(args)),
        Command::Reject(args) => wait(operate::reject(args)),
        Command::Ack(args) => wait(operate::say_of(Word::Ack, args)),
        Command::Resolve(args) => wait(operate::say_of(Word::Resolve, args)),
        Command::Judge(args) => wait(operate::judge(args)),
        Command::Reopen(args) => wait(operate::say(Word::Reopen, args)),
        Command::Note(args) => wait(operate::say(Word::Note, args)),
        Command::Cancel(args) => wait(operate::say(Word::Cancel, args)),
        Command::Freeze(args) => wait(operate::freeze(args)),
        Command::Unfreeze(args) => wait(operate::unfreeze(args)),
        Command::Silence(command) => wait(silence::run(command)),
        Command::Watch(args) => wait(watch::watch(args)),
        Command::Cluster(command) => wait(cluster::run(command)),
        Command::Audit(command) => wait(audit::run(command)),
    }
}

/// Runs a conversation with the cluster to its end. One thread is enough for one conversation.
fn wait(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::failed)?
        .block_on(work)
}

fn version(out: &Out) -> Result<(), CliError> {
    let version = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "manifests": medic_api::manifest::API_VERSION,
    });
    out.value(&version, |_| {
        let (version, manifests) = (env!("CARGO_PKG_VERSION"), medic_api::manifest::API_VERSION);
        format!("medic {version}, reads manifests of {manifests}")
    })
}
