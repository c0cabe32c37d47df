//! HTTP: GET; 2xx and 3xx are good. Redirects are not followed, bodies not read.

use super::{Certificates, Failure, Flaw, Outcome, io_cause, judge_io};
use crate::cause::innermost;

/// The client of probes and scrapes: a fresh connection each time (a kept one would hide that
/// nobody accepts any more), no proxy, no redirects.
///
/// On a machine without CA certificates `https` targets fail and all others work.
///
/// # Errors
/// When TLS cannot be set up at all.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another thread has installed the TLS provider");
    }
    builder().build().or_else(|error| {
        tracing::warn!(error = %innermost(&error), "no CA certificates: https probes will fail");
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder().tls_backend_preconfigured(tls).build()
    })
}

/// What all clients of probes, scrapes and queries have in common.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .tls_info(true)
        .user_agent(concat!("medic/", env!("CARGO_PKG_VERSION")))
}

pub(super) async fn check(
    client: &reqwest::Client,
    url: &str,
    certificates: &Certificates,
) -> Outcome {
    match client.get(url).send().await {
        Ok(response) => {
            note_certificate(&response, certificates);
            if response.status().is_success() || response.status().is_redirection() {
                Outcome::Good
            } else {
                Outcome::Bad(Failure::Status(response.status().as_u16()))
            }
        }
        Err(error) => {
            let outcome = judge(&error);
            if matches!(outcome, Outcome::Bad(Failure::Certificate(_))) {
                certificates.look(url).await;
            }
            outcome
        }
    }
}

/// Remembers the certificate that was shown, if one was.
pub(in crate::detection) fn note_certificate(
    response: &reqwest::Response,
    certificates: &Certificates,
) {
    let shown = response.extensions().get::<reqwest::tls::TlsInfo>();
    if let Some(der) = shown.and_then(reqwest::tls::TlsInfo::peer_certificate) {
        certificates.note(response.url().as_str(), der);
    }
}

/// Tells apart refused, timed out, unreachable, broken, and our own mistakes.
pub(in crate::detection) fn judge(error: &reqwest::Error) -> Outcome {
    if error.is_builder() {
        return Outcome::NoData(format!("bad URL: {}", innermost(error)));
    }
    if let Some(flaw) = Flaw::of(error) {
        return Outcome::Bad(Failure::Certificate(flaw));
    }
    if error.is_timeout() {
        return Outcome::Bad(Failure::Timeout);
    }
    if format!("{error:?}").contains("dns error") {
        return Outcome::Bad(Failure::Unreachable(innermost(error)));
    }
    io_cause(error).map_or_else(|| Outcome::Bad(Failure::Broken(innermost(error))), judge_io)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{sync::Arc, time::Duration};

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{
        detection::scrape,
        security::{Authority, Issued, Subject, Unit, provide_crypto},
    };

    /// A server behind TLS that answers whatever it is asked with a metric.
    async fn server(authority: &Authority) -> u16 {
        let now = medic_raft::env::Clock::now(&medic_raft::env::SystemClock);
        server_of(authority, now).await
    }

    /// The same with a certificate of a day that begins at some time.
    async fn server_of(authority: &Authority, from: medic_state::Timestamp) -> u16 {
        let subject = Subject {
            name: "node-1".to_owned(),
            cluster: "probes".to_owned(),
            unit: Unit::Nodes,
            hosts: Vec::new(),
        };
        let Issued { cert, key } = authority.issue(&subject, from, 1).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, key).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1_024];
                if !matches!(tls.read(&mut request).await, Ok(read) if read > 0) {
                    continue;
                }
                let answer =
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nmem 1\n";
                tls.write_all(answer).await.unwrap();
                tls.shutdown().await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn what_is_shown_to_probes_and_scrapes_is_remembered() {
        provide_crypto();
        let now = medic_raft::env::Clock::now(&medic_raft::env::SystemClock);
        let (authority, _) = Authority::create("probes", now, 1).unwrap();
        let root = reqwest::Certificate::from_pem(authority.certificate().as_bytes()).unwrap();
        let client = builder().tls_certs_only([root.clone()]).build().unwrap();
        let in_a_day = i64::try_from(now.0 / 1_000).unwrap() + 86_400;
        let certificates = Certificates::default();
        let url = format!("https://127.0.0.1:{}/health", server(&authority).await);
        assert_eq!(check(&client, &url, &certificates).await, Outcome::Good);
        let shown = certificates.of(&url).unwrap();
        assert!((shown.not_after_s - in_a_day).abs() <= 3_600, "{shown:?}");

        let url = format!("https://127.0.0.1:{}/metrics", server(&authority).await);
        let body = scrape::fetch(&client, &url, Duration::from_secs(5), &certificates).await;
        assert_eq!(body.unwrap(), "mem 1\n");
        assert!(certificates.of(&url).is_some());

        // Who is not trusted proves nothing; when it ends is told all the same.
        let (stranger, _) = Authority::create("probes", now, 1).unwrap();
        let url = format!("https://127.0.0.1:{}/health", server(&stranger).await);
        let flawed = |flaw| Outcome::Bad(Failure::Certificate(flaw));
        assert_eq!(check(&client, &url, &certificates).await, flawed(Flaw::UnknownIssuer));
        let shown = certificates.of(&url).unwrap();
        assert!((shown.not_after_s - in_a_day).abs() <= 3_600, "{shown:?}");

        // Trusted, and for other names; or of another time.
        let port = server(&authority).await;
        let elsewhere = builder()
            .tls_certs_only([root])
            .resolve("elsewhere.test", ([127, 0, 0, 1], port).into())
            .build()
            .unwrap();
        let error = elsewhere.get(format!("https://elsewhere.test:{port}/")).send().await;
        assert_eq!(judge(&error.unwrap_err()), flawed(Flaw::WrongName));
        let day = medic_state::Millis::from_secs(86_400);
        for (at, flaw) in [
            (medic_state::Timestamp(now.0 - 40 * day.0), Flaw::Expired),
            (now.plus(medic_state::Millis(40 * day.0)), Flaw::NotYetValid),
        ] {
            let url = format!("https://127.0.0.1:{}/", server_of(&authority, at).await);
            assert_eq!(check(&client, &url, &certificates).await, flawed(flaw));
            assert!(certificates.of(&url).is_some(), "its end is known");
        }
    }
}
