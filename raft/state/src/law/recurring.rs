//! What is back soon after its incident's end goes on with that story.
//!
//! ```text
//!   INC-7 ─ escalated ─ told ─ symptoms gone ─ closed ─┬─ refractory time over ──► "resolved" is told
//!                                                      └─ the same symptom is back: INC-9 opens,
//!                                                         the 1st return; the page for INC-7 stands
//! ```
//!
//! That symptoms went away by themselves is told only once they have stayed away: a fault that flaps
//! pages people once, and its end is told once. A new incident each time keeps what an incident is (one
//! decision, one treatment, one end); `recurs` counts the returns. An incident that a human closed, or
//! a remediation that was verified, has ended for people too: they were told, and are told again.
//!
//! Deliberately absent: another limit to treatment. The rates of playbooks count every start on a target
//! whatever the incident; `maxRecurrences` is for those who want a human sooner.

use crate::{
    command::ALERTS_SINCE,
    ids::{Digest, IncidentId, Timestamp},
    incident::{Incident, Recurrence, Resolution},
    law::{context::Context, incidents::tell},
    notice::{Delivery, NoticeKind, NoticeState},
    state::State,
    symptom::Symptom,
};

/// The incident of the same symptom that ended less than the refractory time ago.
pub(super) fn earlier(state: &State, symptom: &Symptom) -> Option<IncidentId> {
    // Older builds do not know of it: they would come to another state.
    if state.cluster_version < ALERTS_SINCE || symptom.predicted() {
        return None;
    }
    let tenant = &symptom.target.tenant;
    let (fingerprint, refractory) = (symptom.fingerprint(), state.policy(tenant).refractory());
    let ended = |incident: &Incident| {
        let by_itself =
            matches!(incident.resolution, Some(Resolution::SelfCleared | Resolution::Remediated));
        incident.resolved_at.filter(|_| by_itself && incident.closed())
    };
    state
        .incidents
        .values()
        .filter(|one| {
            let known = one.symptoms.get(&fingerprint);
            one.tenant == *tenant && known.is_some_and(|known| !known.grouped)
        })
        .filter_map(|one| Some((ended(one)?, one.id)))
        .filter(|(at, _)| state.now < at.plus(refractory))
        .max()
        .map(|(_, id)| id)
}

/// `id` goes on with the story of `earlier`: it counts one return more, and what channels were told
/// and not told the end of stands as said about this one.
pub(super) fn go_on(
    state: &mut State,
    context: &mut Context<'_>,
    earlier: IncidentId,
    id: IncidentId,
) {
    let Some(incident) = state.incidents.get(&id) else { return };
    let policy = state.policy(&incident.tenant);
    let Some(past) = state.incidents.get_mut(&earlier) else { return };
    let times = past.recurs.map_or(0, |recurs| recurs.times).saturating_add(1);
    let recurs = Recurrence { of: earlier, first: past.thread(), times };
    let since = past.resolved_at.map(|at| context.now.since(at)).unwrap_or_default();
    let by = past.plan.filter(|_| past.resolution == Some(Resolution::Remediated));
    let open_pages = if past.followed_by.is_none() { open_pages(past) } else { Vec::new() };
    past.followed_by = past.followed_by.or(Some(id));
    state.archive(context, earlier);
    let treated = by.and_then(|plan| state.sagas.get(&plan));
    let after = treated.map(|saga| format!(" after {}", saga.plan.playbook)).unwrap_or_default();
    let Some(incident) = state.incidents.get_mut(&id) else { return };
    incident.recurs = Some(recurs);
    incident.notices.extend(open_pages);
    let text = format!("{earlier} had ended{after} {since} before: return {times} of it");
    tell(incident, context, text);
    let held = incident.held_by.is_some();
    if !held && policy.max_recurrences.is_some_and(|most| times >= most) {
        let within = policy.refractory();
        let why = format!("it has come back {times} times{after}, each time within {within}");
        state.escalate(context, id, &why);
    }
}

/// What channels heard of an incident whose end they were not told.
fn open_pages(past: &Incident) -> Vec<(String, NoticeState)> {
    let asked_for_good = past.escalation.is_some();
    let open = past.notices.iter().filter(|(_, notice)| {
        let out = matches!(notice.delivery, Delivery::Delivered | Delivery::Unknown(_));
        notice.heard && out && notice.kind != NoticeKind::Resolved
    });
    open.map(|(channel, notice)| {
        // To be asked for approval is another thing than to be told that Medic is at its end.
        let text = if asked_for_good { notice.text } else { Digest::default() };
        (channel.clone(), NoticeState { text, ..notice.clone() })
    })
    .collect()
}

impl State {
    /// Whether people have been told already, of the incident before this one, that a human is needed.
    pub(super) fn page_stands(&self, incident: &Incident, channel: &str) -> bool {
        let Some(recurs) = incident.recurs else { return false };
        let news = self.policy(&incident.tenant).max_recurrences == Some(recurs.times);
        let carried = incident
            .notices
            .get(channel)
            .is_some_and(|past| past.index < incident.id.0 && past.text != Digest::default());
        carried && incident.escalation.is_some() && !news
    }

    /// Until when an incident that ended by itself may be gone on with: its end is told then.
    pub(super) fn may_recur_until(&self, incident: &Incident) -> Option<Timestamp> {
        let by_itself = incident.resolution == Some(Resolution::SelfCleared);
        if !by_itself || self.cluster_version < ALERTS_SINCE {
            return None;
        }
        let until = incident.resolved_at?.plus(self.policy(&incident.tenant).refractory());
        (self.now < until).then_some(until)
    }

    /// When the next such end is told.
    pub(super) fn recurring_ends(&self) -> Option<Timestamp> {
        self.incidents
            .values()
            .filter(|one| one.followed_by.is_none() && one.notices.values().any(|past| past.heard))
            .filter_map(|one| self.may_recur_until(one))
            .min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::{Command, NoteTold, ToldOn},
        ids::Millis,
        incident::IncidentStatus,
        law::tests::lab::*,
        manifest::{ChannelSpec, PagerdutySpec, PolicySpec, SecretRef, Spec},
        saga::VerdictValue,
    };

    fn lab() -> Lab {
        let mut lab = Lab::new();
        let routing_key = SecretRef::File("pd".into());
        let pagerduty = PagerdutySpec { routing_key, url: None, rules: None };
        lab.apply("pager", Spec::Channel(ChannelSpec::Pagerduty(pagerduty)));
        lab
    }

    /// What is owed, and delivered with that: of which incident, filed under which, what.
    fn told(lab: &mut Lab) -> Vec<(IncidentId, IncidentId, NoticeKind)> {
        let mut told = Vec::new();
        while let Some(telling) = lab.state.tellings(&|_, _, _| false).next.pop() {
            let [notice] = telling.notices.as_slice() else { panic!("{telling:?}") };
            told.push((notice.incident, notice.thread, notice.kind));
            let (channel, kind) = (telling.channel.clone(), notice.kind);
            let on = ToldOn { channel, kind, delivery: Delivery::Delivered, also: Vec::new() };
            let (incident, text) = (notice.incident, notice.digest());
            lab.node(1, Command::NoteTold(NoteTold { incident, text, on: Some(on) })).unwrap();
        }
        told
    }

    fn flap(lab: &mut Lab) -> IncidentId {
        let id = lab.report("web", "w", "down");
        if lab.status(id) == IncidentStatus::Open {
            lab.propose(id, lab.proposal(None)).unwrap();
        }
        id
    }

    fn over(lab: &mut Lab) {
        lab.clear("web", "w", "down").unwrap();
        lab.wait(20);
    }

    #[test]
    fn a_fault_that_flaps_pages_once_and_its_end_is_told_once_it_has_stayed_away() {
        let mut lab = lab();
        let first = flap(&mut lab);
        assert_eq!(told(&mut lab), [(first, first, NoticeKind::NeedsHuman)]);
        let mut last = first;
        for times in 1..=4 {
            over(&mut lab);
            assert_eq!(lab.status(last), IncidentStatus::Resolved);
            assert_eq!(told(&mut lab), [], "it may come back");
            lab.fence(2);
            lab.fence(1);
            lab.now += 60_000;
            let again = flap(&mut lab);
            assert_ne!(again, last);
            assert_eq!(lab.incident(again).recurs, Some(Recurrence { of: last, first, times }));
            assert_eq!(lab.incident(last).followed_by, Some(again));
            assert_eq!(told(&mut lab), [], "the page stands");
            last = again;
        }
        over(&mut lab);
        assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 300_000)));
        lab.wait(299);
        assert_eq!(told(&mut lab), []);
        lab.wait(1);
        assert_eq!(told(&mut lab), [(last, first, NoticeKind::Resolved)]);
        assert_eq!((told(&mut lab), lab.state.next_due()), (Vec::new(), None));
        let new = flap(&mut lab);
        assert_eq!(lab.incident(new).recurs, None, "that was long ago");
        assert_eq!(told(&mut lab), [(new, new, NoticeKind::NeedsHuman)]);
    }

    #[test]
    fn what_a_human_closed_has_no_return_and_other_symptoms_have_none() {
        let mut lab = lab();
        let first = flap(&mut lab);
        lab.root(Command::ResolveIncident(Lab::note(first))).unwrap();
        let new = flap(&mut lab);
        assert_eq!(lab.incident(new).recurs, None);
        over(&mut lab);
        let other = lab.report("web", "w", "saturation");
        assert_eq!(lab.incident(other).recurs, None);
    }

    #[test]
    fn a_remediation_that_brings_the_alarm_back_is_named_and_bounded() {
        let mut lab = lab();
        let policy = PolicySpec { max_recurrences: Some(2), ..PolicySpec::default() };
        lab.apply("default", Spec::Policy(policy));
        let heal = |lab: &mut Lab| {
            let id = lab.report("api", "a", "down");
            let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
            lab.run(plan, 0, done());
            lab.clear("api", "a", "down").unwrap();
            lab.verdict(plan, VerdictValue::Passed).unwrap();
            lab.now += 6_000;
            id
        };
        let first = heal(&mut lab);
        let second = heal(&mut lab);
        assert_eq!(lab.incident(second).recurs.unwrap().of, first);
        let said = &lab.incident(second).timeline[1].text;
        assert!(said.contains("had ended after restart") && said.contains("return 1"), "{said}");
        let third = lab.report("api", "a", "down");
        assert_eq!(lab.status(third), IncidentStatus::Escalated);
        let why = lab.incident(third).escalation.clone().unwrap();
        assert!(why.starts_with("it has come back 2 times after restart"), "{why}");
        assert_eq!(told(&mut lab), [(third, first, NoticeKind::NeedsHuman)]);
    }

    #[test]
    fn without_a_policy_the_rate_of_the_playbook_is_the_limit() {
        let mut lab = lab();
        for times in 0..3 {
            let id = lab.report("api", "a", "down");
            assert_eq!(lab.incident(id).recurs.map_or(0, |recurs| recurs.times), times);
            let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
            lab.run(plan, 0, done());
            lab.verdict(plan, VerdictValue::Passed).unwrap();
        }
        let id = lab.report("api", "a", "down");
        let plan = lab.plan(vec![step(&target("api", "a"))]);
        lab.propose(id, lab.proposal(Some(plan))).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
    }

    #[test]
    fn a_refractory_time_of_zero_and_an_older_cluster_know_no_returns() {
        for older in [false, true] {
            let mut lab = lab();
            if older {
                lab.state.cluster_version = ALERTS_SINCE - 1;
            } else {
                let refractory = Some(Millis(0));
                lab.apply(
                    "default",
                    Spec::Policy(PolicySpec { refractory, ..PolicySpec::default() }),
                );
            }
            let first = flap(&mut lab);
            told(&mut lab);
            over(&mut lab);
            assert_eq!(told(&mut lab), [(first, first, NoticeKind::Resolved)]);
            let new = flap(&mut lab);
            assert_eq!(lab.incident(new).recurs, None);
            assert_eq!(told(&mut lab), [(new, new, NoticeKind::NeedsHuman)]);
        }
    }

    #[test]
    fn to_be_asked_for_approval_is_no_page_that_stands() {
        let mut lab = lab();
        lab.apply("restart", {
            let mut playbook = playbook();
            playbook.mode = crate::manifest::Mode::Approve;
            Spec::Playbook(playbook)
        });
        let first = lab.report("api", "a", "down");
        let plan = lab.plan(vec![step(&target("api", "a"))]);
        lab.propose(first, lab.proposal(Some(plan))).unwrap();
        assert_eq!(lab.status(first), IncidentStatus::AwaitingApproval);
        assert_eq!(told(&mut lab), [(first, first, NoticeKind::NeedsHuman)]);
        lab.clear("api", "a", "down").unwrap();
        lab.wait(20);
        let again = lab.report("api", "a", "down");
        lab.propose(again, lab.proposal(None)).unwrap();
        assert_eq!(told(&mut lab), [(again, first, NoticeKind::NeedsHuman)]);
    }
}
