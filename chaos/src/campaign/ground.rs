//! The network a campaign stands on: namespaces that a keeper makes and takes away, or loopback.
//!
//! ```text
//!   medic-chaos campaign, the keeper: makes the network, waits, takes the network away
//!     │ stdin of the other: open as long as the keeper lives
//!     └─ medic-chaos campaign, the campaign: in the hub; its nodes each in a place of their own
//! ```
//!
//! The keeper stays outside, so that it can undo everything however the campaign ends, SIGKILL too.
//! When the keeper itself is killed the campaign sees its stdin close, and ends; the namespaces, and
//! whatever still runs in them if both were killed, are removed when a campaign next begins.

use std::{fmt, os::unix::process::ExitStatusExt as _, process::Stdio};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, Command},
    sync::oneshot,
};

use super::{say, told::Told};
use crate::{
    netns::{self, Network, Standing, Use, within},
    report::BROKEN,
};

/// Tells a campaign which network was made for it.
const NETWORK: &str = "MEDIC_CHAOS_NETWORK";
/// Places beyond those of the first nodes, for one that takes another's place.
pub(super) const SPARE: u64 = 1;

/// Which network is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkChoice {
    /// Each node in a network namespace of its own; fails where that cannot be (it needs root, ip
    /// and nft).
    Namespaces,
    /// All on loopback, with a relay in front of each node.
    Loopback,
    /// Namespaces where they can be had, else loopback; the report says which, and why.
    Auto,
}

/// What a campaign stands on.
#[derive(Debug)]
pub(super) enum Ground {
    /// Loopback, and why.
    Loopback(String),
    /// Namespaces, and what tells that whoever keeps them has gone.
    Namespaces(Network, oneshot::Receiver<()>),
}

/// As console and report say it.
impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(why) => write!(f, "loopback with relays ({why})"),
            Self::Namespaces(network, _) => write!(
                f,
                "each node in a network namespace of its own ({}); the kernel drops what is cut, relays \
                 delay and lose",
                network.subnet()
            ),
        }
    }
}

impl Ground {
    pub(super) const fn network(&self) -> Option<Network> {
        match self {
            Self::Loopback(_) => None,
            Self::Namespaces(network, _) => Some(*network),
        }
    }

    /// Waits until the network is no longer kept; for ever on loopback.
    pub(super) async fn lost(&mut self) {
        match self {
            Self::Loopback(_) => std::future::pending().await,
            // Closed or told: both say that it is gone.
            Self::Namespaces(_, gone) => drop(gone.await),
        }
    }
}

/// Where the campaign goes on.
pub(super) enum Entered {
    /// In this process.
    Here(Ground),
    /// It went on in another, which has ended; its exit code.
    Elsewhere(u8),
}

/// Finds the ground of a campaign with so many nodes. Where it is namespaces this makes them, has the
/// campaign run in another process, and takes them away.
///
/// # Errors
/// When namespaces are asked for and cannot be had, or cannot be taken away again.
pub(super) async fn enter(choice: NetworkChoice, nodes: u64) -> anyhow::Result<Entered> {
    if let Some(told) = std::env::var_os(NETWORK) {
        let network =
            told.to_string_lossy().parse().with_context(|| format!("reading {NETWORK}"))?;
        return Ok(Entered::Here(Ground::Namespaces(network, when_stdin_closes())));
    }
    // From here on nobody is ended by a signal in the middle of making something.
    let mut told = Told::listen()?;
    match netns::sweep() {
        Ok(left) if left.is_empty() => {}
        Ok(left) => say(&format!("removed what a campaign that died left: {}", left.join(", "))),
        Err(error) => tracing::warn!("{error:#}"),
    }
    if choice == NetworkChoice::Loopback {
        return Ok(Entered::Here(Ground::Loopback("as asked for".to_owned())));
    }
    let standing = match Standing::make(u8::try_from(nodes + SPARE)?) {
        Ok(standing) => standing,
        Err(error) if choice == NetworkChoice::Auto => {
            let why = format!("no network namespaces: {error:#}");
            return Ok(Entered::Here(Ground::Loopback(why)));
        }
        Err(error) => {
            let asked = "--network namespaces cannot be had here; --network auto takes loopback";
            return Err(error.context(asked));
        }
    };
    let outcome = keep(&standing, &mut told).await;
    let removed = standing.remove().context("taking the network namespaces away");
    // What went wrong first is told first.
    let exit = outcome?;
    removed.map(|()| Entered::Elsewhere(exit))
}

/// Runs the campaign in the hub, hands on to it what it is told, and waits for its end.
async fn keep(standing: &Standing, told: &mut Told) -> anyhow::Result<u8> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(&program);
    command
        .args(std::env::args_os().skip(1))
        .env(NETWORK, standing.network().to_string())
        .stdin(Stdio::piped())
        // A Ctrl-C is for the keeper, who hands it on once.
        .process_group(0)
        .kill_on_drop(true);
    let mut child: Child = within(&standing.network().path(Use::Hub), || command.spawn())?
        .with_context(|| format!("starting {} in the hub", program.display()))?;
    // Held, or waiting would close it.
    let _lifeline = child.stdin.take();
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("it ended at once")?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.context("waiting for the campaign")?,
            by = told.next() => {
                // As it came: the report says by what it was.
                let sent = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), by);
                sent.context("telling the campaign to stop")?;
            }
        }
    };
    match status.signal() {
        Some(signal) => bail!("the campaign was ended by signal {signal}"),
        None => Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(BROKEN)),
    }
}

/// Tells when nobody holds the other end of this process's stdin any more.
fn when_stdin_closes() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    // Not a task: the runtime would wait for it when everything else is over.
    std::thread::spawn(move || {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        drop(sender);
    });
    receiver
}
