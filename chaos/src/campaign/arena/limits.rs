//! Less than a node needs: syncs that fail, descriptors and memory that run out.

use super::Arena;
use crate::nemesis::{Whom, descriptors_max, memory_max, trace_syncs};

impl Arena {
    pub(super) fn fail_sync(&mut self, whom: Whom) -> anyhow::Result<Option<String>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let Some(pid) = self.cluster.node_mut(node)?.pid() else { return Ok(None) };
        let log = self.cluster.dir().join(format!("logs/strace-{node}.log"));
        self.tracers.push(trace_syncs(pid, &log)?);
        Ok(Some(format!("syncs of node-{node}{} fail from now on", self.role(node))))
    }

    /// A node may open only a few more files.
    pub(super) fn few_descriptors(
        &mut self,
        whom: Whom,
        more: u64,
    ) -> anyhow::Result<Option<String>> {
        let Some((node, pid)) = self.limit(whom)? else { return Ok(None) };
        descriptors_max(pid, Some(more))?;
        Ok(Some(format!("node-{node} may open {more} more files")))
    }

    /// A node gets only a little more memory.
    pub(super) fn little_memory(
        &mut self,
        whom: Whom,
        more: u64,
    ) -> anyhow::Result<Option<String>> {
        let Some((node, pid)) = self.limit(whom)? else { return Ok(None) };
        memory_max(pid, Some(more))?;
        Ok(Some(format!("node-{node} gets {more} MiB more memory at most")))
    }

    fn limit(&mut self, whom: Whom) -> anyhow::Result<Option<(u64, i32)>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let Some(pid) = self.cluster.node_mut(node)?.pid() else { return Ok(None) };
        self.limited.insert(node);
        Ok(Some((node, pid)))
    }

    pub(super) fn unlimited(&mut self) -> anyhow::Result<Option<String>> {
        let limited = std::mem::take(&mut self.limited);
        for node in &limited {
            let running = self.running(*node);
            let pid = self.cluster.node_mut(*node)?.pid();
            // Whoever died of it has no limits any more.
            if let (true, Some(pid)) = (running, pid) {
                descriptors_max(pid, None)?;
                memory_max(pid, None)?;
            }
        }
        Ok((!limited.is_empty()).then(|| "limits are lifted".to_owned()))
    }

    /// Lets go of the processes whose syncs fail.
    pub(super) async fn untrace(&mut self) {
        for mut tracer in std::mem::take(&mut self.tracers) {
            if let Err(error) = tracer.kill().await {
                tracing::debug!(%error, "the tracer is gone");
            }
        }
    }
}
