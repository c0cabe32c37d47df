//! `apply`: the one mutation door. This file only dispatches; every command lives in its own file.
//!
//! ```text
//!  entry ─► time made monotone ─► seen before? ─► may the principal? ─► the command's own file
//!                                     │ yes              │ no                  │
//!                                     ▼                  ▼                     ▼
//!                              the same answer        Denied              answer, changes
//!                                     └──────────────────┴──────────┬──────────┘
//!                                                     remember ─► audit ─► effects
//! ```
//!
//! Invariant: no entry whatever makes it panic, and a refused command changes nothing but the
//! clock, the audit chain, the remembered answers, counters, and the note why something is held
//! back. Deliberately absent: who leads (beyond the fence number), and every clock.

mod access;
mod acknowledge;
mod adopt;
mod approval;
mod approve;
mod audit;
mod cancel;
mod clear_symptom;
mod context;
mod drain;
mod effects;
mod escalate;
mod fence;
mod finish_step;
mod fleet;
mod freeze;
mod grouping;
mod holds;
mod hush;
mod incidents;
mod judge;
mod manifests;
mod note;
mod note_told;
mod permit;
mod recurring;
mod reject;
mod reopen;
mod report_symptom;
mod requests;
mod resolve;
mod routing;
mod safety;
mod saga;
mod shards;
mod snapshot;
mod soundness;
mod start_step;
mod telling;
#[cfg(test)]
pub(crate) mod tests;
mod tick;
mod topology;
mod verdict;

use self::context::Context;
use crate::{
    applied::{Answer, Applied},
    command::{Command, Entry},
    ids::Digest,
    planted::{Planted, planted},
    state::State,
};

impl State {
    /// Applies one committed entry. Never panics on any entry; refusals are answers.
    ///
    /// `index` is the entry's log index; indexes grow by at least one from entry to entry.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied {
        self.applied = self.applied.max(index);
        self.now = if planted(Planted::TimeRunsBack) { entry.at } else { self.now.max(entry.at) };
        let mut context = Context::new(index, self.now, entry);
        let subject = audit::subject(self, &entry.command);
        let (first, answer) = match requests::seen(self, entry) {
            Some(seen) => seen,
            None => {
                let answer = permit::check(self, entry)
                    .and_then(|()| dispatch(self, &mut context, &entry.command));
                let answer = context::bounded(answer);
                requests::remember(self, index, entry, &answer);
                (None, answer)
            }
        };
        audit::append(self, &mut context, entry, subject, &answer);
        let effects = self.effects_of(&context.touched);
        let effective = first.unwrap_or(index);
        Applied { index, effective, answer, effects, records: context.records }
    }

    /// SHA-256 of the canonical encoding.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&[&crate::codec::encode(self)])
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

fn dispatch(state: &mut State, context: &mut Context<'_>, command: &Command) -> Answer {
    match command {
        Command::Fence(fence) => fence::apply(state, context, fence),
        Command::Tick => tick::apply(state, context),
        Command::RegisterNode(node) => fleet::register_node(state, context, node),
        Command::MarkNode(mark) => fleet::mark_node(state, context, mark),
        Command::MarkAgent(mark) => fleet::mark_agent(state, context, mark),
        Command::AssignShards(assign) => shards::apply(state, context, assign),
        Command::SetClusterVersion(version) => fleet::set_cluster_version(state, *version),
        Command::ReportSymptom(report) => report_symptom::apply(state, context, report),
        Command::ClearSymptom(clear) => clear_symptom::apply(state, context, clear),
        Command::AdoptDecision(adopt) => adopt::apply(state, context, adopt),
        Command::EscalateIncident(escalate) => escalate::apply(state, context, escalate),
        Command::StartStep(start) => start_step::apply(state, context, start),
        Command::FinishStep(finish) => finish_step::apply(state, context, finish),
        Command::RecordVerdict(record) => verdict::apply(state, context, record),
        Command::Approve(approve) => approve::apply(state, context, approve),
        Command::Reject(reject) => reject::apply(state, context, reject),
        Command::Acknowledge(note) => acknowledge::apply(state, context, note),
        Command::Freeze(freeze) => freeze::freeze(state, context, freeze),
        Command::Unfreeze(scope) => freeze::unfreeze(state, context, scope),
        Command::CancelRemediation(note) => cancel::apply(state, context, note),
        Command::ResolveIncident(note) => resolve::apply(state, context, note),
        Command::ReopenIncident(note) => reopen::apply(state, context, note),
        Command::AddNote(note) => note::apply(state, context, note),
        Command::ApplyManifest(apply) => manifests::apply(state, context, apply),
        Command::DeleteManifest(key) => manifests::delete(state, context, key),
        Command::NoteClusterChange(_) => Ok(crate::applied::Reply::Done),
        Command::NoteTold(told) => note_told::apply(state, context, told),
        Command::JudgeIncident(judge) => judge::apply(state, context, judge),
        Command::DrainNode(drain) => drain::apply(state, drain),
    }
}
