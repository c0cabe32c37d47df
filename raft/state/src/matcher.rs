//! Prometheus label matchers: `name="v"`, `name!="v"`, `name=~"re"`, `name!~"re"`.
//!
//! Same meaning as in Prometheus: expressions are anchored at both ends, a missing label is the
//! empty string. Kept small and our own because the law evaluates them: it must not change meaning
//! with a query parser's version.

use std::{cell::RefCell, collections::BTreeMap, fmt, str::FromStr};

/// One matcher.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Label name.
    pub name: String,
    /// How it is compared.
    pub op: MatchOp,
    /// With what.
    pub value: String,
    regex: Option<regex::Regex>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
}

/// Bytes of compiled expression allowed: a manifest must not cost more memory than this.
const REGEX_SIZE_MAX: usize = 256 * 1024;
/// Expressions that a thread keeps compiled: more than a cluster's playbooks and silences have, and at
/// most 16 MiB.
const COMPILED_MAX: usize = 64;

/// A text that is no matcher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a matcher such as class=\"application/crash\" or env=~\"prod.*\": {reason}"
)]
pub struct BadMatcher {
    text: String,
    reason: String,
}

impl Matcher {
    /// Whether the labels satisfy it.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        let hit = self.regex.as_ref().map_or(value == self.value, |regex| regex.is_match(value));
        match self.op {
            MatchOp::Equal | MatchOp::Matches => hit,
            MatchOp::NotEqual | MatchOp::NotMatches => !hit,
        }
    }
}

impl FromStr for Matcher {
    type Err = BadMatcher;

    fn from_str(text: &str) -> Result<Self, BadMatcher> {
        let (matcher, rest) = parse_one(text)?;
        if rest.trim().is_empty() { Ok(matcher) } else { Err(bad(text, "text follows the value")) }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Matches => "=~",
            MatchOp::NotMatches => "!~",
        };
        write!(f, "{}{op}{:?}", self.name, self.value)
    }
}

/// A vector selector without modifiers: `name`, `name{a="b",c=~"d"}`, `{a="b"}`.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Metric name; empty: any.
    pub metric: String,
    /// All must match.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// Whether a sample is selected.
    #[must_use]
    pub fn selects(&self, metric: &str, labels: &BTreeMap<String, String>) -> bool {
        (self.metric.is_empty() || self.metric == metric)
            && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

impl FromStr for Selector {
    type Err = BadMatcher;

    fn from_str(text: &str) -> Result<Self, BadMatcher> {
        let text = text.trim();
        let end = text.find('{').unwrap_or(text.len());
        let (metric, braces) = text.split_at(end);
        let metric = metric.trim();
        if !metric.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':') {
            return Err(bad(text, "a metric name has letters, digits, `_` and `:`"));
        }
        let mut matchers = Vec::new();
        if let Some(inner) = braces.strip_prefix('{') {
            let inner = inner.strip_suffix('}').ok_or_else(|| bad(text, "`}` is missing"))?;
            let mut rest = inner.trim();
            while !rest.is_empty() {
                let (matcher, tail) = parse_one(rest)?;
                matchers.push(matcher);
                let tail = tail.trim_start();
                rest = match tail.strip_prefix(',') {
                    Some(next) => next.trim_start(),
                    None if tail.is_empty() => tail,
                    None => return Err(bad(text, "`,` is missing between matchers")),
                };
            }
        }
        if metric.is_empty() && matchers.is_empty() {
            return Err(bad(text, "it selects everything"));
        }
        Ok(Self { metric: metric.to_owned(), matchers })
    }
}

/// Parses every matcher of a list.
///
/// # Errors
/// At the first one that is none.
pub fn parse_all(texts: &[String]) -> Result<Vec<Matcher>, BadMatcher> {
    texts.iter().map(|text| text.parse()).collect()
}

fn bad(text: &str, reason: &str) -> BadMatcher {
    BadMatcher { text: text.to_owned(), reason: reason.to_owned() }
}

/// Reads one matcher from the front; gives back what follows it.
fn parse_one(text: &str) -> Result<(Matcher, &str), BadMatcher> {
    let start = text.trim_start();
    let end = start
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .ok_or_else(|| bad(text, "an operator is missing"))?;
    let (name, rest) = start.split_at(end);
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return Err(bad(text, "it does not start with a label name"));
    }
    let rest = rest.trim_start();
    let (op, rest) = [
        ("=~", MatchOp::Matches),
        ("!~", MatchOp::NotMatches),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ]
    .into_iter()
    .find_map(|(sign, op)| rest.strip_prefix(sign).map(|rest| (op, rest)))
    .ok_or_else(|| bad(text, "the operator is none of =, !=, =~, !~"))?;
    let (value, rest) = parse_quoted(rest.trim_start())
        .ok_or_else(|| bad(text, "the value is not in double quotes"))?;
    let regex = match op {
        MatchOp::Equal | MatchOp::NotEqual => None,
        MatchOp::Matches | MatchOp::NotMatches => {
            Some(compiled(&value).map_err(|error| bad(text, &error.to_string()))?)
        }
    };
    Ok((Matcher { name: name.to_owned(), op, value, regex }, rest))
}

/// The anchored expression. Matchers are read again for every symptom and decision, and compiling
/// costs far more than matching: each thread keeps what it has compiled, and forgets all of it when
/// that becomes too much. It is a memory only: the result is that of compiling anew.
fn compiled(value: &str) -> Result<regex::Regex, regex::Error> {
    thread_local! {
        static KNOWN: RefCell<BTreeMap<String, regex::Regex>> = const { RefCell::new(BTreeMap::new()) };
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(regex) = known.get(value) {
            return Ok(regex.clone());
        }
        let regex = regex::RegexBuilder::new(&format!("^(?s:{value})$"))
            .size_limit(REGEX_SIZE_MAX)
            .build()?;
        if known.len() >= COMPILED_MAX {
            known.clear();
        }
        known.insert(value.to_owned(), regex.clone());
        Ok(regex)
    })
}

/// Reads `"…"` with `\"`, `\\` and `\n` escapes.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn matches_as_prometheus_does() {
        let set = labels(&[("env", "prod-eu"), ("class", "application/crash")]);
        for (text, expected) in [
            (r#"env="prod-eu""#, true),
            (r#"env="prod""#, false),
            (r#"env=~"prod.*""#, true),
            (r#"env=~"prod""#, false),
            (r#"env!~"stag.*""#, true),
            (r#"team="""#, true),
            (r#"team!="""#, false),
            (r#"class = "application/crash""#, true),
        ] {
            let matcher: Matcher = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(matcher.matches(&set), expected, "{text}");
        }
    }

    #[test]
    fn more_expressions_than_are_kept_compiled_keep_their_meaning() {
        for round in 0..2 {
            for n in 0..COMPILED_MAX * 2 {
                let matcher: Matcher =
                    format!(r#"n=~"{n}|x{n}""#).parse().unwrap_or_else(|e| panic!("{e}"));
                assert!(matcher.matches(&labels(&[("n", &n.to_string())])), "{round} {n}");
                assert!(!matcher.matches(&labels(&[("n", &(n + 1).to_string())])), "{round} {n}");
            }
        }
        assert!(r#"n=~"(""#.parse::<Matcher>().is_err() && r#"n=~"(""#.parse::<Matcher>().is_err());
    }

    #[test]
    fn refuses_what_is_no_matcher() {
        for text in [
            "",
            "env",
            "env=prod",
            r#"="x""#,
            r#"env=~"(""#,
            r#"env="a" x"#,
            r#"1a="b""#,
            r#"env="a"#,
        ] {
            assert!(text.parse::<Matcher>().is_err(), "{text}");
        }
    }

    #[test]
    fn selectors_read_names_and_matchers() {
        let selector: Selector = r#"http_requests_total{code=~"5..", route="/a,b}"}"#
            .parse()
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(
            selector
                .selects("http_requests_total", &labels(&[("code", "503"), ("route", "/a,b}")]))
        );
        assert!(
            !selector
                .selects("http_requests_total", &labels(&[("code", "200"), ("route", "/a,b}")]))
        );
        assert!("up".parse::<Selector>().is_ok());
        for text in ["", "{}", "a b", "a{b=\"c\"", "a{b=\"c\" d=\"e\"}"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
