//! Records: found by what they are about, lifted from older formats, refused when they are newer.

use std::sync::Arc;

use medic_raft::{
    About, Consensus, Ledger, LedgerError, LedgerExt, RecordQuery, StoredRecord,
    store::{Disk, MemoryDisk, Op, Table, WriterMode, record_key},
};
use medic_state::{
    Command, Digest, IncidentId, PlanId, Record, Reply, State, Timestamp, TraceId, codec,
    command::{AssignShards, ClearSymptom, NoteTold, RegisterNode, ReportSymptom},
    symptom::{Severity, Symptom, Target},
};

use crate::start::{leads, quick, start};

async fn propose(raft: &Consensus, command: Command) -> Reply {
    let committed = raft.propose(raft.entry(TraceId::default(), command)).await.unwrap();
    committed.answer.unwrap()
}

fn symptom(service: &str) -> Symptom {
    Symptom {
        target: Target {
            tenant: "default".to_owned(),
            service: service.to_owned(),
            instance: "one".to_owned(),
        },
        kind: "down".to_owned(),
        severity: Severity::Critical,
        summary: "gone".to_owned(),
        p_value: medic_state::Ppm(1),
        signals: Vec::new(),
        since: Timestamp(0),
        time_to_event: None,
        labels: std::collections::BTreeMap::new(),
        source: "test".to_owned(),
    }
}

/// A node that watches everything, two incidents, one of them closed.
async fn world(disk: &Arc<MemoryDisk>) -> (Arc<Consensus>, IncidentId, IncidentId) {
    let raft = start(quick(1), disk.clone(), WriterMode::Task).await.unwrap();
    leads(&raft).await;
    let register = RegisterNode {
        node: raft.node(),
        region: String::new(),
        api_addr: String::new(),
        boot: raft.boot(),
        version: String::new(),
        understands: None,
        weight: None,
    };
    propose(&raft, Command::RegisterNode(register)).await;
    let shards = (0..medic_state::state::SHARDS).map(medic_state::ShardId);
    let moves = shards.map(|shard| (shard, raft.node())).collect();
    propose(&raft, Command::AssignShards(AssignShards { moves })).await;
    let mut opened = Vec::new();
    for service in ["a", "b", "a"] {
        let symptom = symptom(service);
        let shard = State::shard_of(&symptom.target);
        let epoch = raft.read(|state| state.shards[&shard].epoch);
        let report = Command::ReportSymptom(ReportSymptom { shard, epoch, symptom });
        match propose(&raft, report).await {
            Reply::Incident(id) => opened.push(id),
            other => panic!("{other:?}"),
        }
    }
    let closing = symptom("b");
    let shard = State::shard_of(&closing.target);
    let (epoch, fingerprint) =
        (raft.read(|state| state.shards[&shard].epoch), closing.fingerprint());
    propose(&raft, Command::ClearSymptom(ClearSymptom { shard, epoch, fingerprint })).await;
    // Long after, by the proposer's clock.
    let mut tick = raft.entry(TraceId::default(), Command::Tick);
    tick.at = tick.at.plus(medic_state::Millis::from_secs(3_600));
    raft.propose_as_leader(tick).await.unwrap().answer.unwrap();
    assert_eq!(opened[0], opened[2]);
    (raft, opened[0], opened[1])
}

fn about(raft: &Consensus, about: About, after: u64, limit: usize) -> Vec<StoredRecord> {
    raft.records_about(about, RecordQuery { after, limit }).unwrap()
}

/// What a look through everything finds.
fn scanned(raft: &Consensus, about: About) -> Vec<StoredRecord> {
    let mut all = raft.records(RecordQuery { after: 0, limit: 1_000 }).unwrap();
    all.retain(|stored| about.holds(&stored.record));
    all
}

fn check_index(raft: &Consensus, open: IncidentId, closed: IncidentId) {
    for (wanted, least) in [
        (About::Incident(open), 2),
        (About::Incident(closed), 3),
        (About::Closed(open), 0),
        (About::Closed(closed), 1),
        (About::Plan(PlanId(closed.0)), 0),
    ] {
        let found = about(raft, wanted, 0, 1_000);
        assert!(found.len() >= least, "{wanted:?}: {found:?}");
        assert_eq!(found, scanned(raft, wanted), "{wanted:?}");
        let mut paged = Vec::new();
        loop {
            let after = paged.last().map_or(0, |last: &StoredRecord| last.index);
            let page = about(raft, wanted, after, 1);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, found, "{wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_records_are_about_leads_to_them() {
    let disk = Arc::new(MemoryDisk::default());
    let (raft, open, closed) = world(&disk).await;
    check_index(&raft, open, closed);
    raft.shutdown().await;
    let again = start(quick(1), disk.after_power_cut(usize::MAX), WriterMode::Task).await.unwrap();
    leads(&again).await;
    again.linearize().await.unwrap();
    check_index(&again, open, closed);
    again.shutdown().await;
}

/// The format before: no index, and records without the number of their form.
fn to_format_1(disk: &MemoryDisk) {
    let (low, high) = (record_key(0, 0), record_key(u64::MAX, 0));
    let records = disk.scan(Table::Records, &low, &high, usize::MAX, usize::MAX).unwrap();
    assert!(!records.is_empty());
    let seal = |key: &[u8], value: &[u8]| {
        let sum = crc32c::crc32c_append(crc32c::crc32c(key), value);
        [&sum.to_be_bytes()[..], value].concat()
    };
    let mut ops: Vec<Op> = records
        .into_iter()
        .map(|(key, sealed)| {
            let value = codec::encode(&Record::from_bytes(&sealed[4..]).unwrap());
            let value = seal(&key, &value);
            Op::Put { table: Table::Records, key, value }
        })
        .collect();
    ops.push(Op::DeleteRange { table: Table::Index, from: vec![], to: vec![0xff; 32] });
    let (key, value) = (b"format".to_vec(), seal(b"format", &1_u32.to_be_bytes()));
    ops.push(Op::Put { table: Table::Meta, key, value });
    disk.write(&ops, true).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_format_1_is_lifted_wherever_that_was_broken_off() {
    let disk = Arc::new(MemoryDisk::default());
    let (raft, open, closed) = world(&disk).await;
    let before = raft.records(RecordQuery { after: 0, limit: 1_000 }).unwrap();
    raft.shutdown().await;
    let old = disk.after_power_cut(usize::MAX);
    to_format_1(&old);
    for broken_off in [false, true] {
        let disk = old.after_power_cut(0);
        if broken_off {
            // The first half was lifted already.
            let Record::Audit(_) = &before[0].record else { panic!("{:?}", before[0]) };
            let key = record_key(before[0].index, 0);
            let value = before[0].record.to_bytes();
            let sum = crc32c::crc32c_append(crc32c::crc32c(&key), &value);
            let value = [&sum.to_be_bytes()[..], &value].concat();
            disk.write(&[Op::Put { table: Table::Records, key, value }], true).unwrap();
        }
        let raft = start(quick(1), disk.clone(), WriterMode::Task).await.unwrap();
        leads(&raft).await;
        raft.linearize().await.unwrap();
        let mut after = raft.records(RecordQuery { after: 0, limit: 1_000 }).unwrap();
        after.truncate(before.len());
        assert_eq!(after, before, "broken off: {broken_off}");
        check_index(&raft, open, closed);
        raft.shutdown().await;
        let format = disk.get(Table::Meta, b"format").unwrap().unwrap();
        assert_eq!(format[4..], 2_u32.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_snapshot_is_left_alone_and_refused_with_a_way_out() {
    let disk = Arc::new(MemoryDisk::default());
    let (raft, ..) = world(&disk).await;
    raft.trigger_snapshot().await;
    let name = loop {
        if let Some(name) = disk.list_files().unwrap().pop() {
            break name;
        }
        tokio::task::yield_now().await;
    };
    raft.shutdown().await;
    let disk = disk.after_power_cut(usize::MAX);
    let mut file = disk.read_file(&name).unwrap();
    file.truncate(file.len() - 4);
    // The number after the magic word.
    file[11] = 7;
    let sum = crc32c::crc32c(&file);
    file.extend_from_slice(&sum.to_be_bytes());
    disk.put_file(&name, &file).unwrap();
    let Err(error) = start(quick(1), disk.clone(), WriterMode::Task).await else {
        panic!("it must refuse to start")
    };
    let text = error.to_string();
    assert!(text.contains(&name) && text.contains("version 7"), "{text}");
    assert!(text.contains("at least as new"), "{text}");
    assert_eq!(disk.list_files().unwrap(), [name], "nothing was set aside");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_not_switched_on_does_not_reach_the_log() {
    let disk = Arc::new(MemoryDisk::default());
    let (raft, open, _) = world(&disk).await;
    let before = raft.linearize().await.unwrap();
    let told = || Command::NoteTold(NoteTold { incident: open, text: Digest::default(), on: None });
    let error = raft.propose(raft.entry(TraceId::default(), told())).await.unwrap_err();
    let refused = matches!(&error, LedgerError::Refused(why) if why.contains("cluster version 2"));
    assert!(refused, "{error}");
    assert_eq!(raft.linearize().await.unwrap(), before, "it was written");
    let register = RegisterNode {
        node: raft.node(),
        region: String::new(),
        api_addr: String::new(),
        boot: raft.boot(),
        version: String::new(),
        understands: Some(medic_state::CLUSTER_VERSION),
        weight: None,
    };
    propose(&raft, Command::RegisterNode(register)).await;
    propose(&raft, Command::SetClusterVersion(2)).await;
    propose(&raft, told()).await;
    raft.shutdown().await;
}
