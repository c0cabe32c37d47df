//! The certificates that were shown to probes and scrapes: when they end.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Endpoints remembered; when there are more, all are learnt anew at their next looks.
const ENDPOINTS_MAX: usize = 10_000;

/// Where a look costs a connection of its own, this long passes between two.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

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
