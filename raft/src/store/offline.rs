//! The records of a node that does not run, for whoever wants to verify them.
//!
//! The directory is locked meanwhile: a node cannot start over it, and one that runs is refused.

use std::{ops::ControlFlow, path::Path};

use medic_state::{AuditRecord, Record};

use super::{
    disk::{Disk as _, Table, invalid, parse_record_key, record_key},
    records::opened,
    rocks::RocksDisk,
    upgrade::of_any_form,
};
use crate::config::StartError;

/// Records read at a time.
const PAGE: usize = 1_000;
/// Bytes read at a time.
const PAGE_BYTES: usize = 1 << 20;

/// Shows every audit record in the data directory to `visit`, in order, until it breaks off.
///
/// # Errors
/// When there is no database, it is in use, or a record is damaged.
pub fn read_audit(
    dir: &Path,
    mut visit: impl FnMut(AuditRecord) -> ControlFlow<()>,
) -> Result<(), StartError> {
    if !dir.join("db").is_dir() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "it holds no database");
        return Err(StartError::DataDir { dir: dir.to_owned(), source });
    }
    let disk = RocksDisk::open(dir)?;
    let mut next = (0, 0);
    loop {
        let (low, high) = (record_key(next.0, next.1), record_key(u64::MAX, 0));
        let page =
            disk.scan(Table::Records, &low, &high, PAGE, PAGE_BYTES).map_err(StartError::Store)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        let (index, ordinal) = parse_record_key(last).unwrap_or((u64::MAX, 0));
        next = (index, ordinal.saturating_add(1));
        for (key, sealed) in page {
            let (at, bytes) = opened(&key, &sealed).map_err(StartError::Store)?;
            let record = of_any_form(bytes).map_err(|error| {
                StartError::Store(invalid(format!("the record {}.{}: {error}", at.0, at.1)))
            })?;
            if let Record::Audit(record) = record
                && visit(record).is_break()
            {
                return Ok(());
            }
        }
    }
}
