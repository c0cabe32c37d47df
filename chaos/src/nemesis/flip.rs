//! Bits that flip in the files of a stopped node.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// What files hold, by where they lie below the data folder and how they are called.
const KINDS: [(&str, &str, &str); 4] = [
    ("write-ahead log", "db", ".log"),
    ("table of log and records", "db", ".sst"),
    ("snapshot", "snapshots", ""),
    ("manifest of the database", "db", "MANIFEST-"),
];
/// Bits that flip.
const BITS: usize = 3;

/// Flips bits of one file of a stopped node, chosen by `pick`. Says what was flipped; nothing, when
/// there is no file to damage.
///
/// # Errors
/// When the file cannot be read or written.
pub fn flip(data: &Path, pick: u64) -> anyhow::Result<Option<String>> {
    let mut chance = StdRng::seed_from_u64(pick);
    let mut kinds: Vec<(&str, Vec<PathBuf>)> = KINDS
        .iter()
        .map(|(what, folder, name)| (*what, files(&data.join(folder), name)))
        .filter(|(_, files)| !files.is_empty())
        .collect();
    if kinds.is_empty() {
        return Ok(None);
    }
    let (what, files) = kinds.swap_remove(chance.random_range(0..kinds.len()));
    let Some(path) = files.get(chance.random_range(0..files.len())) else { return Ok(None) };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    let length = file.metadata()?.len();
    let mut places = Vec::new();
    for _ in 0..BITS {
        let (at, bit) = (chance.random_range(0..length), chance.random_range(0..8_u8));
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, at)?;
        places.push(format!("{at}.{bit}"));
    }
    file.sync_all()?;
    let name = path.strip_prefix(data).unwrap_or(path).display();
    Ok(Some(format!("{what} ({name}, bits {} of {length} bytes)", places.join(", "))))
}

/// Files with content whose names begin or end so, in order of their names.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let called = entry.file_name().to_string_lossy().into_owned();
            (called.ends_with(name) || called.starts_with(name))
                && !called.ends_with(".damaged")
                && entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_same_number_flips_the_same_bits_and_every_kind_of_file_is_hit() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(flip(data.path(), 1).unwrap(), None);
        std::fs::create_dir(data.path().join("db")).unwrap();
        std::fs::create_dir(data.path().join("snapshots")).unwrap();
        for name in ["db/000004.log", "db/000007.sst", "db/MANIFEST-000005", "snapshots/12-3"] {
            std::fs::write(data.path().join(name), [0; 100]).unwrap();
        }
        std::fs::write(data.path().join("db/000009.log"), []).unwrap();
        let said: Vec<String> =
            (0..40).map(|pick| flip(data.path(), pick).unwrap().unwrap()).collect();
        for (what, ..) in KINDS {
            assert!(said.iter().any(|text| text.starts_with(what)), "{what}: {said:#?}");
        }
        // Flipped again, they are as they were.
        let again: Vec<String> =
            (0..40).map(|pick| flip(data.path(), pick).unwrap().unwrap()).collect();
        assert_eq!(said, again);
        assert_eq!(std::fs::read(data.path().join("db/000004.log")).unwrap(), [0; 100]);
    }
}
