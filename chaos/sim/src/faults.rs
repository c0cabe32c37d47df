//! Faults: what is done to the cluster and to the fleet, drawn from the seed as a list of times and
//! faults. A list can be cut down; what is left happens at the same times.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use medic_state::NodeId;

use crate::{
    rng::Rng,
    world::{Cure, Ill},
};

/// A node, or whoever leads then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever leads.
    Leader,
    /// This one.
    Node(NodeId),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Node(node) => node.fmt(f),
        }
    }
}

/// How acts go wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// They take effect and their answers are lost.
    AnswersLost,
    /// The agent dies in the middle.
    Halved,
    /// They provably fail.
    Failed,
    /// Orders take seconds to arrive.
    Delayed,
    /// They are carried out and help nothing.
    Stubborn,
}

/// One fault. Those that last end by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process of a node is killed, and started again.
    Crash(Who),
    /// The process of a node is stopped, and goes on.
    Pause(Who),
    /// A node is cut off from all others.
    Isolate(Who),
    /// A node is not heard by another.
    OneWay(NodeId, NodeId),
    /// The nodes fall in two: those up to this one, and the rest.
    Split(NodeId),
    /// A node's disk takes so many milliseconds longer.
    SlowDisk(Who, u64),
    /// A node takes nothing in.
    Lag(NodeId),
    /// Every link takes so many milliseconds longer.
    Delay(u64),
    /// A wall clock jumps.
    Jump(NodeId, i64),
    /// A wall clock gains so many milliseconds per second.
    Drift(NodeId, i64),
    /// A process of the fleet dies.
    Kill(String),
    /// A process of the fleet hangs.
    Hang(String),
    /// An instance falls ill.
    Sicken(String, Ill, Cure),
    /// A service gets a bad configuration.
    Misconfigure(String),
    /// A host goes.
    Host(String),
    /// An agent goes.
    Agent(String),
    /// A node and an agent are cut off from each other.
    Cut(NodeId, String),
    /// A node observes nothing.
    Blind(NodeId),
    /// A service has no telemetry.
    Dark(String),
    /// Acts go wrong.
    Trouble(Trouble, u32),
    /// A playbook is changed, so that plans of the old one are out of date.
    Touch(String),
    /// An approver loses the role.
    Revoke(String),
    /// A node's machine loses power, between two writes or in the midst of one: what was not synced may
    /// be gone. Real disks alone.
    PowerCut(Who),
    /// A node's next write, of a batch or of a file, fails for lack of space: undone, torn or done.
    /// Real disks alone.
    DiskFull(Who),
    /// A node ends, and its newest snapshot is damaged before it starts again. Real disks alone.
    Damage(NodeId),
    /// A node ends, its log is damaged, and it is replaced. Real disks alone.
    Rot(NodeId),
    /// A snapshot is taken now. Real consensus alone.
    Snapshot(NodeId),
    /// Leadership is handed to a node. Real consensus alone.
    Transfer(NodeId),
    /// A node is replaced by one that never was a member. Real consensus alone.
    Replace(NodeId),
    /// A node is drained. Real consensus alone.
    Drain(NodeId),
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Simulated milliseconds after the cluster is up.
    pub at_ms: u64,
    /// How long it lasts, if it does.
    pub for_ms: u64,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ms, for_ms, fault } = self;
        write!(f, "at {:>6.1} s for {:>5.1} s: {fault:?}", secs(*at_ms), secs(*for_ms))
    }
}

fn secs(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// What there is to break.
#[derive(Clone, Debug)]
pub struct Breakable {
    /// Nodes of the cluster.
    pub nodes: Vec<NodeId>,
    /// Instances that run.
    pub instances: Vec<String>,
    /// Services.
    pub services: Vec<String>,
    /// Agents.
    pub agents: Vec<String>,
    /// Playbooks.
    pub playbooks: Vec<String>,
}

/// Those of a seed's faults that are to be kept (`None`: all), by their position.
#[must_use]
pub fn kept(all: Vec<Scheduled>, keep: Option<&BTreeSet<usize>>) -> BTreeMap<usize, Scheduled> {
    let stays = |at: &usize| keep.is_none_or(|keep| keep.contains(at));
    all.into_iter().enumerate().filter(|(at, _)| stays(at)).collect()
}

/// Draws the faults of a seed: some dozens within `within_ms`, in order.
#[must_use]
pub fn draw(seed: u64, what: &Breakable, within_ms: u64) -> Vec<Scheduled> {
    let mut rng = Rng::new(seed, "faults");
    let mut all = Vec::new();
    let mut at_ms = rng.between(500, 4_000);
    // Some seeds are stormy, some calm: bugs live in both.
    let pause_ms = *rng.pick(&[2_500, 5_000, 9_000]).unwrap_or(&5_000);
    while at_ms < within_ms {
        let fault =
            if rng.chance(9, 20) { of_fleet(&mut rng, what) } else { of_cluster(&mut rng, what) };
        if let Some(fault) = fault {
            let for_ms = lasts(&fault, &mut rng);
            all.push(Scheduled { at_ms, for_ms, fault });
        }
        if rng.chance(1, 8) {
            ambush(&mut rng, what, at_ms, &mut all);
        }
        if rng.chance(1, 12) {
            relay(&mut rng, what, at_ms, &mut all);
        }
        at_ms += rng.between(pause_ms / 10, pause_ms * 2);
    }
    all.sort_by_key(|one| one.at_ms);
    all.retain(|one| one.at_ms < within_ms);
    all
}

/// A leader loses office while its orders are on their way: something breaks, orders take their
/// time, and the leader goes.
fn ambush(rng: &mut Rng, what: &Breakable, at_ms: u64, all: &mut Vec<Scheduled>) {
    let Some(instance) = rng.pick(&what.instances).cloned() else { return };
    let slow = Fault::Trouble(Trouble::Delayed, 90);
    let lost =
        if rng.chance(1, 2) { Fault::Crash(Who::Leader) } else { Fault::Isolate(Who::Leader) };
    let gone_ms = at_ms + rng.between(2_000, 7_000);
    let (away_ms, slow_ms) = (rng.between(100, 6_000), rng.between(8_000, 20_000));
    all.extend([
        Scheduled { at_ms, for_ms: 0, fault: Fault::Kill(instance) },
        Scheduled { at_ms, for_ms: slow_ms, fault: slow },
        Scheduled { at_ms: gone_ms, for_ms: away_ms, fault: lost },
    ]);
}

/// A leader is replaced and leads again, with words of its earlier office still in the queue of its
/// slow disk.
fn relay(rng: &mut Rng, what: &Breakable, at_ms: u64, all: &mut Vec<Scheduled>) {
    let Some(instance) = rng.pick(&what.instances).cloned() else { return };
    let away_ms = rng.between(1_200, 2_500);
    let isolated_ms = at_ms + rng.between(1_500, 5_000);
    let successor_ms = isolated_ms + away_ms + rng.between(0, 300);
    all.extend([
        Scheduled { at_ms, for_ms: 0, fault: Fault::Kill(instance) },
        Scheduled { at_ms, for_ms: 10_000, fault: Fault::SlowDisk(Who::Leader, 20) },
        Scheduled { at_ms: isolated_ms, for_ms: away_ms, fault: Fault::Isolate(Who::Leader) },
        Scheduled { at_ms: successor_ms, for_ms: 8_000, fault: Fault::Crash(Who::Leader) },
    ]);
}

fn lasts(fault: &Fault, rng: &mut Rng) -> u64 {
    match fault {
        Fault::Crash(_)
        | Fault::PowerCut(_)
        | Fault::DiskFull(_)
        | Fault::Damage(_)
        | Fault::Rot(_) => rng.between(200, 12_000),
        Fault::Pause(_) => rng.between(300, 8_000),
        Fault::Isolate(_) | Fault::Split(_) => rng.between(500, 12_000),
        Fault::OneWay(..) | Fault::Delay(_) => rng.between(500, 15_000),
        Fault::SlowDisk(..) | Fault::Lag(_) => rng.between(1_000, 15_000),
        Fault::Drift(..) => rng.between(5_000, 60_000),
        Fault::Sicken(..) | Fault::Misconfigure(_) => rng.between(40_000, 200_000),
        Fault::Host(_) => rng.between(15_000, 60_000),
        Fault::Agent(_) | Fault::Cut(..) => rng.between(500, 20_000),
        Fault::Blind(_) | Fault::Dark(_) => rng.between(3_000, 40_000),
        Fault::Trouble(..) => rng.between(10_000, 60_000),
        Fault::Revoke(_) => rng.between(10_000, 60_000),
        Fault::Drain(_) => rng.between(1_000, 40_000),
        Fault::Jump(..)
        | Fault::Kill(_)
        | Fault::Hang(_)
        | Fault::Touch(_)
        | Fault::Snapshot(_)
        | Fault::Transfer(_)
        | Fault::Replace(_) => 0,
    }
}

fn of_cluster(rng: &mut Rng, what: &Breakable) -> Option<Fault> {
    let node = *rng.pick(&what.nodes)?;
    let others: Vec<NodeId> = what.nodes.iter().copied().filter(|one| *one != node).collect();
    let other = *rng.pick(&others)?;
    // Leaders have most to lose.
    let who = if rng.chance(2, 3) { Who::Leader } else { Who::Node(node) };
    Some(match rng.between(0, 19) {
        0..=4 => Fault::Crash(who),
        5..=6 => Fault::Pause(who),
        7..=8 => Fault::Isolate(who),
        9 => Fault::OneWay(node, other),
        // Not behind the last: on each side there is somebody.
        10 => Fault::Split(node.min(other)),
        11 => Fault::SlowDisk(who, rng.between(50, 2_000)),
        12 => Fault::Lag(node),
        13 => Fault::Delay(rng.between(5, 120)),
        14..=15 => {
            let by_ms = i64::try_from(rng.between(0, 1_200_000)).unwrap_or_default() - 600_000;
            Fault::Jump(node, by_ms)
        }
        16 => Fault::Drift(node, i64::try_from(rng.between(0, 200)).unwrap_or_default() - 100),
        17 => Fault::Cut(node, rng.pick(&what.agents)?.clone()),
        18 => Fault::Blind(node),
        _ => Fault::Revoke((*rng.pick(&["ann", "ben"])?).to_owned()),
    })
}

fn of_fleet(rng: &mut Rng, what: &Breakable) -> Option<Fault> {
    let instance = rng.pick(&what.instances)?.clone();
    let service = rng.pick(&what.services)?.clone();
    let agent = rng.pick(&what.agents)?.clone();
    Some(match rng.between(0, 19) {
        0..=4 => Fault::Kill(instance),
        5..=6 => Fault::Hang(instance),
        7..=10 => {
            let ill = *rng.pick(&[Ill::Errors, Ill::Slow, Ill::Leaks(0)])?;
            let cure = *rng.pick(&[Cure::Restart, Cure::Restart, Cure::Call, Cure::Time])?;
            Fault::Sicken(instance, ill, cure)
        }
        11..=12 => Fault::Misconfigure(service),
        13 => Fault::Host(agent),
        14 => Fault::Agent(agent),
        15 => Fault::Dark(service),
        16 => Fault::Touch(rng.pick(&what.playbooks)?.clone()),
        _ => {
            let trouble = *rng.pick(&[
                Trouble::AnswersLost,
                Trouble::Halved,
                Trouble::Failed,
                Trouble::Delayed,
                Trouble::Stubborn,
            ])?;
            let part = u32::try_from(rng.between(20, 80)).unwrap_or(50);
            Fault::Trouble(trouble, part)
        }
    })
}

/// Adds what only real consensus and real disks can suffer.
#[must_use]
pub fn with_disks(
    seed: u64,
    what: &Breakable,
    within_ms: u64,
    mut all: Vec<Scheduled>,
) -> Vec<Scheduled> {
    let mut rng = Rng::new(seed, "faults of disks");
    let mut at_ms = rng.between(2_000, 8_000);
    let mut replaced = false;
    while at_ms < within_ms {
        if let Some(fault) = of_disks(&mut rng, what, &mut replaced) {
            let for_ms = lasts(&fault, &mut rng);
            all.push(Scheduled { at_ms, for_ms, fault });
        }
        if rng.chance(1, 8) {
            flap(&mut rng, what, at_ms, &mut all);
        }
        at_ms += rng.between(1_500, 12_000);
    }
    all.sort_by_key(|one| one.at_ms);
    all.retain(|one| one.at_ms < within_ms);
    all
}

/// Adds nodes that are drained for a while; what else is drawn stays as it is.
#[must_use]
pub fn with_drains(
    seed: u64,
    what: &Breakable,
    within_ms: u64,
    mut all: Vec<Scheduled>,
) -> Vec<Scheduled> {
    let mut rng = Rng::new(seed, "drains");
    let mut at_ms = rng.between(4_000, 30_000);
    while at_ms < within_ms {
        if let Some(node) = rng.pick(&what.nodes) {
            let fault = Fault::Drain(*node);
            let for_ms = lasts(&fault, &mut rng);
            all.push(Scheduled { at_ms, for_ms, fault });
        }
        at_ms += rng.between(10_000, 60_000);
    }
    all.sort_by_key(|one| one.at_ms);
    all
}

/// An agent goes and comes again, several times in a row.
fn flap(rng: &mut Rng, what: &Breakable, at_ms: u64, all: &mut Vec<Scheduled>) {
    let Some(agent) = rng.pick(&what.agents).cloned() else { return };
    let (every_ms, times) = (rng.between(1_200, 3_000), rng.between(3, 6));
    all.extend((0..times).map(|time| Scheduled {
        at_ms: at_ms + time * every_ms,
        for_ms: every_ms / 2,
        fault: Fault::Agent(agent.clone()),
    }));
}

fn of_disks(rng: &mut Rng, what: &Breakable, replaced: &mut bool) -> Option<Fault> {
    let node = *rng.pick(&what.nodes)?;
    let who = if rng.chance(1, 2) { Who::Leader } else { Who::Node(node) };
    Some(match rng.between(0, 11) {
        0..=3 => Fault::PowerCut(who),
        4..=5 => Fault::DiskFull(who),
        6 => Fault::Damage(node),
        7..=8 => Fault::Snapshot(node),
        9..=10 => Fault::Transfer(node),
        _ if !*replaced => {
            *replaced = true;
            if rng.chance(1, 3) { Fault::Rot(node) } else { Fault::Replace(node) }
        }
        _ => Fault::PowerCut(Who::Node(node)),
    })
}
