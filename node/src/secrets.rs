//! Secrets of channels and sources: read when they are used, so that a changed one counts at once; never
//! kept, logged or committed.
//!
//! ```text
//!   file: pagerduty  in tenant `team` ─► <secrets_dir>/team/pagerduty
//!   env: MEDIC_SECRET_PD              ─► that variable, for tenant `default` alone
//! ```
//!
//! A manifest cannot name any other file or variable of a node, nor another tenant's: the law has
//! checked the names, and the folder is the tenant's own.

use std::path::PathBuf;

use medic_state::manifest::{DEFAULT_TENANT, SecretRef};

/// A secret is a line: a key, a password, a URL.
const MAX_BYTES: u64 = 4_096;
/// Certificates of a system's authorities are some 250 KiB.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The node has no folder for them.
    #[error("secret `{0}`: this node has no `secrets_dir` in its configuration")]
    NoFolder(String),
    /// The file cannot be read.
    #[error("secret {}: {source}; put it there on every node", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is empty, too long, or no line of text.
    #[error("secret `{0}` is no line of text of 1 to {MAX_BYTES} bytes")]
    Unsound(String),
    /// It is no file, or too long for one of certificates.
    #[error("secret `{0}` is no file of at most {PEM_BYTES_MAX} bytes")]
    NoPem(String),
    /// The variable is not set.
    #[error("secret `{0}`: this node's environment has no such variable")]
    NotSet(String),
    /// Variables are the default tenant's.
    #[error("secret `{0}`: variables are for tenant `default`")]
    Foreign(String),
}

/// Where this node's secrets stand.
#[derive(Clone, Debug)]
pub struct Secrets {
    folder: Option<PathBuf>,
}

impl Secrets {
    /// In this folder, one folder in it for each tenant.
    #[must_use]
    pub const fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// Reads one, for a tenant.
    ///
    /// # Errors
    /// When it is not there, or is no secret. The error never holds what was read.
    pub fn read(&self, tenant: &str, secret: &SecretRef) -> Result<String, SecretError> {
        match secret {
            SecretRef::Env(name) if tenant != DEFAULT_TENANT => {
                Err(SecretError::Foreign(name.clone()))
            }
            SecretRef::Env(name) => {
                let value = std::env::var(name).map_err(|_| SecretError::NotSet(name.clone()))?;
                line(name, &value)
            }
            SecretRef::File(name) => self.file(tenant, name),
        }
    }

    /// Reads the line in a file, for a tenant.
    ///
    /// # Errors
    /// Like [`Self::read`].
    pub fn file(&self, tenant: &str, name: &str) -> Result<String, SecretError> {
        let bytes = self.bytes(tenant, name, MAX_BYTES)?;
        let unsound = || SecretError::Unsound(name.to_owned());
        line(name, std::str::from_utf8(&bytes.ok_or_else(unsound)?).map_err(|_| unsound())?)
    }

    /// Reads a file of certificates or of a key, for a tenant.
    ///
    /// # Errors
    /// When it is not there, or is too long. What it holds is not looked at.
    pub fn pem(&self, tenant: &str, name: &str) -> Result<Vec<u8>, SecretError> {
        let bytes = self.bytes(tenant, name, PEM_BYTES_MAX)?;
        bytes.ok_or_else(|| SecretError::NoPem(name.to_owned()))
    }

    /// What is in a file; `None`: it is none, or longer than this.
    fn bytes(&self, tenant: &str, name: &str, max: u64) -> Result<Option<Vec<u8>>, SecretError> {
        let folder = self.folder.as_ref().ok_or_else(|| SecretError::NoFolder(name.to_owned()))?;
        let path = folder.join(tenant).join(name);
        let unreadable = |source| SecretError::Unreadable { path: path.clone(), source };
        // Not followed by a read of a device or of a file that never ends.
        let about = std::fs::metadata(&path).map_err(unreadable)?;
        if !about.is_file() || about.len() > max {
            return Ok(None);
        }
        std::fs::read(&path).map(Some).map_err(unreadable)
    }
}

/// The text without the line's end that editors leave.
fn line(name: &str, text: &str) -> Result<String, SecretError> {
    let line = text.trim();
    let sound = !line.is_empty() && !line.chars().any(char::is_control);
    if sound { Ok(line.to_owned()) } else { Err(SecretError::Unsound(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_tenant_reads_its_own_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("team")).unwrap();
        std::fs::write(folder.path().join("team/pd"), "key-1\n").unwrap();
        std::fs::write(folder.path().join("team/empty"), "\n").unwrap();
        std::fs::write(folder.path().join("team/long"), "x".repeat(5_000)).unwrap();
        let secrets = Secrets::new(Some(folder.path().to_owned()));
        let file = |name: &str| SecretRef::File(name.to_owned());
        assert_eq!(secrets.read("team", &file("pd")).unwrap(), "key-1");
        assert!(matches!(secrets.read("other", &file("pd")), Err(SecretError::Unreadable { .. })));
        assert_eq!(secrets.pem("team", "long").unwrap().len(), 5_000);
        assert!(matches!(secrets.pem("team", "."), Err(SecretError::NoPem(_))));
        for name in ["empty", "long"] {
            assert!(matches!(secrets.read("team", &file(name)), Err(SecretError::Unsound(_))));
        }
        let none = Secrets::new(None);
        assert!(matches!(none.read("team", &file("pd")), Err(SecretError::NoFolder(_))));
        let variable = SecretRef::Env("MEDIC_SECRET_NOT_SET".to_owned());
        assert!(matches!(none.read("default", &variable), Err(SecretError::NotSet(_))));
        assert!(matches!(none.read("team", &variable), Err(SecretError::Foreign(_))));
    }
}
