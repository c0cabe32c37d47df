//! gRPC: `grpc.health.v1.Health/Check` of the server as a whole.
//!
//! `https` targets are verified against the certificates this machine trusts (or those that
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name), like the HTTP probes. Deliberately absent: a way to skip
//! that, as an unverified connection would prove nothing.

use std::sync::LazyLock;

use rustls::{RootCertStore, pki_types::TrustAnchor};
use tonic::{
    Code,
    transport::{ClientTlsConfig, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Certificates, Failure, Flaw, Outcome, io_cause, judge_io};
use crate::cause::innermost;

/// A health answer is two bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// What this machine trusts; read once.
static TRUSTED: LazyLock<RootCertStore> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a CA certificate of this machine");
    }
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(usable = roots.len(), unusable, "CA certificates for gRPC probes");
    roots
});

pub(super) async fn check(url: &str, certificates: &Certificates) -> Outcome {
    if url.starts_with("https:") {
        let outcome = check_trusting(url, &TRUSTED.roots).await;
        // tonic does not tell what it was shown: another connection looks, now and then.
        if matches!(outcome, Outcome::Good | Outcome::Bad(Failure::Certificate(_))) {
            certificates.look(url).await;
        }
        outcome
    } else {
        check_trusting(url, &[]).await
    }
}

async fn check_trusting(url: &str, trusted: &[TrustAnchor<'static>]) -> Outcome {
    let bad_url = |error| Outcome::NoData(format!("bad URL `{url}`: {error}"));
    let mut endpoint = match Endpoint::from_shared(url.to_owned()) {
        Ok(endpoint) => endpoint,
        Err(error) => return bad_url(error),
    };
    if url.starts_with("https:") {
        if trusted.is_empty() {
            return Outcome::NoData(
                "this node has no CA certificates: install ca-certificates, or set SSL_CERT_FILE"
                    .to_owned(),
            );
        }
        let tls = ClientTlsConfig::new().trust_anchors(trusted.iter().cloned());
        endpoint = match endpoint.tls_config(tls) {
            Ok(endpoint) => endpoint,
            Err(error) => return bad_url(error),
        };
    }
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => {
            if let Some(flaw) = Flaw::of(&error) {
                return Outcome::Bad(Failure::Certificate(flaw));
            }
            return io_cause(&error)
                .map_or_else(|| Outcome::Bad(Failure::Unreachable(innermost(&error))), judge_io);
        }
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    match client.check(HealthCheckRequest { service: String::new() }).await {
        Ok(answer) => match ServingStatus::try_from(answer.into_inner().status) {
            Ok(ServingStatus::Serving) => Outcome::Good,
            Ok(other) => Outcome::Bad(Failure::NotServing(other.as_str_name().to_owned())),
            Err(error) => Outcome::Bad(Failure::Broken(error.to_string())),
        },
        Err(status) if status.code() == Code::Unimplemented => {
            Outcome::NoData("the server has no health service".to_owned())
        }
        Err(status) => Outcome::Bad(Failure::Broken(status.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use medic_raft::env::{Clock as _, SystemClock};
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    use tonic::transport::{Identity, Server, ServerTlsConfig};
    use tonic_health::{ServingStatus as Says, server::HealthReporter};

    use super::{super::certificate::shown_at, *};
    use crate::security::{Authority, Issued, Subject, Unit, provide_crypto};

    fn authority() -> (Authority, Vec<TrustAnchor<'static>>) {
        let (authority, _) = Authority::create("probes", SystemClock.now(), 1).unwrap();
        let mut roots = RootCertStore::empty();
        let pem = authority.certificate().as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
        (authority, roots.roots)
    }

    /// A server with a health service behind TLS, reachable as 127.0.0.1 and `localhost`.
    async fn server(authority: &Authority) -> (u16, HealthReporter) {
        let subject = Subject {
            name: "node-1".to_owned(),
            cluster: "probes".to_owned(),
            unit: Unit::Nodes,
            hosts: Vec::new(),
        };
        let Issued { cert, key } = authority.issue(&subject, SystemClock.now(), 1).unwrap();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = Server::builder().tls_config(tls).unwrap().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        (port, reporter)
    }

    #[tokio::test]
    async fn health_behind_tls_is_believed_only_when_it_is_proven() {
        provide_crypto();
        let (authority, trusted) = authority();
        let (port, reporter) = server(&authority).await;
        let url = format!("https://127.0.0.1:{port}");
        assert_eq!(check_trusting(&url, &trusted).await, Outcome::Good);
        let shown = shown_at(&url).await.unwrap();
        let ends_s = super::super::Validity::of(&shown).unwrap().not_after_s;
        assert!(ends_s > i64::try_from(SystemClock.now().0 / 1_000).unwrap());
        assert_eq!(
            check_trusting(&format!("https://localhost:{port}"), &trusted).await,
            Outcome::Good
        );

        reporter.set_service_status("", Says::NotServing).await;
        let found = check_trusting(&url, &trusted).await;
        assert_eq!(found, Outcome::Bad(Failure::NotServing("NOT_SERVING".to_owned())));

        let (_, strangers) = self::authority();
        let found = check_trusting(&url, &strangers).await;
        assert_eq!(found, Outcome::Bad(Failure::Certificate(Flaw::UnknownIssuer)));
        let found = check_trusting(&url, &[]).await;
        assert!(
            matches!(&found, Outcome::NoData(why) if why.contains("SSL_CERT_FILE")),
            "{found:?}"
        );
        // Plain text to a server that wants TLS, and TLS to one that speaks plain text.
        let found = check_trusting(&format!("http://127.0.0.1:{port}"), &trusted).await;
        assert!(matches!(found, Outcome::Bad(_)), "{found:?}");
        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", plain.local_addr().unwrap());
        drop(plain);
        assert_eq!(check_trusting(&url, &trusted).await, Outcome::Bad(Failure::Refused));
    }
}
