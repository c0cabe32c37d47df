//! `webhook.call`: HTTP POST by this node itself.
//!
//! Nobody on the other side is known to refuse old fences or to remember keys; both are sent along
//! (`Medic-Fence`, `Idempotency-Key`) for automation that cares to. What an answer means:
//!
//! | answer | outcome |
//! |---|---|
//! | 2xx | done |
//! | connection refused, name not found, TLS refused | failed, may be tried again: nothing was sent |
//! | 408, 425, 429 | failed, may be tried again: turned away at the door |
//! | 3xx, other 4xx | failed: not accepted |
//! | 5xx, no answer, broken off | unknown: it may have begun |

use std::{collections::BTreeMap, time::Duration};

use medic_state::saga::Outcome;
use reqwest::{StatusCode, Url, header};

use crate::{cause::innermost, world::Order};

/// Bytes of an answer that are kept as evidence.
const ANSWER_MAX: usize = 512;
/// Part of a timeout that connecting may take: what is left is for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// POSTs.
#[derive(Clone, Debug)]
pub struct Webhooks {
    client: Result<reqwest::Client, String>,
}

impl Webhooks {
    /// With the machine's CA certificates; redirects are not followed, since a POST that was
    /// redirected has perhaps been carried out twice.
    #[must_use]
    pub fn new() -> Self {
        Self { client: client() }
    }

    /// Carries out `webhook.call`.
    pub async fn call(&self, order: &Order) -> Outcome {
        let params = &order.action.params;
        let failed = |reason: String| Outcome::Failed { reason, retryable: false };
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => return failed(format!("no HTTP client: {error}")),
        };
        let Some(url) = params.get("url") else {
            return failed("parameter `url` is missing".to_owned());
        };
        let url = match Url::parse(url) {
            Ok(url) => url,
            Err(error) => return failed(format!("`{url}` is not a URL: {error}")),
        };
        let body = params.get("body").cloned().unwrap_or_else(|| default_body(order));
        let request = client
            .post(url)
            .timeout(order.timeout.as_duration())
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", order.key.to_string())
            .header("Medic-Fence", order.fence.0.to_string())
            .header("Medic-Trace", order.trace.to_string())
            .body(body);
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                judge(status, &beginning(response).await)
            }
            Err(error) => unsent(&error),
        }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self::new()
    }
}

/// A client with the machine's CA certificates that follows no redirects.
pub(super) fn client() -> Result<reqwest::Client, String> {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another thread has installed the TLS provider");
    }
    let builder = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("medic/", env!("CARGO_PKG_VERSION")))
    };
    let built = builder().build().or_else(|error| {
        tracing::warn!(%error, "no CA certificates: https webhooks will fail");
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder().tls_backend_preconfigured(tls).build()
    });
    built.map_err(|error| error.to_string())
}

fn default_body(order: &Order) -> String {
    let target = &order.target;
    serde_json::json!({
        "key": order.key.to_string(),
        "fence": order.fence.0,
        "attempt": order.attempt,
        "tenant": target.tenant,
        "service": target.service,
        "instance": target.instance,
        "trace": order.trace.to_string(),
    })
    .to_string()
}

fn judge(status: StatusCode, answer: &str) -> Outcome {
    if status.is_success() {
        return Outcome::Done(BTreeMap::from([
            ("status".to_owned(), status.as_u16().to_string()),
            ("answer".to_owned(), answer.to_owned()),
        ]));
    }
    let reason = format!("it answered {status}: {answer}");
    if status.is_server_error() {
        return Outcome::Unknown { reason };
    }
    let turned_away =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    Outcome::Failed { reason, retryable: turned_away.contains(&status) }
}

/// What a call without an answer means.
fn unsent(error: &reqwest::Error) -> Outcome {
    let reason = cause(error);
    if error.is_builder() {
        Outcome::Failed { reason, retryable: false }
    } else if error.is_connect() {
        Outcome::Failed { reason: format!("nothing was sent: {reason}"), retryable: true }
    } else {
        Outcome::Unknown { reason }
    }
}

/// The innermost reason: reqwest's own text only names the URL.
fn cause(error: &reqwest::Error) -> String {
    format!("{error}: {}", innermost(error))
}

pub(super) async fn beginning(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(ANSWER_MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;

    use medic_state::{
        Fence, Millis, PlanId, TraceId,
        plan::{Action, Direction, StepKey},
        symptom::Target,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn order(url: String) -> Order {
        let params = BTreeMap::from([("url".to_owned(), url)]);
        Order {
            key: StepKey { plan: PlanId(7), step: 1, direction: Direction::Forward },
            fence: Fence(3),
            attempt: 1,
            action: Action { name: "webhook.call".to_owned(), params },
            target: Target {
                tenant: "default".to_owned(),
                service: "db".to_owned(),
                instance: String::new(),
            },
            agent: String::new(),
            timeout: Millis(500),
            trace: TraceId::default(),
        }
    }

    /// A server that answers every connection with `answer` (empty: never), and gives the request.
    async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let mut length = 0;
            loop {
                let read = stream.read(&mut request[length..]).await.unwrap();
                length += read;
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                if read == 0 || text.ends_with('}') {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    return text;
                }
            }
        });
        (url, served)
    }

    #[tokio::test]
    async fn a_call_carries_key_and_fence_and_keeps_the_answer() {
        let (url, served) =
            server("HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone")
                .await;
        let outcome = Webhooks::new().call(&order(url)).await;
        assert!(
            matches!(&outcome, Outcome::Done(evidence) if evidence["answer"] == "done"),
            "{outcome:?}"
        );
        let request = served.await.unwrap().to_lowercase();
        assert!(request.contains("idempotency-key: plan-7/1/do"), "{request}");
        assert!(request.contains("medic-fence: 3"), "{request}");
    }

    #[tokio::test]
    async fn what_was_not_sent_has_failed_and_what_was_not_answered_is_unknown() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", closed.local_addr().unwrap());
        drop(closed);
        let outcome = Webhooks::new().call(&order(url)).await;
        assert!(matches!(outcome, Outcome::Failed { retryable: true, .. }), "{outcome:?}");

        let (url, served) = server("").await;
        let outcome = Webhooks::new().call(&order(url)).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
        served.abort();
    }

    #[test]
    fn answers_mean_what_the_table_says() {
        let is_retryable = |code: u16| match judge(StatusCode::from_u16(code).unwrap(), "") {
            Outcome::Done(_) => "done",
            Outcome::Failed { retryable: true, .. } => "again",
            Outcome::Failed { retryable: false, .. } => "failed",
            Outcome::Unknown { .. } => "unknown",
        };
        for (code, meaning) in [
            (200, "done"),
            (204, "done"),
            (302, "failed"),
            (404, "failed"),
            (429, "again"),
            (500, "unknown"),
            (503, "unknown"),
        ] {
            assert_eq!(is_retryable(code), meaning, "{code}");
        }
    }
}
