//! The cluster's own certificate authority.

use std::{path::Path, time::Duration};

use medic_state::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use super::{SecurityError, Unit, check_name};

/// Certificates are good from a little earlier than now, for clocks that run behind.
const BACKDATE: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Signs identities.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Common name: `node-1`, an agent's name, a user's name.
    pub name: String,
    /// Organization: the cluster.
    pub cluster: String,
    /// Organizational unit.
    pub unit: Unit,
    /// Host names and addresses that a node is dialled under, beside its own name and loopback.
    pub hosts: Vec<String>,
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority with a new key, and that key in PEM.
    ///
    /// # Errors
    /// When the cluster's name cannot be in a certificate.
    pub fn create(
        cluster: &str,
        now: Timestamp,
        days: u32,
    ) -> Result<(Self, Issued), SecurityError> {
        check_name(cluster)?;
        let failed = |source| SecurityError::Generate { name: cluster.to_owned(), source };
        let mut params = base(now, days);
        params.distinguished_name.push(DnType::CommonName, format!("Medic CA {cluster}"));
        params.distinguished_name.push(DnType::OrganizationName, cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let issued = Issued { cert: certificate.pem(), key: key.serialize_pem() };
        let authority =
            Self { issuer: Issuer::new(params, key), certificate_pem: issued.cert.clone() };
        Ok((authority, issued))
    }

    /// The authority in these files.
    ///
    /// # Errors
    /// When a file is missing or holds something else.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, SecurityError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| SecurityError::Read { path: path.to_owned(), source })
        };
        let certificate_pem = read(cert)?;
        let not_pem = |path: &Path, what, error: rcgen::Error| SecurityError::NotPem {
            path: path.to_owned(),
            what,
            reason: error.to_string(),
        };
        let pair =
            KeyPair::from_pem(&read(key)?).map_err(|error| not_pem(key, "private key", error))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, pair)
            .map_err(|error| not_pem(cert, "certificate", error))?;
        Ok(Self { issuer, certificate_pem })
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate_pem
    }

    /// A new key and a certificate for it.
    ///
    /// # Errors
    /// When a name or host cannot be in a certificate.
    pub fn issue(
        &self,
        subject: &Subject,
        now: Timestamp,
        days: u32,
    ) -> Result<Issued, SecurityError> {
        check_name(&subject.name)?;
        let failed = |source| SecurityError::Generate { name: subject.name.clone(), source };
        let mut params = base(now, days);
        params.subject_alt_names =
            CertificateParams::new(names(subject)).map_err(failed)?.subject_alt_names;
        params.distinguished_name.push(DnType::CommonName, subject.name.as_str());
        params.distinguished_name.push(DnType::OrganizationName, subject.cluster.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, subject.unit.as_str());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if subject.unit == Unit::Nodes {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued { cert: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Names a node may be dialled under. Its own name lets a peer check that it reached the right one.
fn names(subject: &Subject) -> Vec<String> {
    if subject.unit != Unit::Nodes {
        return Vec::new();
    }
    let mut names: Vec<String> = [&*subject.name, "localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .chain(subject.hosts.iter().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn base(now: Timestamp, days: u32) -> CertificateParams {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = now - BACKDATE;
    params.not_after = now + DAY * days;
    // 159 random bits: unique without a register, positive in DER.
    let mut serial: [u8; 20] = rand::random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}
