//! Places where a test may kill the process: boundaries between a commit and an act, around every
//! write that must not be half done, and where calls pass from one process to another.
//!
//! Compiled to nothing without the feature `failpoints`. With it, each boundary has a name, and for
//! a step also one that ends in its position: `driver_after_act`, `driver_after_act_1`. Chosen by
//! - the environment: `FAILPOINTS="driver_after_act_1=return;decide_before_adopt=sleep(500)"`, in
//!   the syntax of the `fail` crate, where `return` aborts the process;
//! - a control file, read at every boundary: `MEDIC_FAILPOINTS_FILE=/path`, one `name` per line. The
//!   process that reaches such a name first takes the line out and aborts, so that of several
//!   processes sharing the file exactly one dies. `name=action` lines are handed to `fail` and stay.
//!
//! `MEDIC_FAILPOINTS_HITS=/folder`: every process appends the names it reaches, a line each, to a
//! file of its own there; of each name its first 50.

/// Every name, without the positions of steps.
pub const POINTS: [&str; 62] = [
    "agent_after_act",
    "agent_after_begin",
    "agent_before_begin",
    "agent_before_report",
    "agent_journal_after_sync",
    "agent_journal_before_write",
    "agent_link_connected",
    "approval_after_commit",
    "approval_before_commit",
    "control_after_commit",
    "control_before_commit",
    "decide_after_adopt",
    "decide_before_adopt",
    "driver_after_act",
    "driver_after_finish",
    "driver_after_start",
    "driver_before_send",
    "driver_before_start",
    "driver_undo_after_act",
    "driver_undo_after_finish",
    "driver_undo_after_start",
    "driver_undo_before_send",
    "driver_undo_before_start",
    "fleet_after_send",
    "fleet_before_admit",
    "fleet_before_send",
    "fleet_outcome_received",
    "ledger_after_commit",
    "ledger_after_forward",
    "ledger_before_commit",
    "ledger_before_forward",
    "notify_after_send",
    "notify_before_send",
    "office_after_fence",
    "office_before_fence",
    "peer_after_forwarded",
    "peer_append_stream",
    "peer_before_forwarded",
    "peer_before_pre_vote",
    "peer_before_snapshot",
    "peer_before_transfer",
    "peer_before_vote",
    "peer_read_index",
    "peer_snapshot_chunk",
    "raft_apply_after_records",
    "raft_apply_before_records",
    "raft_log_after_write",
    "raft_log_append",
    "raft_log_before_purge",
    "raft_log_before_truncate",
    "raft_log_before_write",
    "raft_snapshot_after_install",
    "raft_snapshot_after_write",
    "raft_snapshot_before_install",
    "raft_snapshot_before_write",
    "raft_vote_after_save",
    "raft_vote_before_save",
    "shards_after_propose",
    "shards_before_propose",
    "verify_after_record",
    "verify_before_record",
    "watch_before_event",
];

/// Names a boundary.
#[macro_export]
macro_rules! crash_point {
    ($name:expr) => {
        $crate::failpoint::reached($name, None)
    };
    ($name:expr, $step:expr) => {
        $crate::failpoint::reached($name, Some($step))
    };
}

/// This process has come to a boundary.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn reached(_name: &str, _step: Option<u32>) {}

/// This process has come to a boundary.
#[cfg(feature = "failpoints")]
pub fn reached(name: &str, step: Option<u32>) {
    enabled::arm();
    enabled::count(name);
    enabled::hit(name);
    if let Some(step) = step {
        enabled::hit(&format!("{name}_{step}"));
    }
}

#[cfg(feature = "failpoints")]
mod enabled {
    use std::{
        collections::BTreeMap,
        fs::{self, File},
        io::Write as _,
        path::Path,
        sync::{Mutex, OnceLock, PoisonError},
    };

    /// Of one name: enough to tell whether it is reached, and no file that grows with time.
    const HITS_MAX: u32 = 50;

    /// Takes the environment's choices over, once per process.
    pub(super) fn arm() {
        static ARMED: OnceLock<()> = OnceLock::new();
        ARMED.get_or_init(|| {
            let chosen = std::env::var("FAILPOINTS").unwrap_or_default();
            for (name, action) in chosen.split(';').filter_map(|one| one.split_once('=')) {
                configure(name.trim(), action.trim());
            }
        });
    }

    /// Notes a hit at once: the process may not live to the end of it.
    pub(super) fn count(name: &str) {
        static HITS: OnceLock<Option<File>> = OnceLock::new();
        static COUNTS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
        let file = HITS.get_or_init(|| {
            let folder = std::env::var_os("MEDIC_FAILPOINTS_HITS")?;
            let path = Path::new(&folder).join(std::process::id().to_string());
            File::options().create(true).append(true).open(path).ok()
        });
        let Some(mut file) = file.as_ref() else { return };
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = counts.entry(name.to_owned()).or_insert(0);
        *seen += 1;
        if *seen <= HITS_MAX
            && let Err(error) = file.write_all(format!("{name}\n").as_bytes())
        {
            tracing::warn!(failpoint = name, %error, "a hit is not counted");
        }
    }

    fn configure(name: &str, action: &str) {
        if let Err(error) = fail::cfg(name, action) {
            tracing::error!(failpoint = name, action, %error, "not a failpoint action");
        }
    }

    pub(super) fn hit(name: &str) {
        if let Some(file) = std::env::var_os("MEDIC_FAILPOINTS_FILE")
            && taken_from(Path::new(&file), name)
        {
            die(name);
        }
        fail::fail_point!(name, |_| die(name));
    }

    /// Reads the control file; whether `name` stood in it and was this process's to take.
    pub(super) fn taken_from(file: &Path, name: &str) -> bool {
        let Ok(text) = fs::read_to_string(file) else { return false };
        let mut wanted = false;
        let mut rest = String::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line == name {
                wanted = true;
                continue;
            }
            if let Some((name, action)) = line.split_once('=') {
                configure(name, action);
            }
            rest.push_str(line);
            rest.push('\n');
        }
        // Renaming the file away is the one step that only one process can win.
        let mine = file.with_extension(format!("taken-{}", std::process::id()));
        if !wanted || fs::rename(file, &mine).is_err() {
            return false;
        }
        if !rest.is_empty() && fs::write(file, rest).is_err() {
            tracing::error!(file = %file.display(), "cannot write the control file back");
        }
        true
    }

    fn die(name: &str) {
        tracing::error!(failpoint = name, "aborting at a failpoint");
        std::process::abort();
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::enabled::taken_from;

    #[test]
    fn a_name_in_the_control_file_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control");
        std::fs::write(&file, "driver_after_act_1\ndriver_after_start\nother=off\n").unwrap();
        assert!(!taken_from(&file, "driver_after_act"));
        assert!(taken_from(&file, "driver_after_act_1"));
        assert!(!taken_from(&file, "driver_after_act_1"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "driver_after_start\nother=off\n");
        assert!(taken_from(&file, "driver_after_start"));
        assert!(!taken_from(&dir.path().join("absent"), "driver_after_start"));
    }
}
