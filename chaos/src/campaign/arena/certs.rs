//! Certificates that are rotated and that end, under way.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use medic_node::security::{Authority, Layout, Subject, Unit};
use nix::sys::signal::Signal;

use super::Arena;
use crate::{harness::wall_clock, nemesis::Whom};

/// What is left of a certificate that is about to end: time enough to be taken over.
const LEFT: Duration = Duration::from_secs(2);
/// Certificates are issued for whole days.
const DAY_MS: u64 = 86_400_000;

impl Arena {
    /// New keys and certificates for all nodes and agents. They notice by themselves.
    pub(super) async fn rotate(&self) -> anyhow::Result<Option<String>> {
        let nodes = self.members.iter().map(|node| format!("node-{node}"));
        let names: Vec<String> = nodes.chain(self.agents.iter().cloned()).collect();
        self.renew_files(&names).await?;
        Ok(Some(format!("new certificates for {}", names.join(", "))))
    }

    /// A running node is given a certificate that ends in a moment.
    pub(super) fn expire(&mut self, whom: Whom) -> anyhow::Result<Option<String>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let layout = Layout(self.cluster.dir().to_owned());
        let name = format!("node-{node}");
        let host = self.cluster.ports(node).map(|ports| ports.host.to_string());
        let hosts = host.into_iter().collect();
        let (cluster, unit) = ("local".to_owned(), Unit::Nodes);
        let subject = Subject { name: name.clone(), cluster, unit, hosts };
        let authority = Authority::open(&layout.ca_cert(), &layout.ca_key())?;
        let mut issued_at = wall_clock();
        issued_at.0 += u64::try_from(LEFT.as_millis())?;
        issued_at.0 = issued_at.0.saturating_sub(DAY_MS);
        let issued = authority.issue(&subject, issued_at, 1)?;
        replace_file(&layout.key(unit, &name), &issued.key)?;
        replace_file(&layout.cert(unit, &name), &issued.cert)?;
        self.expiring.insert(node);
        self.cluster.node_mut(node)?.signal(Signal::SIGHUP)?;
        let role = self.role(node);
        Ok(Some(format!("the certificate of node-{node}{role} ends in {} s", LEFT.as_secs())))
    }

    /// Whoever has a certificate that ended gets another.
    pub(super) async fn renew(&mut self) -> anyhow::Result<Option<String>> {
        let expiring = std::mem::take(&mut self.expiring);
        let names: Vec<String> = expiring.iter().map(|node| format!("node-{node}")).collect();
        if names.is_empty() {
            return Ok(None);
        }
        self.renew_files(&names).await?;
        for node in expiring {
            // A node that does not run reads the new files when it starts.
            if self.members.contains(&node) && self.running(node) {
                self.cluster.node_mut(node)?.signal(Signal::SIGHUP)?;
            }
        }
        Ok(Some(format!("a new certificate for {}", names.join(", "))))
    }

    async fn renew_files(&self, names: &[String]) -> anyhow::Result<()> {
        let output = tokio::process::Command::new(&self.medic)
            .args(["certs", "renew", "--dir"])
            .arg(self.cluster.dir())
            .args(names)
            .output()
            .await?;
        if !output.status.success() {
            bail!("`medic certs renew` failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// A reader sees the old file or the new one.
fn replace_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, text)
        .and_then(|()| std::fs::rename(&aside, path))
        .with_context(|| format!("writing {}", path.display()))
}
