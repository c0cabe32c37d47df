//! Names of namespaces: whose they are, and what for.
//!
//! A name says which process made it, as no other ever was (process id and start), so that a later
//! run can tell what a dead one left from what a live one uses, and from what others made.

use std::fmt;

/// A process, as no other of this boot ever was. Names outlive no boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub start: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` does not show it.
    pub fn this() -> anyhow::Result<Self> {
        let pid = std::process::id();
        let start = start_of(pid)
            .ok_or_else(|| anyhow::anyhow!("/proc/{pid}/stat cannot be read: is /proc mounted?"))?;
        Ok(Self { pid, start })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn lives(self) -> bool {
        start_of(self.pid) == Some(self.start)
    }
}

/// When a process started; none when there is no such process.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold anything; the state follows, the start is 20th.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// What a namespace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The bridge, and whoever is no node: harness, agents, services.
    Hub,
    /// A node's place, counted from 1.
    Place(u8),
}

/// The name of one of our namespaces: `medic-PID-START-hub`, `medic-PID-START-n1` …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Who made it.
    pub owner: Owner,
    /// What for.
    pub used: Use,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { pid, start } = self.owner;
        match self.used {
            Use::Hub => write!(f, "medic-{pid}-{start}-hub"),
            Use::Place(place) => write!(f, "medic-{pid}-{start}-n{place}"),
        }
    }
}

impl Name {
    /// Reads a name; none when it is not exactly one that we would give.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("medic-")?.splitn(3, '-');
        let owner = Owner { pid: parts.next()?.parse().ok()?, start: parts.next()?.parse().ok()? };
        let used = match parts.next()? {
            "hub" => Use::Hub,
            place => Use::Place(place.strip_prefix('n')?.parse().ok()?),
        };
        let name = Self { owner, used };
        (name.to_string() == text).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is() {
        let owner = Owner { pid: 4_242, start: 987_654 };
        for (used, text) in
            [(Use::Hub, "medic-4242-987654-hub"), (Use::Place(3), "medic-4242-987654-n3")]
        {
            let name = Name { owner, used };
            assert_eq!(name.to_string(), text);
            assert_eq!(Name::parse(text), Some(name));
        }
        for strange in [
            "medic",
            "medic-4242-n3",
            "medic-4242-987654-n",
            "medic-4242-987654-n300",
            "medic-4242-987654-n03",
            "medic-+4242-987654-n3",
            "medic-04242-987654-hub",
            "medic-4242-987654-hub-2",
            "medic-prod-987654-hub",
            "cni-4242-987654-hub",
        ] {
            assert_eq!(Name::parse(strange), None, "{strange} is not ours");
        }
    }

    #[test]
    fn this_process_lives_and_one_that_started_at_another_time_does_not() {
        let own = Owner::this().unwrap();
        assert!(own.lives());
        assert!(!Owner { start: own.start + 1, ..own }.lives());
    }
}
