//! HTTP: GET; 2xx and 3xx are good. Redirects are not followed, bodies not read.

use super::{Failure, Outcome, io_cause, judge_io, root_cause};

/// The client of probes and scrapes: a fresh connection each time (a kept one would hide that
/// nobody accepts any more), no proxy, no redirects.
///
/// On a machine without CA certificates `https` targets fail and all others work.
///
/// # Errors
/// When TLS cannot be set up at all.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    let builder = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .user_agent(concat!("medic/", env!("CARGO_PKG_VERSION")))
    };
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another thread has installed the TLS provider");
    }
    builder().build().or_else(|error| {
        tracing::warn!(error = %root_cause(&error), "no CA certificates: https probes will fail");
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder().tls_backend_preconfigured(tls).build()
    })
}

pub(super) async fn check(client: &reqwest::Client, url: &str) -> Outcome {
    match client.get(url).send().await {
        Ok(response) if response.status().is_success() || response.status().is_redirection() => {
            Outcome::Good
        }
        Ok(response) => Outcome::Bad(Failure::Status(response.status().as_u16())),
        Err(error) => judge(&error),
    }
}

/// Tells apart refused, timed out, unreachable, broken, and our own mistakes.
pub(in crate::detection) fn judge(error: &reqwest::Error) -> Outcome {
    if error.is_builder() {
        return Outcome::NoData(format!("bad URL: {}", root_cause(error)));
    }
    if error.is_timeout() {
        return Outcome::Bad(Failure::Timeout);
    }
    if format!("{error:?}").contains("dns error") {
        return Outcome::Bad(Failure::Unreachable(root_cause(error)));
    }
    io_cause(error).map_or_else(|| Outcome::Bad(Failure::Broken(root_cause(error))), judge_io)
}
