//! The guardian: a process of its own session that undoes everything at once when the experiment is
//! gone, however it went.
//!
//! It waits on a pipe whose other end the experiment holds and never writes to. Whatever ends the
//! experiment closes it, SIGKILL too; the lock of the journal is free then.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::journal::{By, Journal};

/// What it says when it is on its post.
const READY: &[u8] = b"ready\n";

/// The guardian, as the experiment holds it.
#[derive(Debug)]
pub(super) struct Guardian(Child);

impl Guardian {
    /// Starts it, and waits until it is on its post.
    pub(super) fn post(journal: &Path) -> anyhow::Result<Self> {
        use std::io::Read as _;
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(&program)
            .args(["experiment", "guard"])
            .arg(journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting the guardian, {}", program.display()))?;
        let mut said = [0; READY.len()];
        let mut stdout = child.stdout.take().context("the guardian has no output")?;
        stdout.read_exact(&mut said).context("the guardian does not come to its post")?;
        Ok(Self(child))
    }

    /// Whether it is still there.
    pub(super) fn stands(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Lets it go. It looks at the journal once more, so the journal must be free.
    pub(super) fn dismiss(mut self) -> std::io::Result<()> {
        drop(self.0.stdin.take());
        self.0.wait().map(drop)
    }
}

/// The guardian itself. True when everything is undone.
pub(super) async fn keep(journal: &Path) -> anyhow::Result<bool> {
    // A session of its own: what is meant for the experiment's terminal or group is not for it.
    rustix::process::setsid().context("leaving the experiment's session")?;
    let kinds = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()];
    let _deaf = kinds.map(signal).into_iter().collect::<Result<Vec<_>, _>>()?;
    {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        out.write_all(READY)?;
        out.flush()?;
    }
    let path = journal.to_owned();
    let undone = tokio::task::spawn_blocking(move || {
        // Until the experiment is gone: nothing ever comes through.
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        Journal::open(&path, By::Guardian).map(|mut journal| journal.undo_all())
    });
    Ok(undone.await??.iter().all(|undone| undone.how.is_ok()))
}
