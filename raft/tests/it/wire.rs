//! The bytes on wire and disk: they may gain fields, they never change.

use std::collections::{BTreeMap, BTreeSet};

use medic_proto::peer::v1 as pb;
use medic_raft::{
    types::{
        LeaderId, LogEntry, LogId, Membership, PeerNode, Proposal, SnapshotMeta, StoredMembership,
        Vote,
    },
    wire,
};
use medic_state::{Command, Entry, NodeId, Timestamp, TraceId, rbac::Principal};
use openraft::EntryPayload;
use prost::Message as _;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 3, node_id: 2 }, index }
}

fn membership() -> Membership {
    let nodes = [(1, "a:1"), (2, "b:1")];
    let nodes: BTreeMap<u64, PeerNode> =
        nodes.map(|(n, addr)| (n, PeerNode { peer_addr: addr.to_owned() })).into();
    Membership::new(vec![BTreeSet::from([1, 2])], nodes).unwrap()
}

fn tick() -> LogEntry {
    let entry = Entry {
        at: Timestamp(1_000),
        principal: Principal::node(NodeId(1)),
        request: None,
        trace: TraceId::default(),
        command: Command::Tick,
    };
    LogEntry { log_id: at(7), payload: EntryPayload::Normal(Proposal::new(entry)) }
}

#[test]
fn bytes_of_version_1() {
    let vote = Vote { leader_id: LeaderId { term: 3, node_id: 2 }, committed: true };
    assert_eq!(hex(&wire::vote_out(&vote).encode_to_vec()), "080310021801");
    assert_eq!(wire::vote_in(&wire::vote_out(&vote)), vote);

    let blank = LogEntry { log_id: at(7), payload: EntryPayload::Blank };
    assert_eq!(hex(&wire::entry_out(&blank).encode_to_vec()), "0a060803100218071200");

    let members = LogEntry { log_id: at(7), payload: EntryPayload::Membership(membership()) };
    assert_eq!(
        hex(&wire::entry_out(&members).encode_to_vec()),
        "0a0608031002180722180a040a020102120708011203613a31120708021203623a31"
    );
}

#[test]
fn everything_comes_back() {
    for payload in [EntryPayload::Blank, EntryPayload::Membership(membership()), tick().payload] {
        let entry = LogEntry { log_id: at(7), payload };
        let bytes = wire::entry_out(&entry).encode_to_vec();
        let back = wire::entry_in(wire::decode("entry", &bytes).unwrap()).unwrap();
        assert_eq!(back, entry);
    }
    let meta = SnapshotMeta {
        last_log_id: Some(at(7)),
        last_membership: StoredMembership::new(Some(at(5)), membership()),
    };
    assert_eq!(wire::snapshot_meta_in(wire::snapshot_meta_out(&meta)).unwrap(), meta);
}

#[test]
fn what_is_unknown_is_refused() {
    let unknown = pb::LogEntry {
        id: Some(wire::log_id_out(&at(7))),
        payload: Some(pb::log_entry::Payload::Command(vec![0x82, 0x18, 0xff, 0x80].into())),
    };
    let text = wire::entry_in(unknown).unwrap_err().to_string();
    assert!(text.contains("log entry 7 cannot be understood"), "{text}");
    assert!(text.contains("upgrade this node"), "{text}");
    let empty = pb::LogEntry { id: Some(wire::log_id_out(&at(7))), payload: None };
    assert!(wire::entry_in(empty).is_err());
    let nobody = pb::Membership { configs: vec![pb::Voters { nodes: vec![9] }], members: vec![] };
    assert!(wire::membership_in(nobody).is_err());
}
