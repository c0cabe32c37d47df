//! What holds for any sequence of commands: no panic, the invariants of `lab::check` after every
//! entry, budgets, equal logs giving equal hashes, snapshot and tail giving the same as replay, an
//! unbroken audit chain; and a fair driver brings every saga to its end.

use proptest::prelude::*;

use super::lab::{self, Lab, TENANT, done, failed, step, symptom, target, unknown};
use super::upheaval;
use crate::{
    applied::{AuditRecord, Effect, Record, Refusal, verify_chain},
    command::*,
    ids::*,
    law::judge::tests::{indicator, odd},
    manifest::{Kind, MaxUnavailable, Mode, PolicySpec, ServiceSpec, Spec},
    plan::Direction,
    rbac::Principal,
    saga::{Outcome, SagaStatus, VerdictValue},
    state::{FreezeScope, State},
    symptom::{ALTHOUGH_USUAL, LIMIT, Severity, Signal, Target},
    weight::Opinion,
};

/// Plans that the policy of these tests allows in flight.
const IN_FLIGHT: u32 = 2;

/// Four numbers that become a command in view of the state.
type Op = (u8, u8, u8, u8);

fn ops(count: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(any::<Op>(), 1..count)
}

fn some_target(a: u8) -> Target {
    let all = [
        ("web", "w"),
        ("web", "x"),
        ("web", "y"),
        ("api", "a"),
        ("api", "b"),
        ("db", "d"),
        ("gone", "g"),
        ("web", ""),
    ];
    let (service, instance) = all[usize::from(a) % all.len()];
    target(service, instance)
}

fn some_kind(b: u8) -> &'static str {
    ["down", "errors", "latency", "saturation-predicted"][usize::from(b) % 4]
}

fn some_incident(state: &State, a: u8) -> IncidentId {
    let ids: Vec<_> = state.incidents.keys().copied().collect();
    if ids.is_empty() || a == 255 { IncidentId(9) } else { ids[usize::from(a) % ids.len()] }
}

fn some_plan(state: &State, a: u8) -> PlanId {
    let ids: Vec<_> = state.sagas.keys().copied().collect();
    if ids.is_empty() || a == 255 { PlanId(9) } else { ids[usize::from(a) % ids.len()] }
}

fn some_outcome(c: u8) -> Outcome {
    match c % 8 {
        0 => failed(false),
        1 => failed(true),
        2 => unknown(),
        _ => done(),
    }
}

fn some_scope(a: u8) -> FreezeScope {
    match a % 6 {
        0 => FreezeScope::Global,
        1 => FreezeScope::Tenant(TENANT.into()),
        2 => FreezeScope::Region("eu".into()),
        3 => FreezeScope::Service { tenant: TENANT.into(), service: "web".into() },
        4 => FreezeScope::Playbook { tenant: TENANT.into(), playbook: "restart".into() },
        _ => FreezeScope::Target(some_target(a / 6)),
    }
}

fn some_fence(state: &State, c: u8) -> Fence {
    if c.is_multiple_of(7) { Fence(3) } else { state.fence.fence }
}

/// The law's own commands.
fn of_loop(lab: &Lab, (kind, a, b, c): Op) -> Command {
    let state = &lab.state;
    let epoch = |shard| Epoch(state.shards[&shard].epoch.0 - u64::from(c.is_multiple_of(16)));
    match kind % 12 {
        0..=2 => {
            let mut symptom = symptom("web", "w", some_kind(b));
            symptom.target = some_target(a);
            symptom.severity = if c > 128 { Severity::Critical } else { Severity::Warning };
            symptom.time_to_event = (b % 4 == 3).then_some(Millis(1000));
            if c.is_multiple_of(3) {
                symptom.signals = vec![odd("load", "level"), odd("errors", "cusum")];
            } else if c % 3 == 1 {
                let expected = format!("<= 1{ALTHOUGH_USUAL}");
                symptom.signals = vec![Signal { expected, ..odd("load", LIMIT) }];
            }
            let shard = State::shard_of(&symptom.target);
            Command::ReportSymptom(ReportSymptom { shard, epoch: epoch(shard), symptom })
        }
        3 => {
            let mut symptom = symptom("web", "w", some_kind(b));
            symptom.target = some_target(a);
            let shard = State::shard_of(&symptom.target);
            let fingerprint = symptom.fingerprint();
            Command::ClearSymptom(ClearSymptom { shard, epoch: epoch(shard), fingerprint })
        }
        4..=6 => adopt(lab, a, b, c),
        7 => {
            let (plan, step) = (some_plan(state, a), u32::from(b % 3));
            let direction = if c.is_multiple_of(2) { Direction::Forward } else { Direction::Undo };
            let (fence, resume) = (some_fence(state, c), b > 200);
            Command::StartStep(StartStep { plan, step, direction, fence, resume })
        }
        8 => {
            let (plan, step) = (some_plan(state, a), u32::from(b % 3));
            let direction = if c.is_multiple_of(2) { Direction::Forward } else { Direction::Undo };
            let (fence, outcome) = (some_fence(state, c), some_outcome(c));
            Command::FinishStep(FinishStep { plan, step, direction, fence, outcome })
        }
        9 => {
            let value = [VerdictValue::Passed, VerdictValue::Failed, VerdictValue::Inconclusive]
                [usize::from(b % 3)];
            let verdict = crate::saga::Verdict {
                value,
                score: Ppm(900_000),
                checks: vec![],
                at: Timestamp(0),
            };
            let (plan, fence) = (some_plan(state, a), some_fence(state, c));
            Command::RecordVerdict(RecordVerdict { plan, fence, verdict })
        }
        10 if c < 16 => {
            let (incident, reason) = (some_incident(state, a), "a panic".into());
            Command::EscalateIncident(EscalateIncident { incident, reason })
        }
        10 => Command::Fence(FenceCommand { node: NodeId(1), boot: BootId(u64::from(a)) }),
        _ => Command::Tick,
    }
}

fn adopt(lab: &Lab, a: u8, b: u8, c: u8) -> Command {
    let state = &lab.state;
    let incident = some_incident(state, a);
    let based_on = state.incidents.get(&incident).map_or(Revision(1), |found| found.revision);
    let steps = (0..=b % 3).map(|n| {
        let mut step = step(&some_target(b.wrapping_add(n) % 6));
        step.retries = u32::from(c % 2);
        step
    });
    let name = if b > 200 { "ask" } else { "restart" };
    let known = state.stored(Kind::Playbook, TENANT, name).is_some();
    let plan = (known && !c.is_multiple_of(9)).then(|| lab.plan_of(name, steps.collect()));
    let proposal = lab.proposal(plan);
    let fence = some_fence(state, c);
    Command::AdoptDecision(Box::new(AdoptDecision { incident, based_on, fence, proposal }))
}

/// What operators do.
fn of_operator(lab: &Lab, (kind, a, b, c): Op) -> Command {
    let state = &lab.state;
    let incident = some_incident(state, a);
    let plan = state.incidents.get(&incident).and_then(|found| found.plan);
    let digest = plan.and_then(|plan| state.sagas.get(&plan)).map(|saga| saga.digest);
    let plan_digest = digest.unwrap_or_default();
    let note = IncidentNote { incident, note: if b > 8 { "why".into() } else { String::new() } };
    match kind % 12 {
        0 | 1 => Command::Approve(Approve { incident, plan_digest }),
        2 => Command::Reject(Reject { incident, plan_digest, reason: "no".into() }),
        3 => Command::Acknowledge(note),
        4 => {
            let until = (b > 128).then(|| Timestamp(lab.now + u64::from(b)));
            Command::Freeze(Freeze { scope: some_scope(a), reason: "x".into(), until })
        }
        5 => Command::Unfreeze(some_scope(a)),
        6 => Command::CancelRemediation(note),
        7 => Command::ResolveIncident(note),
        8 => Command::ReopenIncident(note),
        9 => Command::AddNote(note),
        10 => {
            let all = [Opinion::FalseAlarm, Opinion::Missed, Opinion::Genuine];
            let opinion = all[usize::from(c % 3)];
            let families = if b.is_multiple_of(4) { vec!["load".into()] } else { Vec::new() };
            let note = note.note;
            Command::JudgeIncident(JudgeIncident { incident, opinion, families, note })
        }
        _ => lab::apply(lab::manifest("web", TENANT, {
            let names = ["w", "x", "y", "z"];
            Spec::Service(web(&names[..=usize::from(b % 4)]))
        })),
    }
}

/// The service `web`, with something that detectors look at.
fn web(instances: &[&str]) -> ServiceSpec {
    let indicators = vec![indicator("load"), indicator("latency_p99")];
    ServiceSpec { indicators, ..lab::service(instances, &["api"]) }
}

fn world() -> Lab {
    let mut lab = Lab::new();
    lab.apply("web", Spec::Service(web(&["w", "x", "y", "z"])));
    let policy = PolicySpec { max_in_flight: IN_FLIGHT, ..PolicySpec::default() };
    lab.apply("default", Spec::Policy(policy));
    let mut playbook = lab::playbook();
    playbook.mode = Mode::Approve;
    playbook.scope.max_unavailable = MaxUnavailable::Count(2);
    lab.apply("ask", Spec::Playbook(playbook));
    lab.root(lab::apply(lab::manifest("pair", TENANT, lab::binding("approver", &["ann"]))))
        .unwrap();
    lab
}

/// What a driver would do next, with any outcome: chance alone hardly ever gets past a first step.
fn of_driver(lab: &Lab, (_, a, _, c): Op) -> Option<Command> {
    let fence = lab.state.fence.fence;
    let in_hand = lab.state.sagas.values().find_map(|saga| {
        saga.steps.iter().zip(0..).find_map(|(state, step)| {
            let intent = state.intent.as_ref().filter(|intent| intent.fence == fence)?;
            Some((saga.id, step, intent.direction))
        })
    });
    let owed = lab.owed();
    let effect = owed.get(usize::from(a) % owed.len().max(1));
    let finish = |(plan, step, direction)| {
        let outcome = some_outcome(c);
        Command::FinishStep(FinishStep { plan, step, direction, fence, outcome })
    };
    match effect {
        Some(_) | None if in_hand.is_some() && c < 160 => in_hand.map(finish),
        Some(Effect::Decide(_) | Effect::Notify(_)) | None => None,
        Some(Effect::RunStep { plan, step, direction, resume, .. }) => {
            let (plan, step, direction, resume) = (*plan, *step, *direction, resume.is_some());
            Some(Command::StartStep(StartStep { plan, step, direction, fence, resume }))
        }
        Some(Effect::Verify(plan)) => {
            let value = [VerdictValue::Passed, VerdictValue::Failed, VerdictValue::Inconclusive]
                [usize::from(c % 3)];
            let verdict = crate::saga::Verdict {
                value,
                score: Ppm(900_000),
                checks: vec![],
                at: Timestamp(0),
            };
            Some(Command::RecordVerdict(RecordVerdict { plan: *plan, fence, verdict }))
        }
    }
}

/// Applies one op; `Lab::entry` checks the invariants.
fn play(lab: &mut Lab, op: Op) {
    let (kind, a, b, c) = op;
    lab.now += u64::from(c) * 40;
    if a == 77 {
        // Another proposer's clock.
        lab.now = lab.now.saturating_sub(20_000);
    }
    if kind % 13 == 12 {
        lab.request = Some(format!("request-{}", b % 8));
    }
    let guided = if kind < 110 { of_driver(lab, op) } else { None };
    let (principal, command) = if let Some(command) = guided {
        (Principal::node(NodeId(1)), command)
    } else if (185..=200).contains(&kind) {
        upheaval::draw(&lab.state, lab.now, (a, b, c))
    } else if kind > 200 {
        let user = if a > 230 {
            "mallory"
        } else if a.is_multiple_of(2) {
            "ann"
        } else {
            "root"
        };
        (Principal::user(user), of_operator(lab, op))
    } else {
        let command = of_loop(lab, op);
        let reports = matches!(command, Command::ReportSymptom(_) | Command::ClearSymptom(_));
        (Principal::node(NodeId(if reports { 2 } else { 1 })), command)
    };
    let applied = lab.entry(principal, command);
    if let Err(Refusal::HeldBack(why)) = &applied.answer {
        assert!(!why.is_empty());
    }
    let holders: std::collections::BTreeSet<_> = lab.state.locks.values().collect();
    assert!(holders.len() <= IN_FLIGHT as usize, "the budget is exceeded: {holders:?}");
}

/// Follows what is owed, fairly, until nothing is; decisions are left undone.
fn drive(lab: &mut Lab, choices: &[u8]) {
    for scope in lab.state.freezes.keys().cloned().collect::<Vec<_>>() {
        lab.root(Command::Unfreeze(scope)).unwrap_or(crate::Reply::Done);
    }
    let fence = lab.fence(1);
    for round in 0..2_000_usize {
        let mut owed = lab.owed();
        owed.retain(|effect| !matches!(effect, Effect::Decide(_)));
        let in_hand = lab.state.sagas.values().find_map(|saga| {
            let (at, intent) = saga.steps.iter().zip(0..).find_map(|(step, at)| {
                step.intent.as_ref().filter(|intent| intent.fence == fence).map(|i| (at, i))
            })?;
            Some((saga.id, at, intent.direction))
        });
        let choice = choices.get(round % choices.len().max(1)).copied().unwrap_or(9);
        if let Some((plan, at, direction)) = in_hand {
            lab.finish(plan, at, direction, some_outcome(choice)).unwrap();
            continue;
        }
        let Some(effect) = owed.get(usize::from(choice) % owed.len().max(1)).cloned() else {
            let waiting = lab.state.sagas.values().any(|saga| !saga.status.ended());
            if !waiting {
                return;
            }
            lab.wait(300);
            continue;
        };
        match effect {
            Effect::Verify(plan) => {
                lab.verdict(plan, VerdictValue::Passed).unwrap();
            }
            Effect::RunStep { plan, step, direction, resume, not_before } => {
                lab.now = lab.now.max(not_before.0);
                // What an outcome froze on the way, a human looks at and lifts.
                for scope in lab.state.freezes.keys().cloned().collect::<Vec<_>>() {
                    lab.root(Command::Unfreeze(scope)).unwrap();
                }
                match lab.start_or_resume(plan, step, direction, resume.is_some()) {
                    Ok(_) => {}
                    Err(Refusal::HeldBack(_) | Refusal::IllegalState(_)) => lab.wait(60),
                    Err(other) => panic!("{other}"),
                }
            }
            Effect::Decide(_) | Effect::Notify(_) => unreachable!("filtered"),
        }
    }
    panic!("a saga does not end");
}

fn audit(records: &[Record]) -> Vec<&AuditRecord> {
    records
        .iter()
        .filter_map(|record| match record {
            Record::Audit(record) => Some(record),
            Record::Closed(_) => None,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_holds_replays_and_survives_a_snapshot(ops in ops(160), cut in any::<prop::sample::Index>()) {
        let mut lab = world();
        for op in ops {
            play(&mut lab, op);
        }
        let head = verify_chain(audit(&lab.records)).unwrap();
        prop_assert_eq!(head, lab.state.audit);

        let cut = cut.index(lab.log.len());
        let mut replayed = State::new();
        let mut restored = None;
        for (entry, index) in lab.log.iter().zip(1..) {
            replayed.apply(index, entry);
            if let Some(state) = &mut restored {
                State::apply(state, index, entry);
            }
            if index as usize == cut {
                let bytes = replayed.to_snapshot();
                let state = State::from_snapshot(&bytes).unwrap();
                prop_assert_eq!(state.to_snapshot(), bytes);
                restored = Some(state);
            }
        }
        prop_assert_eq!(replayed.hash(), lab.state.hash());
        if let Some(state) = restored {
            prop_assert_eq!(state.hash(), lab.state.hash());
            prop_assert_eq!(state, lab.state);
        }
    }

    #[test]
    fn a_fair_driver_ends_every_saga(ops in ops(120), choices in proptest::collection::vec(any::<u8>(), 1..40)) {
        let mut lab = world();
        for op in ops {
            play(&mut lab, op);
        }
        drive(&mut lab, &choices);
        for saga in lab.state.sagas.values() {
            prop_assert!(saga.status.ended());
            if saga.started_at.is_none() {
                prop_assert_eq!(saga.status, SagaStatus::Dropped);
            }
        }
    }
}
