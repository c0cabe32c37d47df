//! A failed check that several nodes look at: whether it counts. Pure.
//!
//! | of `of` nodes | what the probe is taken for |
//! |---|---|
//! | `agree` saw it fail | failed |
//! | fewer than `agree` could look | what the one that watches it sees: failed |
//! | so many saw it well that no others could make it `agree` | good |
//! | else | no data: whoever could not look might have seen either |
//!
//! Deliberately absent: who looks ([`super::others`]).

use medic_state::manifest::ObserversSpec;

use crate::detection::probe::{Failure, Outcome};

/// What another node saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// As it should be.
    Good,
    /// Not so, and why.
    Bad(String),
    /// It could not look, and why.
    Nothing(String),
}

/// What became of a failure that others were asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough saw it fail.
    Agreed,
    /// Too few could look for the others' word to count.
    Alone,
    /// Others see it well.
    Overruled,
    /// It hangs on those that could not look.
    Undecided,
}

impl Verdict {
    /// The label of metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Alone => "alone",
            Self::Overruled => "overruled",
            Self::Undecided => "undecided",
        }
    }
}

/// A check, by all that looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What the probe is taken for.
    pub outcome: Outcome,
    /// What became of a failure, and in words how many saw what; nothing where nobody was asked.
    pub put: Option<(Verdict, String)>,
}

impl Judged {
    /// By the one that watches it alone.
    #[must_use]
    pub const fn alone(outcome: Outcome) -> Self {
        Self { outcome, put: None }
    }
}

/// Judges a failure that this node saw by what others saw.
#[must_use]
pub fn judge(failure: Failure, rule: ObserversSpec, looks: &[Look]) -> Judged {
    let count = |wanted: fn(&Look) -> bool| {
        u32::try_from(looks.iter().filter(|look| wanted(look)).count()).unwrap_or(u32::MAX)
    };
    let ObserversSpec { of, agree } = rule;
    let failed = 1 + count(|look| matches!(look, Look::Bad(_)));
    let looked = failed + count(|look| matches!(look, Look::Good));
    let missing = of.saturating_sub(looked);
    let saw = format!("{failed} of {of} observers saw it fail");
    let could = format!("only {looked} of {of} observers could look");
    let (verdict, text, outcome) = if failed >= agree {
        (Verdict::Agreed, saw, Outcome::Bad(failure))
    } else if looked < agree {
        (Verdict::Alone, could, Outcome::Bad(failure))
    } else if failed + missing < agree {
        (Verdict::Overruled, saw, Outcome::Good)
    } else {
        let why = format!("{saw} ({failure}), {could}, and {agree} must agree");
        (Verdict::Undecided, why.clone(), Outcome::NoData(why))
    };
    Judged { outcome, put: Some((verdict, text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(good: usize, bad: usize, nothing: usize) -> Vec<Look> {
        let mut all = vec![Look::Good; good];
        all.resize(good + bad, Look::Bad("connection refused".to_owned()));
        all.resize(good + bad + nothing, Look::Nothing("no answer".to_owned()));
        all
    }

    fn put((of, agree): (u32, u32), looks: &[Look]) -> (Verdict, String, &'static str) {
        let judged = judge(Failure::Timeout, ObserversSpec { of, agree }, looks);
        let Some((verdict, text)) = judged.put else { panic!("it was put to others") };
        (verdict, text, judged.outcome.label())
    }

    #[test]
    fn what_enough_of_them_see_counts_and_no_other_failure() {
        let told = |rule, (good, bad, nothing)| put(rule, &looks(good, bad, nothing));
        let agreed = |text: &str| (Verdict::Agreed, text.to_owned(), "bad");
        assert_eq!(told((3, 2), (1, 1, 0)), agreed("2 of 3 observers saw it fail"));
        assert_eq!(told((3, 2), (0, 2, 0)), agreed("3 of 3 observers saw it fail"));
        assert_eq!(told((3, 2), (0, 1, 1)), agreed("2 of 3 observers saw it fail"));
        assert_eq!(told((3, 1), (2, 0, 0)).0, Verdict::Agreed, "its own word is enough");
        let overruled = |text: &str| (Verdict::Overruled, text.to_owned(), "good");
        assert_eq!(told((3, 2), (2, 0, 0)), overruled("1 of 3 observers saw it fail"));
        assert_eq!(told((5, 3), (3, 1, 0)), overruled("2 of 5 observers saw it fail"));
        assert_eq!(told((3, 3), (1, 1, 0)), overruled("2 of 3 observers saw it fail"));
    }

    #[test]
    fn who_cannot_look_counts_neither_way() {
        let alone = |text: &str| (Verdict::Alone, text.to_owned(), "bad");
        let told = |rule, (good, bad, nothing)| put(rule, &looks(good, bad, nothing));
        assert_eq!(told((3, 2), (0, 0, 2)), alone("only 1 of 3 observers could look"));
        assert_eq!(
            told((3, 2), (0, 0, 0)),
            alone("only 1 of 3 observers could look"),
            "no peer lives"
        );
        assert_eq!(told((3, 3), (1, 0, 1)), alone("only 2 of 3 observers could look"));
        let (verdict, text, outcome) = told((3, 2), (1, 0, 1));
        assert_eq!((verdict, outcome), (Verdict::Undecided, "no_data"));
        assert!(text.contains("1 of 3 observers saw it fail (no answer in time)"), "{text}");
        assert!(text.contains("only 2 of 3 observers could look"), "{text}");
    }
}
