//! Safety controls: what may run beside what, how often, and how much at once.
//!
//! | control | when it says no | why so |
//! |---|---|---|
//! | attempt cap, breaker, rates, own size over the blast radius | escalate | trying again will not help soon: a human should look |
//! | budget, locks, cooldown, blast radius, quorum members, availability | hold back | passes by itself when other work ends |
//!
//! They are asked at adoption (plans that may act alone) and again before the first step, however
//! much later that is; availability before every step. A plan is *in flight* while it holds locks;
//! one that ended `Unknown` does so until a human settles it.

use std::collections::BTreeSet;

use crate::{
    action::action_info,
    ids::{PlanId, Timestamp},
    incident::SymptomState,
    law::topology::serving,
    manifest::Rate,
    plan::Plan,
    planted::{Planted, planted},
    saga::SagaStatus,
    state::State,
    symptom::{Severity, Target},
};

/// Starts remembered per playbook and per target; no rate in a manifest counts further.
pub(super) const MAX_STARTS: usize = 1_024;
/// Kinds of symptoms that say an instance serves nothing.
const OUT_KINDS: [&str; 3] = ["down", "unresponsive", "agent-lost"];

/// A plan that wants to start.
pub(super) struct Candidate<'a> {
    /// Its id, once it has one.
    pub id: Option<PlanId>,
    /// Its tenant.
    pub tenant: &'a str,
    /// The plan.
    pub plan: &'a Plan,
}

/// A control that time alone will not satisfy soon.
pub(super) fn never(state: &State, candidate: &Candidate<'_>) -> Option<String> {
    let plan = candidate.plan;
    let key = (candidate.tenant.to_owned(), plan.playbook.clone());
    let breaker = state.breakers.get(&key);
    if let Some(until) = breaker.and_then(|breaker| breaker.open_until).filter(|t| *t > state.now) {
        let until = crate::time::format_rfc3339(until);
        return Some(format!(
            "playbook {} keeps failing: breaker open until {until}",
            plan.playbook
        ));
    }
    if used_up(state.now, state.playbook_starts.get(&key), plan.scope.per_playbook) {
        let rate = plan.scope.per_playbook;
        return Some(format!("playbook {} ran {rate} already", plan.playbook));
    }
    for target in plan.targets() {
        let starts = state.target_starts.get(&(plan.playbook.clone(), target.clone()));
        if used_up(state.now, starts, plan.scope.per_target) {
            let rate = plan.scope.per_target;
            return Some(format!("playbook {} ran {rate} on {target} already", plan.playbook));
        }
    }
    let (alone, bound) = (plan.targets().len(), blast_bound(state, candidate.tenant));
    (count(alone) > bound).then(|| {
        format!("it touches {alone} instances, and the blast radius allows {bound} at once")
    })
}

/// Whether a rate is used up.
fn used_up(
    now: Timestamp,
    starts: Option<&std::collections::VecDeque<Timestamp>>,
    rate: Rate,
) -> bool {
    let recent = starts.into_iter().flatten().filter(|at| now.since(**at) < rate.per).count();
    count(recent) >= u64::from(rate.count)
}

/// A control that passes when other work ends.
pub(super) fn not_yet(state: &State, candidate: &Candidate<'_>) -> Option<String> {
    let others: BTreeSet<PlanId> =
        state.locks.values().copied().filter(|id| Some(*id) != candidate.id).collect();
    budget(state, candidate, &others)
        .or_else(|| locked(state, candidate))
        .or_else(|| cooling(state, candidate))
        .or_else(|| blast_radius(state, candidate))
        .or_else(|| quorum(state, candidate))
}

fn budget(state: &State, candidate: &Candidate<'_>, others: &BTreeSet<PlanId>) -> Option<String> {
    let in_flight = others
        .iter()
        .filter_map(|id| state.sagas.get(id))
        .filter(|saga| saga.tenant == candidate.tenant)
        .filter(|saga| {
            !(planted(Planted::BudgetForgotten) && saga.created_at < state.fence.at
                || planted(Planted::UnknownNotCounted) && saga.status == SagaStatus::Unknown)
        })
        .count();
    let bound = state.policy(candidate.tenant).max_in_flight;
    (count(in_flight) >= u64::from(bound))
        .then(|| format!("{in_flight} plans are in flight, and the policy allows {bound}"))
}

fn locked(state: &State, candidate: &Candidate<'_>) -> Option<String> {
    candidate.plan.targets().into_iter().find_map(|target| {
        let holder = state.locks.get(target).filter(|id| Some(**id) != candidate.id)?;
        Some(format!("{holder} is treating {target}"))
    })
}

fn cooling(state: &State, candidate: &Candidate<'_>) -> Option<String> {
    let cooldown = candidate.plan.scope.cooldown;
    candidate.plan.targets().into_iter().find_map(|target| {
        let ended = state.target_ends.get(target)?;
        (state.now < ended.plus(cooldown))
            .then(|| format!("{target} was treated less than {cooldown} ago"))
    })
}

/// Instances of a tenant that plans in flight may touch at once; always one.
fn blast_bound(state: &State, tenant: &str) -> u64 {
    let share = state.policy(tenant).max_blast_radius;
    share.of(state.serving_instances(tenant)).max(1)
}

fn blast_radius(state: &State, candidate: &Candidate<'_>) -> Option<String> {
    let mut touched: BTreeSet<&Target> = candidate.plan.targets();
    touched.extend(state.locks.keys().filter(|target| target.tenant == candidate.tenant));
    let bound = blast_bound(state, candidate.tenant);
    (count(touched.len()) > bound).then(|| {
        let touched = touched.len();
        format!("{touched} instances would be touched at once, and the blast radius allows {bound}")
    })
}

/// Hosts of Medic's own nodes are never treated in parallel, whatever tenant they belong to.
fn quorum(state: &State, candidate: &Candidate<'_>) -> Option<String> {
    let member = |target: &Target| state.instance(target).is_some_and(|found| found.quorum_member);
    if !candidate.plan.targets().into_iter().any(member) {
        return None;
    }
    state.locks.iter().find_map(|(target, holder)| {
        (Some(*holder) != candidate.id && member(target))
            .then(|| format!("{holder} is treating {target}, which hosts a quorum member too"))
    })
}

/// Whether a step would leave too few instances of its service: those out of order, those that
/// other plans are treating, and this one. An instance that is out already costs nothing to treat.
pub(super) fn unavailable(state: &State, candidate: &Candidate<'_>, at: usize) -> Option<String> {
    let step = candidate.plan.steps.get(at)?;
    if !action_info(&step.action.name).is_none_or(|info| info.interrupts) {
        return None;
    }
    let target = &step.target;
    let service = state.service(&target.tenant, &target.service)?;
    let mut out = out_of_order(state, target);
    if out.contains(target) || state.instance(target).is_some_and(|found| found.standby) {
        return None;
    }
    let of_service =
        |other: &&Target| other.tenant == target.tenant && other.service == target.service;
    let treated = state.locks.iter().filter(|(_, holder)| Some(**holder) != candidate.id);
    out.extend(treated.map(|(other, _)| other).filter(of_service));
    out.insert(target);
    let bound = candidate.plan.scope.max_unavailable.of(serving(service));
    (count(out.len()) > bound).then(|| {
        let out = out.len();
        format!("{out} instances of {} would be out, and {bound} may be", target.service)
    })
}

/// Instances of a service that serve nothing at present.
fn out_of_order<'a>(state: &'a State, target: &Target) -> BTreeSet<&'a Target> {
    let out = |known: &SymptomState| {
        let symptom = &known.symptom;
        known.cleared_at.is_none()
            && !symptom.predicted()
            && !symptom.target.instance.is_empty()
            && symptom.target.tenant == target.tenant
            && symptom.target.service == target.service
            && (symptom.severity == Severity::Critical
                || OUT_KINDS.contains(&symptom.kind.as_str()))
    };
    state
        .incidents
        .values()
        .filter(|incident| !incident.closed())
        .flat_map(|incident| incident.symptoms.values())
        .filter(|known| out(known))
        .map(|known| &known.symptom.target)
        .collect()
}

/// Takes the locks of a plan that was admitted.
pub(super) fn lock(state: &mut State, plan: PlanId) {
    let Some(saga) = state.sagas.get(&plan) else { return };
    for target in saga.plan.targets() {
        state.locks.insert(target.clone(), plan);
    }
}

/// Counts a start against the rates.
pub(super) fn count_start(state: &mut State, plan: PlanId) {
    let Some(saga) = state.sagas.get(&plan) else { return };
    let (tenant, playbook) = (saga.tenant.clone(), saga.plan.playbook.clone());
    let now = state.now;
    let keep = |starts: &mut std::collections::VecDeque<Timestamp>| {
        starts.push_back(now);
        while starts.len() > MAX_STARTS {
            starts.pop_front();
        }
    };
    for target in saga.plan.targets() {
        keep(state.target_starts.entry((playbook.clone(), target.clone())).or_default());
    }
    keep(state.playbook_starts.entry((tenant, playbook)).or_default());
}

fn count(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{
        applied::Reply, command::Command, decision::Route, ids::*, incident::IncidentStatus,
        law::tests::lab::*, manifest::*, plan::Direction, saga::VerdictValue,
    };

    fn try_adopt(lab: &mut Lab, id: IncidentId, instances: &[(&str, &str)]) -> crate::Answer {
        let steps = instances.iter().map(|(service, one)| step(&target(service, one))).collect();
        let plan = lab.plan(steps);
        lab.propose(id, lab.proposal(Some(plan)))
    }

    /// A lab whose playbook has this scope.
    fn lab_with(change: impl FnOnce(&mut PlaybookScope)) -> Lab {
        let mut lab = Lab::new();
        let mut playbook = playbook();
        change(&mut playbook.scope);
        lab.apply("restart", Spec::Playbook(playbook));
        lab
    }

    fn escalated(answer: &crate::Answer) -> bool {
        matches!(answer, Ok(Reply::Decided { plan: None, route: Route::EscalateToHuman }))
    }

    #[test]
    fn the_budget_counts_plans_in_flight_and_unknown_ones() {
        let mut lab = Lab::new();
        let policy = PolicySpec { max_in_flight: 1, ..PolicySpec::default() };
        lab.apply("default", Spec::Policy(policy));
        let first = lab.report("db", "d", "down");
        let second = lab.report("web", "w", "down");
        let plan = lab.adopt(first, vec![step(&target("db", "d"))]);
        assert!(held(&try_adopt(&mut lab, second, &[("web", "w")])).contains("in flight"));
        lab.run(plan, 0, unknown());
        assert!(held(&try_adopt(&mut lab, second, &[("web", "w")])).contains("in flight"));
        lab.root(Command::ResolveIncident(Lab::note(first))).unwrap();
        try_adopt(&mut lab, second, &[("web", "w")]).unwrap();
    }

    #[test]
    fn a_target_is_treated_by_one_plan_at_a_time() {
        let mut lab = Lab::new();
        let first = lab.report("api", "a", "down");
        lab.adopt(first, vec![step(&target("api", "a"))]);
        let second = lab.report("api", "b", "down");
        assert_ne!(first, second);
        let answer = try_adopt(&mut lab, second, &[("api", "a")]);
        assert!(held(&answer).contains("is treating api/a"));
    }

    #[test]
    fn a_cooldown_outlives_the_plan() {
        let mut lab = lab_with(|scope| scope.cooldown = Millis(5_000));
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, failed(false));
        assert_eq!(lab.status(id), IncidentStatus::Open);
        assert!(held(&try_adopt(&mut lab, id, &[("api", "a")])).contains("less than 5s ago"));
        lab.fence(2);
        assert!(try_adopt(&mut lab, id, &[("api", "a")]).is_err(), "an election resets nothing");
        lab.wait(5);
        try_adopt(&mut lab, id, &[("api", "a")]).unwrap();
    }

    #[test]
    fn attempts_rates_and_breakers_ask_a_human() {
        let mut lab = lab_with(|scope| scope.max_attempts = 1);
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, failed(false));
        assert_eq!(lab.status(id), IncidentStatus::Escalated, "the cap is reached");

        let mut lab = lab_with(|scope| {
            scope.max_attempts = 9;
            scope.per_target = Rate { count: 2, per: Millis(60_000) };
        });
        let id = lab.report("api", "a", "down");
        for _ in 0..2 {
            let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
            lab.run(plan, 0, failed(false));
        }
        assert!(escalated(&try_adopt(&mut lab, id, &[("api", "a")])), "the rate is used up");
        assert!(lab.incident(id).escalation.clone().unwrap().contains("2/1m"));

        let mut lab = lab_with(|scope| scope.max_attempts = 9);
        let id = lab.report("api", "a", "down");
        for _ in 0..3 {
            let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
            lab.run(plan, 0, failed(false));
        }
        assert!(escalated(&try_adopt(&mut lab, id, &[("api", "a")])), "the breaker is open");
        lab.wait(600);
        lab.root(Command::ReopenIncident(Lab::note(id))).unwrap();
        lab.now += 3_600_000;
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, failed(false));
        assert!(
            escalated(&try_adopt(&mut lab, id, &[("api", "a")])),
            "half open, then open at once"
        );
    }

    #[test]
    fn success_closes_the_breaker() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, failed(false));
        assert_eq!(lab.state.breakers.len(), 1);
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, done());
        lab.verdict(plan, VerdictValue::Passed).unwrap();
        assert!(lab.state.breakers.is_empty());
        let lesson = lab.state.lessons.values().next().unwrap();
        assert_eq!((lesson.succeeded, lesson.failed), (1, 1));
    }

    #[test]
    fn the_blast_radius_holds_back_or_asks_when_one_plan_exceeds_it() {
        // 8 instances, half of them: 4.
        let mut lab = Lab::new();
        let id = lab.report("web", "w", "down");
        let five = [("web", "w"), ("web", "x"), ("web", "y"), ("web", "z"), ("api", "a")];
        assert!(escalated(&try_adopt(&mut lab, id, &five)));

        let mut lab = Lab::new();
        let first = lab.report("web", "w", "down");
        try_adopt(&mut lab, first, &five[..3]).unwrap();
        let second = lab.report("api", "a", "down");
        let answer = try_adopt(&mut lab, second, &[("api", "a"), ("api", "b")]);
        assert!(held(&answer).contains("blast radius"));
        try_adopt(&mut lab, second, &[("api", "a")]).unwrap();
    }

    #[test]
    fn quorum_members_are_treated_one_at_a_time() {
        let mut lab = Lab::new();
        for (name, instance) in [("db", "d"), ("api", "a")] {
            let mut spec = service(&[instance], &[]);
            spec.instances[0].quorum_member = true;
            lab.apply(name, Spec::Service(spec));
        }
        let first = lab.report("db", "d", "down");
        try_adopt(&mut lab, first, &[("db", "d")]).unwrap();
        let second = lab.report("api", "a", "down");
        assert!(held(&try_adopt(&mut lab, second, &[("api", "a")])).contains("quorum member"));
    }

    #[test]
    fn a_healthy_instance_is_not_taken_down_beside_a_sick_one() {
        // 3 instances at 34 %: one may be out.
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        assert!(held(&try_adopt(&mut lab, id, &[("api", "b")])).contains("would be out"));
        // The sick one itself costs nothing; then the next one waits until it is well.
        let both = [("api", "a"), ("api", "b")];
        try_adopt(&mut lab, id, &both).unwrap();
        let plan = lab.incident(id).plan.unwrap();
        lab.run(plan, 0, done());
        assert!(held(&lab.start(plan, 1, Direction::Forward)).contains("would be out"));
        lab.clear("api", "a", "down").unwrap();
        lab.start(plan, 1, Direction::Forward).unwrap();
    }

    #[test]
    fn all_instances_down_are_still_treated() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.report("api", "b", "down");
        lab.report("api", "c", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "b"))]);
        lab.run(plan, 0, done());
    }

    #[test]
    fn what_waits_too_long_between_steps_is_rolled_back() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a")), step(&target("api", "b"))]);
        lab.run(plan, 0, done());
        lab.start(plan, 1, Direction::Forward).unwrap_err();
        lab.wait(899);
        assert_eq!(lab.status(id), IncidentStatus::Remediating);
        lab.wait(1);
        assert_eq!(lab.status(id), IncidentStatus::RollingBack);
    }
}
