//! `experiment validate`: what files say, held against their form and against each other. Looks at
//! nothing but the files.

use std::path::{Path, PathBuf};

use super::{
    manifest::{self, Document, Experiment, allow, allow::AllowSpec},
    resolve, schedule,
};
use crate::campaign::say;

/// Options of a check.
#[derive(Clone, Debug, clap::Args)]
pub struct ValidateArgs {
    /// The experiment, or the allow-list.
    pub file: PathBuf,
    /// An allow-list to check as well, and to hold the experiment against.
    #[arg(long, value_name = "FILE")]
    pub allow: Option<PathBuf>,
}

/// Says what is well, and fails with everything that is not.
pub(super) fn validate(args: &ValidateArgs) -> anyhow::Result<()> {
    let read = manifest::read_either(&args.file);
    let allow = args.allow.as_deref().map(allow::read).transpose();
    let (document, allow) = match (read, allow) {
        (Ok(document), Ok(allow)) => (document, allow),
        (Err(one), Err(other)) => anyhow::bail!("{one:#}\n{other:#}"),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => return Err(error),
    };
    match document {
        Document::AllowList(_) if args.allow.is_some() => anyhow::bail!(
            "{}: this is an allow-list itself; --allow goes with an experiment",
            args.file.display()
        ),
        Document::AllowList(list) => list_is_good(&args.file, &list),
        Document::Experiment(experiment) => {
            experiment_is_good(&args.file, &experiment);
            if let (Some(path), Some(list)) = (&args.allow, &allow) {
                list_is_good(path, list);
                held(&experiment, list)?;
            }
        }
    }
    Ok(())
}

fn experiment_is_good(path: &Path, experiment: &Experiment) {
    let turns = schedule::turns(&experiment.spec);
    let length = schedule::length(&experiment.spec, &turns);
    say(&format!(
        "{}: Experiment {} is well-formed: {} faults in {length}",
        path.display(),
        experiment.name,
        turns.len()
    ));
}

fn list_is_good(path: &Path, list: &AllowSpec) {
    let targets = list.targets.len();
    say(&format!("{}: AllowList is well-formed: {targets} targets", path.display()));
}

/// Holds an experiment against an allow-list.
fn held(experiment: &Experiment, list: &AllowSpec) -> anyhow::Result<()> {
    let refusals = resolve::refusals(&experiment.spec, list);
    if !refusals.is_empty() {
        let refusals: Vec<String> = refusals.iter().map(|why| format!("refused: {why}")).collect();
        anyhow::bail!(refusals.join("\n"));
    }
    say("the list refuses nothing of it; whether its targets are there, `run --dry-run` finds out");
    Ok(())
}
