//! Walls between nodes: rules of the kernel, in the namespace of whoever would be reached.
//!
//! A cut drops packets by the address they come from. Whoever sends hears nothing of it: a
//! connection hangs, as over a real network, and neither closes nor is refused. An acknowledgement
//! is a packet too, so a cut in one direction ends what TCP can do in the other after a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use anyhow::Context as _;

use super::{Network, Use, within};
use crate::nemesis::run;

/// Our table, with its set of senders, its counter and its chain; made once in each node's namespace.
pub(super) const TABLE: &str = "table ip medic_chaos {\n\
    counter cut { }\n\
    set from { type ipv4_addr; }\n\
    chain input { type filter hook input priority 0; policy accept; \
    ip saddr @from counter name cut drop; }\n\
    }\n";

/// What makes exactly these senders unheard, in one transaction.
fn unheard(senders: &BTreeSet<Ipv4Addr>) -> String {
    let flush = "flush set ip medic_chaos from";
    if senders.is_empty() {
        return flush.to_owned();
    }
    let list: Vec<String> = senders.iter().map(Ipv4Addr::to_string).collect();
    format!("{flush}; add element ip medic_chaos from {{ {} }}", list.join(", "))
}

/// Packets in what `nft` says of the counter.
fn packets(said: &str) -> Option<u64> {
    let mut words = said.split_ascii_whitespace().skip_while(|word| *word != "packets");
    words.nth(1)?.parse().ok()
}

impl Network {
    /// Exactly these directions (from, to) are cut, and no others; none: all are open.
    ///
    /// # Errors
    /// When `nft` fails; some walls may stand then.
    pub fn cut(&self, ways: &[(Ipv4Addr, Ipv4Addr)]) -> anyhow::Result<()> {
        let mut senders: BTreeMap<Ipv4Addr, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for (from, to) in ways {
            senders.entry(*to).or_default().insert(*from);
        }
        for place in 1..=self.places {
            let unheard = unheard(&senders.remove(&self.address(place)).unwrap_or_default());
            within(&self.path(Use::Place(place)), || run("nft", &[&unheard]))?
                .with_context(|| format!("setting the walls of place {place}"))?;
        }
        Ok(())
    }

    /// Packets that were dropped so far.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn dropped(&self) -> anyhow::Result<u64> {
        let mut all = 0;
        for place in 1..=self.places {
            let list = ["list", "counter", "ip", "medic_chaos", "cut"];
            let said = within(&self.path(Use::Place(place)), || run("nft", &list))??;
            all += packets(&said).with_context(|| format!("no packets in `{said}`"))?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_replaces_the_one_before_in_one_transaction() {
        let none = BTreeSet::new();
        assert_eq!(unheard(&none), "flush set ip medic_chaos from");
        let two = [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 1)].into();
        assert_eq!(
            unheard(&two),
            "flush set ip medic_chaos from; \
             add element ip medic_chaos from { 10.77.0.1, 10.77.0.2 }"
        );
    }

    #[test]
    fn the_counter_is_read_as_nft_writes_it() {
        let said = "table ip medic_chaos {\n\tcounter cut {\n\t\tpackets 12 bytes 720\n\t}\n}\n";
        assert_eq!(packets(said), Some(12));
        assert_eq!(packets("table ip medic_chaos {\n}\n"), None);
    }
}
