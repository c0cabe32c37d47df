//! The report on a terminal: what went wrong first.

use super::{Report, around, word};

/// Violations shown of each verdict.
const SHOWN: usize = 5;

impl Report {
    /// The verdicts, the figures, and what is wrong.
    #[must_use]
    pub fn terminal(&self) -> String {
        let mut text = String::new();
        let mut line = |more: String| {
            text.push_str(&more);
            text.push('\n');
        };
        for verdict in &self.verdicts {
            let word = match word(verdict) {
                ("bad", _) => "VIOLATED".to_owned(),
                (_, word) => word,
            };
            line(format!(
                "  {:>2} {word:<15} {:>7} {:<34} {}",
                verdict.invariant,
                verdict.checked,
                verdict.of,
                verdict.title()
            ));
            for violation in verdict.violations.iter().take(SHOWN) {
                line(format!("       {}", violation.what));
                for around in around::lines(self, violation) {
                    line(format!("         {around}"));
                }
            }
            let more = verdict.violations.len().saturating_sub(SHOWN);
            if more > 0 {
                line(format!("       and {more} more; all are in report.json"));
            }
        }
        for (what, how_much) in self.facts() {
            line(format!("{what:<48} {how_much}"));
        }
        line(self.summary());
        for wrong in self.shortcomings() {
            line(format!("NOT good: {wrong}"));
        }
        if let Some(why) = self.not_full() {
            line(why.to_owned());
        }
        line(self.headline());
        line(format!("again: {}", self.again()));
        text
    }
}
