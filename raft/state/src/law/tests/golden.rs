//! Golden bytes: one entry of every command, as this version writes it. A difference means that an
//! old log no longer reads the same: add a number, never change one.
//!
//! To add a new command's file: `MEDIC_WRITE_GOLDEN=1 cargo test -p medic-state golden`. Files that
//! are there are never rewritten.

mod alerts;
mod observers;
mod outcomes;
mod sources;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::lab::{self, Lab, TENANT, done, manifest, playbook, service, step, symptom, target};
use crate::{
    applied::Record,
    codec,
    command::*,
    ids::*,
    law::judge::tests::odd,
    manifest::{
        ChannelRules, ChannelSpec, EmailSpec, EmailTls, Kind, MaintenanceWindowSpec, ManifestKey,
        PagerdutySpec, Rate, ScheduleSpec, SecretRef, SilenceSpec, SlackSpec, Spec,
    },
    notice::{Delivery, NoticeKind},
    plan::Direction,
    rbac::Principal,
    saga::{Check, Verdict, VerdictValue},
    state::{FreezeScope, NodeState, STATE_VERSION, State},
    symptom::{Severity, Signal, Symptom},
    weight::Opinion,
};

fn full_symptom() -> crate::symptom::Symptom {
    let mut symptom = symptom("api", "a", "errors");
    symptom.signals.push(Signal {
        name: "metric.error_rate".into(),
        value: "0.25".into(),
        expected: "<= 0.02".into(),
        detector: "robust".into(),
        p_value: Ppm(3),
    });
    symptom.labels.insert("process".into(), "running".into());
    symptom.time_to_event = Some(Millis(90_000));
    symptom
}

/// One of every command, in order of the variants' numbers.
fn samples() -> Vec<Command> {
    let lab = Lab::new();
    let incident = IncidentId(42);
    let note = || IncidentNote { incident, note: "look".into() };
    let digest = Digest([9; 32]);
    let (plan, fence) = (PlanId(57), Fence(31));
    // The plan's pin changes with the playbook's form; here it is fixed.
    let mut full = lab.plan(vec![step(&target("api", "a"))]);
    full.playbook_digest = digest;
    let outcome = crate::saga::Outcome::Failed { reason: "refused".into(), retryable: true };
    let check = Check {
        kind: "functional".into(),
        value: VerdictValue::Passed,
        score: Ppm(900_000),
        detail: "3 of 3 probes".into(),
    };
    let verdict = Verdict {
        value: VerdictValue::Passed,
        score: Ppm(900_000),
        checks: vec![check],
        at: Timestamp(5),
    };
    let key = ManifestKey { kind: Kind::Service, tenant: TENANT.into(), name: "api".into() };
    let direction = Direction::Undo;
    let (shard, epoch) = (ShardId(12), Epoch(3));
    let (node, boot) = (NodeId(2), BootId(77));
    vec![
        Command::Fence(FenceCommand { node, boot }),
        Command::Tick,
        Command::RegisterNode(RegisterNode {
            node,
            region: "eu".into(),
            api_addr: "10.0.0.2:7000".into(),
            boot,
            version: "0.1.0".into(),
            understands: None,
            weight: None,
        }),
        Command::MarkNode(MarkNode { node, live: false }),
        Command::MarkAgent(MarkAgent {
            agent: "host-1".into(),
            node: Some(node),
            region: "eu".into(),
            version: "0.1.0".into(),
        }),
        Command::AssignShards(AssignShards { moves: [(shard, node)].into() }),
        Command::SetClusterVersion(1),
        Command::ReportSymptom(ReportSymptom { shard, epoch, symptom: full_symptom() }),
        Command::ClearSymptom(ClearSymptom {
            shard,
            epoch,
            fingerprint: full_symptom().fingerprint(),
        }),
        Command::AdoptDecision(Box::new(AdoptDecision {
            incident,
            based_on: Revision(3),
            fence,
            proposal: lab.proposal(Some(full)),
        })),
        Command::EscalateIncident(EscalateIncident { incident, reason: "a panic".into() }),
        Command::StartStep(StartStep { plan, step: 1, direction, fence, resume: true }),
        Command::FinishStep(FinishStep { plan, step: 1, direction, fence, outcome }),
        Command::RecordVerdict(RecordVerdict { plan, fence, verdict }),
        Command::Approve(Approve { incident, plan_digest: digest }),
        Command::Reject(Reject { incident, plan_digest: digest, reason: "no".into() }),
        Command::Acknowledge(note()),
        Command::Freeze(Freeze {
            scope: FreezeScope::Service { tenant: TENANT.into(), service: "api".into() },
            reason: "release".into(),
            until: Some(Timestamp(9)),
        }),
        Command::Unfreeze(FreezeScope::Target(target("api", "a"))),
        Command::CancelRemediation(note()),
        Command::ResolveIncident(note()),
        Command::ReopenIncident(note()),
        Command::AddNote(note()),
        Command::ApplyManifest(Box::new(ApplyManifest {
            manifest: manifest("api", TENANT, Spec::Service(service(&["a"], &["db"]))),
            expected: Some(digest),
        })),
        Command::DeleteManifest(key),
        Command::NoteClusterChange("add node-4".into()),
        Command::NoteTold(NoteTold { incident, text: digest, on: None }),
        Command::JudgeIncident(JudgeIncident {
            incident,
            opinion: Opinion::Missed,
            families: vec!["latency_p99".into()],
            note: "look".into(),
        }),
        Command::DrainNode(DrainNode { node, drain: Drain::Leave(boot) }),
    ]
}

/// Tests run in the folder of their package; where that was when they were built is no matter, since two
/// checkouts may share what was built.
fn file(name: &str) -> PathBuf {
    let folder = if name.contains('/') { "tests/golden" } else { "tests/golden/v1" };
    Path::new(folder).join(format!("{name}.hex"))
}

fn read(name: &str) -> Vec<u8> {
    let path = file(name);
    let text = std::fs::read_to_string(&path);
    from_hex(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Writes a golden file that is not there yet, if that is asked for.
fn write_new(name: &str, bytes: &[u8]) {
    let path = file(name);
    if !path.exists() && std::env::var_os("MEDIC_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, to_hex(bytes)).unwrap();
    }
}

/// Hexadecimal, 32 bytes a line.
fn to_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|chunk| line(chunk) + "\n").collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| std::str::from_utf8(pair).unwrap().to_owned();
    digits.chunks(2).map(|digits| u8::from_str_radix(&pair(digits), 16).unwrap()).collect()
}

fn compare(name: &str, bytes: &[u8]) {
    write_new(name, bytes);
    let path = file(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; see the header of this file", path.display()));
    assert_eq!(
        to_hex(bytes),
        text,
        "the encoding of {name} has changed: logs written before would read differently"
    );
}

#[test]
fn golden_bytes_of_every_command() {
    let samples = samples();
    let names: BTreeSet<&str> = samples.iter().map(Command::name).collect();
    assert_eq!(names.len(), 29, "one sample for each command");
    for command in samples {
        let entry = Entry {
            at: Timestamp(1_764_000_000_000),
            principal: Principal::user("alice"),
            request: Some(RequestId("req-1".into())),
            trace: TraceId([5; 16]),
            command,
        };
        let name = entry.command.name();
        compare(name, &codec::encode(&entry));
        let text = std::fs::read_to_string(file(name)).unwrap();
        assert_eq!(codec::decode::<Entry>(&from_hex(&text)).unwrap(), entry, "{name}");
    }
}

/// A playbook, and outcomes that the samples above leave out.
#[test]
fn golden_bytes_of_a_playbook_and_of_outcomes() {
    let playbook = manifest("restart", TENANT, Spec::Playbook(playbook()));
    compare("playbook", &codec::encode(&playbook));
    compare("outcomes", &codec::encode(&vec![done(), lab::failed(false), lab::unknown()]));
}

/// An unknown command stops the reader: it is never skipped.
#[test]
fn an_unknown_command_is_an_error() {
    let known = codec::encode(&Command::SetClusterVersion(1));
    assert!(codec::decode::<Command>(&known).is_ok());
    // [99, [1]]
    assert!(codec::decode::<Command>(&[0x82, 0x18, 99, 0x81, 0x01]).is_err());
}

/// A state with something in every part of it.
fn full_state() -> Lab {
    let mut lab = Lab::new();
    lab.request = Some("req-1".into());
    let cause = lab.report("db", "d", "down");
    lab.report("web", "w", "errors");
    lab.adopt(cause, vec![step(&target("db", "d"))]);
    let closed = lab.report("api", "a", "down");
    let plan = lab.adopt(closed, vec![step(&target("api", "a"))]);
    lab.run(plan, 0, done());
    lab.verdict(plan, VerdictValue::Passed).unwrap();
    let again = lab.report("api", "b", "down");
    lab.root(Command::ResolveIncident(Lab::note(again))).unwrap();
    lab.root(Command::ReopenIncident(Lab::note(again))).unwrap();
    let plan = lab.adopt(again, vec![step(&target("api", "b")), step(&target("api", "c"))]);
    lab.run(plan, 0, done());
    lab.report("web", "x", "down");
    let held = lab.start(plan, 1, Direction::Forward);
    assert!(held.is_err(), "{held:?}");
    let failing = lab.report("web", "y", "down");
    let plan = lab.adopt(failing, vec![step(&target("web", "y"))]);
    lab.run(plan, 0, lab::failed(false));
    lab.freeze(FreezeScope::Tenant("elsewhere".into()));
    lab.node(
        1,
        Command::MarkAgent(MarkAgent {
            agent: "host-1".into(),
            node: Some(NodeId(2)),
            region: "eu".into(),
            version: "0.1.0".into(),
        }),
    )
    .unwrap();
    let incident = *lab.state.incidents.keys().next().unwrap();
    lab.node(1, Command::NoteTold(NoteTold { incident, text: Digest([8; 32]), on: None })).unwrap();
    lab.apply("pager", Spec::Channel(channels().remove(0)));
    lab.node(1, Command::NoteTold(told_on(incident))).unwrap();
    judged(&mut lab);
    let (first, second) = (NodeId(1), NodeId(2));
    if let Some(node) = lab.state.nodes.get_mut(&first) {
        node.weight = 250;
    }
    let drain = |node, drain| Command::DrainNode(DrainNode { node, drain });
    lab.root(drain(first, Drain::Begin)).unwrap();
    lab.node(2, drain(second, Drain::Leave(BootId(2)))).unwrap();
    lab
}

/// The incident of the sample that a detector called, judged a false alarm.
fn judged(lab: &mut Lab) {
    let signals = vec![odd("latency_p99", "level")];
    let symptom = Symptom { signals, ..symptom("db", "d", "down") };
    let id = lab.report_with(symptom);
    lab.root(Command::JudgeIncident(JudgeIncident {
        incident: id,
        opinion: Opinion::FalseAlarm,
        families: Vec::new(),
        note: String::new(),
    }))
    .unwrap();
}

/// What was found of a message to the channel `pager`.
fn told_on(incident: IncidentId) -> NoteTold {
    let on = ToldOn {
        channel: "pager".into(),
        kind: NoticeKind::NeedsHuman,
        delivery: Delivery::Unknown("no answer in time".into()),
        also: vec![(IncidentId(7), Digest([6; 32]), NoticeKind::Resolved)],
    };
    NoteTold { incident, text: Digest([9; 32]), on: Some(on) }
}

/// One channel of every kind, the first as before there were others.
fn channels() -> Vec<ChannelSpec> {
    let rules = ChannelRules {
        min_severity: Some(Severity::Critical),
        matchers: vec![r#"env="prod""#.into()],
        send_resolved: Some(false),
        send_acknowledged: Some(true),
        limit: Some(Rate { count: 3, per: Millis(60_000) }),
    };
    let url = || "http://there/".to_owned();
    vec![
        ChannelSpec::Webhook { url: url(), rules: None },
        ChannelSpec::Webhook { url: url(), rules: Some(rules.clone()) },
        ChannelSpec::Slack(SlackSpec {
            url: None,
            url_from: Some(SecretRef::File("chat".into())),
            rules: Some(rules),
        }),
        ChannelSpec::Pagerduty(PagerdutySpec {
            routing_key: SecretRef::Env("MEDIC_SECRET_PD".into()),
            url: Some(url()),
            rules: None,
        }),
        ChannelSpec::Email(EmailSpec {
            server: "mail:587".into(),
            tls: EmailTls::Starttls,
            username: Some("medic".into()),
            password: Some(SecretRef::File("mail".into())),
            from: "medic@example.com".into(),
            to: vec!["sre@example.com".into()],
            rules: None,
        }),
    ]
}

#[test]
fn golden_bytes_of_schedules() {
    let schedule = || {
        let (cron, timezone) = ("0 2 * * SUN".to_owned(), "Europe/Berlin".to_owned());
        Some(ScheduleSpec { cron, timezone, starts: vec![Timestamp(1_000), Timestamp(2_000)] })
    };
    let (starts_at, duration) = (Timestamp(1), Millis(60_000));
    let silence = SilenceSpec {
        matchers: vec![r#"env="prod""#.into()],
        starts_at,
        ends_at: Timestamp(9_000),
        comment: "known".into(),
        schedule: schedule(),
        duration: Some(duration),
    };
    let window = MaintenanceWindowSpec {
        matchers: vec![r#"env="prod""#.into()],
        starts_at,
        duration,
        every: None,
        comment: "backup".into(),
        schedule: schedule(),
        ends_at: Some(Timestamp(9_000)),
    };
    let specs = vec![Spec::Silence(silence), Spec::MaintenanceWindow(window)];
    compare("v3/schedules", &codec::encode(&specs));
    for spec in specs {
        assert_eq!(lab::apply(manifest("nightly", TENANT, spec)).since(), 5);
    }
}

#[test]
fn golden_bytes_of_channels_and_of_what_they_were_told() {
    compare("v3/channels", &codec::encode(&channels()));
    compare("v3/note-told", &codec::encode(&Command::NoteTold(told_on(IncidentId(42)))));
    let old: ChannelSpec = codec::decode(&codec::encode(&channels()[0])).unwrap();
    assert_eq!(old, channels()[0]);
    let apply =
        |channel: ChannelSpec| lab::apply(manifest("pager", TENANT, Spec::Channel(channel)));
    let since: Vec<u32> = channels().into_iter().map(|one| apply(one).since()).collect();
    assert_eq!(since, [1, 5, 5, 5, 5], "an older build knows the first alone");
    assert_eq!(Command::NoteTold(told_on(IncidentId(42))).since(), 5);
}

/// Nothing is left out of the sample, and what could be confused is told apart.
fn check_full(state: &State) {
    let filled = [
        state.agents.len(),
        state.locks.len(),
        state.freezes.len(),
        state.playbook_starts.len(),
        state.target_starts.len(),
        state.target_ends.len(),
        state.breakers.len(),
        state.lessons.len(),
        state.requests.len(),
        state.held_since.len(),
        state.reopened.len(),
        state.shards.len(),
        state.sagas.len(),
        state.fingerprints.len(),
    ];
    assert!(!filled.contains(&0), "{filled:?}");
    assert_eq!(state.now, Timestamp(1_000_000));
    assert_eq!((state.fence.fence, state.fence.node, state.fence.boot), FENCE_OF_SAMPLE);
    let totals = &state.totals;
    assert_eq!((totals.incidents, totals.attempted, totals.successful), (4, 3, 1));
    assert_eq!((totals.manual, totals.rolled_back, totals.detected), (1, 1, 4));
    assert_eq!(state.audit.seq, state.applied, "each entry of the sample has its link");
}

/// The fence of the sample is the index of its entry.
const FENCE_OF_SAMPLE: (Fence, NodeId, BootId) = (Fence(3), NodeId(1), BootId(2));

/// The state in its present form, from a file: it is read, and gives the same bytes again.
#[test]
fn golden_bytes_of_a_snapshot() {
    let name = format!("v{STATE_VERSION}/snapshot");
    write_new(&name, &full_state().state.to_snapshot());
    let bytes = read(&name);
    let state = State::from_snapshot(&bytes).unwrap();
    assert_eq!(to_hex(&state.to_snapshot()), to_hex(&bytes), "the form of the state has changed");
    check_full(&state);
    assert_eq!(state.told.values().next(), Some(&Digest([8; 32])));
    assert!(state.nodes.values().all(|node| node.understands == 8));
    let drained = |node: &NodeState| (node.weight, node.drained, node.leaving);
    assert_eq!(state.nodes.values().map(drained).collect::<Vec<_>>(), DRAINED_OF_SAMPLE);
    let weights: Vec<i32> = state.weights.all.values().map(|weight| weight.millinats).collect();
    assert_eq!((state.weights.version, weights), (1, vec![-700]));
    let noted = state.incidents.values().filter_map(|incident| incident.notices.get("pager"));
    assert_eq!(noted.map(|notice| notice.text).collect::<Vec<_>>(), [Digest([9; 32])]);
    let channel = state.channels.values().next().unwrap();
    assert_eq!((channel.sends.len(), channel.failures), (1, 1));
}

/// Weight, drained, leaving.
const DRAINED_OF_SAMPLE: [(u32, bool, bool); 2] = [(250, true, false), (100, false, true)];

#[test]
fn a_snapshot_of_form_4_is_lifted() {
    let state = State::from_snapshot(&read("v4/snapshot")).unwrap();
    assert_eq!(state.version, STATE_VERSION);
    check_full(&state);
    assert!(state.nodes.values().all(|node| node.understands == 7 && node.stays()));
    assert!(state.nodes.values().all(|node| node.weight == NODE_WEIGHT_DEFAULT));
    assert_eq!(State::from_snapshot(&state.to_snapshot()).unwrap(), state);
}

#[test]
fn a_snapshot_of_form_3_is_lifted() {
    let state = State::from_snapshot(&read("v3/snapshot")).unwrap();
    assert_eq!(state.version, STATE_VERSION);
    check_full(&state);
    assert_eq!(state.weights, crate::weight::Weights::default());
    assert!(state.channels.len() == 1 && state.nodes.values().all(|node| node.understands == 5));
    assert_eq!(State::from_snapshot(&state.to_snapshot()).unwrap(), state);
}

#[test]
fn a_snapshot_of_form_2_is_lifted() {
    let state = State::from_snapshot(&read("v2/snapshot")).unwrap();
    assert_eq!(state.version, STATE_VERSION);
    check_full(&state);
    assert_eq!(state.told.values().next(), Some(&Digest([8; 32])));
    assert!(state.channels.is_empty() && state.nodes.values().all(|node| node.understands == 2));
    assert_eq!(State::from_snapshot(&state.to_snapshot()).unwrap(), state);
}

#[test]
fn a_snapshot_of_form_1_is_lifted() {
    let state = State::from_snapshot(&read("v1/snapshot")).unwrap();
    assert_eq!(state.version, STATE_VERSION);
    check_full(&state);
    assert!(state.told.is_empty() && state.cluster_version == 1);
    assert!(state.nodes.values().all(|node| node.understands == 1));
    assert_eq!(State::from_snapshot(&state.to_snapshot()).unwrap(), state);
}

#[test]
fn golden_bytes_of_records() {
    let lab = full_state();
    let closed = lab.records.iter().find(|record| matches!(record, Record::Closed(_))).unwrap();
    for (name, record) in [("record-audit", &lab.records[0]), ("record-closed", closed)] {
        write_new(&format!("records/{name}-1"), &record.to_bytes());
        let bytes = read(&format!("records/{name}-1"));
        let known = Record::from_bytes(&bytes).unwrap();
        assert_eq!(to_hex(&known.to_bytes()), to_hex(&bytes), "the form of {name} has changed");
        // From before forms were numbered.
        let old: Record = codec::decode(&read(name)).unwrap();
        assert_eq!(std::mem::discriminant(&old), std::mem::discriminant(&known));
        if let (Record::Audit(old), Record::Audit(known)) = (&old, &known) {
            assert_eq!((old.link(), known.link()), (old.hash, known.hash), "{name}: a new hash");
            assert_eq!((known.seq, known.index, known.command.as_str()), (1, 1, "RegisterNode"));
        }
    }
}
