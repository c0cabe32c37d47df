//! How endpoints of a `Source` are spoken to: over TLS or not, and as whom. Keys are named as in Prometheus.
//!
//! No secret stands in a manifest: every file here is a plain name in the folder of the source's tenant in the
//! nodes' `secrets_dir`, as for channels.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::SourceSpec;

/// The cluster version from which on a source says how its endpoints are spoken to, and whether their
/// timestamps count.
pub(super) const SPEAK_SINCE: u32 = 10;

/// Over TLS or not.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Not.
    #[n(0)]
    #[default]
    Http,
    /// Over TLS.
    #[n(1)]
    Https,
}

/// Whom to trust, and what to show.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsSpec {
    /// PEM certificates of the authorities that are trusted, and no others. Absent: those of the node's system.
    #[n(0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// PEM certificate chain to show. Needs `keyFile`.
    #[n(1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// PEM private key of `certFile`.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Host name that is asked for (SNI), and that the certificate must be for. Absent: the endpoint's own.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Take any certificate. Whoever answers at that address is believed, and gets the credentials.
    #[n(4)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// An `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationSpec {
    /// Its first word. Absent: `Bearer`.
    #[n(0)]
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// File of what follows it.
    #[n(1)]
    pub credentials_file: String,
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuthSpec {
    /// User name.
    #[n(0)]
    pub username: String,
    /// File of the password.
    #[n(1)]
    pub password_file: String,
}

/// How a source's endpoints are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speech<'s> {
    /// Over TLS, how.
    pub tls: Option<&'s TlsSpec>,
    /// With this header.
    pub authorization: Option<&'s AuthorizationSpec>,
    /// As this user.
    pub basic_auth: Option<&'s BasicAuthSpec>,
}

impl SourceSpec {
    /// How its endpoints are spoken to.
    #[must_use]
    pub fn speech(&self) -> Speech<'_> {
        let query = self.query.as_ref().map(|query| Speech {
            tls: query.tls.as_deref(),
            authorization: query.authorization.as_deref(),
            basic_auth: query.basic_auth.as_deref(),
        });
        let scrape = self.scrape.as_ref().map(|scrape| Speech {
            tls: scrape.tls.as_deref(),
            authorization: scrape.authorization.as_deref(),
            basic_auth: scrape.basic_auth.as_deref(),
        });
        query.or(scrape).unwrap_or_default()
    }

    /// Whether it says how to speak to its endpoints, or whether their timestamps count.
    pub(super) fn says_how_to_speak(&self) -> bool {
        self.speech() != Speech::default()
            || self.scrape.as_ref().is_some_and(|scrape| {
                scrape.scheme.is_some()
                    || scrape.params.is_some()
                    || scrape.honor_timestamps.is_some()
            })
    }
}
