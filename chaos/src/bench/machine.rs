//! What the figures were measured on: cores, load, kernel, and what one sync of the disk costs.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;

use super::stats::Summary;

/// Syncs timed per way of writing, each time.
const SYNCS: usize = 100;
/// Bytes written before each: a small group of log entries.
const SYNC_BYTES: usize = 512;

/// The machine and how busy it was.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub(super) cores: usize,
    pub(super) cpu: String,
    pub(super) kernel: String,
    /// Load averages over 1, 5 and 15 minutes, before.
    pub(super) load_before: String,
    /// After.
    pub(super) load_after: String,
    /// Folder of the data, whose disk was measured.
    pub(super) folder: String,
    /// Whether this program, and so most likely the nodes, was built with debug assertions.
    pub(super) debug_assertions: bool,
}

impl Machine {
    /// As it is now.
    pub(crate) fn look(folder: &Path) -> Self {
        let cpus = read("/proc/cpuinfo");
        let cpu = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: cpu.to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load(),
            load_after: String::new(),
            folder: folder.display().to_string(),
            debug_assertions: cfg!(debug_assertions),
        }
    }

    /// Notes the load at the end.
    pub(crate) fn look_again(&mut self) {
        self.load_after = load();
    }

    /// In a line, for reports.
    pub(crate) fn whole(&self) -> String {
        let cpu = if self.cpu.is_empty() { "of unknown make" } else { &self.cpu };
        let Self { cores, kernel, load_before, load_after, .. } = self;
        format!(
            "{cores} cores ({cpu}), Linux {kernel}, load {load_before} before and {load_after} after"
        )
    }

    /// In a few words.
    pub(super) fn summary(&self) -> String {
        format!("{} cores, load {}", self.cores, self.load_before)
    }
}

fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Empty where there is no such file: it is only for people to read.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What making 512 bytes durable costs, by how they are written.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Syncs {
    /// At the end of a growing file: the file's size must become durable too.
    pub(super) appending: Option<Summary>,
    /// Over bytes that are there already.
    pub(super) overwriting: Option<Summary>,
}

/// Times of `fdatasync`, taken more than once: what else the disk does changes by the second.
#[derive(Debug, Default)]
pub(super) struct SyncTimes {
    appending: Vec<Duration>,
    overwriting: Vec<Duration>,
}

impl SyncTimes {
    /// Times some more on the folder's disk. Blocks.
    pub(super) fn take(mut self, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("syncs");
        let failed = || format!("timing fdatasync on {}", path.display());
        self.appending.extend(time_syncs(&path, false).with_context(failed)?);
        self.overwriting.extend(time_syncs(&path, true).with_context(failed)?);
        std::fs::remove_file(&path).with_context(failed)?;
        Ok(self)
    }

    /// What they come to.
    pub(super) fn summary(self) -> Syncs {
        Syncs { appending: Summary::of(self.appending), overwriting: Summary::of(self.overwriting) }
    }
}

fn time_syncs(path: &Path, overwrite: bool) -> io::Result<Vec<Duration>> {
    let bytes = [0x5a; SYNC_BYTES];
    let mut file = File::create(path)?;
    if overwrite {
        file.write_all(&[0; SYNC_BYTES].repeat(SYNCS))?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
    }
    (0..SYNCS)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&bytes)?;
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect()
}
