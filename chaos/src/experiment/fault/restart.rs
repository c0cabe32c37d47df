//! Starting again what was killed: by the allow-list's command, unless it runs already.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::experiment::{
    manifest::ProcessMatch,
    process::{self, ProcessError},
    system::Trouble,
};

/// Time until it must be seen to run.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// It runs, by itself or by this command.
pub(in crate::experiment) fn restart(
    argv: &[String],
    wanted: &ProcessMatch,
) -> Result<String, Trouble> {
    let failed = |said: String| Trouble::Tool { command: argv.join(" "), said };
    match process::find(wanted) {
        Ok(found) => return Ok(format!("runs already, as process {}", found.pid)),
        Err(ProcessError::Several { pids, .. }) => {
            return Ok(format!("runs already, as processes {pids:?}"));
        }
        Err(_) => {}
    }
    let Some((program, args)) = argv.split_first() else {
        return Err(failed("nothing to run".to_owned()));
    };
    // A session of its own, so that it outlives this program and its terminal.
    let setsid =
        ["/usr/bin/setsid", "/bin/setsid"].into_iter().find(|path| Path::new(path).exists());
    let mut command = setsid.map_or_else(
        || Command::new(program),
        |setsid| {
            let mut command = Command::new(setsid);
            command.arg(program);
            command
        },
    );
    let mut child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(found) = process::find(wanted) {
            return Ok(format!("runs again, as process {}", found.pid));
        }
        let ended = child.try_wait().map_err(|error| failed(error.to_string()))?;
        if let Some(status) = ended.filter(|status| !status.success()) {
            return Err(failed(format!("{status}, and no process is {wanted}")));
        }
        if Instant::now() > deadline {
            return Err(failed(format!("after {PATIENCE:?} no process is {wanted}")));
        }
        std::thread::sleep(LOOK);
    }
}
