//! Links between nodes: cut, one-way, slow; and leadership, handed over.

use std::collections::BTreeSet;

use medic_proto::v1 as pb;

use super::{Arena, Proof};
use crate::{
    nemesis::{Weather, Whom},
    netns::Network,
};

/// What the kernel drops between nodes that have networks of their own.
#[derive(Debug)]
pub(in crate::campaign) struct Walls {
    /// Where; none on loopback, where relays hold back what is cut.
    network: Option<Network>,
    /// Whether any stand.
    stand: bool,
    /// Partitions that were made of them so far.
    built: usize,
}

impl Walls {
    pub(super) const fn new(network: Option<Network>) -> Self {
        Self { network, stand: false, built: 0 }
    }

    /// Partitions made by the kernel, and packets it dropped; none on loopback.
    ///
    /// # Errors
    /// When the kernel does not say how many.
    pub(in crate::campaign) fn count(&self) -> anyhow::Result<Option<(usize, u64)>> {
        let Some(network) = self.network else { return Ok(None) };
        Ok(Some((self.built, network.dropped()?)))
    }
}

impl Arena {
    /// Cuts or slows links. Nothing, when there is nobody to do it to.
    pub(super) fn set_weather(&mut self, weather: Weather) -> anyhow::Result<Option<String>> {
        let leader = self.eyes.leader();
        let all: Vec<u64> = self.members.iter().copied().collect();
        let nodes = u64::try_from(all.len()).unwrap_or(1).max(1);
        let pairs = || {
            let all = &all;
            all.iter().flat_map(move |a| all.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
        };
        let (cut, text): (Vec<(u64, u64)>, String) = match weather {
            Weather::IsolateLeader => {
                let Some(leader) = leader else { return Ok(None) };
                self.isolations.push((self.eyes.now_ms(), None, leader));
                let cut = pairs().filter(|(a, b)| *a == leader || *b == leader).collect();
                (cut, format!("node-{leader} (leader) is cut off"))
            }
            Weather::Split(pick) => {
                let size = usize::try_from(nodes / 2).unwrap_or(1).max(1);
                let from = usize::try_from(pick % nodes).unwrap_or(0);
                let few: BTreeSet<u64> =
                    all.iter().cycle().skip(from).take(size).copied().collect();
                let alone = !may_be_quorum(&few, &self.members, self.changing());
                if let Some(leader) = leader.filter(|leader| alone && few.contains(leader)) {
                    self.isolations.push((self.eyes.now_ms(), None, leader));
                }
                let cut = pairs().filter(|(a, b)| few.contains(a) != few.contains(b)).collect();
                (cut, format!("{few:?} are cut off from the rest"))
            }
            Weather::LeaderMute => {
                let Some(leader) = leader else { return Ok(None) };
                self.isolations.push((self.eyes.now_ms(), None, leader));
                let cut = pairs().filter(|(a, _)| *a == leader).collect();
                (cut, format!("what node-{leader} (leader) sends gets lost"))
            }
            Weather::LeaderDeaf => {
                let Some(leader) = leader else { return Ok(None) };
                self.isolations.push((self.eyes.now_ms(), None, leader));
                let cut = pairs().filter(|(_, b)| *b == leader).collect();
                (cut, format!("what is sent to node-{leader} (leader) gets lost"))
            }
            Weather::Bridge(pick) => {
                let at = usize::try_from(pick % nodes).unwrap_or(0);
                let Some(middle) = all.get(at).copied() else { return Ok(None) };
                let rest: Vec<u64> = all.iter().copied().filter(|node| *node != middle).collect();
                let (one, other) = rest.split_at(rest.len() / 2);
                let apart = |a: &u64, b: &u64| one.contains(a) && other.contains(b);
                let cut = pairs().filter(|(a, b)| apart(a, b) || apart(b, a)).collect();
                (cut, format!("{one:?} and {other:?} meet at node-{middle} only"))
            }
            Weather::Bad { delay, jitter, loss } => {
                let ms = std::time::Duration::from_millis;
                let bad = crate::relay::Weather {
                    cut: false,
                    delay: ms(delay),
                    jitter: ms(jitter),
                    loss_permille: loss,
                };
                self.relays.set(|map| *map = pairs().map(|pair| (pair, bad)).collect());
                let text = format!("all links: {delay} ms, jitter {jitter} ms, loss {loss} ‰");
                return Ok(Some(text));
            }
        };
        if cut.is_empty() {
            return Ok(Some(text));
        }
        let by = self.wall_off(&cut)?;
        Ok(Some(format!("{text}{by}")))
    }

    /// Cuts these directions (from, to), and no others: with the kernel where nodes have networks of
    /// their own, else with the relays. Says which, where it is the former.
    fn wall_off(&mut self, cut: &[(u64, u64)]) -> anyhow::Result<&'static str> {
        let Some(network) = self.walls.network else {
            let wet = crate::relay::Weather { cut: true, ..Default::default() };
            self.relays.set(|map| *map = cut.iter().map(|pair| (*pair, wet)).collect());
            return Ok("");
        };
        let host = |node| self.cluster.ports(node).map(|ports| ports.host);
        let ways: Vec<_> =
            cut.iter().filter_map(|(from, to)| Some((host(*from)?, host(*to)?))).collect();
        self.unproved.push(Proof::Dropped(network.dropped()?));
        // Even half of a wall is to be taken down.
        self.walls.stand = true;
        network.cut(&ways)?;
        self.walls.built += 1;
        Ok(" (the kernel drops the packets)")
    }

    /// All links are fair.
    pub(super) fn fair(&mut self) -> anyhow::Result<()> {
        self.end_isolation();
        self.relays.heal();
        if let Some(network) = self.walls.network.filter(|_| self.walls.stand) {
            network.cut(&[])?;
            self.walls.stand = false;
        }
        Ok(())
    }

    /// From here on nobody is known to be without a quorum.
    pub(super) fn end_isolation(&mut self) {
        let now = self.eyes.now_ms();
        for (_, end, _) in &mut self.isolations {
            end.get_or_insert(now);
        }
    }

    /// Asks for it and does not wait: under other faults it may take long, or never happen.
    pub(super) fn transfer(&mut self, pick: u64) -> Option<String> {
        let to = self.resolve(Whom::Follower(pick))?;
        let dialer = self.dialer.clone();
        let from = self.eyes.leader().unwrap_or(to);
        self.unproved.push(Proof::Led { node: to, at_ms: self.eyes.now_ms() });
        tokio::spawn(async move {
            if let Ok(mut client) = dialer.dial(from).await {
                let request = pb::TransferLeadershipRequest { node: to, ..Default::default() };
                if let Err(status) = client.cluster().transfer_leadership(request).await {
                    tracing::debug!(%status, to, "leadership was not handed over");
                }
            }
        });
        Some(format!("leadership is to go to node-{to}"))
    }
}

/// Whether nodes that hear each other alone may be a quorum: of the voters as they are, or, while one is
/// replaced, as they were before it or will be after it. Nobody here knows how far that has come.
fn may_be_quorum(
    side: &BTreeSet<u64>,
    members: &BTreeSet<u64>,
    replacing: Option<(u64, u64)>,
) -> bool {
    let without = |gone: Option<u64>| {
        let voters: BTreeSet<u64> =
            members.iter().copied().filter(|node| Some(*node) != gone).collect();
        2 * side.intersection(&voters).count() > voters.len()
    };
    let (old, new) = replacing.unzip();
    without(None) || without(new) || without(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes 34 and 35 of 34, 35 and 36 were taken for a minority, since 37 was about to replace 34.
    #[test]
    fn half_of_those_there_may_be_a_quorum_while_one_of_them_is_replaced() {
        let quorum = |side: &[u64], members: std::ops::RangeInclusive<u64>, replacing| {
            may_be_quorum(&side.iter().copied().collect(), &members.collect(), replacing)
        };
        assert!(quorum(&[34, 35], 34..=37, Some((34, 37))), "before 37 votes");
        assert!(quorum(&[36, 37], 34..=37, Some((34, 37))), "after 34 has gone");
        assert!(!quorum(&[34, 37], 34..=37, Some((34, 37))), "never");
        assert!(!quorum(&[34, 35], 34..=37, None));
        assert!(!quorum(&[34], 34..=36, None));
        assert!(quorum(&[34, 35], 34..=36, None));
    }
}
