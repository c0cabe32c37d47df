//! Certificates from files, proven before use, swapped while in use.
//!
//! ```text
//!   ca.crt, tls.crt, tls.key ─► proven? ─► Material ─► rustls / tonic configurations
//!        └── files changed (polled) or SIGHUP ─────► proven? ─► swap; else keep the old, and say so
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use medic_raft::env::Clock;
use medic_state::{Timestamp, rbac::Principal};
use rustls::{
    CertificateError, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{SecurityError, Unit};
use crate::config::TlsFiles;

/// HTTP/2, the only protocol behind our TLS.
const ALPN: &[u8] = b"h2";

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Common name.
    pub name: String,
    /// Organization.
    pub cluster: String,
    /// Organizational unit.
    pub unit: String,
    /// Names and addresses it may be dialled under.
    pub hosts: Vec<String>,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Whether it is an authority.
    pub authority: bool,
}

impl Identity {
    /// Who it is in the law's words; `None`: an authority, or a unit that we do not know.
    #[must_use]
    pub fn principal(&self) -> Option<Principal> {
        let kind = Unit::from_name(&self.unit)?.principal_kind();
        Some(Principal { kind, name: self.name.clone() })
    }
}

/// Proven material of one identity.
pub struct Material {
    /// Who it is.
    pub identity: Identity,
    files: TlsFiles,
    roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
    pem: [Vec<u8>; 3],
    server: Option<Arc<rustls::ServerConfig>>,
    client: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Reads and proves an identity: it is of this cluster and unit, signed by the authority, valid now,
/// and the key is its own.
///
/// # Errors
/// At the first thing that is wrong, naming the file.
pub fn load(
    files: &TlsFiles,
    cluster: &str,
    unit: Unit,
    now: Timestamp,
) -> Result<Material, SecurityError> {
    let pem = [read(&files.ca)?, read(&files.cert)?, read(&files.key)?];
    let [ca_pem, cert_pem, key_pem] = &pem;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca, ca_pem)? {
        roots.add(authority).map_err(|error| SecurityError::BadCertificate {
            path: files.ca.clone(),
            reason: error.to_string(),
        })?;
    }
    let chain = certificates(&files.cert, cert_pem)?;
    let path = || files.cert.clone();
    let identity = identity(&files.cert, &chain[0])?;
    if now > identity.not_after {
        return Err(SecurityError::Expired { path: path(), at: identity.not_after });
    }
    if now < identity.not_before {
        return Err(SecurityError::NotYetValid { path: path(), at: identity.not_before });
    }
    if identity.unit != unit.as_str() {
        let found = identity.unit;
        return Err(SecurityError::WrongUnit { path: path(), found, expected: unit });
    }
    if identity.cluster != cluster {
        let (found, expected) = (identity.cluster, cluster.to_owned());
        return Err(SecurityError::WrongCluster { path: path(), found, expected });
    }
    let provider = Arc::new(ring::default_provider());
    let key = private_key(&files.key, key_pem)?;
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            SecurityError::KeyMismatch { cert: path(), key: files.key.clone() }
        }
        source => SecurityError::Tls { path: path(), source },
    })?;
    let roots = Arc::new(roots);
    prove_signature(files, &roots, &provider, &key.cert, now)?;
    Material::build(identity, files.clone(), roots, Arc::new(key), pem, &provider, unit)
}

/// Reads every certificate of a file without proving it: for `medic certs show`.
///
/// # Errors
/// When the file holds none, or one that cannot be read.
pub fn inspect(path: &Path) -> Result<Vec<Identity>, SecurityError> {
    let pem = read(path)?;
    certificates(path, &pem)?.iter().map(|der| identity(path, der)).collect()
}

impl Material {
    fn build(
        identity: Identity,
        files: TlsFiles,
        roots: Arc<RootCertStore>,
        key: Arc<CertifiedKey>,
        pem: [Vec<u8>; 3],
        provider: &Arc<CryptoProvider>,
        unit: Unit,
    ) -> Result<Self, SecurityError> {
        let tls = |source| SecurityError::Tls { path: files.cert.clone(), source };
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from((*key).clone()));
        let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_cert_resolver(resolver.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        let server = if unit == Unit::Nodes {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider.clone())
                    .build()
                    .map_err(|error| tls(rustls::Error::General(error.to_string())))?;
            let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(tls)?
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(resolver);
            server.alpn_protocols = vec![ALPN.to_vec()];
            Some(Arc::new(server))
        } else {
            None
        };
        let client = Arc::new(client);
        Ok(Self { identity, files, roots, key, pem, server, client })
    }

    /// For accepting: TLS 1.3, a client certificate of the same authority is required, `h2`.
    /// `None` unless the identity is a node's.
    #[must_use]
    pub fn server(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.server.clone()
    }

    /// For dialling: TLS 1.3, presents this identity, trusts the authority alone, `h2`.
    #[must_use]
    pub fn client(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.client)
    }

    /// For dialling through tonic: the other side must be `domain` (`node-2`, a host, an address).
    #[must_use]
    pub fn tonic_client(&self, domain: &str) -> tonic::transport::ClientTlsConfig {
        let [ca, cert, key] = &self.pem;
        tonic::transport::ClientTlsConfig::new()
            .domain_name(domain)
            .ca_certificate(tonic::transport::Certificate::from_pem(ca))
            .identity(tonic::transport::Identity::from_pem(cert, key))
    }

    /// As it was read: the authority's certificates, the certificate chain, the key.
    #[must_use]
    pub const fn pem(&self) -> &[Vec<u8>; 3] {
        &self.pem
    }

    /// Certificates of the authority.
    #[must_use]
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// The certificate chain and key.
    #[must_use]
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The files it came from.
    #[must_use]
    pub const fn files(&self) -> &TlsFiles {
        &self.files
    }
}

/// An identity that follows its files. New connections take [`Self::current`]; open ones stay.
#[derive(Debug)]
pub struct ReloadableTls {
    files: TlsFiles,
    cluster: String,
    unit: Unit,
    name: String,
    current: ArcSwap<Material>,
    changes: tokio::sync::watch::Sender<u64>,
}

impl ReloadableTls {
    /// Loads for the first time. `name`: the common name the certificate must carry.
    ///
    /// # Errors
    /// As [`load`], and when the certificate names someone else.
    pub fn open(
        files: &TlsFiles,
        cluster: &str,
        unit: Unit,
        name: &str,
        now: Timestamp,
    ) -> Result<Arc<Self>, SecurityError> {
        let material = named(load(files, cluster, unit, now)?, name)?;
        Ok(Arc::new(Self {
            files: files.clone(),
            cluster: cluster.to_owned(),
            unit,
            name: name.to_owned(),
            current: ArcSwap::from_pointee(material),
            changes: tokio::sync::watch::Sender::new(0),
        }))
    }

    /// The material in force.
    #[must_use]
    pub fn current(&self) -> Arc<Material> {
        self.current.load_full()
    }

    /// Changes whenever another certificate is in force: what keeps connections that dial again by
    /// themselves must make them anew then, or they go on presenting the old one.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reads the files again, and swaps when they hold another certificate. Whatever is wrong with
    /// them, what is in force stays in force.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reload(&self, now: Timestamp) -> Result<bool, SecurityError> {
        let fresh = named(load(&self.files, &self.cluster, self.unit, now)?, &self.name)?;
        let changed = fresh.pem != self.current().pem;
        if changed {
            self.current.store(Arc::new(fresh));
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(changed)
    }

    /// Reloads whenever a file changes or SIGHUP comes, for ever. Spawn it.
    pub async fn follow(self: Arc<Self>, clock: Arc<dyn Clock>, every: Duration) {
        let mut hangup =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
        let mut timer = tokio::time::interval(every.max(Duration::from_millis(100)));
        let mut seen = self.stamps();
        loop {
            let forced = tokio::select! {
                _ = timer.tick() => false,
                () = signalled(&mut hangup) => true,
            };
            let stamps = self.stamps();
            if !forced && stamps == seen {
                continue;
            }
            match self.reload(clock.now()) {
                Ok(changed) => {
                    seen = stamps;
                    if changed {
                        let current = self.current();
                        let until = medic_state::time::format_rfc3339(current.identity.not_after);
                        tracing::info!(name = %self.name, until, "certificate renewed");
                    }
                }
                // Looked at again next time: certificate and key are rarely written at once.
                Err(error) => {
                    tracing::warn!(name = %self.name, %error, "keeping the old certificate");
                }
            }
        }
    }

    fn stamps(&self) -> [Option<SystemTime>; 3] {
        [&self.files.ca, &self.files.cert, &self.files.key]
            .map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
    }
}

async fn signalled(hangup: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(signal) = hangup
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

fn named(material: Material, name: &str) -> Result<Material, SecurityError> {
    if material.identity.name == name {
        return Ok(material);
    }
    Err(SecurityError::WrongName {
        path: material.files.cert.clone(),
        found: material.identity.name,
        expected: name.to_owned(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(path).map_err(|source| SecurityError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let not_pem = |reason: String| SecurityError::NotPem {
        path: path.to_owned(),
        what: "certificate",
        reason,
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem(error.to_string()))?;
    if found.is_empty() {
        return Err(not_pem("no BEGIN CERTIFICATE line".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, SecurityError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| SecurityError::NotPem {
        path: path.to_owned(),
        what: "private key",
        reason: error.to_string(),
    })
}

fn identity(path: &Path, der: &CertificateDer<'_>) -> Result<Identity, SecurityError> {
    let bad = |reason: String| SecurityError::BadCertificate { path: path.to_owned(), reason };
    let (_, cert) = X509Certificate::from_der(der).map_err(|error| bad(error.to_string()))?;
    let subject = cert.subject();
    let first = |mut found: Box<dyn Iterator<Item = String> + '_>| found.next().unwrap_or_default();
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().unwrap_or_default().to_owned()
    };
    let time = |at: x509_parser::time::ASN1Time| {
        Timestamp(u64::try_from(at.timestamp()).unwrap_or(0).saturating_mul(1000))
    };
    Ok(Identity {
        name: first(Box::new(subject.iter_common_name().map(text))),
        cluster: first(Box::new(subject.iter_organization().map(text))),
        unit: first(Box::new(subject.iter_organizational_unit().map(text))),
        hosts: hosts(&cert),
        serial: cert.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: time(cert.validity().not_before),
        not_after: time(cert.validity().not_after),
        authority: cert.is_ca(),
    })
}

fn hosts(cert: &X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(host) => Some((*host).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes)
                    .ok()
                    .map(|b| std::net::Ipv4Addr::from(b).to_string()),
                _ => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|b| std::net::Ipv6Addr::from(b).to_string()),
            },
            _ => None,
        })
        .collect()
}

/// Every identity of ours may be a client, so one check serves all.
fn prove_signature(
    files: &TlsFiles,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<(), SecurityError> {
    let tls = |source| SecurityError::Tls { path: files.cert.clone(), source };
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| tls(rustls::Error::General(error.to_string())))?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    match verifier.verify_client_cert(&chain[0], &chain[1..], now) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Err(SecurityError::WrongAuthority {
            cert: files.cert.clone(),
            ca: PathBuf::from(&files.ca),
        }),
        Err(source) => Err(tls(source)),
    }
}
