//! A small cluster to experiment on: two nodes (1 leads, 2 watches every shard), an administrator,
//! three services `web` → `api` → `db`, one playbook. Every application is checked for what must
//! always hold.

use std::collections::BTreeMap;

use crate::{
    applied::{Answer, Applied, Effect, Record, Refusal, Reply},
    command::*,
    decision::{Proposal, ThresholdOverrides},
    ids::*,
    incident::{Incident, IncidentStatus},
    manifest::*,
    plan::{Action, Direction, Plan, PlannedStep},
    rbac::Principal,
    saga::{Outcome, Saga, SagaStatus, Verdict, VerdictValue},
    state::{FreezeScope, MAX_CLOSED, SHARDS, State},
    symptom::{Severity, Symptom, Target},
};

/// The tenant of the lab.
pub(crate) const TENANT: &str = "default";
/// Who may do everything.
pub(crate) const ROOT: &str = "root";

/// See the module.
pub(crate) struct Lab {
    pub state: State,
    pub now: u64,
    pub records: Vec<Record>,
    pub log: Vec<Entry>,
    pub effects: Vec<Effect>,
    /// The request id of the next entry.
    pub request: Option<String>,
}

pub(crate) fn target(service: &str, instance: &str) -> Target {
    Target { tenant: TENANT.into(), service: service.into(), instance: instance.into() }
}

pub(crate) fn symptom(service: &str, instance: &str, kind: &str) -> Symptom {
    Symptom {
        target: target(service, instance),
        kind: kind.into(),
        severity: Severity::Warning,
        summary: format!("{kind} of {service}/{instance}"),
        p_value: Ppm(10),
        signals: Vec::new(),
        since: Timestamp(0),
        time_to_event: None,
        labels: BTreeMap::new(),
        source: "lab".into(),
    }
}

pub(crate) fn manifest(name: &str, tenant: &str, spec: Spec) -> Manifest {
    let metadata = Metadata { name: name.into(), tenant: tenant.into(), labels: BTreeMap::new() };
    Manifest { metadata, spec }
}

pub(crate) fn service(instances: &[&str], depends_on: &[&str]) -> ServiceSpec {
    let instance = |name: &&str| InstanceSpec {
        name: (*name).into(),
        agent: Some("host-1".into()),
        host: "127.0.0.1".into(),
        port: None,
        region: Some("eu".into()),
        standby: false,
        quorum_member: false,
    };
    ServiceSpec {
        criticality: Criticality::Medium,
        compliance: Vec::new(),
        depends_on: depends_on.iter().map(ToString::to_string).collect(),
        process: None,
        instances: instances.iter().map(instance).collect(),
        probes: Vec::new(),
        scrape: None,
        indicators: Vec::new(),
        slo: None,
    }
}

pub(crate) fn playbook() -> PlaybookSpec {
    PlaybookSpec {
        mode: Mode::Auto,
        matchers: Vec::new(),
        when: None,
        scope: PlaybookScope { cooldown: Millis(0), ..PlaybookScope::default() },
        approval: ApprovalSpec::default(),
        steps: vec![StepSpec {
            name: "restart".into(),
            action: "process.restart".into(),
            params: BTreeMap::new(),
            targets: StepTargets::Affected,
            safety: None,
            timeout: Millis::from_secs(30),
            retry: RetrySpec { max: 0 },
            undo: None,
            rollout: None,
        }],
        verify: VerifySpec {
            expect: "probe.http_ok == 1.0".into(),
            hold: Millis::from_secs(1),
            timeout: Millis::from_secs(30),
            no_data: NoData::Inconclusive,
        },
        escalate: Vec::new(),
        preventive: false,
    }
}

pub(crate) fn binding(role: &str, users: &[&str]) -> Spec {
    let subjects = users.iter().map(|user| Subject::User((*user).into())).collect();
    Spec::RoleBinding(RoleBindingSpec { role: role.into(), subjects })
}

/// A step on an instance of `api` or `db`; undoable.
pub(crate) fn step(target: &Target) -> PlannedStep {
    let action = |name: &str| Action { name: name.into(), params: BTreeMap::new() };
    PlannedStep {
        name: format!("restart-{}", target.instance),
        action: action("process.restart"),
        target: target.clone(),
        agent: "host-1".into(),
        safety: SafetyClass::Fenced,
        timeout: Millis::from_secs(30),
        retries: 0,
        undo: Some(action("process.restore")),
        pause_before: Millis(0),
    }
}

pub(crate) fn done() -> Outcome {
    Outcome::Done(BTreeMap::new())
}

pub(crate) fn failed(retryable: bool) -> Outcome {
    Outcome::Failed { reason: "no".into(), retryable }
}

pub(crate) fn unknown() -> Outcome {
    Outcome::Unknown { reason: "nobody knows".into() }
}

impl Lab {
    pub(crate) fn new() -> Self {
        let mut lab = Self {
            state: State::new(),
            now: 1_000_000,
            records: Vec::new(),
            log: Vec::new(),
            effects: Vec::new(),
            request: None,
        };
        for node in [1, 2] {
            let register = RegisterNode {
                node: NodeId(node),
                region: "eu".into(),
                api_addr: format!("127.0.0.1:{node}"),
                boot: BootId(node),
                version: "lab".into(),
                understands: Some(CLUSTER_VERSION),
                weight: None,
            };
            lab.node(node, Command::RegisterNode(register)).unwrap();
        }
        lab.fence(1);
        let moves = (0..SHARDS).map(|shard| (ShardId(shard), NodeId(2))).collect();
        lab.node(1, Command::AssignShards(AssignShards { moves })).unwrap();
        let first = Manifest { ..manifest("admins", "*", binding("admin", &[ROOT])) };
        lab.node(1, apply(first)).unwrap();
        lab.apply("db", Spec::Service(service(&["d"], &[])));
        lab.apply("api", Spec::Service(service(&["a", "b", "c"], &["db"])));
        lab.apply("web", Spec::Service(service(&["w", "x", "y", "z"], &["api"])));
        lab.apply("restart", Spec::Playbook(playbook()));
        lab.node(1, Command::SetClusterVersion(CLUSTER_VERSION)).unwrap();
        lab
    }

    /// Applies one entry, and checks what must always hold.
    pub(crate) fn entry(&mut self, principal: Principal, command: Command) -> Applied {
        let request = self.request.take().map(RequestId);
        let at = Timestamp(self.now);
        let entry = Entry { at, principal, request, trace: TraceId([7; 16]), command };
        let before = self.state.clone();
        let index = self.state.applied + 1;
        let applied = self.state.apply(index, &entry);
        self.log.push(entry);
        self.records.extend(applied.records.clone());
        self.effects = applied.effects.clone();
        if applied.answer.is_err() {
            assert_eq!(essence(&before), essence(&self.state), "a refusal changed the state");
        }
        self.check_rehearsal(&before);
        check(&self.state);
        applied
    }

    /// What is rehearsed on a copy that holds manifests alone is answered there as here.
    fn check_rehearsal(&self, before: &State) {
        let Some(entry) = self.log.last() else { return };
        if !matches!(entry.command, Command::ApplyManifest(_) | Command::DeleteManifest(_)) {
            return;
        }
        let (mut whole, mut part) = (before.clone(), before.for_manifests());
        let index = before.applied + 1;
        assert_eq!(part.apply(index, entry).answer, whole.apply(index, entry).answer);
        assert_eq!(part.manifests, whole.manifests, "a rehearsal differs");
    }

    pub(crate) fn node(&mut self, node: u64, command: Command) -> Answer {
        self.entry(Principal::node(NodeId(node)), command).answer
    }

    pub(crate) fn user(&mut self, user: &str, command: Command) -> Answer {
        self.entry(Principal::user(user), command).answer
    }

    pub(crate) fn root(&mut self, command: Command) -> Answer {
        self.user(ROOT, command)
    }

    pub(crate) fn apply(&mut self, name: &str, spec: Spec) {
        self.root(apply(manifest(name, TENANT, spec))).unwrap();
    }

    /// Lets time pass, and ticks.
    pub(crate) fn wait(&mut self, secs: u64) {
        self.now += secs * 1000;
        self.node(1, Command::Tick).unwrap();
    }

    /// A leader takes office.
    pub(crate) fn fence(&mut self, node: u64) -> Fence {
        let boot = BootId(self.state.applied);
        match self.node(node, Command::Fence(FenceCommand { node: NodeId(node), boot })) {
            Ok(Reply::Fenced(fence)) => fence,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn report_symptom(&mut self, symptom: Symptom) -> Answer {
        let shard = State::shard_of(&symptom.target);
        let epoch = self.state.shards[&shard].epoch;
        self.node(2, Command::ReportSymptom(ReportSymptom { shard, epoch, symptom }))
    }

    /// Reports, and gives the incident.
    pub(crate) fn report(&mut self, service: &str, instance: &str, kind: &str) -> IncidentId {
        self.report_with(symptom(service, instance, kind))
    }

    /// Reports what was made beforehand, and gives the incident.
    pub(crate) fn report_with(&mut self, symptom: Symptom) -> IncidentId {
        match self.report_symptom(symptom) {
            Ok(Reply::Incident(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn clear(&mut self, service: &str, instance: &str, kind: &str) -> Answer {
        let symptom = symptom(service, instance, kind);
        let shard = State::shard_of(&symptom.target);
        let epoch = self.state.shards[&shard].epoch;
        let fingerprint = symptom.fingerprint();
        self.node(2, Command::ClearSymptom(ClearSymptom { shard, epoch, fingerprint }))
    }

    pub(crate) fn incident(&self, id: IncidentId) -> &Incident {
        &self.state.incidents[&id]
    }

    pub(crate) fn status(&self, id: IncidentId) -> IncidentStatus {
        self.incident(id).status
    }

    pub(crate) fn saga(&self, plan: PlanId) -> &Saga {
        &self.state.sagas[&plan]
    }

    /// A plan of the playbook `restart`.
    pub(crate) fn plan(&self, steps: Vec<PlannedStep>) -> Plan {
        self.plan_of("restart", steps)
    }

    pub(crate) fn plan_of(&self, name: &str, steps: Vec<PlannedStep>) -> Plan {
        let stored = self.state.stored(Kind::Playbook, TENANT, name).unwrap();
        let Spec::Playbook(playbook) = &stored.manifest.spec else { panic!("no playbook") };
        Plan {
            playbook: name.into(),
            playbook_digest: stored.digest,
            verify_targets: steps.iter().map(|step| step.target.clone()).collect(),
            steps,
            verify: playbook.verify.clone(),
            baseline: BTreeMap::new(),
            approval: playbook.approval.clone(),
            scope: playbook.scope.clone(),
        }
    }

    pub(crate) fn proposal(&self, plan: Option<Plan>) -> Proposal {
        Proposal {
            class: "application/crash".into(),
            class_confidence: Ppm(900_000),
            class_reasons: Vec::new(),
            root_cause: None,
            recommendations: Vec::new(),
            risks: Vec::new(),
            risk: Ppm(100_000),
            confidence: Ppm(900_000),
            confidence_reasons: Vec::new(),
            plan,
            overrides: ThresholdOverrides::default(),
        }
    }

    pub(crate) fn propose(&mut self, incident: IncidentId, proposal: Proposal) -> Answer {
        let based_on = self.incident(incident).revision;
        let fence = self.state.fence.fence;
        let node = self.state.fence.node.0;
        let adopt = AdoptDecision { incident, based_on, fence, proposal };
        self.node(node, Command::AdoptDecision(Box::new(adopt)))
    }

    /// Decides for these steps, and gives the plan.
    pub(crate) fn adopt(&mut self, incident: IncidentId, steps: Vec<PlannedStep>) -> PlanId {
        let plan = self.plan(steps);
        match self.propose(incident, self.proposal(Some(plan))) {
            Ok(Reply::Decided { plan: Some(plan), .. }) => plan,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self, plan: PlanId, step: u32, direction: Direction) -> Answer {
        self.start_or_resume(plan, step, direction, false)
    }

    pub(crate) fn start_or_resume(
        &mut self,
        plan: PlanId,
        step: u32,
        direction: Direction,
        resume: bool,
    ) -> Answer {
        let fence = self.state.fence.fence;
        let node = self.state.fence.node.0;
        self.node(node, Command::StartStep(StartStep { plan, step, direction, fence, resume }))
    }

    pub(crate) fn finish(
        &mut self,
        plan: PlanId,
        step: u32,
        direction: Direction,
        outcome: Outcome,
    ) -> Answer {
        let fence = self.state.fence.fence;
        let node = self.state.fence.node.0;
        self.node(node, Command::FinishStep(FinishStep { plan, step, direction, fence, outcome }))
    }

    /// Starts and finishes a forward step.
    pub(crate) fn run(&mut self, plan: PlanId, step: u32, outcome: Outcome) {
        self.start(plan, step, Direction::Forward).unwrap();
        self.finish(plan, step, Direction::Forward, outcome).unwrap();
    }

    pub(crate) fn verdict(&mut self, plan: PlanId, value: VerdictValue) -> Answer {
        let score = if value == VerdictValue::Passed { Ppm(900_000) } else { Ppm(500_000) };
        let verdict = Verdict { value, score, checks: Vec::new(), at: Timestamp(0) };
        let fence = self.state.fence.fence;
        let node = self.state.fence.node.0;
        self.node(node, Command::RecordVerdict(RecordVerdict { plan, fence, verdict }))
    }

    pub(crate) fn approve(&mut self, user: &str, incident: IncidentId) -> Answer {
        let plan = self.incident(incident).plan.unwrap();
        let plan_digest = self.saga(plan).digest;
        self.user(user, Command::Approve(Approve { incident, plan_digest }))
    }

    pub(crate) fn note(incident: IncidentId) -> IncidentNote {
        IncidentNote { incident, note: "because".into() }
    }

    pub(crate) fn freeze(&mut self, scope: FreezeScope) {
        let freeze = Freeze { scope, reason: "lab".into(), until: None };
        self.root(Command::Freeze(freeze)).unwrap();
    }

    /// What is owed, without messages to people.
    pub(crate) fn owed(&self) -> Vec<Effect> {
        let mut owed = self.state.pending_effects();
        owed.retain(|effect| !matches!(effect, Effect::Notify(_)));
        owed
    }
}

pub(crate) fn apply(manifest: Manifest) -> Command {
    Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: None }))
}

pub(crate) fn held(answer: &Answer) -> &str {
    match answer {
        Err(Refusal::HeldBack(why)) => why,
        other => panic!("not held back: {other:?}"),
    }
}

/// The state without what every entry may change.
pub(crate) fn essence(state: &State) -> State {
    let mut state = state.clone();
    state.applied = 0;
    state.now = Timestamp(0);
    state.audit = crate::state::AuditHead::default();
    state.requests.clear();
    state.request_order.clear();
    state.totals.refused_symptoms = 0;
    state.held_since.clear();
    for incident in state.incidents.values_mut() {
        incident.held_by = None;
    }
    state
}

/// What must hold after every entry.
pub(crate) fn check(state: &State) {
    for (target, plan) in &state.locks {
        let saga = &state.sagas[plan];
        assert!(!saga.status.ended() || saga.status == SagaStatus::Unknown, "{target}: {plan}");
        assert!(saga.plan.targets().contains(target));
    }
    for (fingerprint, id) in &state.fingerprints {
        let incident = &state.incidents[id];
        assert!(!incident.closed() && incident.symptoms.contains_key(fingerprint), "{id}");
    }
    for saga in state.sagas.values() {
        check_saga(state, saga);
    }
    for incident in state.incidents.values() {
        check_incident(state, incident);
    }
    let closed = state.incidents.values().filter(|incident| incident.closed()).count();
    assert!(closed <= MAX_CLOSED + state.locks.len());
    assert_eq!(state.requests.len(), state.request_order.len());
    crate::law::judge::tests::check(state);
}

fn check_saga(state: &State, saga: &Saga) {
    let begun = saga.started_at.is_some();
    if begun && (!saga.status.ended() || saga.status == SagaStatus::Unknown) {
        let holds = |target: &&Target| state.locks.get(target) == Some(&saga.id);
        let settled = saga.status == SagaStatus::Unknown
            && !state.locks.values().any(|holder| *holder == saga.id);
        assert!(settled || saga.plan.targets().iter().all(holds), "{} lacks locks", saga.id);
        for (step, planned) in saga.steps.iter().zip(&saga.plan.steps) {
            let unknown = step.status == crate::saga::StepStatus::Unknown && !settled;
            let frozen = state.freezes.get(&FreezeScope::Target(planned.target.clone()));
            let stays = frozen.is_some_and(|freeze| freeze.until.is_none());
            assert!(!unknown || stays, "{} is unknown about {}", saga.id, planned.target);
        }
    }
    assert_eq!(saga.digest, saga.plan.digest(), "a plan was edited");
    assert!(saga.steps.iter().filter(|step| step.intent.is_some()).count() <= 1);
    if saga.status.ended() {
        use crate::saga::StepStatus::{Done, Failed, Pending, UndoFailed, Undone, Unknown};
        for step in &saga.steps {
            assert!(step.intent.is_none(), "{} ended with a step under way", saga.id);
            let over = [Done, Failed, Undone, UndoFailed, Unknown].contains(&step.status);
            assert!(over || (step.status == Pending && step.started_at.is_none()));
        }
    }
}

fn check_incident(state: &State, incident: &Incident) {
    let saga = incident.plan.and_then(|plan| state.sagas.get(&plan));
    let live = saga.filter(|saga| !saga.status.ended()).map(|saga| saga.status);
    let expected = match incident.status {
        IncidentStatus::AwaitingApproval => Some(SagaStatus::AwaitingApproval),
        IncidentStatus::Remediating => Some(SagaStatus::Running),
        IncidentStatus::Verifying => Some(SagaStatus::Verifying),
        IncidentStatus::RollingBack => Some(SagaStatus::Unwinding),
        IncidentStatus::Open | IncidentStatus::Escalated | IncidentStatus::Resolved => None,
    };
    assert_eq!(live, expected, "{} is {}", incident.id, incident.status);
    assert!(incident.timeline.len() <= crate::incident::MAX_TIMELINE);
    assert!(incident.symptoms.len() <= crate::incident::MAX_SYMPTOMS);
    assert_eq!(incident.closed(), incident.resolution.is_some());
}
