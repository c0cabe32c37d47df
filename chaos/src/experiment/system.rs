//! Programs and files of the system: run with a bound on their time, written with their name in
//! every error.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Time a tool may take; container engines are the slowest.
const TOOL_PATIENCE: Duration = Duration::from_secs(20);

/// Characters kept of what a tool says when it fails; some repeat all they were given.
const SAID_MAX: usize = 300;

/// Why something could not be done, or undone.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A process.
    #[error(transparent)]
    Process(#[from] super::process::ProcessError),
    /// A tool is not there.
    #[error("{0} is not on PATH: install it")]
    Missing(&'static str),
    /// A tool said no.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// A file.
    #[error("{what} {path}: {cause}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// What the system said. Not its `source`: it stands in the message, and would be said twice.
        cause: std::io::Error,
    },
    /// It will not be done, and why.
    #[error("{0}")]
    Refused(String),
}

impl Trouble {
    /// Names the file in an error of the system.
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { what, path, cause }
    }
}

/// Whether a program is on the path.
pub(super) fn have(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Runs a tool to its end; gives what it wrote.
pub(super) fn run(argv: &[String]) -> Result<String, Trouble> {
    feed(argv, "")
}

/// Runs a tool to its end with this as its input; gives what it wrote.
pub(super) fn feed(argv: &[String], input: &str) -> Result<String, Trouble> {
    let failed = |said: String| Trouble::Tool { command: argv.join(" "), said };
    let (program, args) = argv.split_first().ok_or_else(|| failed("nothing to run".to_owned()))?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let pid = child.id();
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends without reading says why by its exit.
        drop(stdin.write_all(input.as_bytes()));
    }
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(child.wait_with_output())));
    let output = match ended.recv_timeout(TOOL_PATIENCE) {
        Ok(output) => output.map_err(|error| failed(error.to_string()))?,
        Err(_) => {
            if let Some(process) = super::process::ProcessRef::of(pid) {
                process.signal(rustix::process::Signal::KILL)?;
            }
            return Err(failed(format!("no end after {TOOL_PATIENCE:?}")));
        }
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(failed(said.chars().take(SAID_MAX).collect()))
    }
}

/// Words as arguments.
pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Writes a file that is there.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    std::fs::write(path, text).map_err(Trouble::file("writing", path))
}
