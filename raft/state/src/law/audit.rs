//! The audit chain: one link per entry, ticks that changed nothing excepted.

use crate::{
    applied::{Answer, AuditRecord, Record, Reply},
    codec,
    command::{Command, Drain, Entry},
    ids::{Digest, IncidentId, PlanId},
    law::{context::Context, permit},
    planted::{Planted, planted},
    state::{AuditHead, State},
};

/// About what a command is.
pub(super) struct Subject {
    tenant: String,
    incident: Option<IncidentId>,
    text: String,
}

/// Looked up before the command is applied: afterwards the thing may be gone.
pub(super) fn subject(state: &State, command: &Command) -> Subject {
    let cluster = |text: String| Subject { tenant: String::new(), incident: None, text };
    let tenant =
        |tenant: &str, text: String| Subject { tenant: tenant.to_owned(), incident: None, text };
    match command {
        Command::Fence(fence) => cluster(format!("{} ({})", fence.node, fence.boot)),
        Command::Tick => cluster("time".to_owned()),
        Command::RegisterNode(register) => cluster(register.node.to_string()),
        Command::MarkNode(mark) => {
            cluster(format!("{} {}", mark.node, if mark.live { "live" } else { "away" }))
        }
        Command::MarkAgent(mark) => cluster(format!("agent {}", mark.agent)),
        Command::AssignShards(assign) => cluster(format!("{} shards", assign.moves.len())),
        Command::DrainNode(drain) => {
            let what = match drain.drain {
                Drain::Begin => "drained",
                Drain::End => "no longer drained",
                Drain::Leave(_) => "about to stop",
            };
            cluster(format!("{} {what}", drain.node))
        }
        Command::SetClusterVersion(version) => cluster(format!("version {version}")),
        Command::ReportSymptom(report) => {
            let symptom = &report.symptom;
            let text = format!("{} of {}", symptom.kind, symptom.target);
            let incident = state.fingerprints.get(&symptom.fingerprint()).copied();
            Subject { incident, ..tenant(&symptom.target.tenant, text) }
        }
        Command::ClearSymptom(clear) => match state.fingerprints.get(&clear.fingerprint) {
            Some(id) => incident(state, *id, format!("symptom {}", clear.fingerprint)),
            None => cluster(format!("symptom {}", clear.fingerprint)),
        },
        Command::AdoptDecision(adopt) => {
            incident(state, adopt.incident, format!("class {}", adopt.proposal.class))
        }
        Command::EscalateIncident(escalate) => {
            incident(state, escalate.incident, escalate.reason.clone())
        }
        Command::StartStep(start) => {
            plan(state, start.plan, format!("{:?} of step {}", start.direction, start.step))
        }
        Command::FinishStep(finish) => {
            plan(state, finish.plan, format!("{:?} of step {}", finish.direction, finish.step))
        }
        Command::RecordVerdict(record) => {
            plan(state, record.plan, format!("{:?}", record.verdict.value))
        }
        Command::Approve(approve) => {
            incident(state, approve.incident, format!("plan {}", approve.plan_digest.short()))
        }
        Command::Reject(reject) => {
            incident(state, reject.incident, format!("plan {}", reject.plan_digest.short()))
        }
        Command::Acknowledge(note)
        | Command::CancelRemediation(note)
        | Command::ResolveIncident(note)
        | Command::ReopenIncident(note)
        | Command::AddNote(note) => incident(state, note.incident, note.note.clone()),
        Command::JudgeIncident(judge) => {
            let text = [judge.opinion.to_string(), judge.families.join(", "), judge.note.clone()];
            let told: Vec<String> = text.into_iter().filter(|part| !part.is_empty()).collect();
            incident(state, judge.incident, told.join(": "))
        }
        Command::Freeze(freeze) => {
            tenant(permit::tenant_of(&freeze.scope), freeze.scope.to_string())
        }
        Command::Unfreeze(scope) => tenant(permit::tenant_of(scope), scope.to_string()),
        Command::ApplyManifest(apply) => {
            tenant(&apply.manifest.metadata.tenant, apply.manifest.key().to_string())
        }
        Command::DeleteManifest(key) => tenant(&key.tenant, key.to_string()),
        Command::NoteClusterChange(text) => cluster(text.clone()),
        Command::NoteTold(told) => incident(state, told.incident, told.text.short()),
    }
}

fn incident(state: &State, id: IncidentId, text: String) -> Subject {
    let tenant = state.incidents.get(&id).map(|found| found.tenant.clone()).unwrap_or_default();
    let text = if text.is_empty() { id.to_string() } else { format!("{id}: {text}") };
    Subject { tenant, incident: Some(id), text }
}

fn plan(state: &State, id: PlanId, text: String) -> Subject {
    let saga = state.sagas.get(&id);
    Subject {
        tenant: saga.map(|saga| saga.tenant.clone()).unwrap_or_default(),
        incident: saga.map(|saga| saga.incident),
        text: format!("{id}: {text}"),
    }
}

/// Adds the entry's link to the chain.
pub(super) fn append(
    state: &mut State,
    context: &mut Context<'_>,
    entry: &Entry,
    subject: Subject,
    answer: &Answer,
) {
    let (incident, outcome, changed) = match answer {
        Ok(Reply::Incident(id)) => (Some(*id), format!("ok: {id}"), true),
        Ok(Reply::Noted(text)) => (None, format!("noted: {text}"), false),
        Ok(Reply::Decided { plan, route }) => {
            let plan = plan.map(|plan| format!(", {plan}")).unwrap_or_default();
            (None, format!("ok: {route}{plan}"), true)
        }
        Ok(Reply::Fenced(fence)) => (None, format!("ok: {fence}"), true),
        Ok(Reply::Stored { digest, changed }) => {
            let what = if *changed { "stored" } else { "unchanged" };
            (None, format!("ok: {what} {}", digest.short()), true)
        }
        Ok(Reply::Done) => (None, "ok".to_owned(), true),
        Err(refusal) => (None, format!("refused: {refusal}"), true),
    };
    if !crate::applied::audited(&entry.command, changed) {
        return;
    }
    let mut record = AuditRecord {
        seq: state.audit.seq.saturating_add(1),
        index: context.index,
        at: context.now,
        principal: entry.principal.clone(),
        command: entry.command.name().to_owned(),
        subject: super::context::clip(&subject.text),
        outcome: super::context::clip(&outcome),
        entry: Digest::of(&[&codec::encode(entry)]),
        trace: entry.trace,
        previous: state.audit.hash,
        hash: Digest::default(),
        tenant: super::context::clip_to(&subject.tenant, super::context::MAX_NAME_BYTES),
        incident: incident.or(subject.incident),
    };
    record.hash = record.link();
    state.audit = AuditHead { seq: record.seq, hash: record.hash };
    if planted(Planted::AuditGap) && record.seq.is_multiple_of(97) {
        return;
    }
    context.records.insert(0, Record::Audit(record));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        applied::{BrokenChain, verify_chain},
        law::tests::lab::*,
    };

    fn chain(lab: &Lab) -> Vec<AuditRecord> {
        let audit = |record: &Record| match record {
            Record::Audit(record) => Some(record.clone()),
            Record::Closed(_) => None,
        };
        lab.records.iter().filter_map(audit).collect()
    }

    #[test]
    fn every_entry_has_one_link_and_an_idle_tick_none() {
        let mut lab = Lab::new();
        let entries = lab.log.len();
        assert_eq!(chain(&lab).len(), entries);
        lab.wait(1);
        assert_eq!(chain(&lab).len(), entries);
        lab.user("mallory", Command::NoteClusterChange("x".into())).unwrap_err();
        let chain = chain(&lab);
        assert_eq!(chain.len(), entries + 1);
        assert!(chain.last().unwrap().outcome.starts_with("refused: user:mallory lacks"));
        assert_eq!(verify_chain(&chain).unwrap(), lab.state.audit);
    }

    #[test]
    fn a_changed_missing_or_moved_link_is_found() {
        let chain = chain(&Lab::new());
        let mut changed = chain.clone();
        changed[2].outcome = "ok".to_owned() + &changed[2].outcome;
        assert_eq!(verify_chain(&changed), Err(BrokenChain::Changed { seq: 3 }));
        let mut missing = chain.clone();
        missing.remove(2);
        assert_eq!(verify_chain(&missing), Err(BrokenChain::Gap { expected: 3, found: 4 }));
        let mut forged = chain.clone();
        forged[2].subject = "something else".to_owned();
        forged[2].hash = forged[2].link();
        assert_eq!(verify_chain(&forged), Err(BrokenChain::Unlinked { seq: 4 }));
        assert!(verify_chain(&chain[3..]).is_ok(), "a later part holds by itself");
    }
}
