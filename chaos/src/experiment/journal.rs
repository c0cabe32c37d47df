//! The journal of undos: written and synced before the fault it takes back.
//!
//! ```text
//!   {"began":…}  {"fault":{number,undo}}  … act …  {"undone":{number}}  …  {"ended":…}
//! ```
//!
//! One line, one entry. A last line that is torn is a fault that was never begun. Whoever works on a
//! journal holds its lock: the experiment while it runs, then its guardian or a human.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{system::Trouble, undo::Undo};

/// Who works on a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// The experiment whose journal it is.
    #[default]
    Experiment,
    /// Its guardian, once it is gone.
    Guardian,
    /// A human, when nobody else works on it.
    Hand,
}

impl By {
    const fn is_experiment(&self) -> bool {
        matches!(self, Self::Experiment)
    }
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Entry {
    Began {
        experiment: String,
        pid: u32,
    },
    Fault {
        number: usize,
        name: String,
        undo: Vec<Undo>,
    },
    Undone {
        number: usize,
        how: Vec<String>,
        #[serde(default, skip_serializing_if = "By::is_experiment")]
        by: By,
    },
    Failed {
        number: usize,
        why: Vec<String>,
    },
    Ended {},
}

/// A fault that was noted and is not taken back.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its number.
    pub number: usize,
    /// What the report calls it.
    pub name: String,
    /// What takes it back, in the order it was planned.
    pub undo: Vec<Undo>,
}

/// What became of an undo.
#[derive(Clone, Debug)]
pub struct Undone {
    /// Of which fault.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// How things are now, or why it could not be undone.
    pub how: Result<Vec<String>, Vec<String>>,
}

/// A journal that this process holds the lock of.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    by: By,
    pending: Vec<Pending>,
    /// Taken back before this was opened, and by whom.
    undone: Vec<(String, By)>,
}

/// Undos of one fault, the last first. All are tried, whatever becomes of the others.
fn perform(undo: &[Undo]) -> Result<Vec<String>, Vec<String>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for undo in undo.iter().rev() {
        match undo.perform() {
            Ok(how) => good.push(how),
            Err(why) => bad.push(why.to_string()),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

impl Journal {
    /// Begins a journal; there must be none at that path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, experiment: &str) -> Result<Self, Trouble> {
        let options = OpenOptions::new().read(true).append(true).create_new(true).open(path);
        let file = options.map_err(Trouble::file("making the journal", path))?;
        file.lock().map_err(Trouble::file("locking", path))?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
            by: By::Experiment,
            pending: Vec::new(),
            undone: Vec::new(),
        };
        let (experiment, pid) = (experiment.to_owned(), std::process::id());
        journal.append(&Entry::Began { experiment, pid })?;
        // The name too must outlive a power cut.
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Trouble::file("syncing", folder))?;
        Ok(journal)
    }

    /// Opens a journal to take back what is open. The guardian waits until whoever works on it is gone.
    ///
    /// # Errors
    /// When it is no journal, or somebody works on it.
    pub fn open(path: &Path, by: By) -> Result<Self, Trouble> {
        let options = OpenOptions::new().read(true).append(true).open(path);
        let mut file = options.map_err(Trouble::file("opening the journal", path))?;
        if by == By::Guardian {
            file.lock().map_err(Trouble::file("locking", path))?;
        } else {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let message = format!(
                        "{} belongs to an experiment that still runs, or is being undone; end it \
                         with Ctrl-C or SIGTERM, and it undoes everything itself",
                        path.display()
                    );
                    return Err(Trouble::Refused(message));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Trouble::file("locking", path)(error));
                }
            }
        }
        let Past { pending, undone, torn } = read(&mut file, path)?;
        if torn {
            // What follows begins on a line of its own.
            file.write_all(b"\n").map_err(Trouble::file("mending", path))?;
        }
        Ok(Self { file, path: path.to_owned(), by, pending, undone })
    }

    fn append(&mut self, entry: &Entry) -> Result<(), Trouble> {
        let bad = |error: serde_json::Error| Trouble::Refused(error.to_string());
        let mut line = serde_json::to_vec(entry).map_err(bad)?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(Trouble::file("writing the journal", &self.path))
    }

    /// Notes what takes a fault back. Only when this has returned may the fault begin.
    ///
    /// # Errors
    /// When it is not on the disk.
    pub fn intend(&mut self, number: usize, name: &str, undo: &[Undo]) -> Result<(), Trouble> {
        let (name, undo) = (name.to_owned(), undo.to_vec());
        self.append(&Entry::Fault { number, name: name.clone(), undo: undo.clone() })?;
        self.pending.push(Pending { number, name, undo });
        Ok(())
    }

    /// What is not taken back yet.
    #[must_use]
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// What was taken back before this was opened, and by whom.
    #[must_use]
    pub fn undone(&self) -> &[(String, By)] {
        &self.undone
    }

    /// Takes one fault back. Nothing when that is done already.
    pub fn undo(&mut self, number: usize) -> Option<Undone> {
        let fault = self.pending.iter().find(|fault| fault.number == number)?.clone();
        let mut how = perform(&fault.undo);
        let entry = match &how {
            Ok(how) => Entry::Undone { number, how: how.clone(), by: self.by },
            Err(why) => Entry::Failed { number, why: why.clone() },
        };
        if let (Err(error), Ok(_)) = (self.append(&entry), &how) {
            how = Err(vec![format!("it is undone, but the journal does not say so: {error}")]);
        }
        if how.is_ok() {
            self.pending.retain(|fault| fault.number != number);
        }
        Some(Undone { number, name: fault.name, how })
    }

    /// Takes back everything, the last fault first.
    pub fn undo_all(&mut self) -> Vec<Undone> {
        let numbers: Vec<usize> = self.pending.iter().rev().map(|fault| fault.number).collect();
        numbers.into_iter().filter_map(|number| self.undo(number)).collect()
    }

    /// Notes that nothing is open any more.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&mut self) -> Result<(), Trouble> {
        self.append(&Entry::Ended {})
    }
}

/// What a journal tells.
struct Past {
    pending: Vec<Pending>,
    undone: Vec<(String, By)>,
    /// The last line is not whole.
    torn: bool,
}

fn read(file: &mut File, path: &Path) -> Result<Past, Trouble> {
    let io = Trouble::file("reading the journal", path);
    let mut text = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| {
        let mut reader = BufReader::new(&*file);
        loop {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            text.push(line);
        }
    });
    read.map_err(io)?;
    let torn = text.last().is_some_and(|line| line.last() != Some(&b'\n'));
    let whole = if torn { &text[..text.len() - 1] } else { &text[..] };
    let (mut pending, mut undone) = (Vec::<Pending>::new(), Vec::new());
    for (n, line) in whole.iter().enumerate() {
        let entry = match serde_json::from_slice(line) {
            Ok(entry) => entry,
            // A line that was torn when somebody else mended it.
            Err(_) if n > 0 && !line.ends_with(b"}\n") => continue,
            Err(error) => {
                let message = format!(
                    "{}:{}: no line of an experiment's journal: {error}",
                    path.display(),
                    n + 1
                );
                return Err(Trouble::Refused(message));
            }
        };
        match entry {
            Entry::Fault { number, name, undo } => pending.push(Pending { number, name, undo }),
            Entry::Undone { number, by, .. } => {
                let done = pending.extract_if(.., |fault| fault.number == number);
                undone.extend(done.map(|fault| (fault.name, by)));
            }
            Entry::Began { .. } | Entry::Failed { .. } | Entry::Ended {} => {}
        }
    }
    Ok(Past { pending, undone, torn })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::experiment::fault::fill;

    fn file(dir: &Path, name: &str) -> (PathBuf, Undo) {
        let path = dir.join(format!("{}{name}", fill::PREFIX));
        std::fs::write(&path, "x").unwrap();
        (path.clone(), Undo::Remove { path })
    }

    #[test]
    fn what_was_noted_is_undone_by_another_the_last_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (one, undo_one) = file(dir.path(), "1");
        let (two, undo_two) = file(dir.path(), "2");
        let mut journal = Journal::create(&path, "test").unwrap();
        journal.intend(1, "one", &[undo_one]).unwrap();
        journal.intend(2, "two", &[undo_two]).unwrap();
        assert!(Journal::open(&path, By::Hand).is_err(), "it is locked");
        assert!(Journal::create(&path, "test").is_err(), "it is there");
        drop(journal);
        // The writer was cut off in the middle of a third line.
        let mut raw = OpenOptions::new().append(true).open(&path).unwrap();
        raw.write_all(br#"{"fault":{"number":3,"na"#).unwrap();
        let mut journal = Journal::open(&path, By::Guardian).unwrap();
        assert!(one.exists() && two.exists());
        let undone = journal.undo_all();
        let numbers: Vec<usize> = undone.iter().map(|undone| undone.number).collect();
        assert_eq!(numbers, [2, 1]);
        assert!(undone.iter().all(|undone| undone.how.is_ok()));
        assert!(!one.exists() && !two.exists());
        drop(journal);
        let mut journal = Journal::open(&path, By::Hand).unwrap();
        assert!(journal.undo_all().is_empty());
        let told = ["two", "one"].map(|name| (name.to_owned(), By::Guardian));
        assert_eq!(journal.undone(), told, "it tells who did it");
    }

    #[test]
    fn what_the_system_says_is_said_once() {
        let missing = Journal::open(Path::new("/nowhere/journal.jsonl"), By::Hand).unwrap_err();
        let said = format!("{:#}", anyhow::Error::new(missing));
        assert_eq!(said.matches("os error 2").count(), 1, "{said}");
    }

    #[test]
    fn an_undo_that_fails_stays_open_and_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let strange = dir.path().join("somebody-elses");
        std::fs::write(&strange, "x").unwrap();
        let (mine, undo) = file(dir.path(), "1");
        let mut journal = Journal::create(&path, "test").unwrap();
        journal.intend(1, "one", &[Undo::Remove { path: strange.clone() }, undo]).unwrap();
        let undone = journal.undo_all();
        assert!(undone[0].how.as_ref().unwrap_err()[0].contains("no file of an experiment"));
        assert!(strange.exists(), "what is not ours stays");
        assert!(!mine.exists(), "the rest was undone");
        assert_eq!(journal.pending().len(), 1);
    }
}
