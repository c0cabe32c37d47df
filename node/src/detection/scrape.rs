//! Fetching an exposition: bounded in time and bytes.

use std::time::Duration;

use super::{
    exposition::{BODY_BYTES_MAX, ExpositionError},
    probe::{Certificates, Failure, Outcome},
};

/// Plain text where there is a choice; OpenMetrics' from those who have nothing else.
const ACCEPT: &str = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5";

/// The media type of a format that says where it ends.
const OPENMETRICS: &[u8] = b"application/openmetrics-text";

/// Why a scrape gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// Not finished in time.
    #[error("scrape took longer than {0:?}")]
    Timeout(Duration),
    /// Outside 2xx.
    #[error("scrape answered HTTP status {0}")]
    Status(u16),
    /// The body does not end within the bound.
    #[error("scrape body is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// The body is compressed, which was not asked for.
    #[error("scrape body is encoded as `{0}`, which was not asked for")]
    Encoded(String),
    /// OpenMetrics ends with `# EOF`, which is not there.
    #[error("scrape body is OpenMetrics without its `# EOF`: it was cut short")]
    CutShort,
    /// The body is not UTF-8.
    #[error("scrape body is not UTF-8 text")]
    NotText,
    /// The connection failed.
    #[error("scrape failed: {0}")]
    Connection(Failure),
    /// It could not be tried from here.
    #[error("scrape could not be tried: {0}")]
    Local(String),
    /// The body cannot be used.
    #[error("scrape body: {0}")]
    Body(#[from] ExpositionError),
}

impl ScrapeError {
    /// The label of metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Encoded(_) => "encoded",
            Self::CutShort => "cut_short",
            Self::NotText => "not_text",
            Self::Connection(_) => "connection",
            Self::Local(_) => "local",
            Self::Body(_) => "body",
        }
    }
}

impl From<Outcome> for ScrapeError {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Bad(failure) => Self::Connection(failure),
            Outcome::NoData(why) => Self::Local(why),
            Outcome::Good => Self::Local("no error".to_owned()),
        }
    }
}

/// GETs `url` and gives the body, within `timeout` and [`BODY_BYTES_MAX`].
pub(super) async fn fetch(
    client: &reqwest::Client,
    url: &str,
    timeout: Duration,
    certificates: &Certificates,
) -> Result<String, ScrapeError> {
    within(timeout, exposition_of(client.get(url), certificates)).await
}

/// What comes of it within `timeout`.
pub(super) async fn within<T>(
    timeout: Duration,
    fetching: impl Future<Output = Result<T, ScrapeError>>,
) -> Result<T, ScrapeError> {
    let timed = tokio::time::timeout(timeout, fetching).await;
    timed.unwrap_or(Err(ScrapeError::Timeout(timeout)))
}

/// Sends a request for an exposition and gives it, within [`BODY_BYTES_MAX`].
pub(super) async fn exposition_of(
    request: reqwest::RequestBuilder,
    certificates: &Certificates,
) -> Result<String, ScrapeError> {
    let body = body_of(request.header("accept", ACCEPT), certificates).await?;
    String::from_utf8(body).map_err(|_| ScrapeError::NotText)
}

/// Sends a request and gives the body of its answer, within [`BODY_BYTES_MAX`].
pub(super) async fn body_of(
    request: reqwest::RequestBuilder,
    certificates: &Certificates,
) -> Result<Vec<u8>, ScrapeError> {
    let failed = |error: reqwest::Error| ScrapeError::from(super::probe::judge_http(&error));
    let mut response = request.send().await.map_err(failed)?;
    super::probe::note_certificate(&response, certificates);
    if !response.status().is_success() {
        return Err(ScrapeError::Status(response.status().as_u16()));
    }
    if let Some(encoding) = response.headers().get("content-encoding")
        && encoding != "identity"
    {
        let encoding = String::from_utf8_lossy(encoding.as_bytes());
        return Err(ScrapeError::Encoded(encoding.chars().take(32).collect()));
    }
    // Who says at once that it is too much is not read at all.
    if response.content_length().is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(ScrapeError::TooLarge);
    }
    let media = response.headers().get("content-type").map_or(&[][..], |value| value.as_bytes());
    let marked = media.starts_with(OPENMETRICS);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(ScrapeError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if marked && !body.trim_ascii_end().ends_with(b"# EOF") {
        return Err(ScrapeError::CutShort);
    }
    Ok(body)
}
