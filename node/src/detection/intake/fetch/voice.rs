//! How a Source's endpoints are spoken to: over TLS, with credentials.
//!
//! All files are read anew for each round, so that a changed one counts from the next round on; nothing of them
//! is kept beyond the round, logged, or part of an error. Redirects are not followed (they are an answer that is
//! no exposition), so credentials go to the endpoint alone that the Source or its list of targets names.

use std::sync::Arc;

use medic_state::manifest::{AuthorizationSpec, BasicAuthSpec, SourceSpec, TlsSpec};
use reqwest::{
    Method, Url,
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{
    cause::innermost,
    detection::{
        probe::{AnyCertificate, client_builder},
        scrape::ScrapeError,
    },
    secrets::Secrets,
};

/// What a round speaks with.
pub(super) struct Voice {
    client: reqwest::Client,
    credentials: Credentials,
    /// Another name than the endpoints' own is asked for, with this.
    named: Option<(String, ClientConfig)>,
}

enum Credentials {
    None,
    Header(HeaderValue),
    Basic { username: String, password: String },
}

impl Voice {
    /// Reads what a source of a tenant speaks with; `plain` is for those who say nothing of TLS.
    ///
    /// # Errors
    /// Names the key and the file, and nothing that is in it.
    pub(super) fn read(
        secrets: &Secrets,
        tenant: &str,
        source: &SourceSpec,
        plain: reqwest::Client,
    ) -> Result<Self, String> {
        let speech = source.speech();
        let credentials = match (speech.authorization, speech.basic_auth) {
            (Some(authorization), _) => header(secrets, tenant, authorization)?,
            (None, Some(basic)) => basic_of(secrets, tenant, basic)?,
            (None, None) => Credentials::None,
        };
        let Some(tls) = speech.tls else {
            return Ok(Self { client: plain, credentials, named: None });
        };
        let config = config(secrets, tenant, tls)?;
        let client = client_builder().tls_backend_preconfigured(config.clone()).build();
        let client = client.map_err(|error| format!("TLS: {}", innermost(&error)))?;
        let named = tls.server_name.clone().map(|name| (name, config));
        Ok(Self { client, credentials, named })
    }

    /// A request, with its credentials.
    ///
    /// # Errors
    /// When another name is to be asked for and the endpoint's own cannot be resolved.
    pub(super) async fn request(
        &self,
        method: Method,
        url: &str,
    ) -> Result<reqwest::RequestBuilder, ScrapeError> {
        let request = match &self.named {
            Some((name, config)) if url.starts_with("https:") => {
                under_name(method, url, name, config).await?
            }
            Some(_) | None => self.client.request(method, url),
        };
        Ok(match &self.credentials {
            Credentials::None => request,
            Credentials::Header(value) => request.header(AUTHORIZATION, value.clone()),
            Credentials::Basic { username, password } => {
                request.basic_auth(username, Some(password))
            }
        })
    }
}

/// A request to where `url` leads, on a connection that asks for `name` and wants a certificate for it.
async fn under_name(
    method: Method,
    url: &str,
    name: &str,
    config: &ClientConfig,
) -> Result<reqwest::RequestBuilder, ScrapeError> {
    let local = |error: String| ScrapeError::Local(error);
    let mut url: Url = url.parse().map_err(|error| local(format!("bad URL: {error}")))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
    let found = found.map_err(|error| local(format!("resolving `{host}`: {error}")))?;
    let addresses: Vec<_> = found.collect();
    let client = client_builder()
        .tls_backend_preconfigured(config.clone())
        .resolve_to_addrs(name, &addresses)
        .build()
        .map_err(|error| local(innermost(&error)))?;
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    url.set_host(Some(name)).map_err(|error| local(format!("`{name}`: {error}")))?;
    Ok(client.request(method, url).header(HOST, authority))
}

fn header(
    secrets: &Secrets,
    tenant: &str,
    spec: &AuthorizationSpec,
) -> Result<Credentials, String> {
    let AuthorizationSpec { kind, credentials_file: name } = spec;
    let key = "authorization.credentialsFile";
    let credentials = secrets.file(tenant, name).map_err(|error| format!("{key}: {error}"))?;
    let text = format!("{} {credentials}", kind.as_deref().unwrap_or("Bearer"));
    let value = HeaderValue::from_str(&text);
    let mut value = value.map_err(|_| format!("{key}: secret `{name}` is no text of a header"))?;
    value.set_sensitive(true);
    Ok(Credentials::Header(value))
}

fn basic_of(secrets: &Secrets, tenant: &str, spec: &BasicAuthSpec) -> Result<Credentials, String> {
    let password = secrets.file(tenant, &spec.password_file);
    let password = password.map_err(|error| format!("basicAuth.passwordFile: {error}"))?;
    Ok(Credentials::Basic { username: spec.username.clone(), password })
}

fn config(secrets: &Secrets, tenant: &str, tls: &TlsSpec) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let builder = if tls.insecure_skip_verify == Some(true) {
        let any = Arc::new(AnyCertificate(provider));
        builder.dangerous().with_custom_certificate_verifier(any)
    } else {
        builder.with_root_certificates(roots(secrets, tenant, tls.ca_file.as_deref())?)
    };
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(secrets, tenant, "tls.certFile", cert)?;
    let pem = secrets.pem(tenant, key).map_err(|error| format!("tls.keyFile: {error}"))?;
    // Why it is none is not said: the words may hold a part of it.
    let of_key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("tls.keyFile: there is no private key (PEM) in secret `{key}`"))?;
    builder
        .with_client_auth_cert(chain, of_key)
        .map_err(|error| format!("tls.certFile `{cert}` and tls.keyFile `{key}`: {error}"))
}

/// The authorities in a file; without one, the system's.
fn roots(secrets: &Secrets, tenant: &str, file: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(name) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() {
            Err("tls: this node's system trusts no authority: name one in `caFile`".to_owned())
        } else {
            Ok(roots)
        };
    };
    for certificate in certificates(secrets, tenant, "tls.caFile", name)? {
        roots.add(certificate).map_err(|error| format!("tls.caFile: secret `{name}`: {error}"))?;
    }
    Ok(roots)
}

fn certificates(
    secrets: &Secrets,
    tenant: &str,
    key: &str,
    name: &str,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = secrets.pem(tenant, name).map_err(|error| format!("{key}: {error}"))?;
    let none = || format!("{key}: there is no certificate (PEM) in secret `{name}`");
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) | Err(_) => Err(none()),
    }
}
