//! Whether a process still is what was started: where it listens, what file it runs, what it may do.
//!
//! ```text
//!   started ─► first look: nothing is said ─► second look: baseline (kept in `state.json`)
//!   every look: sockets of it and its children ─ declared ports ─► listeners
//!               the file behind it, the declared command        ─► changed, replaced, gone
//!               Uid, Gid, CapEff, Seccomp, NoNewPrivs           ─► changes, counted
//! ```
//!
//! Invariants: a look never holds up a report; files are read only when their marks changed, and at most
//! so many bytes a round; what cannot be read (another user's process, for an agent that is not root) is
//! no finding. Deliberately absent: an `exec` of another program by the process itself, which wrappers do
//! (the program it became is what is watched from then on); sockets of the Unix family; UDP ports from the
//! ephemeral range, which clients have; memory and libraries.

mod files;
mod privileges;
mod sockets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use medic_proto::fleet::v1 as wire;
use serde::{Deserialize, Serialize};

pub(super) use self::files::Hashes;
use self::{
    files::{Files, Marks},
    privileges::Privileges,
    sockets::Sockets,
};
use super::{process::ProcessId, procfs, spec::Spec};

/// Listeners that are named; the others are counted.
const LISTENERS_NAMED: usize = 8;
/// Processes of one instance that are looked at: more are a fork bomb, or a farm that tells the same.
const MEMBERS_MAX: usize = 256;
/// Children with more rights than the first process that are remembered.
const CHILDREN_MAX: usize = 64;
/// A process this young may still give rights away: that is how daemons start.
const SETTLES_MS: u64 = 10_000;

/// What one round of looks at all instances shares.
pub(super) struct Round<'h> {
    table: procfs::Table,
    sockets: Sockets,
    hashes: &'h mut Hashes,
}

impl<'h> Round<'h> {
    /// Reads the table of processes.
    pub(super) fn begin(hashes: &'h mut Hashes) -> Self {
        hashes.begin_round();
        Self { table: procfs::Table::read(), sockets: Sockets::default(), hashes }
    }
}

/// Who is looked at.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) id: ProcessId,
    pub(super) age_ms: u64,
    pub(super) command: PathBuf,
    /// Ports that are declared.
    pub(super) ports: BTreeSet<u16>,
}

/// What the process was at its start; outlives the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Baseline {
    process: Option<ProcessId>,
    files: Files,
    privileges: Option<Privileges>,
    /// Children that were found with more rights, each by pid and start.
    children: Vec<(u32, u64)>,
    changes: u64,
    change: String,
}

/// What is remembered from look to look, and not beyond.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    first: Option<ProcessId>,
    /// Sockets that were unexpected at the last look; one is no finding until the second.
    unexpected: BTreeSet<u64>,
}

/// The ports that the text of a declaration names: every number in it that can be one.
pub(super) fn declared_ports(spec: &Spec) -> BTreeSet<u16> {
    let texts = spec.args.iter().chain(spec.env.values()).chain(&spec.config_content);
    let numbers = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_digit()));
    let named = numbers.filter_map(|number| number.parse().ok()).filter(|port| *port > 0);
    named.chain(spec.ports.iter().copied()).collect()
}

/// Looks at one process. `None`: it is too new to say.
pub(super) fn look(
    subject: &Subject,
    watch: &mut Watch,
    baseline: &mut Baseline,
    round: &mut Round<'_>,
) -> Option<wire::ProcessGuard> {
    let id = &subject.id;
    if baseline.process.as_ref() != Some(id) {
        // Between its start and the command stands another program for a moment: `setsid`.
        if watch.first.as_ref() != Some(id) {
            *watch = Watch { first: Some(id.clone()), unexpected: BTreeSet::new() };
            return None;
        }
        *baseline = Baseline { process: Some(id.clone()), ..Baseline::default() };
    }
    let executable = baseline.files.look(id.pid, &subject.command, round.hashes);
    let members: Vec<(u32, u64)> =
        round.table.members(id.pid).into_iter().take(MEMBERS_MAX).collect();
    look_at_privileges(subject, baseline, &members);
    let unexpected = unexpected(subject, watch, &members, round);
    Some(wire::ProcessGuard {
        unexpected_listeners: u32::try_from(unexpected.len()).unwrap_or(u32::MAX),
        listeners: unexpected.into_iter().take(LISTENERS_NAMED).collect(),
        executable,
        config: String::new(),
        privilege_changes: baseline.changes,
        privileges: baseline.change.clone(),
    })
}

/// Sockets on which it listens though nothing declares their ports, and did so at the last look.
fn unexpected(
    subject: &Subject,
    watch: &mut Watch,
    members: &[(u32, u64)],
    round: &mut Round<'_>,
) -> Vec<String> {
    let mut found = BTreeMap::new();
    for (pid, _) in members {
        found.extend(round.sockets.listening(*pid, &subject.ports));
    }
    let seen = std::mem::replace(&mut watch.unexpected, found.keys().copied().collect());
    let lasting = found.into_iter().filter(|(inode, _)| seen.contains(inode));
    // Several processes may share a port by sockets of their own.
    let named: BTreeSet<String> = lasting.map(|(_, socket)| socket).collect();
    named.into_iter().collect()
}

fn look_at_privileges(subject: &Subject, baseline: &mut Baseline, members: &[(u32, u64)]) {
    let Some(now) = Privileges::of(subject.id.pid) else { return };
    let before = baseline.privileges.get_or_insert_with(|| now.clone());
    let young = subject.age_ms < SETTLES_MS;
    if let Some(change) = before.change(&now) {
        if !young || now.exceeds(before) {
            baseline.changes += 1;
            baseline.change = change;
        }
        before.clone_from(&now);
    }
    let before = before.clone();
    baseline.children.retain(|child| members.contains(child));
    for child in members.iter().filter(|(pid, _)| *pid != subject.id.pid) {
        let full = baseline.children.len() >= CHILDREN_MAX;
        if !full
            && !baseline.children.contains(child)
            && same_users(subject.id.pid, child.0)
            && let Some(its) = Privileges::of(child.0).filter(|its| its.exceeds(&before))
        {
            baseline.children.push(*child);
            baseline.changes += 1;
            baseline.change = format!("its child {} has more rights: {its}", child.0);
        }
    }
}

/// Whether two processes have one user namespace: what a child may do in one of its own it may do nowhere
/// else.
fn same_users(one: u32, other: u32) -> bool {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    namespace(one) == namespace(other)
}

/// A path as a process sees it, from here.
fn within(pid: u32, path: &Path) -> PathBuf {
    let inner = path.strip_prefix("/").unwrap_or(path);
    Path::new(&format!("/proc/{pid}/root")).join(inner)
}

fn marks(path: &Path) -> std::io::Result<Marks> {
    fs::metadata(path).map(|found| Marks::of(&found))
}
