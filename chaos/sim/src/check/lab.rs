//! Histories made by hand, for the tests of the checkers.

use std::{collections::BTreeMap, sync::Arc};

use medic_state::{
    Answer, AuditRecord, BootId, Command, Digest, Entry, Epoch, Fence, IncidentId, Millis, NodeId,
    PlanId, Ppm, Record, Reply, RequestId, Revision, ShardId, Timestamp, TraceId,
    command::{
        AdoptDecision, ApplyManifest, Approve, AssignShards, ClearSymptom, FenceCommand,
        FinishStep, Freeze, RecordVerdict, ReportSymptom, StartStep,
    },
    decision::{Proposal, Route, ThresholdOverrides},
    manifest::{
        ApprovalSpec, Kind, Manifest, ManifestKey, Metadata, PlaybookScope, PolicySpec,
        RoleBindingSpec, SafetyClass, Spec, Subject, VerifySpec,
    },
    plan::{Action, Direction, Plan, PlannedStep, StepKey},
    rbac::Principal,
    saga::{Check, Outcome, SagaStatus, Verdict, VerdictValue},
    state::FreezeScope,
    symptom::{Severity, Symptom, Target},
};

use crate::history::{Commit, Did, Event, Reached, Sent, What};

/// Writes a history.
#[derive(Debug, Default)]
pub(crate) struct Lab {
    pub(crate) events: Vec<Event>,
    ms: u64,
    index: u64,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { index: 100, ..Self::default() }
    }

    fn push(&mut self, what: What) -> &mut Self {
        self.ms += 1;
        self.events.push(Event { ms: self.ms, what });
        self
    }

    pub(crate) fn later(&mut self, ms: u64) -> &mut Self {
        self.ms += ms;
        self
    }

    fn commit_at(&mut self, index: u64, by: u64, command: Command, answer: Answer) -> &mut Self {
        let at = Timestamp(self.ms);
        let (principal, trace) = (Principal::node(NodeId(by)), TraceId::default());
        let entry = Arc::new(Entry { at, principal, request: None, trace, command });
        let (records, moved) = (Vec::new(), Vec::new());
        let by = NodeId(by);
        let (repeated, state) = (false, None);
        let commit = Commit { index, by, entry, answer, records, moved, repeated, state };
        self.push(What::Committed(Arc::new(commit)))
    }

    fn commit(&mut self, command: Command, answer: Answer) -> &mut Self {
        self.index += 1;
        self.commit_at(self.index, 1, command, answer)
    }

    fn amend(&mut self, change: impl FnOnce(&mut Commit)) -> &mut Self {
        if let Some(Event { what: What::Committed(commit), .. }) = self.events.last_mut() {
            let mut amended = Commit::clone(commit);
            change(&mut amended);
            *commit = Arc::new(amended);
        }
        self
    }

    pub(crate) fn fence(&mut self, node: u64, fence: u64) -> &mut Self {
        let command = Command::Fence(FenceCommand { node: NodeId(node), boot: BootId(1) });
        self.commit_at(fence, node, command, Ok(Reply::Fenced(Fence(fence))))
    }

    pub(crate) fn elected(&mut self, node: u64, term: u64) -> &mut Self {
        self.push(What::Elected { node: NodeId(node), term })
    }

    pub(crate) fn adopt(&mut self, plan: u64, steps: usize) -> &mut Self {
        self.adopt_on(plan, steps, "a")
    }

    pub(crate) fn adopt_on(&mut self, plan: u64, steps: usize, instance: &str) -> &mut Self {
        let adopt = AdoptDecision {
            incident: IncidentId(plan),
            based_on: Revision(1),
            fence: Fence(5),
            proposal: proposal(steps, instance),
        };
        let reply = Reply::Decided { plan: Some(PlanId(plan)), route: Route::AutoExecute };
        self.commit(Command::AdoptDecision(Box::new(adopt)), Ok(reply))
    }

    pub(crate) fn adopt_asking(&mut self, plan: u64) -> &mut Self {
        self.adopt(plan, 1).amend(|commit| {
            let (plan, route) = (Some(PlanId(plan)), Route::RecommendWithApproval);
            commit.answer = Ok(Reply::Decided { plan, route });
        })
    }

    pub(crate) fn start(&mut self, plan: u64, step: u32, fence: u64) -> &mut Self {
        self.begin(plan, step, fence, Direction::Forward)
    }

    pub(crate) fn undo(&mut self, plan: u64, step: u32, fence: u64) -> &mut Self {
        self.begin(plan, step, fence, Direction::Undo)
    }

    fn begin(&mut self, plan: u64, step: u32, fence: u64, direction: Direction) -> &mut Self {
        let (plan, fence) = (PlanId(plan), Fence(fence));
        let start = StartStep { plan, step, direction, fence, resume: false };
        self.commit(Command::StartStep(start), Ok(Reply::Done))
    }

    pub(crate) fn finish(&mut self, plan: u64, step: u32, fence: u64) -> &mut Self {
        self.end(plan, step, fence, Direction::Forward)
    }

    pub(crate) fn undone(&mut self, plan: u64, step: u32, fence: u64) -> &mut Self {
        self.end(plan, step, fence, Direction::Undo)
    }

    fn end(&mut self, plan: u64, step: u32, fence: u64, direction: Direction) -> &mut Self {
        let (plan, fence) = (PlanId(plan), Fence(fence));
        let outcome = Outcome::Done(BTreeMap::new());
        let finish = FinishStep { plan, step, direction, fence, outcome };
        self.commit(Command::FinishStep(finish), Ok(Reply::Done))
    }

    pub(crate) fn moved(&mut self, plan: u64, status: SagaStatus) -> &mut Self {
        self.commit(Command::Tick, Ok(Reply::Done));
        self.amend(|commit| commit.moved.push((PlanId(plan), status)))
    }

    pub(crate) fn sent(&mut self, node: u64, fence: u64) -> &mut Self {
        self.sent_step(node, fence, 7, 0)
    }

    pub(crate) fn sent_step(&mut self, node: u64, fence: u64, plan: u64, step: u32) -> &mut Self {
        let newest = self.events.iter().rev().find_map(|event| match &event.what {
            What::Committed(commit) => match commit.answer {
                Ok(Reply::Fenced(fence)) => Some(fence),
                _ => None,
            },
            _ => None,
        });
        let sent = Sent {
            node: NodeId(node),
            key: key(plan, step),
            fence: Fence(fence),
            attempt: 1,
            action: "process.restart".to_owned(),
            target: target("a"),
            applied: self.index,
            newest_fence: newest.unwrap_or_default(),
            quorum_age_ms: 20,
        };
        self.push(What::Sent(Box::new(sent)))
    }

    fn reached(&mut self, agent: &str, key: StepKey, fence: u64, did: Did) -> &mut Self {
        let (agent, fence) = (agent.to_owned(), Fence(fence));
        let reached = Reached { agent, fenced: true, key, fence, attempt: 1, did };
        self.push(What::Reached(Box::new(reached)))
    }

    pub(crate) fn accepted(&mut self, agent: &str, fence: u64) -> &mut Self {
        self.reached(agent, key(7, 0), fence, Did::Accepted)
    }

    pub(crate) fn effect(&mut self, agent: &str, plan: u64, step: u32) -> &mut Self {
        self.reached(agent, key(plan, step), 5, Did::Effect)
    }

    pub(crate) fn healed(&mut self) -> &mut Self {
        self.push(What::Healed)
    }

    pub(crate) fn broke(&mut self) -> &mut Self {
        self.push(What::Broke { target: target("a"), report_within_ms: 10_000 })
    }

    pub(crate) fn asked(&mut self, request: &str, answer: Answer) -> u64 {
        self.commit(Command::Tick, answer);
        let index = self.index;
        let old = self.events.last().and_then(|event| match &event.what {
            What::Committed(commit) => Some(Entry::clone(&commit.entry)),
            _ => None,
        });
        if let Some(mut entry) = old {
            entry.request = Some(RequestId(request.to_owned()));
            self.amend(|commit| commit.entry = Arc::new(entry));
        }
        index
    }

    pub(crate) fn acknowledged(&mut self, index: u64, request: &str, answer: Answer) -> &mut Self {
        self.push(What::Acknowledged { index, request: request.to_owned(), answer })
    }

    /// The last entry is committed once more under its request id.
    pub(crate) fn again(&mut self) -> &mut Self {
        if let Some(what) = self.events.last().map(|event| event.what.clone()) {
            self.push(what);
        }
        self.amend(|commit| commit.repeated = true)
    }

    /// An entry with the link of that number, chained to the entry before.
    pub(crate) fn linked(&mut self, seq: u64) -> &mut Self {
        let previous = self.events.iter().rev().find_map(|event| match &event.what {
            What::Committed(commit) => match commit.records.first() {
                Some(Record::Audit(link)) => Some(link.hash),
                _ => None,
            },
            _ => None,
        });
        let mut link = AuditRecord {
            seq,
            index: seq,
            at: Timestamp(seq * 1_000),
            principal: Principal::node(NodeId(1)),
            command: "Tick".to_owned(),
            subject: String::new(),
            outcome: "ok".to_owned(),
            entry: Digest::default(),
            trace: TraceId::default(),
            previous: previous.unwrap_or_default(),
            hash: Digest::default(),
            tenant: String::new(),
            incident: None,
        };
        link.hash = link.link();
        self.commit_at(seq, 1, Command::Tick, Ok(Reply::Done));
        self.amend(|commit| commit.records.push(Record::Audit(link)))
    }

    pub(crate) fn applied(&mut self, node: u64, index: u64, records: Digest) -> &mut Self {
        self.push(What::Applied { node: NodeId(node), index, records, state: None })
    }

    pub(crate) fn last(&mut self, node: u64, index: u64, state: Digest) -> &mut Self {
        let node = NodeId(node);
        self.push(What::Final { node, index, state, leads: node == NodeId(1), serves: true })
    }

    pub(crate) fn assign(&mut self, shard: u32, node: u64) -> &mut Self {
        let moves = [(ShardId(shard), NodeId(node))].into();
        self.commit(Command::AssignShards(AssignShards { moves }), Ok(Reply::Done))
    }

    pub(crate) fn lasted(&mut self, instance: &str) -> &mut Self {
        self.push(What::Lasted { target: target(instance) })
    }

    /// What [`Self::report`] reports is over.
    pub(crate) fn clear(&mut self, node: u64, shard: u32, epoch: u64) -> &mut Self {
        let fingerprint = symptom().fingerprint();
        let (shard, epoch) = (ShardId(shard), Epoch(epoch));
        let clear = Command::ClearSymptom(ClearSymptom { shard, epoch, fingerprint });
        self.index += 1;
        self.commit_at(self.index, node, clear, Ok(Reply::Done))
    }

    pub(crate) fn report(&mut self, node: u64, shard: u32, epoch: u64) -> &mut Self {
        let (shard, epoch) = (ShardId(shard), Epoch(epoch));
        let report = Command::ReportSymptom(ReportSymptom { shard, epoch, symptom: symptom() });
        self.index += 1;
        self.commit_at(self.index, node, report, Ok(Reply::Incident(IncidentId(1))))
    }

    fn declare(&mut self, name: &str, spec: Spec) -> &mut Self {
        let metadata = Metadata {
            name: name.to_owned(),
            tenant: "default".to_owned(),
            labels: BTreeMap::new(),
        };
        let apply = ApplyManifest { manifest: Manifest { metadata, spec }, expected: None };
        self.commit(Command::ApplyManifest(Box::new(apply)), Ok(Reply::Done))
    }

    pub(crate) fn budget(&mut self, max_in_flight: u32) -> &mut Self {
        self.declare("default", Spec::Policy(PolicySpec { max_in_flight, ..PolicySpec::default() }))
    }

    pub(crate) fn approver(&mut self, user: &str) -> &mut Self {
        let subjects = vec![Subject::User(user.to_owned())];
        let spec = RoleBindingSpec { role: "approver".to_owned(), subjects };
        self.declare(user, Spec::RoleBinding(spec))
    }

    pub(crate) fn revoke(&mut self, user: &str) -> &mut Self {
        let (tenant, name) = ("default".to_owned(), user.to_owned());
        let key = ManifestKey { kind: Kind::RoleBinding, tenant, name };
        self.commit(Command::DeleteManifest(key), Ok(Reply::Done))
    }

    pub(crate) fn approve(&mut self, plan: u64, user: &str) -> &mut Self {
        let Some(planned) = proposal(1, "a").plan else { return self };
        let approve = Approve { incident: IncidentId(plan), plan_digest: planned.digest() };
        self.commit(Command::Approve(approve), Ok(Reply::Done));
        let user = Principal::user(user);
        self.amend(|commit| {
            let mut entry = Entry::clone(&commit.entry);
            entry.principal = user;
            commit.entry = Arc::new(entry);
        })
    }

    pub(crate) fn freeze(&mut self, scope: FreezeScope) -> &mut Self {
        let freeze = Freeze { scope, reason: String::new(), until: None };
        self.commit(Command::Freeze(freeze), Ok(Reply::Done))
    }

    pub(crate) fn verdict(
        &mut self,
        plan: u64,
        value: VerdictValue,
        functional: Option<VerdictValue>,
    ) -> &mut Self {
        let check = |value| Check {
            kind: "functional".to_owned(),
            value,
            score: Ppm::ONE,
            detail: String::new(),
        };
        let checks = functional.map(check).into_iter().collect();
        let verdict = Verdict { value, score: Ppm::ONE, checks, at: Timestamp(0) };
        let record = RecordVerdict { plan: PlanId(plan), fence: Fence(5), verdict };
        self.commit(Command::RecordVerdict(record), Ok(Reply::Done))
    }
}

fn symptom() -> Symptom {
    Symptom {
        target: target("z"),
        kind: "down".to_owned(),
        severity: Severity::Critical,
        summary: String::new(),
        p_value: Ppm(0),
        signals: Vec::new(),
        since: Timestamp(0),
        time_to_event: None,
        labels: BTreeMap::new(),
        source: "shard-3".to_owned(),
    }
}

fn key(plan: u64, step: u32) -> StepKey {
    StepKey { plan: PlanId(plan), step, direction: Direction::Forward }
}

fn target(instance: &str) -> Target {
    Target {
        tenant: "default".to_owned(),
        service: "orders".to_owned(),
        instance: instance.to_owned(),
    }
}

fn action(name: &str) -> Action {
    Action { name: name.to_owned(), params: BTreeMap::new() }
}

fn proposal(steps: usize, instance: &str) -> Proposal {
    let step = PlannedStep {
        name: "restart".to_owned(),
        action: action("process.restart"),
        target: target(instance),
        agent: "a1".to_owned(),
        safety: SafetyClass::Fenced,
        timeout: Millis(1_000),
        retries: 1,
        undo: Some(action("process.restore")),
        pause_before: Millis(0),
    };
    let verify: VerifySpec = serde_json::from_value(serde_json::json!({"expect": "true"}))
        .unwrap_or_else(|error| {
            unreachable!("an expectation is all that a verification needs: {error}")
        });
    let plan = Plan {
        playbook: "restart".to_owned(),
        playbook_digest: Digest::default(),
        steps: vec![step; steps],
        verify,
        baseline: BTreeMap::new(),
        approval: ApprovalSpec::default(),
        scope: PlaybookScope::default(),
        verify_targets: Vec::new(),
    };
    Proposal {
        class: "application/crash".to_owned(),
        class_confidence: Ppm::ONE,
        class_reasons: Vec::new(),
        root_cause: None,
        recommendations: Vec::new(),
        risks: Vec::new(),
        risk: Ppm::ZERO,
        confidence: Ppm::ONE,
        confidence_reasons: Vec::new(),
        plan: Some(plan),
        overrides: ThresholdOverrides::default(),
    }
}
