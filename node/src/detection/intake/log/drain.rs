//! Drain: online log parsing with a fixed-depth tree (He, Zhu, Zheng, Lyu, ICWS 2017), bounded.
//!
//! ```text
//!   line ─► words; those with digits are <*> ─► (errors or not, number of words, first word)
//!        ─► the most similar template there, at least half of its words equal ─► differing words become <*>
//!           none: a new template; beyond the bound the one not seen for longest makes room
//! ```
//!
//! As in the paper but for the masking of every word with a digit, and the bound. Errors have templates
//! of their own, so that a new one among them can be told.

use std::collections::BTreeMap;

use medic_state::text::head;

/// Templates of one instance; services that log have some dozens.
pub const TEMPLATES_MAX: usize = 100;
/// Bytes of a line that are heeded: what is said stands at its beginning.
pub const LINE_BYTES_MAX: usize = 256;
/// Words of a line that are heeded.
const WORDS_MAX: usize = 40;
/// Share of words that must be equal.
const SIMILAR: f64 = 0.5;
/// In the first minutes of a log every template is new, and none is news.
pub const LEARNING_MS: u64 = 300_000;
/// A template is news for so long.
pub const NEWS_MS: u64 = 600_000;
/// A word that differs from line to line.
const ANY: &str = "<*>";

/// How bad a line is, by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It does not say.
    Unset,
    /// Debug or trace.
    Debug,
    /// Information.
    Info,
    /// A warning.
    Warn,
    /// An error, or worse.
    Error,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unset, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The label of metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// From OTLP's severity number, or the text beside it where there is none.
    #[must_use]
    pub fn of(number: u64, text: &str) -> Self {
        match number {
            1..=8 => return Self::Debug,
            9..=12 => return Self::Info,
            13..=16 => return Self::Warn,
            17..=24 => return Self::Error,
            _ => {}
        }
        let begins = |words: &[&str]| {
            words.iter().any(|word| {
                text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
            })
        };
        if begins(&["err", "fatal", "crit", "panic", "emerg", "alert", "severe"]) {
            Self::Error
        } else if begins(&["warn"]) {
            Self::Warn
        } else if begins(&["info", "notice"]) {
            Self::Info
        } else if begins(&["debug", "trace"]) {
            Self::Debug
        } else {
            Self::Unset
        }
    }
}

/// What lines of one form have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its words, with `<*>` for those that differ.
    pub text: Box<str>,
    /// Its lines are errors.
    pub error: bool,
    /// Lines seen.
    pub lines: u64,
    /// Lines seen before its text was this one.
    before: u64,
    /// Its first line, by this node's monotonic clock.
    pub first_ms: u64,
    /// Its last one.
    pub last_ms: u64,
    /// It came after the log had been learnt.
    pub news: bool,
}

impl Template {
    /// One that was known before: its text, whether it is an error's and news; its lines, and how many of them
    /// before the text was this one; its first and last times.
    pub(super) fn known(
        (text, error, news): (&str, bool, bool),
        (lines, before): (u64, u64),
        (first_ms, last_ms): (u64, u64),
    ) -> Self {
        let text = words(text).join(" ").into_boxed_str();
        Self { text, error, lines, before, first_ms, last_ms, news }
    }

    /// Lines seen since its text is this one: a series that goes by the text begins with it.
    #[must_use]
    pub const fn lines_of_text(&self) -> u64 {
        self.lines.saturating_sub(self.before)
    }
}

type Leaf = (bool, usize, Box<str>);

/// The templates of one instance's log.
#[derive(Debug, Default)]
pub struct Drain {
    begun_ms: u64,
    next: u32,
    templates: BTreeMap<u32, Template>,
    leaves: BTreeMap<Leaf, Vec<u32>>,
    lines: [u64; Level::ALL.len()],
    news: [u64; 2],
}

impl Drain {
    /// A log that begins now.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            begun_ms: now_ms,
            next: 0,
            templates: BTreeMap::new(),
            leaves: BTreeMap::new(),
            lines: [0; Level::ALL.len()],
            news: [0; 2],
        }
    }

    /// Takes a line.
    pub fn take(&mut self, level: Level, line: &str, now_ms: u64) {
        self.lines[level as usize] += 1;
        let words = words(line);
        if words.is_empty() {
            return;
        }
        let error = level == Level::Error;
        if let Some(template) = self.similar(error, &words) {
            if merge(&mut template.text, &words) {
                template.before = template.lines;
            }
            template.lines += 1;
            template.last_ms = now_ms;
            return;
        }
        let news = now_ms.saturating_sub(self.begun_ms) >= LEARNING_MS;
        self.news[usize::from(error)] += u64::from(news);
        let text = words.join(" ");
        self.insert(Template::known((&text, error, news), (1, 0), (now_ms, now_ms)));
    }

    /// Adds a template; one without words is none.
    pub(super) fn insert(&mut self, template: Template) {
        if self.templates.len() >= TEMPLATES_MAX {
            self.forget_oldest();
        }
        let Some((first, count)) = leaf_of(&template.text) else { return };
        let leaf: Leaf = (template.error, count, first.into());
        self.templates.insert(self.next, template);
        self.leaves.entry(leaf).or_default().push(self.next);
        self.next = self.next.wrapping_add(1);
    }

    /// Takes in a template that was made of lines here before its past was known; `news`: it is, where it is
    /// none of those known.
    pub(super) fn meet(&mut self, here: &Template, news: bool) {
        let words: Vec<&str> = here.text.split(' ').collect();
        if let Some(known) = self.similar(here.error, &words) {
            merge(&mut known.text, &words);
            // Its series here goes on.
            known.before = known.lines.saturating_add(here.before);
            known.lines = known.lines.saturating_add(here.lines);
            known.last_ms = known.last_ms.max(here.last_ms);
            return;
        }
        self.news[usize::from(here.error)] += u64::from(news);
        self.insert(Template { news, ..here.clone() });
    }

    /// Adds a template that was seen elsewhere; one that is known here is as old as there, and what is no news there is
    /// none here. What was counted as news stays counted.
    pub(super) fn remember(&mut self, template: Template) {
        let words: Vec<&str> = template.text.split(' ').collect();
        let Some(known) = self.similar(template.error, &words) else {
            return self.insert(template);
        };
        if template.first_ms < known.first_ms {
            (known.first_ms, known.news) = (template.first_ms, template.news);
        }
    }

    /// One without templates, of the same counts.
    pub(super) fn emptied(&self, begun_ms: u64) -> Self {
        Self { lines: self.lines, news: self.news, ..Self::new(begun_ms) }
    }

    /// Since when it is learnt.
    pub(super) const fn begun_ms(&self) -> u64 {
        self.begun_ms
    }

    /// What is not known yet is no news for a while.
    pub(super) const fn begin_again(&mut self, now_ms: u64) {
        self.begun_ms = now_ms;
    }

    /// The known template that words are most like, if they are like enough.
    fn similar(&mut self, error: bool, words: &[&str]) -> Option<&mut Template> {
        let leaf: Leaf = (error, words.len(), (*words.first()?).into());
        let there = self.leaves.get(&leaf).map_or(&[][..], Vec::as_slice);
        let (id, _) = there
            .iter()
            .filter_map(|id| Some((*id, similarity(&self.templates.get(id)?.text, words))))
            .filter(|(_, similarity)| *similarity >= SIMILAR)
            // Of equals the older.
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        self.templates.get_mut(&id)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.templates.iter().min_by_key(|(_, template)| template.last_ms);
        let Some(oldest) = oldest.map(|(id, _)| *id) else { return };
        self.templates.remove(&oldest);
        self.leaves.retain(|_, ids| {
            ids.retain(|id| *id != oldest);
            !ids.is_empty()
        });
    }

    /// All templates.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        self.templates.values()
    }

    /// Lines so far, by level.
    #[must_use]
    pub const fn lines(&self, level: Level) -> u64 {
        self.lines[level as usize]
    }

    /// Templates so far that came after the log had been learnt: errors, or others.
    #[must_use]
    pub fn news(&self, error: bool) -> u64 {
        self.news[usize::from(error)]
    }
}

/// The first word of a template, and how many it has.
fn leaf_of(text: &str) -> Option<(&str, usize)> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let first = words.next()?;
    Some((first, 1 + words.count()))
}

/// The words of a line, within bounds; those with a digit differ from line to line.
fn words(line: &str) -> Vec<&str> {
    let masked = |word| if str::bytes(word).any(|byte| byte.is_ascii_digit()) { ANY } else { word };
    head(line, LINE_BYTES_MAX).split_whitespace().take(WORDS_MAX).map(masked).collect()
}

/// Share of a template's words that a line has at the same places; `<*>` is equal to `<*>` alone.
fn similarity(template: &str, words: &[&str]) -> f64 {
    let equal = template.split(' ').zip(words).filter(|(known, word)| known == *word).count();
    equal as f64 / words.len().max(1) as f64
}

/// Makes it fit these words too; says whether it is another one then.
fn merge(template: &mut Box<str>, words: &[&str]) -> bool {
    let fits = |(known, word): (&str, &&str)| known == *word || known == ANY;
    if template.split(' ').zip(words).all(fits) {
        return false;
    }
    let merged: Vec<&str> = (template.split(' ').zip(words))
        .map(|(known, word)| if known == *word { known } else { ANY })
        .collect();
    *template = merged.join(" ").into_boxed_str();
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(drain: &Drain) -> Vec<(&str, u64)> {
        drain.templates().map(|template| (&*template.text, template.lines)).collect()
    }

    #[test]
    fn lines_of_one_form_share_a_template() {
        let mut drain = Drain::new(0);
        for line in [
            "Connection from 10.0.0.1 closed by peer",
            "Connection from 10.0.0.2 closed by peer",
            "Connection from 10.0.0.2 closed by client",
            "Server started",
            "  ",
        ] {
            drain.take(Level::Info, line, 1);
        }
        drain.take(Level::Error, "Connection from 10.0.0.1 closed by peer", 1);
        let expected = [
            ("Connection from <*> closed by <*>", 3),
            ("Server started", 1),
            ("Connection from <*> closed by peer", 1),
        ];
        assert_eq!(texts(&drain), expected, "errors stand apart");
        assert_eq!((drain.lines(Level::Info), drain.lines(Level::Error)), (5, 1));
    }

    #[test]
    fn news_is_what_comes_after_a_log_was_learnt() {
        let mut drain = Drain::new(0);
        drain.take(Level::Error, "cannot open file", LEARNING_MS - 1);
        drain.take(Level::Error, "cannot open file", LEARNING_MS);
        assert_eq!((drain.news(true), drain.news(false)), (0, 0));
        drain.take(Level::Error, "disk is full", LEARNING_MS);
        drain.take(Level::Info, "retrying later on", LEARNING_MS);
        assert_eq!((drain.news(true), drain.news(false)), (1, 1));
        let news: Vec<&str> = drain.templates().filter(|t| t.news).map(|t| &*t.text).collect();
        assert_eq!(news, ["disk is full", "retrying later on"]);
    }

    #[test]
    fn a_log_in_which_every_line_is_another_stays_bounded() {
        let mut drain = Drain::new(0);
        let letters = |n: u64| -> String {
            let letter = |at: u64| char::from(b'a' + ((n >> (4 * at)) & 15) as u8);
            (0..5).map(letter).collect()
        };
        for n in 0..10_000 {
            drain.take(Level::Info, &format!("{} happened", letters(n)), n);
        }
        assert_eq!(drain.templates().count(), TEMPLATES_MAX);
        assert!(drain.leaves.len() <= TEMPLATES_MAX);
        let long = "word ".repeat(100_000);
        drain.take(Level::Info, &long, 10_000);
        assert!(drain.templates().all(|t| t.text.len() <= 2 * LINE_BYTES_MAX));
    }

    #[test]
    fn levels_are_told_by_number_or_text() {
        for (number, text, expected) in [
            (17, "", Level::Error),
            (9, "ERROR", Level::Info),
            (0, "Error", Level::Error),
            (0, "CRITICAL", Level::Error),
            (0, "warning", Level::Warn),
            (0, "é", Level::Unset),
            (99, "", Level::Unset),
        ] {
            assert_eq!(Level::of(number, text), expected, "{number} {text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_logged_every_line_is_counted_once(
            lines in proptest::collection::vec((".{0,40}", 0_usize..5), 0..300)
        ) {
            let mut drain = Drain::new(0);
            for (at, (line, level)) in (0_u64..).zip(&lines) {
                drain.take(Level::ALL[*level], line, at);
            }
            let counted: u64 = Level::ALL.iter().map(|level| drain.lines(*level)).sum();
            prop_assert_eq!(counted, lines.len() as u64);
            prop_assert!(drain.templates().count() <= TEMPLATES_MAX);
            prop_assert!(drain.templates().map(|t| t.lines).sum::<u64>() <= counted);
        }
    }
}
