//! Calls to dependencies, counted by how they failed.

use std::time::Duration;

use super::ServiceConfig;

/// How a call failed: nothing came back in time, nobody listens there, or what came was no success.
pub(super) const REASONS: [&str; 3] = ["timeout", "refused", "answer"];

/// Calls one address of the group, and another one as often as the configuration allows. `route`:
/// where every dependency is taken to be instead.
pub(super) async fn call(
    client: &reqwest::Client,
    config: &ServiceConfig,
    group: &[String],
    turn: usize,
    route: Option<&str>,
) -> bool {
    let tries = usize::try_from(config.retries).unwrap_or(0).saturating_add(1);
    for attempt in 0..tries {
        let Some(configured) = group.get((turn + attempt) % group.len().max(1)) else {
            return true;
        };
        let address = route.unwrap_or(configured);
        metrics::counter!("upstream_requests_total").increment(1);
        match once(client, address, Duration::from_millis(config.timeout_ms)).await {
            None => return true,
            Some(reason) => {
                metrics::counter!("upstream_failures_total", "reason" => reason).increment(1);
            }
        }
    }
    false
}

/// One call; how it failed.
async fn once(client: &reqwest::Client, address: &str, timeout: Duration) -> Option<&'static str> {
    let url = format!("http://{address}/work");
    match client.get(url).timeout(timeout).send().await {
        Ok(response) if response.status().is_success() => None,
        Ok(_) => Some("answer"),
        Err(error) if error.is_timeout() => Some("timeout"),
        Err(error) if error.is_connect() => Some("refused"),
        Err(_) => Some("answer"),
    }
}
