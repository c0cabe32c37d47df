//! Tells a torn tail of RocksDB's write-ahead log from damage, before RocksDB opens it.
//!
//! ```text
//!   block of 32 KiB:  [crc32c 4][length 2][type 1][payload] [crc …] … trailer of zeros
//!                               ▲ damaged: reads as "goes on behind the end of the file"
//! ```
//!
//! A last write that a power cut interrupted was never acknowledged, so RocksDB must drop it. It takes
//! every record that reaches beyond the end of the file for such a write, and so does one whose length
//! was damaged: whatever was acknowledged behind it would vanish without a word. Here a break counts
//! as torn only if nothing intact follows it, in its block, in later blocks or in later files.
//!
//! Invariant: no flip of bits in one record lets a node start with less than it acknowledged. Absent,
//! because nothing on the disk tells the two apart: a last record whose checksum and length are
//! both overwritten, and a file that was cut short.
//!
//! Format: `db/log_format.h` of RocksDB; checksums are masked as in `util/crc32c.h`.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::disk::invalid;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// What a disk writes whole: one that was not written reads as zeros.
const SECTOR_BYTES: usize = 512;
/// Full, first, middle, last: what is written without recycling and without compression.
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

/// Where the records of a file end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the file.
    Whole,
    /// In a write that was interrupted.
    Torn(u64),
    /// At this byte, in something that had been written whole.
    Damaged(u64),
}

/// Checks every write-ahead log of a database.
///
/// # Errors
/// When one cannot be read or is damaged.
pub(super) fn check(db: &Path) -> io::Result<()> {
    let mut torn: Option<(PathBuf, u64)> = None;
    for path in files(db)? {
        let (end, records) = scan(File::open(&path)?)?;
        if records && let Some((before, at)) = &torn {
            return Err(damaged(before, *at, "records follow it in a later file"));
        }
        match end {
            End::Whole => {}
            End::Torn(at) => torn = Some((path, at)),
            End::Damaged(at) => {
                return Err(damaged(
                    &path,
                    at,
                    "it was written whole, and other bytes stand there",
                ));
            }
        }
    }
    if let Some((path, at)) = torn {
        tracing::info!(file = %path.display(), at, "an interrupted last write is dropped");
    }
    Ok(())
}

fn damaged(path: &Path, at: u64, why: &str) -> io::Error {
    invalid(format!("Corruption: the record at byte {at} of {} is damaged: {why}", path.display()))
}

/// The logs, oldest first.
fn files(db: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(db) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|extension| extension == "log")
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Where the records of one file end, and whether it holds any.
///
/// # Errors
/// When it cannot be read.
pub fn scan(mut file: impl io::Read) -> io::Result<(End, bool)> {
    let (mut block, mut begins) = (Vec::with_capacity(BLOCK_BYTES), 0_u64);
    let (mut torn, mut records) = (None, false);
    loop {
        block.clear();
        let wanted = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let read = file.by_ref().take(wanted).read_to_end(&mut block)?;
        if read == 0 {
            return Ok((torn.map_or(End::Whole, End::Torn), records));
        }
        if let Some(at) = torn {
            if record(&block).is_some() {
                return Ok((End::Damaged(at), true));
            }
        } else {
            let mut at = 0;
            while let Some(length) = block.get(at..).and_then(record) {
                (at, records) = (at + length, true);
            }
            let place = begins + u64::try_from(at).unwrap_or(u64::MAX);
            let rest = block.get(at..).unwrap_or_default();
            let room = BLOCK_BYTES - at;
            if !rest.is_empty() && room >= HEADER_BYTES {
                match broken(&block, at) {
                    true => return Ok((End::Damaged(place), records)),
                    false => torn = Some(place),
                }
            }
        }
        begins += u64::try_from(read).unwrap_or(u64::MAX);
    }
}

/// The length of the intact record that these bytes begin with.
fn record(bytes: &[u8]) -> Option<usize> {
    let (header, behind) = bytes.split_at_checked(HEADER_BYTES)?;
    let kind = *header.get(6)?;
    let payload = behind.get(..length(header)?)?;
    (TYPES.contains(&kind) && masked(crc(kind, payload)) == stored(header)?)
        .then_some(HEADER_BYTES + payload.len())
}

/// Whether what stands at `at`, which is no intact record, had been written whole.
fn broken(block: &[u8], at: usize) -> bool {
    let Some(rest) = block.get(at..) else { return false };
    let (Some(claimed), Some(kind), Some(sum)) = (length(rest), rest.get(6), stored(rest)) else {
        return false;
    };
    let through = (at + HEADER_BYTES + claimed).min(block.len());
    if sectors(at, through).any(|sector| block.get(sector).is_some_and(blank)) {
        return false;
    }
    let ends_in_file = HEADER_BYTES + claimed <= rest.len();
    let ends_in_block = at + HEADER_BYTES + claimed <= BLOCK_BYTES;
    ends_in_file || !ends_in_block || whole_at_another_length(rest, *kind, sum) || resumes(rest)
}

/// Whether the checksum fits a shorter payload: then it is the length that was damaged.
fn whole_at_another_length(rest: &[u8], kind: u8, sum: u32) -> bool {
    let mut now = crc32c::crc32c(&[kind]);
    rest.iter().skip(HEADER_BYTES).any(|byte| {
        now = crc32c::crc32c_append(now, &[*byte]);
        masked(now) == sum
    })
}

/// Whether an intact record stands somewhere behind the first byte.
fn resumes(rest: &[u8]) -> bool {
    (1..rest.len()).any(|at| rest.get(at..).and_then(record).is_some())
}

/// The sectors that hold bytes of `from..to`, cut at `to`.
fn sectors(from: usize, to: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)).map(move |number| {
        let begins = number * SECTOR_BYTES;
        begins.max(from)..(begins + SECTOR_BYTES).min(to)
    })
}

/// Zeros, and as many as a sector has: single zeros are written too.
fn blank(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES && bytes.iter().all(|byte| *byte == 0)
}

fn stored(header: &[u8]) -> Option<u32> {
    header.first_chunk::<4>().map(|sum| u32::from_le_bytes(*sum))
}

fn length(header: &[u8]) -> Option<usize> {
    let bytes = header.get(4..6)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*bytes).into())
}

fn crc(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

/// RocksDB stores checksums rotated and shifted, so that a checksum of checksums is none.
const fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A log of records of these payloads, as RocksDB lays them out.
    fn log(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut file: Vec<u8> = Vec::new();
        for payload in payloads {
            let (mut left, mut first) = (&payload[..], true);
            loop {
                let room = BLOCK_BYTES - file.len() % BLOCK_BYTES;
                if room < HEADER_BYTES {
                    file.extend(vec![0; room]);
                    continue;
                }
                let part = left.split_at(left.len().min(room - HEADER_BYTES));
                let last = part.1.is_empty();
                let kind = match (first, last) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                file.extend(masked(crc(kind, part.0)).to_le_bytes());
                file.extend(u16::try_from(part.0.len()).unwrap().to_le_bytes());
                file.push(kind);
                file.extend(part.0);
                (left, first) = (part.1, false);
                if last {
                    break;
                }
            }
        }
        file
    }

    fn payload(seed: usize, length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * 31 + seed * 17) % 251 + 1).unwrap()).collect()
    }

    fn end(bytes: &[u8]) -> End {
        scan(bytes).unwrap().0
    }

    #[test]
    fn a_log_without_damage_is_whole() {
        assert_eq!(scan(&[][..]).unwrap(), (End::Whole, false));
        let small = log(&[payload(1, 40), payload(2, 0), payload(3, 100)]);
        assert_eq!(scan(&small[..]).unwrap(), (End::Whole, true));
        // Fragments over blocks, and a trailer that is too short for a header.
        for tail in 0..16 {
            let first = BLOCK_BYTES - 2 * HEADER_BYTES - tail;
            let large = log(&[payload(1, first), payload(2, 70_000), payload(3, 9)]);
            assert_eq!(end(&large), End::Whole, "{tail}");
        }
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let whole = log(&[payload(1, 60), payload(2, 3), payload(3, 300), payload(4, 25)]);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut file = whole.clone();
                file[at] ^= 1 << bit;
                let found = end(&file);
                assert!(matches!(found, End::Damaged(_)), "bit {bit} of byte {at}: {found:?}");
            }
        }
    }

    #[test]
    fn bytes_overwritten_anywhere_before_the_last_record_are_damage() {
        let payloads: Vec<_> = (0..20).map(|n| payload(n, 90)).collect();
        let (whole, kept) = (log(&payloads), log(&payloads[..19]).len());
        for at in 0..kept - 64 {
            let mut file = whole.clone();
            file[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0x5a);
            let found = end(&file);
            assert!(matches!(found, End::Damaged(_)), "64 bytes from {at}: {found:?}");
        }
    }

    #[test]
    fn a_file_that_ends_early_is_torn_where_its_last_record_begins() {
        let begins = log(&[payload(1, 60), payload(2, 90)]).len();
        let whole = log(&[payload(1, 60), payload(2, 90), payload(3, 300)]);
        for length in begins + 1..whole.len() {
            let torn = End::Torn(begins.try_into().unwrap());
            assert_eq!(end(&whole[..length]), torn, "{length}");
        }
        assert_eq!(end(&whole[..begins]), End::Whole);
    }

    #[test]
    fn sectors_that_were_not_written_are_torn() {
        let begins = log(&[payload(1, 700)]).len();
        let whole = log(&[payload(1, 700), payload(2, 4_000), payload(3, 10)]);
        for sector in begins.div_ceil(SECTOR_BYTES)..(begins + 4_000) / SECTOR_BYTES {
            let mut file = whole.clone();
            file[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
            assert_eq!(end(&file), End::Torn(begins.try_into().unwrap()), "sector {sector}");
        }
    }

    #[test]
    fn a_break_in_one_block_with_records_in_a_later_one_is_damage() {
        let whole = log(&[payload(1, 100), payload(2, 90_000), payload(3, 10)]);
        // The length of the first fragment, and that of the last record of all.
        for at in [111, whole.len() - 12] {
            let mut file = whole.clone();
            file[at] ^= 0x40;
            assert!(matches!(end(&file), End::Damaged(_)), "{at}");
        }
    }

    #[test]
    fn a_torn_log_with_records_in_a_later_file_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("000009.log"), dir.path().join("000010.log"));
        let whole = log(&[payload(1, 60), payload(2, 90)]);
        fs::write(&one, &whole[..whole.len() - 5]).unwrap();
        check(dir.path()).unwrap();
        fs::write(&two, []).unwrap();
        check(dir.path()).unwrap();
        fs::write(&two, log(&[payload(3, 8)])).unwrap();
        let error = check(dir.path()).unwrap_err().to_string();
        assert!(error.contains("000009.log") && error.contains("byte 67"), "{error}");
    }
}
