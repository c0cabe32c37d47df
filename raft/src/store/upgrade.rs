//! The way from each format of the data directory to the next, taken at start.
//!
//! | from | to | what is done |
//! |---|---|---|
//! | 1 | 2 | records get the number of their form and their keys in the index |
//!
//! Invariant: a step can be broken off anywhere and taken again; the new format is written last, and
//! durably. Snapshots and the log have forms of their own and are not touched.

use medic_state::{Record, codec};

use super::{
    FORMAT, FORMAT_KEY,
    disk::{Disk, Op, Table, end_key, invalid, record_key, seal},
    index,
    records::opened,
};
use crate::config::StartError;

/// Records rewritten in one batch.
const PAGE: usize = 1_000;
/// Bytes of them.
const PAGE_BYTES: usize = 4 << 20;

/// Lifts a directory of an older format.
pub(super) fn lift(disk: &dyn Disk, from: u32) -> Result<(), StartError> {
    tracing::info!(from, to = FORMAT, "lifting the data directory to the present format");
    if from < 2 {
        number_records(disk)?;
    }
    disk.write(&[format_op()], true)?;
    Ok(())
}

/// The entry that says which format a directory has.
pub(super) fn format_op() -> Op {
    let value = seal(FORMAT_KEY, &FORMAT.to_be_bytes());
    Op::Put { table: Table::Meta, key: FORMAT_KEY.to_vec(), value }
}

/// From 1 to 2.
fn number_records(disk: &dyn Disk) -> Result<(), StartError> {
    let mut from = record_key(0, 0);
    loop {
        let page = disk.scan(Table::Records, &from, &end_key(), PAGE, PAGE_BYTES)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        let mut ops = Vec::new();
        for (key, sealed) in &page {
            let ((index, ordinal), bytes) = opened(key, sealed)?;
            let record = of_any_form(bytes)
                .map_err(|error| invalid(format!("the record {index}.{ordinal}: {error}")))?;
            let value = seal(key, &record.to_bytes());
            ops.push(Op::Put { table: Table::Records, key: key.clone(), value });
            ops.extend(index::keys(index, ordinal, &record).into_iter().map(index_op));
        }
        disk.write(&ops, false)?;
    }
}

/// An entry of the index.
pub(super) fn index_op(key: Vec<u8>) -> Op {
    let value = seal(&key, &[]);
    Op::Put { table: Table::Index, key, value }
}

/// A record, from before its form had a number too.
pub(super) fn of_any_form(bytes: &[u8]) -> Result<Record, medic_state::FormError> {
    Record::from_bytes(bytes).or_else(|error| codec::decode(bytes).map_err(|_| error))
}
