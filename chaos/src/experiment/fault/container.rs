//! Containers, through the command line of docker or podman.
//!
//! A container is resolved by its exact name to its full id; orders and undos go to the id, so that a
//! new container of the same name is left alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::experiment::{
    process::ProcessRef,
    system::{Trouble, have, run, words},
};

const ENGINES: [&str; 2] = ["docker", "podman"];

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `docker` or `podman`.
    pub engine: String,
    /// Its full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its first process.
    pub process: ProcessRef,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.id.chars().take(12).collect();
        write!(f, "{} container {} ({short}, process {})", self.engine, self.name, self.process.pid)
    }
}

/// Running and paused, as the engine says.
fn state(engine: &str, id: &str) -> Result<(bool, bool), Trouble> {
    let format = "{{.State.Running}} {{.State.Paused}}";
    let text = run(&words(&[engine, "inspect", "--type", "container", "--format", format, id]))?;
    let mut words = text.split_ascii_whitespace().map(|word| word == "true");
    Ok((words.next().unwrap_or(false), words.next().unwrap_or(false)))
}

impl Container {
    /// The container of exactly this name.
    ///
    /// # Errors
    /// When no engine is there, none knows it, or it does not run.
    pub fn named(name: &str) -> Result<Self, Trouble> {
        let mut said = Vec::new();
        for engine in ENGINES.into_iter().filter(|engine| have(engine)) {
            let format = "{{.Id}} {{.Name}} {{.State.Pid}}";
            let argv = ["inspect", "--type", "container", "--format", format, name];
            let text = match run(&words(&[&[engine], &argv[..]].concat())) {
                Ok(text) => text,
                Err(error) => {
                    said.push(error.to_string());
                    continue;
                }
            };
            let fields: Vec<&str> = text.split_ascii_whitespace().collect();
            let [id, found, pid] = fields[..] else {
                said.push(format!("{engine}: `{}` is no answer", text.trim()));
                continue;
            };
            // Engines also take the beginning of an id for a name.
            if found.trim_start_matches('/') != name {
                said.push(format!("{engine}: that is the container `{found}`"));
                continue;
            }
            let process = pid.parse().ok().and_then(ProcessRef::of);
            let Some(process) = process else {
                return Err(Trouble::Refused(format!("the container {name} does not run")));
            };
            process.allowed()?;
            let (engine, id, name) = (engine.to_owned(), id.to_owned(), name.to_owned());
            return Ok(Self { engine, id, name, process });
        }
        let said = if said.is_empty() {
            "neither docker nor podman is on PATH".to_owned()
        } else {
            said.join("; ")
        };
        Err(Trouble::Refused(format!("there is no container `{name}`: {said}")))
    }

    /// Gives the engine an order for it.
    pub(super) fn order(&self, order: &[String]) -> Result<(), Trouble> {
        let mut argv = words(&[&self.engine]);
        argv.extend(order.iter().cloned());
        argv.push(self.id.clone());
        run(&argv).map(drop)
    }

    /// It is not paused any more.
    pub(in crate::experiment) fn unpause(&self) -> Result<String, Trouble> {
        match state(&self.engine, &self.id) {
            Ok((_, true)) => self.order(&words(&["unpause"]))?,
            Ok((_, false)) => {}
            Err(error) => return self.if_gone(error),
        }
        Ok(format!("container {} goes on", self.name))
    }

    /// It runs.
    pub(in crate::experiment) fn start(&self) -> Result<String, Trouble> {
        match state(&self.engine, &self.id) {
            Ok((false, _)) => self.order(&words(&["start"]))?,
            Ok((true, _)) => {}
            Err(error) => return self.if_gone(error),
        }
        Ok(format!("container {} runs", self.name))
    }

    /// A container that was removed needs no undo.
    fn if_gone(&self, error: Trouble) -> Result<String, Trouble> {
        match error {
            Trouble::Tool { said, .. } if said.to_lowercase().contains("no such") => {
                Ok(format!("container {} is gone", self.name))
            }
            other => Err(other),
        }
    }
}
