//! The certificates that were shown to probes and scrapes: when they end, and why one proves nothing.
//!
//! One that is not trusted is looked at by a connection of its own, through which nothing is said: its end is
//! worth knowing, above all when that is what is wrong.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    CertificateError, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

/// The detector of votes that rest on a certificate.
pub const CERTIFICATE: &str = "certificate";

/// Endpoints remembered; when there are more, all are learnt anew at their next looks.
const ENDPOINTS_MAX: usize = 10_000;

/// Where a look costs a connection of its own, this long passes between two.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// What such a look may take: the server has just shown that it answers.
const LOOK_TIME: Duration = Duration::from_millis(300);

/// From when to when a certificate is good, as Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// It begins, seconds.
    pub not_before_s: i64,
    /// It ends, seconds.
    pub not_after_s: i64,
}

impl Validity {
    /// Of a certificate in DER; `None`: it is none.
    #[must_use]
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
        })
    }
}

/// Why a certificate that was shown proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It has ended.
    Expired,
    /// It has not begun.
    NotYetValid,
    /// It is another host's.
    WrongName,
    /// Whoever issued it is not trusted here.
    UnknownIssuer,
    /// It was taken back by its issuer.
    Revoked,
    /// Something else.
    Other(String),
}

impl Flaw {
    /// What an error says of the certificate that was shown, if it is about one.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let tls = error
                .downcast_ref::<rustls::Error>()
                .or_else(|| inner.and_then(|inner| inner.downcast_ref()));
            if let Some(rustls::Error::InvalidCertificate(flaw)) = tls {
                return Some(flaw.into());
            }
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    /// A word for programs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::WrongName => "wrong-name",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Revoked => "revoked",
            Self::Other(_) => "invalid",
        }
    }
}

impl From<&CertificateError> for Flaw {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            // The issuer bears a trusted name, and has another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("has expired"),
            Self::NotYetValid => f.write_str("is not valid yet"),
            Self::WrongName => f.write_str("is for another name"),
            Self::UnknownIssuer => f.write_str("is by an issuer that is not trusted"),
            Self::Revoked => f.write_str("was revoked"),
            Self::Other(why) => write!(f, "is not valid: {why}"),
        }
    }
}

/// Takes any certificate: to look at it, by a connection that is never used, or because a Source says so.
#[derive(Debug)]
pub(in crate::detection) struct AnyCertificate(pub(in crate::detection) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that a server shows, trusted or not; `None`: no connection, or no TLS.
pub(super) async fn shown_at(url: &str) -> Option<CertificateDer<'static>> {
    let uri: tonic::transport::Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await.ok()?;
    let name = ServerName::try_from(host).ok()?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    tls.get_ref().1.peer_certificates()?.first().cloned().map(CertificateDer::into_owned)
}

/// By endpoint. One that shows none any more, because it has ended say, keeps its last.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<BTreeMap<String, (Validity, Instant)>>);

impl Certificates {
    /// This was shown at a URL.
    pub fn note(&self, url: &str, der: &[u8]) {
        let Some(validity) = Validity::of(der) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = known.get_mut(endpoint(url)) {
            *held = (validity, Instant::now());
            return;
        }
        if known.len() >= ENDPOINTS_MAX {
            known.clear();
        }
        known.insert(endpoint(url).to_owned(), (validity, Instant::now()));
    }

    /// Looks at what is shown at a URL, when it is time for that; briefly, as a check waits for it.
    pub(super) async fn look(&self, url: &str) {
        if self.due(url)
            && let Ok(Some(shown)) = tokio::time::timeout(LOOK_TIME, shown_at(url)).await
        {
            self.note(url, &shown);
        }
    }

    /// What was last shown at a URL's endpoint.
    #[must_use]
    pub fn of(&self, url: &str) -> Option<Validity> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(endpoint(url)).map(|(validity, _)| *validity)
    }

    /// Whether it is time for another look.
    pub(super) fn due(&self, url: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(endpoint(url)).is_none_or(|(_, at)| at.elapsed() >= LOOK_AGAIN)
    }
}

/// `scheme://host:port` of a URL.
pub(super) fn endpoint(url: &str) -> &str {
    let begins = url.find("://").map_or(0, |at| at + 3);
    let ends = url[begins..].find(['/', '?', '#']).map_or(url.len(), |at| begins + at);
    &url[..ends]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn certificates_go_by_their_endpoint() {
        let made = rcgen::generate_simple_self_signed(vec!["web".to_owned()]).unwrap();
        let known = Certificates::default();
        known.note("https://web:443/health?x=1", made.cert.der());
        let validity = known.of("https://web:443/metrics").unwrap();
        assert!(validity.not_before_s < validity.not_after_s);
        assert_eq!(known.of("https://web:444/metrics"), None);
        known.note("https://other", b"rubbish");
        assert_eq!(known.of("https://other"), None);
        assert!(!known.due("https://web:443/other") && known.due("https://web:444"));
    }
}
