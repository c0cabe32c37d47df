//! How a network comes to be, and how it goes: by its owner, or by a later run when the owner died.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{NAMES, Name, Network, Owner, PLACES_MAX, Use, routes, wall, within};
use crate::nemesis::{find, run};

/// Processes that were killed are gone within this; a disk that hangs may hold one for long.
const GONE_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether they are.
const LOOK: Duration = Duration::from_millis(20);

/// Why there can be no namespaces here. The kernel is asked for one, which is gone at once.
#[must_use]
pub fn reason() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let tools = [("ip", "iproute2"), ("nft", "nftables")];
    let missing = tools.into_iter().find(|(tool, _)| find(tool).is_none());
    missing.map(|(tool, package)| format!("`{tool}` is not installed (package {package})")).or_else(
        || {
            // In a thread of its own, which takes the namespace with it.
            let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
            match tried {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("the kernel grants no network namespace: {error}")),
                Err(_) => Some("no network namespace could be tried".to_owned()),
            }
        },
    )
}

/// A network that stands. Dropping it takes it away, with every process that is left in it.
#[derive(Debug)]
pub struct Standing {
    network: Network,
    gone: bool,
}

impl Standing {
    /// Makes a network with places for so many nodes, owned by this process.
    ///
    /// # Errors
    /// When it cannot be done here; what was made of it is gone again then.
    pub fn make(places: u8) -> anyhow::Result<Self> {
        if let Some(why) = reason() {
            bail!("{why}");
        }
        if !(1..=PLACES_MAX).contains(&places) {
            bail!("{places} places: a network has 1 to {PLACES_MAX}");
        }
        let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let third = routes::free(&table)
            .with_context(|| format!("routes lead to all of 10.{}.0.0/16", routes::SECOND))?;
        let network = Network { owner: Owner::this()?, third, places };
        if network.path(Use::Hub).exists() {
            bail!("this process has a network already");
        }
        // From here on, whatever comes, it is taken away.
        let standing = Self { network, gone: false };
        standing.build()?;
        Ok(standing)
    }

    fn build(&self) -> anyhow::Result<()> {
        let network = &self.network;
        let hub = network.name(Use::Hub);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "addr", "add", &format!("{}/24", network.hub()), "dev", "br0"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for place in 1..=network.places {
            let (name, port) = (network.name(Use::Place(place)), format!("n{place}"));
            let address = format!("{}/24", network.address(place));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &name];
            ip(&[&["-n", &hub, "link", "add", &port], &pair[..]].concat())?;
            ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            within(&network.path(Use::Place(place)), || run("nft", &[wall::TABLE]))??;
        }
        Ok(())
    }

    /// What stands.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// Takes it away.
    ///
    /// # Errors
    /// When a process in it does not end, or a namespace cannot be removed.
    pub fn remove(mut self) -> anyhow::Result<()> {
        self.gone = true;
        remove(self.network.uses().map(|used| self.network.name(used)).collect())
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.gone
            && let Err(error) =
                remove(self.network.uses().map(|used| self.network.name(used)).collect())
        {
            tracing::warn!("taking the network namespaces away: {error:#}");
        }
    }
}

/// Removes the namespaces of owners that are dead, with what still runs in them. Gives their names.
///
/// # Errors
/// When one cannot be removed.
pub fn sweep() -> anyhow::Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return Ok(Vec::new()) };
    let mut left: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Name::parse(name).is_some_and(|name| !name.owner.lives()))
        .collect();
    left.sort();
    remove(left.clone())?;
    Ok(left)
}

/// Ends what runs in these namespaces, in all before any is removed: a harness that lost its keeper
/// would start again what it misses.
fn remove(mut names: Vec<String>) -> anyhow::Result<()> {
    names.retain(|name| Path::new(NAMES).join(name).exists());
    // The hub, where whoever starts others is, comes first.
    names.sort_by_key(|name| !matches!(Name::parse(name), Some(Name { used: Use::Hub, .. })));
    for name in &names {
        empty(name)?;
    }
    let mut failed = Vec::new();
    for name in &names {
        // Two sweeps may meet: gone is gone.
        if let Err(error) = ip(&["netns", "delete", name])
            && Path::new(NAMES).join(name).exists()
        {
            failed.push(format!("{error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("removing namespaces: {}; `ip netns list` shows them", failed.join("; "));
    }
    Ok(())
}

/// Kills what runs in a namespace, and waits until it is gone.
fn empty(name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + GONE_PATIENCE;
    loop {
        // One that is half made, or half removed, has a file and is no namespace.
        let Ok(said) = ip(&["netns", "pids", name]) else { return Ok(()) };
        let pids: Vec<i32> =
            said.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "processes {pids:?} in the namespace {name} do not end; kill them, and run again"
            );
        }
        for pid in pids {
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                tracing::debug!(pid, %error, "already gone");
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn ip(args: &[&str]) -> anyhow::Result<String> {
    run("ip", args)
}
