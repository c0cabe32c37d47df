//! Less than a node needs: syncs that fail, descriptors and memory that run out.

use super::{Arena, Proof};
use crate::experiment::fault::cgroup::Group;
use crate::nemesis::{Whom, descriptors_max, memory_max, trace_syncs};

impl Arena {
    /// The next syncs of a node fail, from when its threads are held by the tracer.
    pub(super) async fn fail_sync(&mut self, whom: Whom) -> anyhow::Result<Option<String>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let Some(pid) = self.cluster.node_mut(node)?.pid() else { return Ok(None) };
        self.traced += 1;
        let log = self.cluster.dir().join(format!("logs/strace-{node}-{}.log", self.traced));
        self.tracers.push(trace_syncs(pid, &log).await?);
        self.unproved.push(Proof::Injected(log));
        Ok(Some(format!("syncs of node-{node}{} fail from now on", self.role(node))))
    }

    /// A node may open only a few more files.
    pub(super) fn few_descriptors(
        &mut self,
        whom: Whom,
        more: u64,
    ) -> anyhow::Result<Option<String>> {
        let Some((node, pid)) = self.limit(whom)? else { return Ok(None) };
        self.expect_words(node, &["Too many open files", "os error 24"])?;
        descriptors_max(pid, Some(more))?;
        Ok(Some(format!("node-{node} may open {more} more files")))
    }

    /// A node gets only a little more memory: by a control group where there are such, else by a
    /// limit on its address space, which it may not come to.
    pub(super) fn little_memory(
        &mut self,
        whom: Whom,
        more: u64,
    ) -> anyhow::Result<Option<String>> {
        let Some((node, pid)) = self.limit(whom)? else { return Ok(None) };
        let at_ms = self.eyes.now_ms();
        self.unproved.push(Proof::Squeezed { node, at_ms });
        let group = u32::try_from(pid).ok().and_then(|pid| Group::of_memory(pid, (more + 1) << 20));
        match group {
            Some(group) => self.squeezed.push((at_ms, node, group)),
            None => memory_max(pid, Some(more))?,
        }
        Ok(Some(format!("node-{node} gets {} MiB more memory at most", more + 1)))
    }

    fn limit(&mut self, whom: Whom) -> anyhow::Result<Option<(u64, i32)>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let Some(pid) = self.cluster.node_mut(node)?.pid() else { return Ok(None) };
        self.limited.insert(node);
        Ok(Some((node, pid)))
    }

    pub(super) async fn unlimited(&mut self) -> anyhow::Result<Option<String>> {
        for (at_ms, node, group) in std::mem::take(&mut self.squeezed) {
            if group.was_short() {
                self.short_of_memory.insert((node, at_ms));
            }
            let undone = tokio::task::spawn_blocking(move || group.undo());
            undone
                .await?
                .map_err(|trouble| anyhow::anyhow!("lifting a limit of memory: {trouble}"))?;
        }
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
