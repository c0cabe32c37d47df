//! Tells the law which agents are connected: the leader's view counts, since every agent dials
//! every node.
//!
//! Invariant: the log is never flooded. A change must last [`SETTLE`] before it is proposed, marks
//! of one agent come ever further apart while it flaps, and a round proposes at most [`ROUND_MAX`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use medic_raft::LedgerExt as _;
use medic_state::{Command, command::MarkAgent};
use tokio::time::Instant;

use super::FleetHub;

/// Between two looks.
const ROUND: Duration = Duration::from_secs(1);
/// How long a change lasts before it is proposed.
const SETTLE: Duration = Duration::from_secs(3);
/// The pause between two marks of one agent doubles up to this.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Without a mark for this long, an agent's pause begins small again.
const CALM: Duration = Duration::from_secs(120);
/// Marks proposed per round: a thousand agents are marked in under two minutes.
const ROUND_MAX: usize = 10;

/// What is remembered of one agent's marks.
struct Remembered {
    /// What differs from the state, and since when.
    differs: Option<(MarkAgent, Instant)>,
    last: Option<Instant>,
    pause: Duration,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { differs: None, last: None, pause: SETTLE }
    }
}

/// Runs until the hub is gone.
pub(super) async fn keep_marked(hub: Weak<FleetHub>) {
    let mut agents: BTreeMap<String, Remembered> = BTreeMap::new();
    let mut every = tokio::time::interval(ROUND);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Some(hub) = hub.upgrade() else { return };
        if !hub.ledger.leadership().borrow().me {
            // In office, everything settles anew: agents may still be on their way.
            agents.clear();
            continue;
        }
        for mark in due(&mut agents, differences(&hub), Instant::now()) {
            let trace = hub.ledger.env().entropy.trace_id();
            let entry = hub.ledger.entry(trace, Command::MarkAgent(mark.clone()));
            match hub.ledger.propose_as_leader(entry).await {
                Ok(committed) => {
                    if let Err(refusal) = committed.answer {
                        tracing::warn!(agent = mark.agent, %refusal, "the agent's mark was refused");
                    }
                }
                Err(error) => {
                    tracing::debug!(agent = mark.agent, %error, "agent not marked; later");
                    break;
                }
            }
        }
    }
}

/// What the state says otherwise than this hub sees it.
fn differences(hub: &Arc<FleetHub>) -> Vec<MarkAgent> {
    let sessions = hub.sessions();
    let here: BTreeMap<String, (String, String)> = sessions
        .iter()
        .filter(|session| session.since.elapsed() >= SETTLE)
        .map(|s| (s.agent.clone(), (s.region.clone(), s.version.clone())))
        .collect();
    let connected: std::collections::BTreeSet<&str> =
        sessions.iter().map(|session| session.agent.as_str()).collect();
    hub.ledger.read(|state| {
        let come = here.iter().filter_map(|(agent, (region, version))| {
            let same = state.agents.get(agent).is_some_and(|known| {
                known.node == Some(hub.node) && known.region == *region && known.version == *version
            });
            (!same).then(|| MarkAgent {
                agent: agent.clone(),
                node: Some(hub.node),
                region: region.clone(),
                version: version.clone(),
            })
        });
        let gone = state
            .agents
            .iter()
            .filter(|(agent, known)| known.node.is_some() && !connected.contains(agent.as_str()))
            .map(|(agent, known)| MarkAgent {
                agent: agent.clone(),
                node: None,
                region: known.region.clone(),
                version: known.version.clone(),
            });
        come.chain(gone).collect()
    })
}

/// Which of the differences have lasted long enough.
fn due(
    agents: &mut BTreeMap<String, Remembered>,
    differences: Vec<MarkAgent>,
    now: Instant,
) -> Vec<MarkAgent> {
    let mut fresh: BTreeMap<String, MarkAgent> =
        differences.into_iter().map(|mark| (mark.agent.clone(), mark)).collect();
    let mut marks = Vec::new();
    for (agent, known) in agents.iter_mut() {
        let Some(mark) = fresh.remove(agent) else {
            known.differs = None;
            continue;
        };
        let since = match &known.differs {
            Some((same, since)) if *same == mark => *since,
            _ => now,
        };
        known.differs = Some((mark.clone(), since));
        // A session that has come has lasted as long already; one that has gone has not.
        let settled = mark.node.is_some() || now.duration_since(since) >= SETTLE;
        let paused = known.last.is_some_and(|last| now.duration_since(last) < known.pause);
        if settled && !paused && marks.len() < ROUND_MAX {
            // Longer than the longest pause: its end alone is no calm.
            let calm = known.last.is_none_or(|last| now.duration_since(last) >= CALM);
            known.pause = if calm { SETTLE } else { (known.pause * 2).min(PAUSE_MAX) };
            known.last = Some(now);
            known.differs = None;
            marks.push(mark);
        }
    }
    for (agent, mark) in fresh {
        agents.insert(agent, Remembered { differs: Some((mark, now)), ..Remembered::default() });
    }
    agents.retain(|_, known| {
        known.differs.is_some() || known.last.is_some_and(|last| now.duration_since(last) < CALM)
    });
    marks
}

#[cfg(test)]
mod tests {
    use medic_state::NodeId;

    use super::*;

    fn mark(node: Option<u64>) -> MarkAgent {
        MarkAgent {
            agent: "a".to_owned(),
            node: node.map(NodeId),
            region: String::new(),
            version: String::new(),
        }
    }

    /// Rounds that propose something, of `seconds` rounds.
    fn rounds(seconds: u64, see: impl Fn(u64) -> Vec<MarkAgent>) -> usize {
        let mut agents = BTreeMap::new();
        let start = Instant::now();
        (0..seconds)
            .filter(|s| !due(&mut agents, see(*s), start + Duration::from_secs(*s)).is_empty())
            .count()
    }

    #[test]
    fn a_short_absence_is_not_proposed() {
        assert_eq!(rounds(60, |s| if s % 4 < 2 { vec![mark(None)] } else { Vec::new() }), 0);
    }

    #[test]
    fn a_lasting_difference_is_proposed_and_then_ever_more_rarely() {
        assert_eq!(rounds(5, |_| vec![mark(None)]), 1);
        // The state never takes the mark (say, the law refuses): not one entry a second.
        assert!(rounds(600, |_| vec![mark(None)]) <= 16);
    }

    #[test]
    fn a_flapping_agent_does_not_flood_the_log() {
        let flapping = |s: u64| vec![mark(if s % 10 < 5 { None } else { Some(1) })];
        assert!(rounds(3_600, flapping) <= 70);
    }
}
