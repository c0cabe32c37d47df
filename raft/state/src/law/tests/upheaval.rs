//! What changes the cluster itself and what is declared, drawn from four numbers: nodes and agents that
//! come, go and lie, shards that move, manifests that vanish under a running plan.

use super::lab::{self, ROOT, TENANT};
use crate::{
    command::*,
    ids::*,
    manifest::{
        Kind, MaintenanceWindowSpec, ManifestKey, Mode, PlaybookSpec, SilenceSpec, Spec, TenantSpec,
    },
    rbac::Principal,
    state::{SHARDS, State},
};

/// One such command, and who gives it.
pub(super) fn draw(state: &State, now: u64, (a, b, c): (u8, u8, u8)) -> (Principal, Command) {
    let leader = Principal::node(NodeId(1));
    let root = Principal::user(ROOT);
    let node = NodeId(1 + u64::from(a % 4));
    let even = c.is_multiple_of(2);
    match b % 10 {
        0 => {
            let register = RegisterNode {
                node,
                region: if even { "eu".into() } else { String::new() },
                api_addr: "host:1".into(),
                boot: BootId(u64::from(c)),
                version: "x".into(),
                understands: even.then_some(u32::from(c % 5)),
                weight: c.is_multiple_of(3).then_some(u32::from(c)),
            };
            (Principal::node(node), Command::RegisterNode(register))
        }
        1 => (leader, Command::MarkNode(MarkNode { node, live: even })),
        2 => {
            let mark = MarkAgent {
                agent: ["one", "two", "gone"][usize::from(a % 3)].into(),
                node: even.then_some(node),
                region: "eu".into(),
                version: "x".into(),
            };
            (leader, Command::MarkAgent(mark))
        }
        3 => {
            // One of them may be beyond the last.
            let shards = (0..=a % 4).map(|n| (u32::from(n) * 5 + u32::from(c)) % (SHARDS + 1));
            let moves = shards.map(|shard| (ShardId(shard), node)).collect();
            (leader, Command::AssignShards(AssignShards { moves }))
        }
        4 => (leader, Command::SetClusterVersion(u32::from(c % 5))),
        5 if even => (leader, Command::NoteClusterChange("node-4 is added".into())),
        5 => {
            let boot = state.nodes.get(&node).map_or(BootId(0), |known| known.boot);
            let drain = [Drain::Begin, Drain::End, Drain::Leave(boot)][usize::from(c % 3)];
            let who = if c % 3 == 2 { Principal::node(node) } else { root };
            (who, Command::DrainNode(DrainNode { node, drain }))
        }
        6 => {
            let incident = state.incidents.keys().next().copied().unwrap_or(IncidentId(9));
            (leader, Command::NoteTold(NoteTold { incident, text: Digest::default(), on: None }))
        }
        7 => {
            let (kind, name) = [
                (Kind::Service, "web"),
                (Kind::Service, "api"),
                (Kind::Playbook, "restart"),
                (Kind::Playbook, "ask"),
                (Kind::RoleBinding, "pair"),
                (Kind::Silence, "quiet"),
                (Kind::MaintenanceWindow, "works"),
            ][usize::from(a % 7)];
            let key = ManifestKey { kind, tenant: TENANT.into(), name: name.into() };
            (root, Command::DeleteManifest(key))
        }
        8 => {
            let mode = [Mode::Shadow, Mode::Approve, Mode::Auto][usize::from(c % 3)];
            let name = if even { "restart" } else { "ask" };
            let spec = Spec::Playbook(PlaybookSpec { mode, ..lab::playbook() });
            (root, lab::apply(lab::manifest(name, TENANT, spec)))
        }
        _ => (root, lab::apply(declared(now, a, c))),
    }
}

/// What holds back, keeps quiet or bounds; and what was deleted, again.
fn declared(now: u64, a: u8, c: u8) -> crate::manifest::Manifest {
    let matchers = vec![r#"service="web""#.into()];
    let (starts_at, length) = (Timestamp(now), Millis(u64::from(c) * 1_000 + 1));
    let (name, spec) = match a % 5 {
        0 => {
            let ends_at = starts_at.plus(length);
            (
                "quiet",
                Spec::Silence(SilenceSpec {
                    matchers,
                    starts_at,
                    ends_at,
                    comment: "x".into(),
                    schedule: None,
                    duration: None,
                }),
            )
        }
        1 => {
            let window = MaintenanceWindowSpec {
                matchers,
                starts_at,
                duration: length,
                every: None,
                comment: "x".into(),
                schedule: None,
                ends_at: None,
            };
            ("works", Spec::MaintenanceWindow(window))
        }
        2 => {
            let quotas =
                TenantSpec { max_open_incidents: u32::from(c % 8), ..TenantSpec::default() };
            (TENANT, Spec::Tenant(quotas))
        }
        3 => ("pair", lab::binding("approver", &["ann"])),
        _ => ("api", Spec::Service(lab::service(&["a", "b", "c"], &["db"]))),
    };
    lab::manifest(name, TENANT, spec)
}
