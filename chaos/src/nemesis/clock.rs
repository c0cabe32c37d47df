//! Wall clocks that are wrong, one process at a time, through libfaketime. The machine's own clock is
//! never touched.
//!
//! A process that was started with [`environment`] reads its error from a file at every look at the
//! clock, so that the error can change while it runs. Monotonic time stays as it is.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rand::{Rng as _, rngs::StdRng};
use serde::Serialize;

use crate::harness::wall_clock;

/// Where distributions put the library.
const FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
];
/// The variant for programs with several threads.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// How wrong a wall clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Skew {
    /// So far ahead; behind, where negative.
    pub offset_ms: i64,
    /// So many of its milliseconds go by in a second since its process started.
    pub pace_permille: u32,
}

impl Skew {
    /// A clock that is right.
    pub const NONE: Self = Self { offset_ms: 0, pace_permille: 1_000 };

    /// A jump: from the blink that reorders two entries to days that outlast every term there is.
    #[must_use]
    pub fn draw_step(chance: &mut StdRng) -> Self {
        let most: i64 = match chance.random_range(0..10) {
            0..3 => 2_000,
            3..6 => 60_000,
            6..9 => 3_000_000,
            _ => 200_000_000,
        };
        let size = chance.random_range(most / 10..most);
        let offset_ms = if chance.random_ratio(1, 2) { size } else { -size };
        Self { offset_ms, pace_permille: 1_000 }
    }

    /// A clock that is somewhat wrong and goes too fast or too slow.
    #[must_use]
    pub fn draw_drift(chance: &mut StdRng) -> Self {
        Self {
            offset_ms: chance.random_range(-20_000..20_000),
            pace_permille: chance.random_range(950..1_050),
        }
    }

    /// As libfaketime reads it.
    fn text(self) -> String {
        let sign = if self.offset_ms < 0 { '-' } else { '+' };
        let size = self.offset_ms.unsigned_abs();
        let (seconds, rest) = (size / 1_000, size % 1_000);
        let offset = format!("{sign}{seconds}.{rest:03}");
        match self.pace_permille {
            1_000 => format!("{offset}\n"),
            pace => format!("{offset} x{}.{:03}\n", pace / 1_000, pace % 1_000),
        }
    }
}

impl std::fmt::Display for Skew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text().trim())
    }
}

/// The library, where it is installed.
#[must_use]
pub fn library() -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY)).find(|path| path.is_file())
}

/// Environment of a process whose clock follows `file`.
#[must_use]
pub fn environment(library: &Path, file: &Path) -> Vec<(String, String)> {
    let pairs = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// Makes the clock that follows `file` so wrong. Written aside and renamed: a reader never sees half.
///
/// # Errors
/// When the file cannot be written.
pub fn set(file: &Path, skew: Skew) -> anyhow::Result<()> {
    let aside = file.with_extension("new");
    std::fs::write(&aside, skew.text())
        .and_then(|()| std::fs::rename(&aside, file))
        .with_context(|| format!("writing {}", file.display()))
}

/// Removes what the library leaves in shared memory when its process is killed.
pub fn sweep(pid: i32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        drop(std::fs::remove_file(Path::new("/dev/shm").join(name)));
    }
}

/// How far ahead (milliseconds, to the second) the clock of whoever answers HTTP there says to be; none when it does not answer. A server that keeps the date for a second never goes back: for
/// clocks that are behind, what it says is no news.
pub async fn ahead_ms(http: std::net::SocketAddr) -> Option<i64> {
    let client =
        reqwest::Client::builder().timeout(std::time::Duration::from_secs(1)).build().ok()?;
    let answer = client.get(format!("http://{http}/healthz")).send().await.ok()?;
    let date = answer.headers().get("date")?.to_str().ok()?.to_owned();
    ahead_of(jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&date).ok()?)
}

/// How far ahead (milliseconds) a time is.
pub(crate) fn ahead_of(theirs: jiff::Timestamp) -> Option<i64> {
    Some(theirs.as_millisecond() - i64::try_from(wall_clock().0).ok()?)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn errors_are_written_as_the_library_reads_them() {
        let text = |offset_ms, pace_permille| Skew { offset_ms, pace_permille }.text();
        assert_eq!(text(0, 1_000), "+0.000\n");
        assert_eq!(text(-90_050, 1_000), "-90.050\n");
        assert_eq!(text(1_500, 1_025), "+1.500 x1.025\n");
        assert_eq!(text(1_500, 900), "+1.500 x0.900\n");
    }

    #[test]
    fn steps_go_both_ways_and_come_in_every_size() {
        let mut chance = StdRng::seed_from_u64(1);
        let drawn: Vec<i64> = (0..400).map(|_| Skew::draw_step(&mut chance).offset_ms).collect();
        assert!(
            drawn.iter().any(|ms| *ms < -86_400_000) && drawn.iter().any(|ms| *ms > 86_400_000)
        );
        assert!(drawn.iter().any(|ms| (-1_000..0).contains(ms)));
        assert!(drawn.iter().any(|ms| (1..1_000).contains(ms)));
    }

    #[test]
    fn a_process_sees_the_clock_its_file_says() {
        // Without the library there is nothing to test; campaigns then say that it is missing.
        let Some(library) = library() else { return };
        let Ok(folder) = tempfile::tempdir() else { return };
        let file = folder.path().join("clock");
        let skewed = |offset_ms| {
            set(&file, Skew { offset_ms, pace_permille: 1_000 }).ok()?;
            let mut date = std::process::Command::new("date");
            date.arg("+%s").envs(environment(&library, &file));
            let said = String::from_utf8(date.output().ok()?.stdout).ok()?;
            let said: i64 = said.trim().parse().ok()?;
            Some(said - i64::try_from(wall_clock().0 / 1_000).ok()?)
        };
        assert!(skewed(90_000).is_some_and(|ahead| (88..=91).contains(&ahead)));
        assert!(skewed(-7_200_000).is_some_and(|ahead| (-7_202..=-7_198).contains(&ahead)));
    }
}
