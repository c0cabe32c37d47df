//! POSTs of channels, and what an answer says about whether people were told.
//!
//! | answer | a receiver that recognises repeats | one that does not |
//! |---|---|---|
//! | 2xx | delivered | delivered |
//! | connection refused, name not found, TLS refused | failed: nothing was sent | the same |
//! | 408, 425, 429, 503 | failed: turned away at the door | the same |
//! | 401, 403, 404, 3xx | failed: it may be mended on the other side | the same |
//! | other 4xx | refused | refused |
//! | other 5xx | failed: sending it again does no harm | unknown |
//! | no answer, broken off | unknown | unknown |

use std::time::Duration;

use medic_state::notice::Delivery;
use reqwest::{StatusCode, Url, header};

use crate::{
    action::backends::webhook::{beginning, client},
    cause::innermost,
};

/// Time a channel has.
const TIMEOUT: Duration = Duration::from_secs(5);

/// POSTs JSON.
#[derive(Clone, Debug)]
pub(super) struct Poster {
    client: Result<reqwest::Client, String>,
    timeout: Duration,
}

impl Poster {
    pub(super) fn new() -> Self {
        Self { client: client(), timeout: TIMEOUT }
    }

    #[cfg(test)]
    pub(super) fn with_timeout(timeout: Duration) -> Self {
        Self { client: client(), timeout }
    }

    /// `key`: by which the receiver recognises a repeat.
    pub(super) async fn post(
        &self,
        url: &str,
        body: &serde_json::Value,
        key: Option<&str>,
    ) -> Delivery {
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => return Delivery::Failed(format!("no HTTP client: {error}")),
        };
        let Ok(url) = Url::parse(url) else {
            return Delivery::Refused("its address is no URL".to_owned());
        };
        let mut request = client
            .post(url)
            .timeout(self.timeout)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                judge(status, &beginning(response).await, key.is_some())
            }
            Err(error) => unanswered(error),
        }
    }
}

fn judge(status: StatusCode, answer: &str, recognises: bool) -> Delivery {
    if status.is_success() {
        return Delivery::Delivered;
    }
    let answer: String = answer.chars().filter(|c| !c.is_control()).take(120).collect();
    let reason = format!("it answered {status}: {answer}");
    let reason = reason.trim_end_matches([':', ' ']).to_owned();
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
    ];
    if passing.contains(&status) || status.is_redirection() {
        Delivery::Failed(reason)
    } else if status.is_server_error() {
        if recognises { Delivery::Failed(reason) } else { Delivery::Unknown(reason) }
    } else {
        Delivery::Refused(reason)
    }
}

/// What a call without an answer means. The URL, which may be a secret, is left out.
fn unanswered(error: reqwest::Error) -> Delivery {
    let (builder, connect) = (error.is_builder(), error.is_connect());
    let what = if error.is_timeout() { "no answer in time" } else { "broken off" };
    let reason = innermost(&error.without_url());
    if builder {
        Delivery::Refused(format!("it cannot be asked: {reason}"))
    } else if connect {
        Delivery::Failed(format!("nothing was sent: {reason}"))
    } else {
        Delivery::Unknown(format!("{what}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn answers_mean_what_the_table_says() {
        let word = |code: u16, recognises| match judge(
            StatusCode::from_u16(code).unwrap(),
            "",
            recognises,
        ) {
            Delivery::Delivered => "delivered",
            Delivery::Failed(_) => "failed",
            Delivery::Refused(_) => "refused",
            Delivery::Unknown(_) => "unknown",
            Delivery::Sending(_) => "sending",
        };
        for (code, recognises, does_not) in [
            (200, "delivered", "delivered"),
            (202, "delivered", "delivered"),
            (302, "failed", "failed"),
            (400, "refused", "refused"),
            (401, "failed", "failed"),
            (404, "failed", "failed"),
            (410, "refused", "refused"),
            (429, "failed", "failed"),
            (500, "failed", "unknown"),
            (502, "failed", "unknown"),
            (503, "failed", "failed"),
        ] {
            assert_eq!((word(code, true), word(code, false)), (recognises, does_not), "{code}");
        }
    }
}
