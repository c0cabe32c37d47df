//! Predictions of one instance, told to the law.

use super::*;
use crate::detection::{
    predict::forecast::{Forecast, ForecastKind},
    runtime::foretell::Topic,
};

/// Predictions that open an incident: see [`super::super::foretell`].
impl Watcher {
    pub(super) fn foresee(&self, desk: &mut Desk, now: Now) -> Option<Word> {
        if !desk.foretelling.due(now) {
            return None;
        }
        let held = self.ledger.read(|state| plan::foretold(state, &self.target));
        let (forecasts, facts) = {
            let entity = lock(&self.entity);
            (entity.forecasts(now), entity.facts(now))
        };
        let mut forecasts = self.shared.corrected(&self.target.tenant, forecasts);
        // All incidents are gone through for it: only where a failure is foreseen that nobody was told of.
        let failure = |one: &Forecast| one.kind == ForecastKind::Failure;
        if !held.contains(&Topic::Failure)
            && forecasts.iter().any(failure)
            && self.ledger.read(|state| plan::failure_rests(state, &self.target))
        {
            forecasts.retain(|one| !failure(one));
        }
        let source = self.wanted.shard.to_string();
        let seen = (forecasts.as_slice(), facts.as_slice());
        desk.foretelling.next((&self.target, &source), seen, &held, now)
    }

    pub(super) fn foretell(&self, word: Word) -> Pin<Box<dyn Future<Output = Landed> + Send>> {
        let (shard, epoch) = (self.wanted.shard, self.wanted.epoch);
        let command = match &word {
            Word::Foreseen(_, symptom) => {
                let symptom = symptom.as_ref().clone();
                Command::ReportSymptom(ReportSymptom { shard, epoch, symptom })
            }
            Word::Past(_, fingerprint) => {
                Command::ClearSymptom(ClearSymptom { shard, epoch, fingerprint: *fingerprint })
            }
        };
        let ledger = self.ledger.clone();
        let entry = ledger.entry(ledger.env().entropy.trace_id(), command);
        Box::pin(async move {
            let answer = ledger.propose(entry).await;
            Landed::Foretold(word, Box::new(answer))
        })
    }

    pub(super) fn foretold(
        &self,
        word: &Word,
        answer: Result<Committed, LedgerError>,
        desk: &mut Desk,
        now: Now,
    ) {
        let (metric, topic) = match word {
            Word::Foreseen(topic, _) => (Metric::Reports, *topic),
            Word::Past(topic, _) => (Metric::Clears, *topic),
        };
        let result = match &answer {
            Ok(Committed { answer: Ok(Reply::Noted(_)), .. }) => "noted",
            Ok(Committed { answer: Ok(_), .. }) => "admitted",
            Ok(Committed { answer: Err(_), .. }) => "refused",
            Err(_) => "failed",
        };
        let label = topic.symptom();
        counter!(metric.name(), "kind" => label, "result" => result).increment(1);
        match (word, answer.map(|committed| committed.answer)) {
            (_, Err(error)) => {
                tracing::debug!(target = %self.target, kind = label, %error, "not proposed; trying again");
            }
            (_, Ok(Err(Refusal::StaleEpoch { .. }))) => self.end_stale(),
            (Word::Foreseen(_, symptom), Ok(Ok(reply))) => {
                tracing::info!(target = %self.target, kind = label, summary = symptom.summary, ?reply, "foretold");
                desk.foretelling.told(topic, now);
            }
            (Word::Past(..), Ok(Ok(_) | Err(Refusal::NotFound(_)))) => {
                tracing::info!(target = %self.target, kind = label, "no longer foreseen");
                desk.foretelling.cleared(topic);
            }
            (_, Ok(Err(refusal))) => {
                tracing::warn!(target = %self.target, kind = label, %refusal, "refused; trying again");
            }
        }
    }
}
