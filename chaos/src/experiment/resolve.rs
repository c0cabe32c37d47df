//! Targets found, and held against the allow-list.
//!
//! Invariant: what is returned is allowed for these faults by exactly one entry. It is asked anew
//! before every single fault: what was allowed a minute ago may be another process by now.

use super::{
    fault::{Resolved, container::Container, netns::Netns},
    manifest::{
        ExperimentSpec, Inject, Kind, TargetSpec,
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
    let seen = process.as_ref().map_or_else(String::new, |p| {
        format!(" (process {}: {})", p.pid, process::describe(p.pid))
    });
    let entry = only(&entries, &target.name, &seen)?;
    permits(entry, target, injects)?;
    found(target, process, entry)
}

/// The one entry that is about a target.
fn only<'e>(entries: &[&'e Entry], name: &str, seen: &str) -> Result<&'e Entry, Trouble> {
    match entries {
        [entry] => Ok(*entry),
        [] => Err(Trouble::Refused(format!(
            "target `{name}` is not on the allow-list{seen}; who answers for it may add it to the \
             file given with --allow"
        ))),
        several => Err(Trouble::Refused(format!(
            "target `{name}` matches {} entries of the allow-list; exactly one must say what may \
             be done to it",
            several.len()
        ))),
    }
}

/// Whether an entry allows these faults for its target, as much as they ask for.
fn permits(entry: &Entry, target: &TargetSpec, injects: &[&Inject]) -> Result<(), Trouble> {
    let name = &target.name;
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
        if restarts && target.process.is_some() && entry.restart.is_none() {
            let message = format!(
                "`{name}` is to be restarted, and the allow-list has no `restart` command for it"
            );
            return Err(Trouble::Refused(message));
        }
        if let Inject::Fill(fill) = inject {
            let max = entry.max_bytes.as_deref();
            if size(&fill.bytes) > max.and_then(size) {
                let message = format!(
                    "target `{name}` is to be filled with {}, and the allow-list allows {}",
                    fill.bytes,
                    max.map_or("nothing".to_owned(), |max| format!("`maxBytes: {max}`"))
                );
                return Err(Trouble::Refused(message));
            }
        }
    }
    Ok(())
}

/// Everything in an experiment that an allow-list refuses, told from both texts: nothing is looked at.
/// Which process is meant is known only where it runs, so what depends on that is left open.
#[must_use]
pub fn refusals(spec: &ExperimentSpec, allow: &AllowSpec) -> Vec<Trouble> {
    let commands = spec.probes.iter().filter_map(|probe| {
        let argv = &probe.command.as_ref()?.argv;
        command(&probe.name, argv, allow).err()
    });
    let targets = spec.targets.iter().filter(|target| target.node.is_none()).filter_map(|target| {
        let of_target = spec.faults.iter().filter(|fault| fault.target == target.name);
        let injects: Vec<&Inject> = of_target.map(|fault| &fault.inject).collect();
        let entries: Vec<&Entry> =
            allow.targets.iter().filter(|entry| may_cover(entry, target)).collect();
        if target.process.is_some() && entries.len() > 1 {
            return None;
        }
        let entry = only(&entries, &target.name, "");
        entry.and_then(|entry| permits(entry, target, &injects)).err()
    });
    commands.chain(targets).collect()
}

/// Whether an entry can be about this target, whatever is found.
fn may_cover(entry: &Entry, target: &TargetSpec) -> bool {
    let (Some(allowed), Some(wanted)) = (&entry.process, &target.process) else {
        return covers(entry, target, None);
    };
    let same_file = allowed.pid_file.is_none() || allowed.pid_file == wanted.pid_file;
    let exe = allowed.exe.as_ref().zip(wanted.exe.as_ref());
    let args = allowed.args.as_ref().zip(wanted.args.as_ref());
    same_file
        && exe.is_none_or(|(one, other)| one == other)
        && args.is_none_or(|(one, other)| one == other)
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
    Ok(Resolved::Directory(dir.clone()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::experiment::manifest::{self, allow};

    fn experiment(targets: &str, faults: &str) -> ExperimentSpec {
        let text = format!(
            "apiVersion: medic/v1\nkind: Experiment\nmetadata: {{name: t}}\nspec:\n  \
             probes: [{{name: unit, command: {{argv: [/bin/true]}}}}]\n  \
             steadyState: {{expect: unit.ok}}\n  targets: [{targets}]\n  faults: [{faults}]\n"
        );
        manifest::parse(&text).unwrap().spec
    }

    fn allowed(targets: &str) -> AllowSpec {
        let text = format!(
            "apiVersion: medic/v1\nkind: AllowList\nmetadata: {{name: t}}\nspec:\n  \
             targets: [{targets}]\n  commands: [[/bin/true]]\n"
        );
        allow::parse(&text).unwrap()
    }

    fn refused(targets: &str, faults: &str, list: &str) -> Vec<String> {
        let spec = experiment(targets, faults);
        refusals(&spec, &allowed(list)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn more_than_may_be_filled_is_refused_and_not_shrunk() {
        let target = "{name: disk, directory: /srv/scratch}";
        let list = "{directory: /srv/scratch, inject: [fill], maxBytes: 8MiB}";
        let fault = |bytes: &str| {
            format!("{{target: disk, inject: {{fill: {{bytes: {bytes}}}}}, for: 1s}}")
        };
        for (bytes, expected) in [
            ("8MiB", None),
            (
                "40MiB",
                Some(
                    "target `disk` is to be filled with 40MiB, and the allow-list allows `maxBytes: 8MiB`",
                ),
            ),
        ] {
            let spec = experiment(target, &fault(bytes));
            let found = resolve(&spec.targets[0], &[&spec.faults[0].inject], &allowed(list));
            assert_eq!(found.err().map(|error| error.to_string()).as_deref(), expected, "{bytes}");
            let told = refused(target, &fault(bytes), list);
            assert_eq!(told.first().map(String::as_str), expected, "{bytes}");
        }
    }

    #[test]
    fn what_a_list_refuses_is_told_without_looking() {
        let process = "{name: api, process: {pidFile: /run/api.pid, exe: /usr/bin/api}}";
        let pause = "{target: api, inject: pause, for: 1s}";
        for (list, expected) in [
            ("{process: {exe: /usr/bin/api}, inject: [pause]}", None),
            ("{process: {exe: /usr/bin/api, args: [serve]}, inject: [pause]}", None),
            ("{process: {pidFile: /run/api.pid}, inject: [pause]}", None),
            (
                "{process: {exe: /usr/bin/other}, inject: [pause]}",
                Some("is not on the allow-list;"),
            ),
            (
                "{process: {pidFile: /run/b.pid}, inject: [pause]}",
                Some("is not on the allow-list;"),
            ),
            ("{process: {exe: /usr/bin/api}, inject: [kill]}", Some("does not allow pause")),
            // Which of them is about it, the process will tell.
            (
                "{process: {exe: /usr/bin/api, args: [a]}, inject: [kill]}, {process: {exe: /usr/bin/api, args: [b]}, inject: [pause]}",
                None,
            ),
        ] {
            let told = refused(process, pause, list);
            match expected {
                None => assert_eq!(told, Vec::<String>::new(), "{list}"),
                Some(expected) => {
                    assert!(told.len() == 1 && told[0].contains(expected), "{told:?}")
                }
            }
        }
        let twice = "{container: a, inject: [pause]}, {container: a, inject: [kill]}";
        let told = refused("{name: api, container: a}", pause, twice);
        assert!(told[0].contains("matches 2 entries"), "{told:?}");
        let mut none = allowed("{container: a, inject: [pause]}");
        none.commands.clear();
        let told = refusals(&experiment("{name: api, container: a}", pause), &none);
        assert!(told.len() == 1 && told[0].to_string().contains("`commands`"), "{told:?}");
    }
}
