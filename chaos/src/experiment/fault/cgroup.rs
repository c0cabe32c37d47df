//! Limits through cgroups: v2 where its controllers are, else v1.
//!
//! ```text
//!   v2:  parent ─┬─ the target's group                 v1, per controller:
//!                └─ medic-chaos-…  ◄─ moved here          the target's group ── medic-chaos-… ◄─ moved here
//! ```
//!
//! The target goes into a group made for it, so that nobody else feels its limits; the undo moves all
//! that is in there back and removes it. The process that was named is moved, and what it starts from
//! then on; what it had started before stays where it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use medic_state::Ppm;
use serde::{Deserialize, Serialize};

use crate::experiment::{
    manifest::{Limit, size},
    process::ProcessRef,
    system::{Trouble, write},
};

/// A group cannot be removed while the dead in it are not reaped.
const EMPTY_PATIENCE: Duration = Duration::from_secs(3);
/// Period of CPU quotas.
const PERIOD_US: u64 = 100_000;

/// A group that is made for a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its directory.
    pub made: PathBuf,
    /// Where its processes came from, and go back to.
    pub back: PathBuf,
    /// What is written into it, by file.
    #[serde(default)]
    pub files: Vec<(String, String)>,
}

/// Where a process is: by v2, or by v1 per controller.
#[derive(Debug)]
struct Place {
    v2: bool,
    mount: PathBuf,
    dir: PathBuf,
}

/// The mount point of a hierarchy: v2 (no controller), or that of a v1 controller.
fn mount(controller: Option<&str>) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let good = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        };
        good.then(|| PathBuf::from(path))
    })
}

fn place(process: &ProcessRef, controller: &str) -> Result<Place, Trouble> {
    let path = PathBuf::from(format!("/proc/{}/cgroup", process.pid));
    let text = fs::read_to_string(&path).map_err(Trouble::file("reading", &path))?;
    let of = |wanted: &dyn Fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            wanted(names).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let unified = mount(None).filter(|mount| lists(&mount.join("cgroup.controllers"), controller));
    if let (Some(mount), Some(path)) = (unified, of(&|names| names.is_empty())) {
        return Ok(Place { v2: true, dir: mount.join(path), mount });
    }
    let own = of(&|names| names.split(',').any(|name| name == controller));
    if let (Some(mount), Some(path)) = (mount(Some(controller)), own) {
        return Ok(Place { v2: false, dir: mount.join(path), mount });
    }
    Err(Trouble::Refused(format!("this machine has no cgroup controller `{controller}`")))
}

fn lists(file: &Path, controller: &str) -> bool {
    fs::read_to_string(file)
        .is_ok_and(|text| text.split_ascii_whitespace().any(|name| name == controller))
}

fn quota(cpu: Ppm) -> u64 {
    (PERIOD_US * u64::from(cpu.0) / 1_000_000).max(1_000)
}

/// The groups that a limit needs.
///
/// # Errors
/// When there is no such controller, or it is not passed on to where the target is.
pub(super) fn plan(process: &ProcessRef, limit: &Limit, id: &str) -> Result<Vec<Group>, Trouble> {
    let mut groups: Vec<Group> = Vec::new();
    let cpu = limit.cpu.map(|cpu| ("cpu", quota(cpu)));
    let memory = limit.memory.as_deref().and_then(size).map(|bytes| ("memory", bytes));
    for (controller, value) in cpu.into_iter().chain(memory) {
        let place = place(process, controller)?;
        let name = format!("medic-chaos-{id}");
        let made = if place.v2 {
            let parent = if place.dir == place.mount {
                Some(place.dir.as_path())
            } else {
                place.dir.parent()
            };
            let parent = parent.unwrap_or(&place.mount);
            if !lists(&parent.join("cgroup.subtree_control"), controller) {
                let message = format!(
                    "{} does not pass the controller `{controller}` on (cgroup.subtree_control)",
                    parent.display()
                );
                return Err(Trouble::Refused(message));
            }
            parent.join(name)
        } else {
            place.dir.join(name)
        };
        let files = match (place.v2, controller) {
            (true, "cpu") => vec![("cpu.max".to_owned(), format!("{value} {PERIOD_US}"))],
            (true, _) => vec![("memory.max".to_owned(), value.to_string())],
            (false, "cpu") => vec![
                ("cpu.cfs_period_us".to_owned(), PERIOD_US.to_string()),
                ("cpu.cfs_quota_us".to_owned(), value.to_string()),
            ],
            (false, _) => vec![("memory.limit_in_bytes".to_owned(), value.to_string())],
        };
        match groups.iter_mut().find(|group| group.made == made) {
            Some(group) => group.files.extend(files),
            None => groups.push(Group { made, back: place.dir, files }),
        }
    }
    Ok(groups)
}

/// Directories of the groups a process is in, by controller that counts.
pub(super) fn homes(process: &ProcessRef) -> Vec<PathBuf> {
    let found = ["cpu", "memory"].into_iter().filter_map(|name| place(process, name).ok());
    let mut homes: Vec<PathBuf> = found.map(|place| place.dir).collect();
    homes.dedup();
    homes
}

impl Group {
    /// A group in which a process gets so many bytes beyond what it has; none where that cannot be.
    pub(crate) fn of_memory(pid: u32, bytes: u64) -> Option<Self> {
        let process = ProcessRef::of(pid)?;
        let limit = Limit { memory: Some(bytes.to_string()), ..Limit::default() };
        let id = format!("{pid}-{}", process.start);
        let group = plan(&process, &limit, &id).ok()?.pop()?;
        if let Err(trouble) = group.begin(&process) {
            tracing::debug!(%trouble, pid, "no limit of memory by a control group");
            drop(fs::remove_dir(&group.made));
            return None;
        }
        Some(group)
    }

    /// Whether its processes have asked for more memory than they may have.
    pub(crate) fn was_short(&self) -> bool {
        let v1 = fs::read_to_string(self.made.join("memory.failcnt"));
        let v2 = fs::read_to_string(self.made.join("memory.events"));
        let hits =
            v2.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("max "));
        let counts = [
            v1.ok().as_deref().map(str::trim).and_then(|n| n.parse::<u64>().ok()),
            hits.and_then(|n| n.trim().parse().ok()),
        ];
        counts.into_iter().flatten().any(|count| count > 0)
    }

    /// Makes it, and moves the process in.
    pub(super) fn begin(&self, process: &ProcessRef) -> Result<(), Trouble> {
        fs::create_dir(&self.made).map_err(Trouble::file("making", &self.made))?;
        for (file, text) in &self.files {
            write(&self.made.join(file), text)?;
        }
        if !process.lives() {
            return Err(Trouble::Refused(format!("process {} is gone", process.pid)));
        }
        write(&self.made.join("cgroup.procs"), &process.pid.to_string())
    }

    /// Moves everything back, and removes it.
    pub(crate) fn undo(&self) -> Result<String, Trouble> {
        let deadline = Instant::now() + EMPTY_PATIENCE;
        let fallback = self.made.parent().unwrap_or(&self.back);
        loop {
            let back = if self.back.is_dir() { self.back.as_path() } else { fallback };
            for pid in
                fs::read_to_string(self.made.join("cgroup.procs")).unwrap_or_default().lines()
            {
                match fs::write(back.join("cgroup.procs"), pid) {
                    Ok(()) => {}
                    // It ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
                    Err(error) => return Err(Trouble::file("moving a process to", back)(error)),
                }
            }
            match fs::remove_dir(&self.made) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(Trouble::file("removing", &self.made)(error)),
            }
        }
        Ok(format!("without {}", self.made.display()))
    }
}
