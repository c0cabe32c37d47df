//! The journal: fences, keys, torn tails, damage.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs};

use super::*;

fn begin(key: &str, fence: u64) -> Begin {
    Begin {
        key: key.to_owned(),
        attempt: 1,
        fence,
        at_ms: 5,
        action: "process.restart".to_owned(),
        target: "default/web/a".to_owned(),
        config_before: String::new(),
        config_wanted: String::new(),
        running: false,
    }
}

fn done() -> Outcome {
    Outcome::Done { evidence: BTreeMap::from([("pid".to_owned(), "7\n".to_owned())]) }
}

#[test]
fn what_was_noted_is_known_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut journal = Journal::open(&path).unwrap();
    journal.begin(begin("a", 3)).unwrap();
    journal.finish("a", 3, 6, done()).unwrap();
    journal.begin(begin("b", 4)).unwrap();
    journal.accept(9).unwrap();
    drop(journal);

    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.highest(), 9);
    assert_eq!(journal.known("a").unwrap().outcome, Some(done()));
    assert_eq!(journal.known("b").unwrap().outcome, None);
    assert!(journal.known("c").is_none());
    assert!(matches!(journal.accept(8), Err(JournalError::Fenced { given: 8, highest: 9 })));
    assert!(matches!(journal.begin(begin("c", 8)), Err(JournalError::Fenced { .. })));
    assert!(journal.known("c").is_none());
}

#[test]
fn a_journal_torn_at_any_byte_opens_with_what_was_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut journal = Journal::open(&path).unwrap();
    let mut whole = vec![journal.length];
    for (i, key) in ["a", "b", "c"].into_iter().enumerate() {
        journal.begin(begin(key, i as u64 + 1)).unwrap();
        whole.push(journal.length);
    }
    drop(journal);
    let bytes = fs::read(&path).unwrap();
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let complete = whole.iter().filter(|end| **end <= cut as u64).count().saturating_sub(1);
        assert_eq!(journal.highest(), complete as u64, "cut at {cut}");
        // What is appended behind the cut is readable.
        journal.begin(begin("d", 7)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().highest(), 7, "cut at {cut}");
    }
}

#[test]
fn damage_before_the_last_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut journal = Journal::open(&path).unwrap();
    for key in ["a", "b"] {
        journal.begin(begin(key, 1)).unwrap();
    }
    let last = bytes_of_last_line(&path);
    drop(journal);
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len() - last).step_by(7) {
        // Without its newline a record becomes one with the next, and might be the torn last.
        if bytes[at] == b'\n' {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("is damaged at byte"), "{at}: {error}");
    }
}

fn bytes_of_last_line(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap();
    text.lines().last().unwrap().len() + 1
}

#[test]
fn it_stays_bounded_and_keeps_the_newest_keys_and_the_fence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut journal = Journal::open(&path).unwrap();
    for i in 0..KEYS_MAX + 10 {
        journal.book.begin(begin(&format!("k{i}"), 5));
    }
    assert_eq!(journal.book.all().count(), KEYS_MAX);
    journal.finish("k20", 5, 6, done()).unwrap();
    journal.compact().unwrap();
    journal.begin(begin("after", 6)).unwrap();
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.highest(), 6);
    assert!(journal.known("k9").is_none());
    assert_eq!(journal.known("k20").unwrap().outcome, Some(done()));
    assert!(journal.known("after").is_some());
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_journal_whole() {
    // Every write to this device fails with ENOSPC.
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&dir.path().join("journal")).unwrap();
    journal.file = full;
    let error = journal.begin(begin("a", 1)).unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    assert!(journal.known("a").is_none(), "nothing may be done that is not noted");
    assert_eq!(journal.highest(), 0);
}
