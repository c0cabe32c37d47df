//! Places where a test may kill the process: every boundary between a commit and an act.
//!
//! Compiled to nothing without the feature `failpoints`. With it, each boundary has a name, and for
//! a step also one that ends in its position: `driver_after_act`, `driver_after_act_1`. Chosen by
//! - the environment: `FAILPOINTS="driver_after_act_1=return;decide_before_adopt=sleep(500)"`, in
//!   the syntax of the `fail` crate, where `return` aborts the process;
//! - a control file, read at every boundary: `MEDIC_FAILPOINTS_FILE=/path`, one `name` per line. The
//!   process that reaches such a name first takes the line out and aborts, so that of several
//!   processes sharing the file exactly one dies. `name=action` lines are handed to `fail` and stay.

/// Names, as tests use them; `undo_` stands before the last part for undo steps.
pub const BOUNDARIES: [&str; 14] = [
    "driver_before_start",
    "driver_after_start",
    "driver_before_send",
    "driver_after_act",
    "driver_after_finish",
    "driver_undo_before_start",
    "driver_undo_after_start",
    "driver_undo_before_send",
    "driver_undo_after_act",
    "driver_undo_after_finish",
    "decide_before_adopt",
    "decide_after_adopt",
    "verify_before_record",
    "verify_after_record",
];

/// Names a boundary.
#[macro_export]
macro_rules! crash_point {
    ($name:expr) => {
        $crate::action::failpoint::reached($name, None)
    };
    ($name:expr, $step:expr) => {
        $crate::action::failpoint::reached($name, Some($step))
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
    enabled::hit(name);
    if let Some(step) = step {
        enabled::hit(&format!("{name}_{step}"));
    }
}

#[cfg(feature = "failpoints")]
mod enabled {
    use std::{fs, path::Path, sync::OnceLock};

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
