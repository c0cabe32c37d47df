//! Why a call failed: whether another node, or another moment, may do better; and in words.

use std::error::Error;

use rustls::AlertDescription;
use tonic::{Code, Status};

use crate::control::{OUTCOME_UNKNOWN, REFUSAL};

/// Why a node could not serve a call that another may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// There is no connection to it.
    Unreachable,
    /// One of the two does not accept the other's certificate.
    Refused,
    /// It is there, and cannot serve now; or the connection broke, and nobody can tell.
    Busy,
}

/// Whether, and why, another attempt may do better. Only a failure of the connection has a source:
/// what a server says comes without.
pub(super) fn away(status: &Status) -> Option<Away> {
    if status.source().is_some() {
        return Some(match causes(status) {
            (true, _) => Away::Refused,
            (false, true) => Away::Unreachable,
            (false, false) => Away::Busy,
        });
    }
    let unknown = || status.metadata().get(REFUSAL).is_some_and(|kind| kind == OUTCOME_UNKNOWN);
    let busy = matches!(status.code(), Code::Unavailable | Code::Cancelled)
        || (status.code() == Code::Aborted && unknown());
    busy.then_some(Away::Busy)
}

/// Among the causes: a certificate that is not accepted; a connection that was never made.
fn causes(status: &Status) -> (bool, bool) {
    let (mut refused, mut unconnected) = (false, false);
    let mut source = status.source();
    while let Some(cause) = source {
        unconnected |= cause.is::<tonic::ConnectError>();
        refused |= certificate(cause);
        source = cause.source();
    }
    (refused, unconnected)
}

fn certificate(cause: &(dyn Error + 'static)) -> bool {
    // An I/O error hides what it wraps from its own `source`.
    let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = match inner {
        Some(inner) => inner.downcast_ref::<rustls::Error>(),
        None => cause.downcast_ref::<rustls::Error>(),
    };
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => true,
        Some(rustls::Error::AlertReceived(alert)) => matches!(
            alert,
            AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError
                | AlertDescription::CertificateRequired
        ),
        Some(_) | None => false,
    }
}

/// What a status says, with everything that caused it.
pub(super) fn in_words(status: &Status) -> String {
    let said = match (status.message(), status.source()) {
        ("", None) => return status.code().to_string(),
        (message, None) => return message.to_owned(),
        (_, Some(source)) => chain(source),
    };
    // Layers of the transport that say no more than that there is a transport.
    said.trim_start_matches("transport error: ").to_owned()
}

/// An error with everything it was caused by: the cause is what its reader needs.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
