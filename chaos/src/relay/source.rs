//! Which node a connection comes from: the socket's inode in `/proc/net/tcp`, and whose it is.
//!
//! Peers are told one address each, so the port they dial cannot tell who dials; the certificate
//! could, but a relay does not look inside TLS.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// A socket can be a moment old before its owner's table shows it.
const LOOKS: usize = 5;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Process ids of the nodes that run; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pids(Arc<RwLock<BTreeMap<u64, i32>>>);

impl Pids {
    /// A node runs as this process.
    pub fn set(&self, node: u64, pid: i32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(node, pid);
    }

    /// A node runs no more.
    pub(super) fn forget(&self, node: u64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Process ids by node.
    #[must_use]
    pub fn all(&self) -> BTreeMap<u64, i32> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The node that holds the local end of a connection from this port.
    pub(super) async fn find(&self, port: u16) -> Option<u64> {
        for _ in 0..LOOKS {
            let known = self.all();
            let found = tokio::task::spawn_blocking(move || {
                let inode = inode_of(port)?;
                known.into_iter().find(|(_, pid)| holds(*pid, inode)).map(|(node, _)| node)
            });
            if let Ok(Some(node)) = found.await {
                return Some(node);
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }
}

/// The inode of the loopback socket whose local port this is.
fn inode_of(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{port:04X}");
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        (fields.nth(1)? == local).then_some(())?;
        fields.nth(7)?.parse().ok()
    })
}

/// Whether one of the process's descriptors is this socket.
fn holds(pid: i32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy() == wanted)
        })
    })
}
