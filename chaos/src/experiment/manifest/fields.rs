//! Fields of probes that conditions name, held against those that the probes have.
//!
//! A field that no probe gives is never seen: an abort condition that ignores missing data would never
//! fire. Conditions are read here by their tokens, not by CEL's tree: a probe's name, then `.field` or
//! `['field']`. What a loop calls like a probe is taken for the probe; call it otherwise.

use medic_api::manifest::{Finding, alternatives};

use super::ProbeSpec;

impl ProbeSpec {
    /// Fields that conditions may name; none when it is no probe.
    #[must_use]
    pub const fn fields(&self) -> &'static [&'static str] {
        match self {
            Self { http: Some(_), .. } => &["up", "status", "latency_ms"],
            Self { tcp: Some(_), .. } => &["up", "latency_ms"],
            Self { command: Some(_), .. } => &["ok", "exit", "latency_ms"],
            Self { metric: Some(_), .. } => &["value", "max", "min", "count"],
            Self { medic: Some(_), .. } => &[
                "up",
                "leader",
                "term",
                "nodes",
                "live",
                "applied",
                "open_incidents",
                "freezes",
                "incidents",
                "attempted",
                "successful",
                "manual",
                "unknown",
                "latency_ms",
            ],
            Self { http: None, tcp: None, command: None, metric: None, medic: None, .. } => &[],
        }
    }
}

/// Every field in a condition that its probe does not have.
pub(super) fn check(path: &str, source: &str, probes: &[ProbeSpec]) -> Vec<Finding> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for i in 0..tokens.len() {
        let Some((probe, field, at)) = used(&tokens, i, probes) else { continue };
        let known = probe.fields();
        if !known.is_empty() && !known.contains(&field) {
            let near = alternatives(field, known);
            let message = format!("`{}` has no field `{field}`{near}", probe.name);
            let within = Some(position(source, at));
            found.push(Finding { path: path.to_owned(), message, within });
        }
    }
    found
}

/// The probe that is named here, the field of it, and where that stands.
fn used<'a>(
    tokens: &[Token<'a>],
    i: usize,
    probes: &'a [ProbeSpec],
) -> Option<(&'a ProbeSpec, &'a str, usize)> {
    let mark = |i: usize, c: char| tokens.get(i).is_some_and(|token| token.what == What::Mark(c));
    let What::Name(name) = tokens.get(i)?.what else { return None };
    if i > 0 && mark(i - 1, '.') {
        return None;
    }
    let probe = probes.iter().find(|probe| probe.name == name)?;
    let field = tokens.get(i + 2)?;
    match field.what {
        What::Name(name) if mark(i + 1, '.') && !mark(i + 3, '(') => Some((probe, name, field.at)),
        What::Text(text) if mark(i + 1, '[') && mark(i + 3, ']') => Some((probe, text, field.at)),
        What::Name(_) | What::Text(_) | What::Mark(_) => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What<'s> {
    Name(&'s str),
    /// What stands between quotes, escapes as they are written.
    Text(&'s str),
    Mark(char),
}

/// What stands at a byte of a condition.
#[derive(Clone, Copy, Debug)]
struct Token<'s> {
    at: usize,
    what: What<'s>,
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found: Vec<Token<'_>> = Vec::new();
    let mut at = 0;
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = &rest[..word.unwrap_or(rest.len())];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if matches!(first, '"' | '\'') {
            let raw = found.last().is_some_and(|last| raw(last, at));
            let (text, length) = quoted(rest, raw);
            found.push(Token { at, what: What::Text(text) });
            at += length;
        } else if word.is_empty() {
            if !first.is_whitespace() {
                found.push(Token { at, what: What::Mark(first) });
            }
            at += first.len_utf8();
        } else {
            found.push(Token { at, what: What::Name(word) });
            at += word.len();
        }
    }
    found
}

/// Whether backslashes are but backslashes in the text that begins here: `r'…'`.
fn raw(before: &Token<'_>, at: usize) -> bool {
    let What::Name(prefix) = before.what else { return false };
    before.at + prefix.len() == at && ["r", "br", "rb"].contains(&&*prefix.to_ascii_lowercase())
}

/// What stands between the quotes at the beginning, and how many bytes they and it take.
fn quoted(source: &str, raw: bool) -> (&str, usize) {
    let one = &source[..1];
    let quote = if source.starts_with(&one.repeat(3)) { &source[..3] } else { one };
    let inner = &source[quote.len()..];
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && !raw {
            escaped = true;
        } else if inner[at..].starts_with(quote) {
            return (&inner[..at], at + 2 * quote.len());
        }
    }
    (inner, source.len())
}

/// Line and column, from 1, of the character at this byte.
fn position(source: &str, at: usize) -> (u32, u32) {
    source[..at].chars().fold(
        (1, 1),
        |(line, column), c| {
            if c == '\n' { (line + 1, 1) } else { (line, column + 1) }
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::experiment::manifest::{MedicProbe, TcpProbe};

    fn wrong(source: &str) -> Vec<(u32, u32, String)> {
        let none = ProbeSpec {
            name: String::new(),
            http: None,
            tcp: None,
            command: None,
            metric: None,
            medic: None,
        };
        let tcp: TcpProbe = serde_json::from_value(serde_json::json!({"address": "a:1"})).unwrap();
        let web = ProbeSpec { name: "web".to_owned(), tcp: Some(tcp), ..none.clone() };
        let medic = MedicProbe::default();
        let medic = ProbeSpec { name: "medic".to_owned(), medic: Some(medic), ..none };
        let place = |finding: Finding| {
            let (line, column) = finding.within.unwrap();
            (line, column, finding.message)
        };
        check("p", source, &[web, medic]).into_iter().map(place).collect()
    }

    #[test]
    fn fields_that_are_there_pass() {
        for source in [
            "web.up && web . latency_ms < 1.5e3 && medic['open_incidents'] == 0",
            "has(web.up) ? medic.live == medic.nodes : web.size() > 0",
            "'web.oops' != \"\\\"web.oops\" && r'\\' + 'web.oops' != '''it's web.oops''' // web.oops",
            "other.web.oops == 1 && web[medic.leader] == web",
        ] {
            assert_eq!(wrong(source), [], "{source}");
        }
    }

    #[test]
    fn fields_that_are_not_there_are_placed_and_the_near_one_is_named() {
        let found = wrong("!web.upp ||\n  medic['leadr'] > 0 && web.status == 200");
        let [up, leader, status] = &found[..] else { panic!("{found:?}") };
        assert_eq!((up.0, up.1), (1, 6));
        assert_eq!(up.2, "`web` has no field `upp`; did you mean `up`? (known: up, latency_ms)");
        assert_eq!((leader.0, leader.1), (2, 9));
        assert!(leader.2.contains("did you mean `leader`?"), "{leader:?}");
        assert_eq!(status.2, "`web` has no field `status` (known: up, latency_ms)");
        assert_eq!(wrong("has(web.é) || 'é' == web[\"é\"]").len(), 1, "no character is cut in two");
        assert_eq!(wrong("web['unfinished").len(), 0);
    }
}
