//! Network namespaces for a cluster: one for each place a node can have, and a hub for the rest.
//!
//! ```text
//!   the machine's own network: sees nothing of this
//!   hub  harness, agents, services   10.77.K.254 on a bridge
//!         ├─ veth ─ n1   node-1      10.77.K.1     walls: nft, on what comes in
//!         ├─ veth ─ n2   node-2      10.77.K.2
//!         └─ …
//! ```
//!
//! Invariant: nothing is made, changed or removed but namespaces whose names are ours ([`Name`]), and
//! what is in them. There is no way from them to the machine's own network, nor back. The names carry
//! their owner; a dead owner's are removed by [`sweep`], with the processes that were left in them.

mod life;
mod name;
mod routes;
mod wall;

use std::{
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};

pub use self::{
    life::{Standing, reason, sweep},
    name::{Name, Owner, Use},
};

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";
/// The last number of the hub's address.
const HUB: u8 = 254;
/// Places there can be: addresses below the hub's, and more than any cluster has.
const PLACES_MAX: u8 = 16;

/// The network of one cluster, as data; [`Standing`] makes it and takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    owner: Owner,
    /// The third number of its addresses.
    third: u8,
    places: u8,
}

impl Network {
    /// The address of a place, counted from 1.
    #[must_use]
    pub const fn address(&self, place: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, routes::SECOND, self.third, place)
    }

    /// The address of the hub.
    #[must_use]
    pub const fn hub(&self) -> Ipv4Addr {
        self.address(HUB)
    }

    /// All addresses, as people write it.
    #[must_use]
    pub fn subnet(&self) -> String {
        format!("{}/24", self.address(0))
    }

    /// The file that is a namespace.
    #[must_use]
    pub fn path(&self, used: Use) -> PathBuf {
        Path::new(NAMES).join(self.name(used))
    }

    /// The namespace of the place with this address; none when no place has it.
    #[must_use]
    pub fn at(&self, address: Ipv4Addr) -> Option<PathBuf> {
        let place = (1..=self.places).find(|place| self.address(*place) == address)?;
        Some(self.path(Use::Place(place)))
    }

    fn name(&self, used: Use) -> String {
        Name { owner: self.owner, used }.to_string()
    }

    fn uses(&self) -> impl Iterator<Item = Use> + use<> {
        (1..=self.places).map(Use::Place).chain([Use::Hub])
    }
}

/// As one process tells another that it starts.
impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { owner: Owner { pid, start }, third, places } = self;
        write!(f, "{pid} {start} {third} {places}")
    }
}

impl FromStr for Network {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [pid, start, third, places] = words.as_slice() else {
            bail!("`{text}` is no network: four numbers are expected");
        };
        let owner = Owner { pid: pid.parse()?, start: start.parse()? };
        Ok(Self { owner, third: third.parse()?, places: places.parse()? })
    }
}

/// Does something in a network namespace: sockets that are opened and processes that are started
/// there stay there. In a thread of its own, which ends with it.
///
/// # Errors
/// When the namespace is gone, or may not be entered.
pub fn within<T: Send>(netns: &Path, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let file = File::open(netns)
        .with_context(|| format!("opening the network namespace {}", netns.display()))?;
    let runtime = tokio::runtime::Handle::try_current().ok();
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("entering the network namespace {}", netns.display()))?;
            let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
            Ok(act())
        });
        there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn addresses_and_files_follow_from_owner_and_place() {
        let owner = Owner { pid: 12, start: 345 };
        let network = Network { owner, third: 9, places: 4 };
        assert_eq!(network.address(1), Ipv4Addr::new(10, 77, 9, 1));
        assert_eq!(network.hub(), Ipv4Addr::new(10, 77, 9, 254));
        assert_eq!(network.subnet(), "10.77.9.0/24");
        assert_eq!(network.path(Use::Hub), Path::new("/run/netns/medic-12-345-hub"));
        let second = network.at(Ipv4Addr::new(10, 77, 9, 2));
        assert_eq!(second.unwrap(), Path::new("/run/netns/medic-12-345-n2"));
        assert_eq!(network.at(network.hub()), None);
        assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
        assert!("12 345 9".parse::<Network>().is_err());
    }
}
