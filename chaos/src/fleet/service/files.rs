//! What a service keeps on disk beside its configuration: artefact, certificate, spool, poison.
//!
//! | file | at start | while it runs |
//! |---|---|---|
//! | `.artefact` | deployed anew when it is not what it should be | compared: a changed one is reported |
//! | `.certificate` | renewed when it has expired | holds the date; past it, requests fail |
//! | `.spool/` | emptied | work is written there; full, requests fail |
//! | `.poison` | counted down; while it counts, the process dies soon after its start | |
//!
//! The certificate is a date and not X.509: what is sampled is how a fleet fails when one expires,
//! and that a renewed one is taken up at start.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

/// What the service is made of, as it was delivered.
const ARTEFACT: &[u8] = b"the program as it was built and signed\n";
/// Room for the spool.
pub const SPOOL_BYTES_MAX: u64 = 8 << 20;
/// How long a renewed certificate is good for.
const VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// The files of one instance.
#[derive(Clone, Debug)]
pub struct Files {
    config: PathBuf,
}

impl Files {
    /// Those beside a configuration file.
    #[must_use]
    pub fn beside(config: &Path) -> Self {
        Self { config: config.to_owned() }
    }

    /// The program's other half on disk.
    #[must_use]
    pub fn artefact(&self) -> PathBuf {
        self.config.with_extension("artefact")
    }

    /// The date the certificate is good until, Unix seconds.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.config.with_extension("certificate")
    }

    /// Folder of work under way.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.config.with_extension("spool")
    }

    /// Number of starts that are still to end in a crash.
    #[must_use]
    pub fn poison(&self) -> PathBuf {
        self.config.with_extension("poison")
    }

    /// Brings artefact, certificate and spool to what they should be.
    pub(super) fn deploy(&self) -> anyhow::Result<()> {
        if self.artefact_modified() {
            write(&self.artefact(), ARTEFACT)?;
        }
        if self.certificate_expired() {
            self.set_certificate(unix_s() + VALIDITY.as_secs())?;
        }
        let spool = self.spool();
        if spool.exists() {
            std::fs::remove_dir_all(&spool)
                .with_context(|| format!("emptying {}", spool.display()))?;
        }
        std::fs::create_dir_all(&spool).with_context(|| format!("creating {}", spool.display()))
    }

    /// Whether this start is one that ends in a crash; each is counted.
    pub(super) fn poisoned(&self) -> anyhow::Result<bool> {
        let path = self.poison();
        let left = match std::fs::read_to_string(&path) {
            Ok(text) => {
                text.trim().parse::<u32>().with_context(|| format!("{}", path.display()))?
            }
            Err(_) => return Ok(false),
        };
        if left > 0 {
            write(&path, (left - 1).to_string().as_bytes())?;
        }
        Ok(left > 0)
    }

    /// Whether the artefact is another than was delivered.
    #[must_use]
    pub fn artefact_modified(&self) -> bool {
        std::fs::read(self.artefact()).ok().as_deref() != Some(ARTEFACT)
    }

    /// Whether the certificate's date is past.
    #[must_use]
    pub fn certificate_expired(&self) -> bool {
        let text = std::fs::read_to_string(self.certificate()).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0) <= unix_s()
    }

    /// Writes the date.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_certificate(&self, until_s: u64) -> anyhow::Result<()> {
        write(&self.certificate(), until_s.to_string().as_bytes())
    }

    /// Share of the spool's room that is used.
    #[must_use]
    pub fn spool_used(&self) -> f64 {
        let entries = std::fs::read_dir(self.spool()).into_iter().flatten().flatten();
        let bytes: u64 = entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
        #[allow(clippy::cast_precision_loss, reason = "some megabytes")]
        let share = bytes as f64 / SPOOL_BYTES_MAX as f64;
        share
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_start_puts_right_what_was_changed_and_counts_its_poison() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::beside(&dir.path().join("orders-1.toml"));
        files.deploy().unwrap();
        assert!(!files.artefact_modified() && !files.certificate_expired());
        std::fs::write(files.artefact(), "another program").unwrap();
        files.set_certificate(1).unwrap();
        std::fs::write(files.spool().join("junk"), vec![0; 8 << 20]).unwrap();
        assert!(files.artefact_modified() && files.certificate_expired());
        assert!(files.spool_used() >= 1.0);
        files.deploy().unwrap();
        assert!(!files.artefact_modified() && !files.certificate_expired());
        assert!(files.spool_used() < 0.01);
        std::fs::write(files.poison(), "2").unwrap();
        let starts: Vec<bool> = (0..3).map(|_| files.poisoned().unwrap()).collect();
        assert_eq!(starts, [true, true, false]);
    }
}
