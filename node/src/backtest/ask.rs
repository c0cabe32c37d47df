//! Asks a Prometheus for what it remembers (`/api/v1/query_range`).
//!
//! ```text
//!   query, start ─────────────── end, step ─► requests of at most 11,000 points a series ─► series ─► frames
//! ```
//!
//! Requests lie on one grid, so what comes of them is what one request would have given. Each is bounded in time and
//! bytes; one whose answer is too large is asked again by halves. Whatever Prometheus says is wrong is passed on.
//! A series without a name, as most expressions give, goes by that of its query: `NAME=EXPR`, else the expression.

use std::{str::FromStr, time::Duration};

use medic_state::{Millis, time::format_rfc3339};
use reqwest::{Response, Url};

use super::{
    BacktestError,
    csv::{parse_time, shortened},
    prometheus,
    series::{Frame, Gathered, POINTS_MAX},
};
use crate::{cause::innermost, detection::probe};

/// Points of a series that Prometheus gives in one answer (`web/api/v1`, `queryRange`).
const REQUEST_POINTS_MAX: i64 = 11_000;
/// Bytes of an answer: some 200 series of as many points. What is larger is asked for by halves.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Beyond Prometheus' own limit of two minutes (`--query.timeout`), so that it can say so itself.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);
/// Characters of what a server says that is no Prometheus.
const WORDS_MAX: usize = 200;

/// A time as it is typed: `now`, a span before now (`7d`, `-7d`), RFC 3339, a date, or seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long before now.
    Ago(Millis),
    /// Milliseconds since the epoch.
    At(i64),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Ago(Millis(0)));
        }
        if let Ok(span) = text.strip_prefix('-').unwrap_or(text).parse() {
            return Ok(Self::Ago(span));
        }
        let at = parse_time(text).filter(|at| *at >= 0);
        at.map(Self::At).ok_or_else(|| {
            "no time: now, a span before now such as 7d, RFC 3339, or seconds since 1970".to_owned()
        })
    }
}

impl When {
    /// Milliseconds since the epoch.
    #[must_use]
    pub fn at_ms(self, now_ms: i64) -> i64 {
        match self {
            Self::Ago(span) => now_ms.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)),
            Self::At(at) => at,
        }
    }
}

/// What is asked, and how series without a name are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of its own, or the expression.
    pub name: String,
    /// `PromQL`.
    pub expr: String,
}

impl FromStr for Query {
    type Err = String;

    /// `NAME=EXPR` or `EXPR`: no expression begins with a name and one `=`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let named = text.split_once('=').filter(|(name, expr)| {
            let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            begins && plain && !expr.starts_with(['=', '~'])
        });
        let (name, expr) = named.unwrap_or((text, text));
        if expr.trim().is_empty() {
            return Err("there is no expression".to_owned());
        }
        Ok(Self { name: name.to_owned(), expr: expr.trim().to_owned() })
    }
}

/// From when to when, and how far apart points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
}

impl Range {
    /// Both ends are within it.
    ///
    /// # Errors
    /// When it holds no point, or more than are read.
    pub fn new(start: When, end: When, step: Millis, now_ms: i64) -> Result<Self, String> {
        let step_ms = i64::try_from(step.0).unwrap_or(i64::MAX);
        if step_ms < 1 {
            return Err("--step is above 0".to_owned());
        }
        let end_ms = end.at_ms(now_ms);
        // Of two runs, whenever they are, points lie on the same grid.
        let start_ms = match start {
            When::At(at) => at,
            When::Ago(_) => start.at_ms(now_ms).div_euclid(step_ms) * step_ms,
        };
        if start_ms < 0 || end_ms <= start_ms {
            return Err("--start is before --end, and after 1970".to_owned());
        }
        let range = Self { start_ms, end_ms, step_ms };
        if range.points() > POINTS_MAX as i64 {
            let points = range.points();
            return Err(format!(
                "{points} points a series: a longer --step or a shorter time has fewer"
            ));
        }
        Ok(range)
    }

    const fn points(self) -> i64 {
        (self.end_ms - self.start_ms) / self.step_ms + 1
    }

    /// So many points from one on, or as many as there are.
    fn part(self, from: i64, count: i64) -> (i64, i64) {
        let last = (from + count).min(self.points()) - 1;
        (self.start_ms + from * self.step_ms, self.start_ms + last * self.step_ms)
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `Authorization: Bearer`.
    Token(String),
    /// `Authorization: Basic`.
    Basic {
        /// Their name.
        user: String,
        /// What only they know.
        password: String,
    },
}

/// A Prometheus that is asked.
pub struct Prometheus {
    client: reqwest::Client,
    base: Url,
    credentials: Option<Credentials>,
    body_bytes_max: usize,
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").field("base", &self.shown()).finish_non_exhaustive()
    }
}

/// What one request came to.
enum Answer {
    Body(Vec<u8>),
    TooLarge,
}

impl Prometheus {
    /// At an address. `authorities`: who is trusted instead of whom the
    /// system trusts, as PEM.
    ///
    /// # Errors
    /// When the address or an authority is none.
    pub fn new(
        base: &str,
        credentials: Option<Credentials>,
        authorities: Option<&[u8]>,
    ) -> Result<Self, String> {
        // It may hold a password, and where it is no address nobody knows where: it is not repeated.
        let no_address = |why| {
            format!("--prometheus is no address of HTTP, such as http://127.0.0.1:9090: {why}")
        };
        let mut base = Url::parse(base).map_err(|error| no_address(error.to_string()))?;
        if !["http", "https"].contains(&base.scheme()) {
            return Err(no_address("it begins with neither http:// nor https://".to_owned()));
        }
        if credentials.is_some() && (!base.username().is_empty() || base.password().is_some()) {
            return Err("the address names a user already: one is enough".to_owned());
        }
        let path = format!("{}/api/v1/query_range", base.path().trim_end_matches('/'));
        base.set_path(&path);
        let client = match authorities {
            None => probe::client(),
            Some(pem) => reqwest::Certificate::from_pem_bundle(pem)
                .and_then(|those| probe::client_builder().tls_certs_only(those).build()),
        };
        let client = client.map_err(|error| innermost(&error))?;
        Ok(Self { client, base, credentials, body_bytes_max: BODY_BYTES_MAX })
    }

    /// Its address without what is secret.
    fn shown(&self) -> String {
        let mut shown = self.base.clone();
        // An address of HTTP can have neither.
        if shown.set_password(None).and_then(|()| shown.set_username("")).is_err() {
            return String::new();
        }
        shown.to_string()
    }

    /// Asks all queries over a range; `told` is given what people may want to know meanwhile, a line each.
    ///
    /// # Errors
    /// When it cannot be reached, refuses, or has nothing.
    pub async fn ask(
        &self,
        queries: &[Query],
        range: Range,
        mut told: impl FnMut(&str),
    ) -> Result<Vec<Frame>, BacktestError> {
        let mut all = Gathered::default();
        for query in queries {
            let found = self.ask_one(query, range, &mut told).await?;
            if found.is_empty() {
                let from = format_rfc3339(medic_state::Timestamp(range.start_ms.unsigned_abs()));
                told(&format!("query `{}`: nothing since {from}", shortened(&query.name)));
            }
            all.merge(found).map_err(|problem| self.refused(query, problem))?;
        }
        all.finish(self.shown().as_ref())
    }

    async fn ask_one(
        &self,
        query: &Query,
        range: Range,
        told: &mut impl FnMut(&str),
    ) -> Result<Gathered, BacktestError> {
        let (mut gathered, mut from, mut count) = (Gathered::default(), 0, REQUEST_POINTS_MAX);
        while from < range.points() {
            let body = match self.request(query, range.part(from, count), range.step_ms).await? {
                Answer::Body(body) => body,
                Answer::TooLarge if count > 1 => {
                    count /= 2;
                    continue;
                }
                Answer::TooLarge => {
                    let problem = format!(
                        "one point alone is more than {} bytes: aggregate",
                        self.body_bytes_max
                    );
                    return Err(self.refused(query, problem));
                }
            };
            let taken = prometheus::take(body.as_slice(), Some(&query.name), &mut gathered);
            for warning in taken.map_err(|bad| self.refused(query, bad.problem))? {
                told(&format!("query `{}`: {warning}", shortened(&query.name)));
            }
            from += count;
            if range.points() > REQUEST_POINTS_MAX {
                let (done, all) = (from.min(range.points()), range.points());
                told(&format!("query `{}`: {done} of {all} times", shortened(&query.name)));
            }
        }
        Ok(gathered)
    }

    /// One request, within its time.
    async fn request(
        &self,
        query: &Query,
        part: (i64, i64),
        step_ms: i64,
    ) -> Result<Answer, BacktestError> {
        let timed = tokio::time::timeout(REQUEST_TIMEOUT, self.send(query, part, step_ms)).await;
        timed.unwrap_or_else(|_| {
            Err(self.unanswered(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())))
        })
    }

    async fn send(
        &self,
        query: &Query,
        (start_ms, end_ms): (i64, i64),
        step_ms: i64,
    ) -> Result<Answer, BacktestError> {
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1_000, ms % 1_000);
        let mut form = self.base.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("query", &query.expr)
            .append_pair("start", &seconds(start_ms))
            .append_pair("end", &seconds(end_ms))
            .append_pair("step", &seconds(step_ms));
        let mut request = (self.client.post(self.base.clone()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        request = match &self.credentials {
            None => request,
            Some(Credentials::Token(token)) => request.bearer_auth(token),
            Some(Credentials::Basic { user, password }) => request.basic_auth(user, Some(password)),
        };
        let lost = |error: reqwest::Error| self.unanswered(innermost(&error));
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        let elsewhere = location(&response);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > self.body_bytes_max {
                return Ok(Answer::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(Answer::Body(body));
        }
        let said = prometheus::refusal(&body).unwrap_or_else(|| {
            let text: String = String::from_utf8_lossy(&body).chars().take(WORDS_MAX).collect();
            format!("{elsewhere}{}", text.trim())
        });
        Err(self.refused(query, format!("HTTP status {status}: {said}")))
    }

    fn refused(&self, query: &Query, problem: String) -> BacktestError {
        let query = shortened(&query.expr);
        BacktestError::Refused { url: self.shown(), query, problem }
    }

    fn unanswered(&self, why: String) -> BacktestError {
        BacktestError::Unanswered { url: self.shown(), why }
    }
}

/// Where a redirect leads: it is not followed, for a token is for whom it was given to.
fn location(response: &Response) -> String {
    let to = response.headers().get("location").and_then(|to| to.to_str().ok());
    to.map_or_else(String::new, |to| format!("it is at {} ", shortened(to)))
}

#[cfg(test)]
mod tests;
