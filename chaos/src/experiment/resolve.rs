//! Targets found, and held against the allow-list.
//!
//! Invariant: what is returned is allowed for these faults by exactly one entry. It is asked anew
//! before every single fault: what was allowed a minute ago may be another process by now.

use super::{
    fault::{Resolved, container::Container, netns::Netns},
    manifest::{
        Inject, Kind, TargetSpec,
        allow::{AllowSpec, Entry},
        size,
    },
    process::{self, ProcessRef},
    system::Trouble,
};

/// Whether an entry of the allow-list is about this target.
fn covers(entry: &Entry, target: &TargetSpec, process: Option<&ProcessRef>) -> bool {
    if let (Some(allowed), Some(wanted), Some(found)) = (&entry.process, &target.process, process) {
        let same_file = allowed.pid_file.is_none() || allowed.pid_file == wanted.pid_file;
        return same_file && process::is(found.pid, allowed);
    }
    let container = target.container.is_some() && entry.container == target.container;
    let namespace = target.namespace.is_some() && entry.namespace == target.namespace;
    let directory = target.directory.is_some() && entry.directory == target.directory;
    container || namespace || directory
}

/// Finds a target that may be given these faults.
///
/// # Errors
/// When it is not there, is never a target, or is not allowed.
pub fn resolve(
    target: &TargetSpec,
    injects: &[&Inject],
    allow: &AllowSpec,
) -> Result<Resolved, Trouble> {
    let process = target.process.as_ref().map(process::find).transpose()?;
    let entries: Vec<&Entry> =
        allow.targets.iter().filter(|e| covers(e, target, process.as_ref())).collect();
    let name = &target.name;
    let entry = match entries.as_slice() {
        [entry] => *entry,
        [] => {
            let message = format!(
                "target `{name}` is not on the allow-list{}; who answers for it may add it to the \
                 file given with --allow",
                process
                    .as_ref()
                    .map(|p| format!(" (process {}: {})", p.pid, process::describe(p.pid)))
                    .unwrap_or_default()
            );
            return Err(Trouble::Refused(message));
        }
        several => {
            let message = format!(
                "target `{name}` matches {} entries of the allow-list; exactly one must say what \
                 may be done to it",
                several.len()
            );
            return Err(Trouble::Refused(message));
        }
    };
    for inject in injects {
        let kind = inject.kind();
        if !entry.inject.contains(&kind) {
            let allowed: Vec<String> = entry.inject.iter().map(Kind::to_string).collect();
            let message = format!(
                "the allow-list does not allow {kind} for target `{name}`, only {}",
                allowed.join(", ")
            );
            return Err(Trouble::Refused(message));
        }
        let restarts = matches!(inject, Inject::Kill(kill) if kill.restart_after.is_some());
        if restarts && process.is_some() && entry.restart.is_none() {
            let message = format!(
                "`{name}` is to be restarted, and the allow-list has no `restart` command for it"
            );
            return Err(Trouble::Refused(message));
        }
    }
    found(target, process, entry)
}

fn found(
    target: &TargetSpec,
    process: Option<ProcessRef>,
    entry: &Entry,
) -> Result<Resolved, Trouble> {
    if let (Some(process), Some(by)) = (process, &target.process) {
        let (by, restart) = (by.clone(), entry.restart.clone());
        return Ok(Resolved::Process { process, by, restart });
    }
    if let Some(name) = &target.container {
        return Container::named(name).map(Resolved::Container);
    }
    if let Some(name) = &target.namespace {
        return Netns::named(name).map(Resolved::Namespace);
    }
    let Some(dir) = &target.directory else {
        return Err(Trouble::Refused(format!("target `{}` is a node of no cluster", target.name)));
    };
    let max = entry.max_bytes.as_deref().and_then(size).unwrap_or(0);
    Ok(Resolved::Directory(dir.clone(), max))
}

/// Whether a command probe may run.
///
/// # Errors
/// When the allow-list does not name it, with all its arguments.
pub fn command(name: &str, argv: &[String], allow: &AllowSpec) -> Result<(), Trouble> {
    if allow.commands.iter().any(|allowed| allowed == argv) {
        return Ok(());
    }
    let message = format!(
        "probe `{name}` runs `{}`, which is not among the `commands` of the allow-list",
        argv.join(" ")
    );
    Err(Trouble::Refused(message))
}
