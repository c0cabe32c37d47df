//! What the kernel says about processes, from `/proc`. Reads only.

use std::{collections::BTreeMap, fs, io};

use nix::unistd::{SysconfVar, sysconf};

/// The fields of `/proc/<pid>/stat` that are used here; numbers as in proc(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 3.
    pub(super) state: char,
    /// Field 4: pid of its parent.
    pub(super) parent: u32,
    /// Field 5.
    pub(super) group: u32,
    /// Field 6.
    pub(super) session: u32,
    /// Fields 14 to 17, clock ticks: its own and those of children that ended.
    pub(super) cpu_ticks: u64,
    /// Field 22: clock ticks from boot to start. With the pid and the boot it names one process.
    pub(super) start_ticks: u64,
    /// Field 24.
    pub(super) rss_pages: u64,
}

/// The kernel's word on a process; `None`: there is none of this pid.
pub(super) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => parse(&text).map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text:?}"))
        }),
        // A process that ends while its file is read gives ESRCH.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(nix::libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The name in field 2 may hold anything, parentheses and blanks too: count from the last `)`.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: u32::try_from(number(4)?).ok()?,
        group: u32::try_from(number(5)?).ok()?,
        session: u32::try_from(number(6)?).ok()?,
        cpu_ticks: (14..=17).map(number).try_fold(0_u64, |sum, n| Some(sum.saturating_add(n?)))?,
        start_ticks: number(22)?,
        rss_pages: number(24)?,
    })
}

/// Whether a process in uninterruptible sleep sits in the version 1 freezer.
pub(super) fn frozen(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.contains("refrigerator"))
}

/// Files that a process has open.
pub(super) fn open_files(pid: u32) -> u32 {
    let count = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Names this boot of the machine: a pid and start time of another boot mean nothing.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Clock ticks in milliseconds.
pub(super) fn ticks_to_ms(ticks: u64) -> u64 {
    let per_second = conf(SysconfVar::CLK_TCK, 100);
    ticks.saturating_mul(1000) / per_second
}

/// Pages in bytes.
pub(super) fn pages_to_bytes(pages: u64) -> u64 {
    pages.saturating_mul(conf(SysconfVar::PAGE_SIZE, 4096))
}

fn conf(name: SysconfVar, fallback: u64) -> u64 {
    sysconf(name).ok().flatten().and_then(|v| u64::try_from(v).ok()).unwrap_or(fallback)
}

/// All pids.
fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// All processes at one moment.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<u32, Stat>);

/// What a process uses, and all that belong to it: its session, its group, its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory: all of the first process', and what the others do not share with anybody.
    pub(super) rss_bytes: u64,
    /// CPU time; children that ended are in it.
    pub(super) cpu_ms: u64,
    /// Open files.
    pub(super) open_files: u32,
}

impl Table {
    /// Looks at all of them: one pass over `/proc`.
    pub(super) fn read() -> Self {
        let living = |pid: u32| {
            let stat = stat(pid).ok().flatten().filter(|stat| stat.state != 'Z')?;
            Some((pid, stat))
        };
        Self(pids().into_iter().filter_map(living).collect())
    }

    /// Processes of the group or session that `leader` began, `leader` itself left out, each with
    /// the time of its start.
    pub(super) fn followers(&self, leader: u32) -> Vec<(u32, u64)> {
        let follows = |(pid, stat): &(&u32, &Stat)| {
            **pid != leader && (stat.session == leader || stat.group == leader)
        };
        self.0.iter().filter(follows).map(|(pid, stat)| (*pid, stat.start_ticks)).collect()
    }

    /// Whether a process follows `leader`, or descends from it or from one that does.
    fn belongs(&self, pid: u32, leader: u32) -> bool {
        /// Longer lines of ancestors are no service's.
        const GENERATIONS_MAX: usize = 64;
        let mut next = pid;
        for _ in 0..GENERATIONS_MAX {
            let Some(stat) = self.0.get(&next) else { return false };
            if next == leader || stat.session == leader || stat.group == leader {
                return true;
            }
            next = stat.parent;
        }
        false
    }

    /// A process and all that belong to it, each with the time of its start; `leader` comes first.
    pub(super) fn members(&self, leader: u32) -> Vec<(u32, u64)> {
        let belongs = |pid: &u32| *pid != leader && self.belongs(*pid, leader);
        let first = self.0.get_key_value(&leader).into_iter();
        let all = first.chain(self.0.iter().filter(|(pid, _)| belongs(pid)));
        all.map(|(pid, stat)| (*pid, stat.start_ticks)).collect()
    }

    /// What a process uses together with all that belong to it: a leak in a child is a leak.
    pub(super) fn usage(&self, leader: u32) -> Usage {
        let mut usage = Usage::default();
        let mut ticks: u64 = 0;
        let mut pages: u64 = 0;
        for (&pid, stat) in self.0.iter().filter(|(pid, _)| self.belongs(**pid, leader)) {
            // Pages of a file or of shared memory that many map are there once.
            let shared = if pid == leader { 0 } else { shared_pages(pid) };
            pages = pages.saturating_add(stat.rss_pages.saturating_sub(shared));
            ticks = ticks.saturating_add(stat.cpu_ticks);
            usage.open_files = usage.open_files.saturating_add(open_files(pid));
        }
        usage.rss_bytes = pages_to_bytes(pages);
        usage.cpu_ms = ticks_to_ms(ticks);
        usage
    }
}

/// Resident pages that are backed by files or shared memory (third field of `statm`).
fn shared_pages(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split_ascii_whitespace().nth(2).and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// The oldest process whose environment at its start held `NAME=value`.
pub(super) fn by_environment(name: &str, value: &str) -> Option<(u32, Stat)> {
    let wanted = format!("{name}={value}");
    let holds = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()))
    };
    pids()
        .into_iter()
        .filter(holds)
        .filter_map(|pid| Some((pid, stat(pid).ok()??)))
        .filter(|(_, stat)| stat.state != 'Z')
        .min_by_key(|(pid, stat)| (stat.start_ticks, *pid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot read /proc should fail loudly")]
    use super::*;

    #[test]
    fn names_with_parentheses_and_blanks_do_not_confuse() {
        let text = "7 (a) R (b c) T 1 7 7 0 -1 0 1 2 3 4 50 8 0 0 20 0 1 0 12345 4096 99 0";
        let stat = parse(text).unwrap();
        assert_eq!(stat.state, 'T');
        assert_eq!((stat.parent, stat.group, stat.session), (1, 7, 7));
        assert_eq!((stat.cpu_ticks, stat.start_ticks, stat.rss_pages), (58, 12345, 99));
        for broken in ["", "7 (a)", "7 (a) R 1 2", "7 (a) R 1 x 7 0 -1"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_is_there_and_an_impossible_one_is_not() {
        assert!(stat(std::process::id()).unwrap().unwrap().start_ticks > 0);
        assert_eq!(stat(u32::MAX >> 1).unwrap(), None);
    }

    #[test]
    fn those_who_belong_together_are_counted_together() {
        let one = |parent, group, session| Stat {
            state: 'S',
            parent,
            group,
            session,
            cpu_ticks: 100,
            start_ticks: 1,
            rss_pages: 10,
        };
        // 900_002 began a session; 900_005 left it and is known by its parent alone.
        let first = 900_002;
        let table = Table(BTreeMap::from([
            (900_001, one(1, 900_001, 900_001)),
            (first, one(900_001, first, first)),
            (900_003, one(first, first, first)),
            (900_004, one(1, 900_004, first)),
            (900_005, one(900_003, 900_005, 900_005)),
            (900_006, one(900_001, 900_006, 900_006)),
        ]));
        assert_eq!(table.followers(first), [(900_003, 1), (900_004, 1)]);
        let usage = table.usage(first);
        assert_eq!(usage.rss_bytes, pages_to_bytes(40));
        assert_eq!(usage.cpu_ms, ticks_to_ms(400));
        assert_eq!(table.usage(7), Usage::default(), "there is no such process");
    }
}
