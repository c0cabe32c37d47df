//! Mail by SMTP.
//!
//! ```text
//!   connect ─ EHLO ─ STARTTLS ─ AUTH ─ MAIL ─ RCPT ─ DATA │ text ─ . ─► answer
//!   └────────────── nothing was sent yet ────────────────┘ └─ no answer: nobody knows
//! ```
//!
//! The commands are given one by one, because a library's `send` does not tell the two parts apart.
//! All mails of one incident refer to one root, so that mail programs show them as one thread.

use std::{sync::Arc, time::Duration};

use lettre::{
    Message,
    address::{Address, Envelope},
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error as SmtpError,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use medic_state::{
    manifest::{EmailSpec, EmailTls},
    notice::{Delivery, Telling},
};

use super::{incident, payload};
use crate::cause::innermost;

/// Time for everything before the text, and for the answer to it. RFC 5321 allows minutes; people
/// who are to be woken do not.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Characters of a subject.
const SUBJECT: usize = 200;

/// Sends mails.
#[derive(Clone)]
pub(super) struct Mailer {
    roots: Arc<Vec<Certificate>>,
    timeout: Duration,
}

impl Mailer {
    /// With the machine's CA certificates.
    pub(super) fn new() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a CA certificate is left out");
        }
        let roots = found.certs.iter().filter_map(|one| Certificate::from_der(one.to_vec()).ok());
        Self { roots: Arc::new(roots.collect()), timeout: TIMEOUT }
    }

    #[cfg(test)]
    pub(super) fn with(roots: Vec<Certificate>, timeout: Duration) -> Self {
        Self { roots: Arc::new(roots), timeout }
    }

    pub(super) async fn send(
        &self,
        cluster: &str,
        spec: &EmailSpec,
        password: Option<String>,
        telling: &Telling,
    ) -> Delivery {
        let (envelope, mail) = match compose(cluster, spec, telling) {
            Ok(composed) => composed,
            Err(error) => return Delivery::Refused(error),
        };
        let opening = self.open(cluster, spec, password, &envelope);
        let mut connection = match tokio::time::timeout(self.timeout, opening).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return unsent(&error),
            Err(_) => return Delivery::Failed("nothing was sent: no answer in time".to_owned()),
        };
        match tokio::time::timeout(self.timeout, connection.message(&mail)).await {
            Ok(Ok(_)) => {
                // It has the mail; how it takes leave does not matter.
                if let Err(error) = connection.quit().await {
                    tracing::debug!(%error, "a mail server hung up");
                }
                Delivery::Delivered
            }
            Ok(Err(error)) if error.status().is_some() => unsent(&error),
            Ok(Err(error)) => Delivery::Unknown(format!("broken off: {}", innermost(&error))),
            Err(_) => Delivery::Unknown("no answer in time".to_owned()),
        }
    }

    /// Everything up to the point where the text may be sent.
    async fn open(
        &self,
        cluster: &str,
        spec: &EmailSpec,
        password: Option<String>,
        envelope: &Envelope,
    ) -> Result<AsyncSmtpConnection, SmtpError> {
        let (host, _) = spec.server.rsplit_once(':').unwrap_or((&spec.server, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let hello = ClientId::Domain(domain(cluster));
        let implicit = match spec.tls {
            EmailTls::Implicit => Some(self.tls(host)?),
            EmailTls::Starttls | EmailTls::None => None,
        };
        let server = spec.server.as_str();
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(self.timeout), &hello, implicit, None)
                .await?;
        if spec.tls == EmailTls::Starttls {
            connection.starttls(self.tls(host)?, &hello).await?;
        }
        if let (Some(user), Some(password)) = (&spec.username, password) {
            let credentials = Credentials::new(user.clone(), password);
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        connection.command(Mail::new(envelope.from().cloned(), Vec::new())).await?;
        for to in envelope.to() {
            connection.command(Rcpt::new(to.clone(), Vec::new())).await?;
        }
        connection.command(Data).await?;
        Ok(connection)
    }

    fn tls(&self, host: &str) -> Result<TlsParameters, SmtpError> {
        let builder = TlsParameters::builder(host.to_owned());
        let builder = builder.certificate_store(CertificateStore::None);
        let with = |builder: lettre::transport::smtp::client::TlsParametersBuilder,
                    root: &Certificate| {
            builder.add_root_certificate(root.clone())
        };
        self.roots.iter().fold(builder, with).build_rustls()
    }
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

/// The mail was not taken: for ever, or for now.
fn unsent(error: &SmtpError) -> Delivery {
    let reason = innermost(error);
    if error.is_permanent() {
        Delivery::Refused(format!("the mail server refused it: {reason}"))
    } else {
        Delivery::Failed(format!("nothing was sent: {reason}"))
    }
}

/// A name for `EHLO` and message ids: what was said of the cluster, in a domain's letters.
fn domain(cluster: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    format!("{}.medic.invalid", cluster.chars().map(legal).collect::<String>())
}

/// Who gets it, and what.
fn compose(
    cluster: &str,
    spec: &EmailSpec,
    telling: &Telling,
) -> Result<(Envelope, Vec<u8>), String> {
    let address = |text: &str| -> Result<Address, String> {
        text.parse().map_err(|error| format!("`{text}` is no address: {error}"))
    };
    let from = address(&spec.from)?;
    let to: Vec<Address> = spec.to.iter().map(|to| address(to)).collect::<Result<_, _>>()?;
    let domain = domain(cluster);
    let root = match telling.notices.as_slice() {
        [one] => one.thread.to_string(),
        _ => format!("summary.{}", telling.channel),
    };
    let id = payload::key(cluster, telling).replace(['/', ' '], ".");
    let heading: String = payload::heading(telling).chars().take(SUBJECT).collect();
    let severity = payload::severity(telling);
    let mut message = Message::builder()
        .from(Mailbox::new(Some(format!("Medic {cluster}")), from.clone()))
        .subject(format!("[{severity}] {heading}"))
        .header(ContentType::TEXT_PLAIN)
        .message_id(Some(format!("<{id}@{domain}>")))
        .references(format!("<{root}@{domain}>"))
        .in_reply_to(format!("<{root}@{domain}>"));
    for one in &to {
        message = message.to(Mailbox::new(None, one.clone()));
    }
    let more = incident(telling)
        .map(|incident| format!("\n\nAll about it: medic explain {incident}\n"))
        .unwrap_or_default();
    let mut message = message
        .body(format!("{}{more}", payload::text(telling)))
        .map_err(|error| format!("no mail can be made of it: {error}"))?;
    // Out-of-office programs keep quiet about what a program sent (RFC 3834).
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    message.headers_mut().insert_raw(HeaderValue::new(automatic, "auto-generated".to_owned()));
    let envelope = Envelope::new(Some(from), to).map_err(|error| error.to_string())?;
    Ok((envelope, message.formatted()))
}
