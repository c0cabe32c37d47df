//! What was learnt of a log, as it travels to whoever watches its instance next.
//!
//! Templates travel, counts do not: the series of a log begin anew with its new owner, and nothing that was
//! counted elsewhere looks like lines of a moment ago. Lines may have come there first: what they have in
//! common with the log's past is then no news, and what they have not is.

use minicbor::{Decode, Encode};

use super::drain::{Drain, LEARNING_MS, TEMPLATES_MAX, Template};

/// Bytes of templates that travel, of those seen last: some hundred usual ones.
const BYTES_MAX: usize = 8 * 1024;

/// The templates of a log. Times are milliseconds before that of the handing over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct HandedLog {
    /// Since when it was learnt.
    #[n(0)]
    begun_ago_ms: u64,
    /// Not all fit: what is unknown to whoever takes over is not new for that.
    #[n(1)]
    cut: bool,
    /// Those seen last first.
    #[n(2)]
    templates: Vec<HandedTemplate>,
}

/// One template.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HandedTemplate {
    #[n(0)]
    text: String,
    #[n(1)]
    error: bool,
    #[n(2)]
    lines: u64,
    #[n(3)]
    first_ago_ms: u64,
    #[n(4)]
    last_ago_ms: u64,
    #[n(5)]
    news: bool,
}

impl HandedLog {
    /// As it is so much later.
    pub fn age(&mut self, waited_ms: u64) {
        let templates = self.templates.iter_mut();
        let ages = templates.flat_map(|one| [&mut one.first_ago_ms, &mut one.last_ago_ms]);
        for ago in ages.chain([&mut self.begun_ago_ms]) {
            *ago = ago.saturating_add(waited_ms);
        }
    }
}

impl Drain {
    /// What was learnt, to be shipped.
    #[must_use]
    pub fn handed(&self, now_ms: u64) -> HandedLog {
        let mut all: Vec<&Template> = self.templates().collect();
        all.sort_by_key(|template| std::cmp::Reverse(template.last_ms));
        let mut bytes = 0;
        let fitting = all.iter().take_while(|template| {
            bytes += template.text.len();
            bytes <= BYTES_MAX
        });
        let templates: Vec<HandedTemplate> = fitting
            .map(|template| HandedTemplate {
                text: template.text.to_string(),
                error: template.error,
                lines: template.lines,
                first_ago_ms: now_ms.saturating_sub(template.first_ms),
                last_ago_ms: now_ms.saturating_sub(template.last_ms),
                news: template.news,
            })
            .collect();
        let begun_ago_ms = now_ms.saturating_sub(self.begun_ms());
        HandedLog { begun_ago_ms, cut: templates.len() < all.len(), templates }
    }

    /// Goes on from what was learnt elsewhere; where it was learnt here for longer, beside that.
    pub fn go_on_from(&mut self, handed: &HandedLog, now_ms: u64) {
        let begun_ms = now_ms.saturating_sub(handed.begun_ago_ms);
        let known = |one: &HandedTemplate| {
            let ago = |ms: u64| now_ms.saturating_sub(ms);
            Template::known(
                (&one.text, one.error, one.news),
                (one.lines, one.lines),
                (ago(one.first_ago_ms), ago(one.last_ago_ms)),
            )
        };
        let templates = handed.templates.iter().take(TEMPLATES_MAX).map(known);
        if begun_ms >= self.begun_ms() {
            templates.for_each(|template| self.remember(template));
            return;
        }
        let here = std::mem::replace(self, self.emptied(begun_ms));
        templates.for_each(|template| self.insert(template));
        let learnt = !handed.cut;
        for template in here.templates() {
            let since_ms = template.first_ms.saturating_sub(begun_ms);
            self.meet(template, learnt && since_ms >= LEARNING_MS);
        }
        if handed.cut {
            self.begin_again(now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::drain::Level, *};

    const HOUR_MS: u64 = 3_600_000;
    /// When the clock of a node begins.
    const T0: u64 = crate::detection::entity::BEGUN_MS;

    fn travelled(handed: &HandedLog) -> HandedLog {
        medic_state::codec::decode(&medic_state::codec::encode(handed)).unwrap_or_default()
    }

    /// A log of an hour on another node's clock.
    fn learnt() -> HandedLog {
        let mut there = Drain::new(T0);
        for n in 0..50 {
            there.take(Level::Info, &format!("served {n} in {n} ms"), T0 + n);
            there.take(Level::Error, &format!("cannot reach cache-{n}"), T0 + n);
        }
        there.take(Level::Error, "disk is full", T0 + HOUR_MS);
        travelled(&there.handed(T0 + HOUR_MS + 1_000))
    }

    #[test]
    fn a_log_that_moved_is_told_as_one_that_never_did() {
        let mut here = Drain::new(T0);
        here.go_on_from(&learnt(), T0);
        let news: Vec<_> = here.templates().filter(|t| t.news).map(|t| &*t.text).collect();
        assert_eq!(news, ["disk is full"], "it still is");
        here.take(Level::Error, "cannot reach cache-77", T0 + 1_000);
        assert_eq!((here.news(true), here.lines(Level::Error)), (0, 1), "known, and counted anew");
        here.take(Level::Error, "out of memory", T0 + 1_000);
        assert_eq!(here.news(true), 1, "no five minutes of blindness");
        assert!(here.templates().all(|t| t.lines_of_text() <= 1), "no lines of a moment ago");
    }

    #[test]
    fn lines_that_came_before_their_past_are_held_against_it() {
        let mut here = Drain::new(T0);
        for line in ["cannot reach cache-9", "out of memory", "out of memory"] {
            here.take(Level::Error, line, T0 + 950);
        }
        here.go_on_from(&learnt(), T0 + 1_000);
        let count = |text: &str| {
            here.templates().find(|t| &*t.text == text).map(|t| (t.news, t.lines_of_text()))
        };
        assert_eq!(count("cannot reach <*>"), Some((false, 1)));
        assert_eq!(count("out of memory"), Some((true, 2)));
        assert_eq!((here.news(true), here.lines(Level::Error)), (1, 3));
        let before = here.handed(T0 + 2_000);
        here.go_on_from(&learnt(), T0 + 2_000);
        assert_eq!(here.handed(T0 + 2_000), before, "its own past, told again, is no news");
        let mut back = Drain::new(T0);
        back.take(Level::Error, "cannot reach cache-9", T0);
        back.go_on_from(&learnt(), T0 + 2 * HOUR_MS);
        back.take(Level::Error, "disk is full", T0 + 2 * HOUR_MS);
        assert_eq!(back.news(true), 0, "it came while somebody else watched");
        // Or so it was before that was known.
        let mut back = Drain::new(T0);
        back.take(Level::Error, "cannot reach cache-9", T0 + 2 * HOUR_MS);
        assert!(back.templates().all(|t| t.news));
        let mut later = learnt();
        later.age(20);
        back.go_on_from(&later, T0 + 2 * HOUR_MS);
        let of = |text: &str| back.templates().find(|t| &*t.text == text);
        let known = of("cannot reach <*>").map(|t| (t.news, T0 + 2 * HOUR_MS - t.first_ms));
        assert_eq!(known, Some((false, HOUR_MS + 1_020)));
    }

    #[test]
    fn what_does_not_fit_is_cut_and_makes_nothing_new() {
        let mut there = Drain::new(T0);
        let letters =
            |n: u64| (0..4).map(move |at| char::from(b'a' + ((n >> (4 * at)) & 15) as u8));
        for n in 0..TEMPLATES_MAX as u64 {
            let word: String = letters(n).collect();
            there.take(Level::Error, &format!("{word} {}", word.repeat(60)), T0 + n);
        }
        let handed = travelled(&there.handed(T0 + HOUR_MS));
        assert!(handed.cut && medic_state::codec::encode(&handed).len() < 2 * BYTES_MAX);
        let mut here = Drain::new(T0 + HOUR_MS);
        here.go_on_from(&handed, T0 + HOUR_MS);
        assert!(here.templates().count() > 10);
        here.take(Level::Error, "disk is full", T0 + HOUR_MS + LEARNING_MS - 1);
        assert_eq!(here.news(true), 0, "it may be one of those that were left behind");
        here.take(Level::Error, "out of memory", T0 + HOUR_MS + LEARNING_MS);
        assert_eq!(here.news(true), 1);
    }

    #[test]
    fn what_no_drain_would_send_is_bounded() {
        let one = |text: String| HandedTemplate {
            text,
            error: true,
            lines: u64::MAX,
            first_ago_ms: u64::MAX,
            last_ago_ms: 0,
            news: true,
        };
        let templates = vec![one("word ".repeat(100_000)), one(String::new()), one("a  b".into())];
        let handed = HandedLog { begun_ago_ms: u64::MAX, cut: false, templates };
        let mut here = Drain::new(10);
        here.go_on_from(&handed, 20);
        here.take(Level::Error, "word again", 30);
        assert!(here.templates().all(|t| !t.text.is_empty() && t.text.len() < 512));
    }
}
