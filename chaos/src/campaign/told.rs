//! Being told to stop: Ctrl-C, SIGTERM, or a terminal that is closed.

use nix::sys::signal::Signal as Name;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::say;

/// What tells this process to stop. From the moment it listens none of it ends the process by itself.
#[derive(Debug)]
pub(super) struct Told {
    interrupt: Signal,
    terminate: Signal,
    /// Whoever started us with `nohup` does not want it heard.
    hangup: Option<Signal>,
}

impl Told {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup =
            (!ignores_hangup(&status)).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// Waits; gives by what.
    pub(super) async fn next(&mut self) -> Name {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        let by = tokio::select! {
            _ = self.interrupt.recv() => Name::SIGINT,
            _ = self.terminate.recv() => Name::SIGTERM,
            () = hung_up => Name::SIGHUP,
        };
        say(&format!("told to stop by {by} (process {})", std::process::id()));
        by
    }
}

/// Whether SIGHUP, the first bit, is among the signals that `/proc/self/status` says are ignored.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let bits = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & 1 == 1)
}

/// Waits until this process is told to stop.
pub(crate) async fn told_to_stop() -> anyhow::Result<()> {
    Told::listen()?.next().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_seen() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
