//! How often does this series do such a thing while all is well? What a detector's own model says of a value
//! is corrected by it.
//!
//! A detector that speaks of [`super::Level`]'s kind does so in excursions: some values in a row, which are one
//! event. Its model says how improbable each is; the series itself knows better, once it has had as much
//! before:
//!
//! `p = max(p by the model, share of the values since it began that were, or began, as much)`
//!
//! The share is conformal and adaptive, so it stays true whatever the series does ([`super::conformal`]); an
//! excursion counts once, with the sum of its values' evidence, when it is over: so one that lasts longer is
//! more. What was never seen before is left to the model: nobody else knows of it.
//!
//! Invariant: an excursion that a finding spoke of is no example of the usual, so a fault does not teach
//! that faults are. One that nothing came of is.

use minicbor::{Decode, Encode};

use super::conformal::Conformal;

/// Below so much evidence (a p-value of 0.19) values are alike: the logarithm of a score is taken of more.
const LEAST: f64 = 1.65;

/// What a value may teach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Example {
    /// No finding speaks of its series: whatever it is, it is an example of the usual.
    Usual,
    /// One does, but nobody would call this value bad.
    Harmless,
    /// One does: it teaches nothing.
    Suspect,
}

/// The past of one detector of one series.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Calibrated {
    #[n(0)]
    past: Conformal,
    /// The evidence of the excursion under way; 0: there is none.
    #[n(1)]
    excursion: f32,
    /// A finding has spoken of it.
    #[n(2)]
    found: bool,
    /// The most that was ever noted.
    #[n(3)]
    most: f32,
}

impl Calibrated {
    /// Takes a value's own evidence, `-ln p` by the model, and says whether it is `out` in an excursion, whose evidence
    /// is the sum of its values'. Gives the share of what came before that was as much as the excursion is by now;
    /// zero where nothing was, and one outside excursions.
    pub(super) fn update(&mut self, evidence: f64, out: bool, example: Example) -> f64 {
        if out {
            self.excursion += evidence as f32;
            self.found |= example != Example::Usual;
            let seen_before = self.excursion <= self.most;
            return if seen_before { self.past.share(f64::from(self.excursion)) } else { 0.0 };
        }
        // A finding is raised after the value that completes it, which may have been the last.
        self.found |= self.out() && example != Example::Usual;
        self.over();
        if example == Example::Usual {
            self.note(if evidence < LEAST { 0.0 } else { evidence as f32 });
        }
        1.0
    }

    /// Whether an excursion is under way.
    pub(super) const fn out(&self) -> bool {
        self.excursion > 0.0
    }

    /// The excursion under way has ended.
    pub(super) fn over(&mut self) {
        let (evidence, found) =
            (std::mem::take(&mut self.excursion), std::mem::take(&mut self.found));
        if evidence > 0.0 && !found {
            self.note(evidence);
        }
    }

    fn note(&mut self, evidence: f32) {
        self.most = self.most.max(evidence);
        self.past.note(f64::from(evidence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many usual values.
    fn usual(calibrated: &mut Calibrated, values: u32) {
        for n in 0..values {
            calibrated.update(f64::from(n % 40) / 10.0, false, Example::Usual);
        }
    }

    /// An excursion up to so much that a finding speaks of once it is over.
    fn told_late(calibrated: &mut Calibrated, evidence: f64) -> f64 {
        calibrated.update(evidence / 2.0, true, Example::Usual);
        let share = calibrated.update(evidence / 2.0, true, Example::Usual);
        calibrated.update(0.5, false, Example::Suspect);
        share
    }

    /// An excursion up to so much; gives what is said of its end.
    fn excursion(calibrated: &mut Calibrated, evidence: f64, example: Example) -> f64 {
        calibrated.update(evidence / 2.0, true, Example::Usual);
        let share = calibrated.update(evidence / 2.0, true, example);
        calibrated.update(0.5, false, Example::Usual);
        share
    }

    #[test]
    fn what_was_never_seen_is_left_to_the_model_and_what_recurs_is_as_rare_as_it_was() {
        let mut calibrated = Calibrated::default();
        assert!(calibrated.update(30.0, true, Example::Usual) <= 0.0, "nothing is known yet");
        calibrated = Calibrated::default();
        usual(&mut calibrated, 1_000);
        assert!(excursion(&mut calibrated, 20.0, Example::Usual) <= 0.0);
        let again = excursion(&mut calibrated, 19.0, Example::Usual);
        assert!(again > 1e-4 && again < 0.01, "{again}: once in a thousand");
        assert!(excursion(&mut calibrated, 40.0, Example::Usual) <= 0.0, "twice as much is news");
        for _ in 0..60 {
            usual(&mut calibrated, 48);
            excursion(&mut calibrated, 20.0, Example::Usual);
        }
        let common = excursion(&mut calibrated, 15.0, Example::Usual);
        assert!(common > 0.01 && common < 0.06, "{common}: once in fifty");
    }

    #[test]
    fn what_a_finding_spoke_of_teaches_nothing() {
        let mut calibrated = Calibrated::default();
        usual(&mut calibrated, 1_000);
        for example in [Example::Suspect, Example::Harmless] {
            for _ in 0..20 {
                assert!(excursion(&mut calibrated, 20.0, example) <= 0.0, "{example:?}");
                assert!(told_late(&mut calibrated, 20.0) <= 0.0, "told once it was over");
            }
        }
    }
}
