//! Faults: what is done, planned before anything is touched.
//!
//! ```text
//!   Inject + Resolved ──plan──► Planned { acts, undo }   (reads only; this is what a dry run shows)
//!                                  │ undo noted and synced in the journal
//!                                  └──► acts, one after the other
//! ```
//!
//! Invariant: what takes an act back is known, and complete, before the act.

pub mod cgroup;
pub mod container;
pub mod fill;
pub mod netns;
pub mod pressure;
pub mod restart;

use std::{fmt, path::PathBuf};

use rustix::process::Signal;

use self::{
    cgroup::Group,
    container::Container,
    fill::Filling,
    netns::{Netns, Shape, Wall},
};
use super::{
    manifest::{Inject, ProcessMatch, size},
    process::ProcessRef,
    system::Trouble,
    undo::Undo,
};

/// A target, as it was found.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// A process, how it was found, and what starts it again.
    Process {
        /// It.
        process: ProcessRef,
        /// How it was found.
        by: ProcessMatch,
        /// What the allow-list says starts it again.
        restart: Option<Vec<String>>,
    },
    /// A container.
    Container(Container),
    /// A network namespace.
    Namespace(Netns),
    /// A directory.
    Directory(PathBuf),
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { process, .. } => {
                write!(f, "process {} ({})", process.pid, super::process::describe(process.pid))
            }
            Self::Container(container) => write!(f, "{container}"),
            Self::Namespace(netns) => write!(f, "{}", netns.called),
            Self::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One thing that is done.
#[derive(Clone, Debug)]
pub enum Act {
    /// A signal for a process.
    Signal(ProcessRef, Signal, String),
    /// An order to a container's engine.
    Container(Container, Vec<String>),
    /// A bad network.
    Shape(Shape),
    /// A wall.
    Wall(Wall),
    /// Limits.
    Group(Group, ProcessRef),
    /// Pressure.
    Pressure(pressure::Work),
    /// A file that takes room.
    Fill(Filling),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(process, _, name) => write!(f, "SIG{name} for process {}", process.pid),
            Self::Container(container, order) => {
                write!(f, "{} {} {}", container.engine, order.join(" "), container.name)
            }
            Self::Shape(shape) => write!(
                f,
                "tc: {} on {} in {}",
                shape.discipline.join(" "),
                shape.devices.join(", "),
                shape.netns.called
            ),
            Self::Wall(wall) => {
                let rules: Vec<&str> = wall.rules.split_whitespace().collect();
                write!(f, "nft in {}: {}", wall.netns.called, rules.join(" "))
            }
            Self::Group(group, process) => {
                let files = group.files.iter().map(|(file, text)| format!("{file}={text}"));
                let files = files.collect::<Vec<_>>().join(", ");
                write!(f, "process {} into {} ({files})", process.pid, group.made.display())
            }
            Self::Pressure(work) => write!(f, "{work}"),
            Self::Fill(filling) => write!(f, "{filling}"),
        }
    }
}

impl Act {
    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done; parts of it may have been.
    pub fn perform(&self) -> Result<(), Trouble> {
        match self {
            Self::Signal(process, signal, name) => {
                process.allowed()?;
                if process.signal(*signal)? {
                    return Ok(());
                }
                let gone = format!("process {} was gone before SIG{name}", process.pid);
                Err(Trouble::Refused(gone))
            }
            Self::Container(container, order) => container.order(order),
            Self::Shape(shape) => shape.begin(),
            Self::Wall(wall) => wall.begin(),
            Self::Group(group, process) => group.begin(process),
            Self::Pressure(work) => work.begin(),
            Self::Fill(filling) => filling.begin(),
        }
    }
}

/// What is to be done, and what takes it back.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// In this order.
    pub acts: Vec<Act>,
    /// In this order; none: nothing takes it back.
    pub undo: Vec<Undo>,
}

/// Signals by name.
fn signal(name: &str) -> Option<Signal> {
    Some(match name {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "ABRT" => Signal::ABORT,
        "ALRM" => Signal::ALARM,
        "WINCH" => Signal::WINCH,
        _ => return None,
    })
}

/// Plans one fault; `id` makes what it makes its own. Touches nothing.
///
/// # Errors
/// When it cannot be done here, and why.
pub fn plan(inject: &Inject, target: &Resolved, id: &str) -> Result<Planned, Trouble> {
    let nothing = || {
        let message = format!("{} is nothing that {target} can be given", inject.kind());
        Trouble::Refused(message)
    };
    let mut planned = Planned::default();
    match inject {
        Inject::Kill(_) | Inject::Pause | Inject::Signal(_) => return of_life(inject, target),
        Inject::Network(network) => {
            let shape = Shape::plan(netns(target).ok_or_else(nothing)??, network)?;
            planned.undo.push(Undo::Shape(shape.clone()));
            planned.acts.push(Act::Shape(shape));
        }
        Inject::Partition(partition) => {
            let wall = Wall::plan(netns(target).ok_or_else(nothing)??, partition, id)?;
            planned.undo.push(Undo::Wall(wall.clone()));
            planned.acts.push(Act::Wall(wall));
        }
        Inject::Limit(limit) => {
            let process = process(target).ok_or_else(nothing)?;
            for group in cgroup::plan(process, limit, id)? {
                planned.undo.push(Undo::Group(group.clone()));
                planned.acts.push(Act::Group(group, process.clone()));
            }
        }
        Inject::Pressure(pressure) => {
            let homes = cgroup::homes(process(target).ok_or_else(nothing)?);
            let memory = pressure.memory.as_deref().and_then(size).unwrap_or(0);
            let work = pressure::Work { mark: id.to_owned(), cpu: pressure.cpu, memory, homes };
            planned.undo.push(Undo::EndMarked { mark: work.mark.clone() });
            planned.acts.push(Act::Pressure(work));
        }
        Inject::Fill(wanted) => {
            let Resolved::Directory(path) = target else { return Err(nothing()) };
            let filling = Filling::plan(path, wanted, id)?;
            planned.undo.push(Undo::Remove { path: filling.path.clone() });
            planned.acts.push(Act::Fill(filling));
        }
        Inject::ClockSkew(_) => return Err(nothing()),
    }
    Ok(planned)
}

/// Kill, pause, signal.
fn of_life(inject: &Inject, target: &Resolved) -> Result<Planned, Trouble> {
    let mut planned = Planned::default();
    match target {
        Resolved::Process { process, by, restart } => {
            let mut send = |signal, name: &str| {
                planned.acts.push(Act::Signal(process.clone(), signal, name.to_owned()));
            };
            match inject {
                Inject::Pause if process.stopped() => {
                    let message = format!("{target} is stopped already, and not by this fault");
                    return Err(Trouble::Refused(message));
                }
                Inject::Pause => {
                    send(Signal::STOP, "STOP");
                    planned.undo.push(Undo::Continue { process: process.clone() });
                }
                Inject::Signal(name) => {
                    let signal = signal(name)
                        .ok_or_else(|| Trouble::Refused(format!("there is no signal {name}")))?;
                    send(signal, name);
                }
                _ => {
                    send(Signal::KILL, "KILL");
                    if let (Inject::Kill(kill), Some(argv)) = (inject, restart)
                        && kill.restart_after.is_some()
                    {
                        let (argv, unless) = (argv.clone(), by.clone());
                        planned.undo.push(Undo::Restart { argv, unless });
                    }
                }
            }
        }
        Resolved::Container(container) => {
            let order = |words: &[&str]| {
                let words = words.iter().map(|word| (*word).to_owned()).collect();
                Act::Container(container.clone(), words)
            };
            match inject {
                Inject::Pause => {
                    planned.acts.push(order(&["pause"]));
                    planned.undo.push(Undo::Unpause(container.clone()));
                }
                Inject::Signal(name) => planned.acts.push(order(&["kill", "--signal", name])),
                Inject::Kill(kill) => {
                    planned.acts.push(order(&["kill"]));
                    if kill.restart_after.is_some() {
                        planned.undo.push(Undo::Start(container.clone()));
                    }
                }
                _ => {}
            }
        }
        Resolved::Namespace(_) | Resolved::Directory(..) => {
            let message = format!("{} is nothing that {target} can be given", inject.kind());
            return Err(Trouble::Refused(message));
        }
    }
    Ok(planned)
}

const fn process(target: &Resolved) -> Option<&ProcessRef> {
    match target {
        Resolved::Process { process, .. } => Some(process),
        Resolved::Container(container) => Some(&container.process),
        Resolved::Namespace(_) | Resolved::Directory(..) => None,
    }
}

fn netns(target: &Resolved) -> Option<Result<Netns, Trouble>> {
    match target {
        Resolved::Namespace(netns) => Some(Ok(netns.clone())),
        Resolved::Process { .. } | Resolved::Container(_) => process(target).map(Netns::of),
        Resolved::Directory(..) => None,
    }
}
