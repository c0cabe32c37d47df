//! What takes a fault back: data, so that another process can do it after this one is gone.
//!
//! Invariant: every undo may be done any number of times, and does nothing to what is not ours: a
//! process that is another by now, a queueing discipline or table of somebody else, a file not made
//! here. What is gone needs no undo.

use std::{fmt, path::PathBuf};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{
    fault::{
        cgroup::Group,
        container::Container,
        fill,
        netns::{Shape, Wall},
        pressure, restart,
    },
    local,
    manifest::ProcessMatch,
    process::ProcessRef,
    system::Trouble,
};

/// Takes one fault back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Undo {
    /// SIGCONT.
    Continue {
        /// For whom.
        process: ProcessRef,
    },
    /// A process is started again, unless it runs.
    Restart {
        /// By what.
        argv: Vec<String>,
        /// What it is recognised by.
        unless: ProcessMatch,
    },
    /// A container goes on.
    Unpause(Container),
    /// A container runs.
    Start(Container),
    /// Queueing disciplines go.
    Shape(Shape),
    /// A wall goes.
    Wall(Wall),
    /// A cgroup goes, and what is in it comes back.
    Group(Group),
    /// Workers end.
    EndMarked {
        /// Their mark.
        mark: String,
    },
    /// A file goes.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// The cluster that was started for the experiment ends.
    EndCluster {
        /// Its directory.
        dir: PathBuf,
    },
    /// The experiment itself takes it back, while it lives; what it was done to ends with it.
    OfCluster {
        /// What it does.
        what: String,
    },
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue { process } => write!(f, "SIGCONT for process {}", process.pid),
            Self::Restart { argv, unless } => {
                write!(f, "`{}`, unless there is a process of {unless}", argv.join(" "))
            }
            Self::Unpause(container) => {
                write!(f, "{} unpause {}", container.engine, container.name)
            }
            Self::Start(container) => write!(f, "{} start {}", container.engine, container.name),
            Self::Shape(shape) => {
                let devices = shape.devices.join(", ");
                write!(f, "tc: remove it from {devices} in {}", shape.netns.called)
            }
            Self::Wall(wall) => {
                write!(f, "nft in {}: delete table inet {}", wall.netns.called, wall.table)
            }
            Self::Group(group) => write!(
                f,
                "processes back to {}, remove {}",
                group.back.display(),
                group.made.display()
            ),
            Self::EndMarked { mark } => write!(f, "end the workers marked {mark}"),
            Self::Remove { path } => write!(f, "remove {}", path.display()),
            Self::EndCluster { dir } => write!(f, "end the cluster in {}", dir.display()),
            Self::OfCluster { what } => f.write_str(what),
        }
    }
}

impl Undo {
    /// Does it; gives how things are now.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn perform(&self) -> Result<String, Trouble> {
        match self {
            Self::Continue { process } => {
                let there = process.signal(Signal::CONT)?;
                let how = if there { "goes on" } else { "is gone" };
                Ok(format!("process {} {how}", process.pid))
            }
            Self::Restart { argv, unless } => restart::restart(argv, unless),
            Self::Unpause(container) => container.unpause(),
            Self::Start(container) => container.start(),
            Self::Shape(shape) => shape.undo(),
            Self::Wall(wall) => wall.undo(),
            Self::Group(group) => group.undo(),
            Self::EndMarked { mark } => pressure::end(mark),
            Self::Remove { path } => remove(path),
            Self::EndCluster { dir } => local::end(dir),
            Self::OfCluster { .. } => Ok("ended with its cluster".to_owned()),
        }
    }
}

fn remove(path: &std::path::Path) -> Result<String, Trouble> {
    let ours = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(fill::PREFIX));
    if !ours {
        let message = format!("{} is no file of an experiment, and stays", path.display());
        return Err(Trouble::Refused(message));
    }
    match std::fs::remove_file(path) {
        Ok(()) => Ok(format!("{} is removed", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("{} is not there", path.display()))
        }
        Err(error) => Err(Trouble::file("removing", path)(error)),
    }
}
