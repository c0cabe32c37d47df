//! Which of the fitting playbooks first: by how narrowly it matches, and by what it achieved.
//!
//! Outcomes: a Beta(3, 1) prior (a playbook somebody wrote for the class works three times in
//! four) updated with the replicated counts. Ranked by a cautious value, the posterior mean less
//! half a standard deviation, so that few successes do not beat many. (Beta-binomial: Gelman et
//! al., Bayesian Data Analysis, 3rd ed., section 2.4.) Inconclusive outcomes count as half a
//! failure.

use medic_state::{
    decision::Recommendation,
    state::{Lesson, LessonKey},
};

use super::{
    rules::Candidate,
    scene::{Scene, ppm},
};

/// Prior successes and failures.
const PRIOR: (f64, f64) = (3.0, 1.0);
/// Share of the outcomes in the score; the rest is the rules' order.
const OUTCOMES: f64 = 0.7;

/// What the outcomes say about a playbook for a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record {
    /// Posterior mean of its success rate.
    pub(super) mean: f64,
    /// The mean less half a standard deviation.
    pub(super) cautious: f64,
    /// The counts.
    pub(super) lesson: Lesson,
}

impl Record {
    /// From the counts.
    #[must_use]
    pub(super) fn of(lesson: Lesson) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let [succeeded, failed, open] =
            [lesson.succeeded as f64, lesson.failed as f64, lesson.inconclusive as f64];
        let a = PRIOR.0 + succeeded;
        let b = PRIOR.1 + failed + 0.5 * open;
        let n = a + b;
        let mean = a / n;
        let deviation = (a * b / (n * n * (n + 1.0))).sqrt();
        Self { mean, cautious: (mean - 0.5 * deviation).max(0.0), lesson }
    }

    /// How many outcomes there are.
    #[must_use]
    pub(super) const fn outcomes(&self) -> u64 {
        self.lesson.succeeded + self.lesson.failed + self.lesson.inconclusive
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.outcomes() == 0 {
            return f.write_str("no outcomes yet");
        }
        write!(f, "helped {} of {} times", self.lesson.succeeded, self.outcomes())?;
        if let Some(mean) = self.lesson.heal_ms_sum.checked_div(self.lesson.succeeded) {
            #[allow(clippy::cast_precision_loss, reason = "milliseconds of one remediation")]
            write!(f, ", in {:.1} s on average", mean as f64 / 1000.0)?;
        }
        Ok(())
    }
}

/// The record of a playbook for a class, in this tenant.
#[must_use]
pub(super) fn record(scene: &Scene<'_>, class: &str, playbook: &str) -> Record {
    let key = LessonKey {
        tenant: scene.tenant().to_owned(),
        class: class.to_owned(),
        playbook: playbook.to_owned(),
    };
    Record::of(scene.state.lessons.get(&key).copied().unwrap_or_default())
}

/// Best first: fit ones before unfit ones.
#[must_use]
pub(super) fn rank<'a>(
    scene: &Scene<'_>,
    class: &str,
    candidates: Vec<Candidate<'a>>,
) -> Vec<(Candidate<'a>, Recommendation)> {
    let mut ranked: Vec<_> = candidates
        .into_iter()
        .map(|candidate| {
            let recommendation = weigh(scene, class, &candidate);
            (candidate, recommendation)
        })
        .collect();
    ranked.sort_by(|(a, left), (b, right)| {
        (right.eligible, right.score).cmp(&(left.eligible, left.score)).then(a.name.cmp(b.name))
    });
    ranked
}

/// `2 matchers and its condition`.
fn fits_by(candidate: &Candidate<'_>) -> String {
    let matchers = candidate.spec.matchers.len();
    let s = if matchers == 1 { "" } else { "s" };
    let when = if candidate.spec.when.is_some() { " and its condition" } else { "" };
    format!("{matchers} matcher{s}{when}")
}

fn weigh(scene: &Scene<'_>, class: &str, candidate: &Candidate<'_>) -> Recommendation {
    let record = record(scene, class, candidate.name);
    #[allow(clippy::cast_precision_loss, reason = "a handful of matchers")]
    let narrow = candidate.specificity as f64 / (candidate.specificity as f64 + 2.0);
    let mut score = OUTCOMES * record.cautious + (1.0 - OUTCOMES) * narrow;
    let mut reason = format!("fits by {}; {record}", fits_by(candidate));
    if candidate.escalation {
        // Above every playbook that is not named: the upper half is theirs.
        score = 0.5 + score / 2.0;
        reason = format!("named as the next step by the playbook that failed; {record}");
    } else if scene.incident.attempts.last().is_some() {
        score /= 2.0;
    }
    if let Some(unfit) = &candidate.unfit {
        reason.clone_from(unfit);
    }
    Recommendation {
        playbook: candidate.name.to_owned(),
        score: if candidate.unfit.is_some() { ppm(0.0) } else { ppm(score) },
        by: if record.outcomes() > 0 { "outcomes" } else { "rules" }.to_owned(),
        reason,
        eligible: candidate.unfit.is_none(),
    }
}
