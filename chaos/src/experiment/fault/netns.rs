//! Network namespaces, and what is done in them: shaping with `tc`, walls with `nft`.
//!
//! Invariant: nothing is ever done in the namespace this program or process 1 lives in; a fault there
//! would hit all of the machine. What was made carries a name of its own (the handle `c4a0:`, a table
//! `medic_chaos_…`), and only that is ever removed.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use medic_state::{Millis, Ppm};
use serde::{Deserialize, Serialize};

use crate::experiment::{
    manifest::{Direction, Network, Partition},
    process::{self, ProcessRef},
    system::{Trouble, feed, have, run, words},
};

/// The handle of every queueing discipline of ours.
const HANDLE: &str = "c4a0:";
/// Where `ip netns` keeps names.
const NAMES: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// Its inode: what it is, however it is reached.
    pub inode: u64,
    /// What people call it.
    pub called: String,
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|found| found.ino())
}

impl Netns {
    /// The namespace of this name.
    ///
    /// # Errors
    /// When there is none, or it is the machine's own.
    pub fn named(name: &str) -> Result<Self, Trouble> {
        let found = NAMES.iter().find_map(|folder| inode(&Path::new(folder).join(name)));
        let Some(inode) = found else {
            let message = format!("there is no network namespace `{name}`; see `ip netns list`");
            return Err(Trouble::Refused(message));
        };
        Self { inode, called: format!("netns {name}") }.not_ours()
    }

    /// The namespace of a process.
    ///
    /// # Errors
    /// When it cannot be looked at, or is the machine's own.
    pub fn of(process: &ProcessRef) -> Result<Self, Trouble> {
        let path = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
        let found = std::fs::metadata(&path).map_err(Trouble::file("looking at", &path))?;
        Self { inode: found.ino(), called: format!("the netns of process {}", process.pid) }
            .not_ours()
    }

    fn not_ours(self) -> Result<Self, Trouble> {
        let ours = ["/proc/self/ns/net", "/proc/1/ns/net"];
        if ours.iter().any(|path| inode(Path::new(path)) == Some(self.inode)) {
            let message = format!(
                "{} is the network of the machine itself, and a fault there would hit everything \
                 on it; aim at something with a network namespace of its own",
                self.called
            );
            return Err(Trouble::Refused(message));
        }
        Ok(self)
    }

    /// A way into it that exists now; nothing when the namespace is gone.
    fn path(&self) -> Option<PathBuf> {
        let named = NAMES
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()));
        let held = process::all().into_iter().map(|pid| format!("/proc/{pid}/ns/net").into());
        named.chain(held).find(|path: &PathBuf| inode(path) == Some(self.inode))
    }

    /// A command that runs in it; nothing when it is gone.
    fn within(&self, argv: &[&str]) -> Option<Vec<String>> {
        let mut command = words(&["nsenter", &format!("--net={}", self.path()?.display())]);
        command.extend(words(argv));
        Some(command)
    }

    fn run(&self, argv: &[&str]) -> Result<String, Trouble> {
        let gone = || Trouble::Refused(format!("{} is gone", self.called));
        run(&self.within(argv).ok_or_else(gone)?)
    }

    /// The devices that a fault is for.
    fn devices(&self, wanted: Option<&String>) -> Result<Vec<String>, Trouble> {
        let text = self.run(&["ip", "-o", "link", "show"])?;
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        let mut names: Vec<String> =
            names.filter_map(|name| Some(name.split('@').next()?.to_owned())).collect();
        match wanted {
            Some(wanted) => names.retain(|name| name == wanted),
            None => names.retain(|name| name != "lo"),
        }
        if names.is_empty() {
            let what = wanted.map_or("network device beside lo", String::as_str);
            return Err(Trouble::Refused(format!("{} has no {what}", self.called)));
        }
        Ok(names)
    }

    /// Kind and handle of a device's root queueing discipline.
    fn root(&self, device: &str) -> Result<(String, String), Trouble> {
        let text = self.run(&["tc", "qdisc", "show", "dev", device])?;
        let line = text.lines().find(|line| line.contains(" root")).unwrap_or_default();
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, handle) = (words.next().unwrap_or("none"), words.next().unwrap_or("0:"));
        Ok((kind.to_owned(), handle.to_owned()))
    }
}

/// Queueing disciplines that are to be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Where.
    pub netns: Netns,
    /// On which devices.
    pub devices: Vec<String>,
    /// What: arguments of `tc qdisc`.
    pub discipline: Vec<String>,
}

impl Shape {
    /// What a fault asks for.
    ///
    /// # Errors
    /// When a tool is missing, or a device has a discipline that would be lost.
    pub fn plan(netns: Netns, network: &Network) -> Result<Self, Trouble> {
        for tool in ["tc", "ip", "nsenter"] {
            if !have(tool) {
                return Err(Trouble::Missing(tool));
            }
        }
        let devices = netns.devices(network.interface.as_ref())?;
        for device in &devices {
            let (kind, handle) = netns.root(device)?;
            if handle != "0:" {
                let message = format!(
                    "{device} in {} has a queueing discipline of its own ({kind} {handle}), which \
                     would be lost; name another interface",
                    netns.called
                );
                return Err(Trouble::Refused(message));
            }
        }
        let discipline = match &network.rate {
            Some(rate) => words(&["tbf", "rate", rate, "burst", "16kb", "latency", "400ms"]),
            None => {
                let ms = |time: Millis| format!("{}ms", time.0);
                let mut netem = words(&["netem"]);
                if network.delay > Millis(0) {
                    netem.extend(["delay".to_owned(), ms(network.delay), ms(network.jitter)]);
                }
                if network.loss > Ppm(0) {
                    netem.extend(["loss".to_owned(), percent(network.loss)]);
                }
                netem
            }
        };
        Ok(Self { netns, devices, discipline })
    }

    /// Sets them.
    pub(super) fn begin(&self) -> Result<(), Trouble> {
        for device in &self.devices {
            let mut argv = vec!["tc", "qdisc", "add", "dev", device, "root", "handle", HANDLE];
            argv.extend(self.discipline.iter().map(String::as_str));
            self.netns.run(&argv).map_err(|error| match error {
                Trouble::Tool { command, said } if said.contains("kind is unknown") => {
                    let said = format!("this kernel lacks {}: {said}", self.discipline[0]);
                    Trouble::Tool { command, said }
                }
                other => other,
            })?;
        }
        Ok(())
    }

    /// Takes them away, where they still are.
    pub(in crate::experiment) fn undo(&self) -> Result<String, Trouble> {
        if self.netns.path().is_none() {
            return Ok(format!("{} is gone", self.netns.called));
        }
        for device in &self.devices {
            match self.netns.root(device) {
                Ok((_, handle)) if handle == HANDLE => {
                    self.netns.run(&["tc", "qdisc", "del", "dev", device, "root"])?;
                }
                // The device went, or never had it.
                Ok(_) => {}
                Err(Trouble::Tool { said, .. }) if said.contains("Cannot find device") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(format!("{} of {} as they were", self.devices.join(", "), self.netns.called))
    }
}

fn percent(share: Ppm) -> String {
    format!("{}.{:04}%", share.0 / 10_000, share.0 % 10_000)
}

/// A table of rules that drop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wall {
    /// Where.
    pub netns: Netns,
    /// The table's name.
    pub table: String,
    /// The rules, as `nft` reads them.
    #[serde(default)]
    pub rules: String,
}

impl Wall {
    /// What a fault asks for; `id` makes its name its own.
    ///
    /// # Errors
    /// When a tool is missing.
    pub fn plan(netns: Netns, partition: &Partition, id: &str) -> Result<Self, Trouble> {
        for tool in ["nft", "nsenter"] {
            if !have(tool) {
                return Err(Trouble::Missing(tool));
            }
        }
        let table = format!("medic_chaos_{}", id.replace('-', "_"));
        let mut chains = String::new();
        let hooks = [
            ("input", "iifname", "saddr", Direction::In),
            ("output", "oifname", "daddr", Direction::Out),
        ];
        for (hook, device, side, direction) in hooks {
            if partition.direction == direction || partition.direction == Direction::Both {
                let rules = rules(partition, device, side);
                chains += &format!(
                    "chain {hook} {{ type filter hook {hook} priority -300; policy accept; {rules}}}\n"
                );
            }
        }
        let wall = Self { netns, rules: format!("table inet {table} {{\n{chains}}}\n"), table };
        // Checked by the kernel, and thrown away.
        wall.feed(&["nft", "-c", "-f", "-"])?;
        Ok(wall)
    }

    /// Sets it up, all at once.
    pub(super) fn begin(&self) -> Result<(), Trouble> {
        self.feed(&["nft", "-f", "-"])
    }

    fn feed(&self, argv: &[&str]) -> Result<(), Trouble> {
        let gone = || Trouble::Refused(format!("{} is gone", self.netns.called));
        feed(&self.netns.within(argv).ok_or_else(gone)?, &self.rules).map(drop)
    }

    /// Takes it away, where it still is.
    pub(in crate::experiment) fn undo(&self) -> Result<String, Trouble> {
        if self.netns.path().is_none() {
            return Ok(format!("{} is gone", self.netns.called));
        }
        let wanted = format!("table inet {}", self.table);
        if self.netns.run(&["nft", "list", "tables"])?.lines().any(|line| line.trim() == wanted) {
            self.netns.run(&["nft", "delete", "table", "inet", &self.table])?;
        }
        Ok(format!("packets pass in {} again", self.netns.called))
    }
}

/// Rules of one hook. Loopback is spared unless it is named.
fn rules(partition: &Partition, device: &str, side: &str) -> String {
    let (v6, v4): (Vec<&str>, Vec<&str>) =
        partition.peers.iter().map(String::as_str).partition(|peer| peer.contains(':'));
    let loopback =
        v4.iter().any(|peer| peer.starts_with("127.")) || v6.iter().any(|p| p.starts_with("::1"));
    let mut whom: Vec<String> = Vec::new();
    for (family, peers) in [("ip", v4), ("ip6", v6)] {
        if !peers.is_empty() {
            whom.push(format!("{family} {side} {{ {} }}", peers.join(", ")));
        }
    }
    if whom.is_empty() {
        whom.push(String::new());
    }
    let spared = if loopback { String::new() } else { format!("{device} != \"lo\"") };
    let ports: Vec<String> = partition.ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let which: Vec<String> = if ports.is_empty() {
        vec![String::new()]
    } else {
        ["sport", "dport"]
            .map(|end| format!("meta l4proto {{ tcp, udp }} th {end} {{ {ports} }}"))
            .to_vec()
    };
    let mut text = String::new();
    for whom in &whom {
        for which in &which {
            text += &format!("{spared} {whom} {which} counter drop; ");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_machines_own_network_is_never_a_target() {
        let own = ProcessRef::of(std::process::id()).unwrap();
        let error = Netns::of(&own).unwrap_err().to_string();
        assert!(error.contains("the network of the machine itself"), "{error}");
        let error = Netns::named("no-such-namespace").unwrap_err().to_string();
        assert!(error.contains("ip netns list"), "{error}");
    }

    #[test]
    fn walls_name_peers_ports_and_spare_loopback() {
        let partition = Partition {
            peers: words(&["10.0.0.0/8", "fd00::1"]),
            ports: vec![80, 443],
            ..Partition::default()
        };
        let text = rules(&partition, "iifname", "saddr");
        assert_eq!(text.matches("drop").count(), 4, "{text}");
        assert!(text.contains("iifname != \"lo\" ip saddr { 10.0.0.0/8 }"), "{text}");
        assert!(text.contains("ip6 saddr { fd00::1 }") && text.contains("th sport { 80, 443 }"));
        let all = rules(&Partition::default(), "oifname", "daddr");
        assert_eq!(all.trim(), "oifname != \"lo\"   counter drop;");
    }
}
