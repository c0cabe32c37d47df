//! What a process may do, from `/proc/<pid>/status`.

use std::{fmt, fs};

use serde::{Deserialize, Serialize};

/// Its users, groups, capabilities, and what holds it in; names as in proc(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Privileges {
    /// Real, effective, saved, filesystem.
    uid: [u32; 4],
    gid: [u32; 4],
    cap_eff: u64,
    no_new_privs: bool,
    /// 0 none, 1 strict, 2 filter.
    seccomp: u8,
}

impl Privileges {
    /// Those of a process; `None`: there is none, or it cannot be read.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    pub(super) fn read(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(':')).map(str::trim)
        };
        let ids = |name: &str| {
            let mut numbers = field(name)?.split_ascii_whitespace().map(str::parse::<u32>);
            let mut next = || numbers.next()?.ok();
            Some([next()?, next()?, next()?, next()?])
        };
        Some(Self {
            uid: ids("Uid")?,
            gid: ids("Gid")?,
            cap_eff: u64::from_str_radix(field("CapEff")?, 16).ok()?,
            // Kernels before 4.10, and those without seccomp, do not tell.
            no_new_privs: field("NoNewPrivs") == Some("1"),
            seccomp: field("Seccomp").and_then(|mode| mode.parse().ok()).unwrap_or(0),
        })
    }

    /// What differs; `None`: nothing.
    pub(super) fn change(&self, now: &Self) -> Option<String> {
        let mut found = Vec::new();
        let mut note = |name: &str, before: String, now: String| {
            if before != now {
                found.push(format!("{name} {before} became {now}"));
            }
        };
        note("Uid", ids(self.uid), ids(now.uid));
        note("Gid", ids(self.gid), ids(now.gid));
        note("CapEff", format!("{:x}", self.cap_eff), format!("{:x}", now.cap_eff));
        note("NoNewPrivs", self.no_new_privs.to_string(), now.no_new_privs.to_string());
        note("Seccomp", self.seccomp.to_string(), now.seccomp.to_string());
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// Whether it may do what the other may not: it is root, has a capability more, or is held in less.
    pub(super) fn exceeds(&self, other: &Self) -> bool {
        (self.uid.contains(&0) && !other.uid.contains(&0))
            || self.cap_eff & !other.cap_eff != 0
            || (other.no_new_privs && !self.no_new_privs)
            || self.seccomp < other.seccomp
    }
}

fn ids(of: [u32; 4]) -> String {
    let [real, effective, saved, files] = of;
    if [effective, saved, files] == [real; 3] {
        return real.to_string();
    }
    format!("{real}/{effective}/{saved}/{files}")
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid {}, CapEff {:x}", ids(self.uid), self.cap_eff)
    }
}
