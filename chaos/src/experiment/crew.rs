//! Begins faults and takes them back, beside the loop that watches.
//!
//! ```text
//!   find and allow ─► plan ─► note the undo, synced ─► act        (one at a time: the journal's lock)
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{
    fault::{self, Resolved},
    journal::{Journal, Undone},
    local::Local,
    manifest::{ExperimentSpec, FaultSpec, ProcessMatch, TargetSpec, allow::AllowSpec},
    resolve::resolve,
    system::Trouble,
    undo::Undo,
};

/// The number under which the journal knows the cluster that was started for the experiment.
pub(super) const CLUSTER: usize = 0;

/// A fault that was begun, or was not.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) number: usize,
    /// What the target was found to be.
    pub(super) target: String,
    /// What was done.
    pub(super) acts: Vec<String>,
    /// What takes it back; none: nothing does.
    pub(super) undo: Vec<String>,
    /// Why it could not be begun.
    pub(super) failed: Option<String>,
}

/// Something that has come to its end.
#[derive(Debug)]
pub(super) enum Done {
    Begun(Begun),
    Ended(Undone),
}

/// Whoever does it.
pub(super) struct Crew {
    spec: Arc<ExperimentSpec>,
    allow: Arc<AllowSpec>,
    journal: Arc<Mutex<Journal>>,
    local: Option<Local>,
    run: String,
    works: JoinSet<Option<Done>>,
    /// Faults that only the cluster's handle can take back: fault and node, by number.
    of_cluster: BTreeMap<usize, (usize, u64)>,
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    pub(super) fn new(
        spec: Arc<ExperimentSpec>,
        allow: Arc<AllowSpec>,
        journal: Journal,
        run: String,
    ) -> Self {
        Self {
            spec,
            allow,
            journal: Arc::new(Mutex::new(journal)),
            local: None,
            run,
            works: JoinSet::new(),
            of_cluster: BTreeMap::new(),
        }
    }

    /// Notes something that has to be taken back.
    pub(super) fn intend(&self, number: usize, name: &str, undo: &[Undo]) -> Result<(), Trouble> {
        lock(&self.journal).intend(number, name, undo)
    }

    /// The experiment's own cluster, once it is there.
    pub(super) fn employ(&mut self, local: Local) {
        self.local = Some(local);
    }

    /// Whether anything is under way.
    pub(super) fn busy(&self) -> bool {
        !self.works.is_empty()
    }

    /// What has come to its end, when something has.
    pub(super) async fn done(&mut self) -> Option<Done> {
        match self.works.join_next().await? {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a fault's work has panicked");
                None
            }
        }
    }

    fn fault(&self, index: usize) -> anyhow::Result<(FaultSpec, TargetSpec)> {
        let fault = self.spec.faults.get(index).context("there is no such fault")?.clone();
        let target = self.spec.targets.iter().find(|target| target.name == fault.target);
        Ok((fault.clone(), target.context("there is no such target")?.clone()))
    }

    /// Begins a fault; `done` tells how it went.
    pub(super) async fn begin(&mut self, number: usize, index: usize) {
        if let Err(error) = self.try_begin(number, index).await {
            let (target, failed) = (String::new(), Some(format!("{error:#}")));
            let begun = Begun { number, target, acts: Vec::new(), undo: Vec::new(), failed };
            self.works.spawn(async { Some(Done::Begun(begun)) });
        }
    }

    async fn try_begin(&mut self, number: usize, index: usize) -> anyhow::Result<()> {
        let (fault, target) = self.fault(index)?;
        let mut resolved = None;
        if let Some(node) = target.node {
            let local = self.local.as_mut().context("there is no cluster")?;
            let node = local.number(node).await?;
            if Local::handles(&fault.inject) {
                let what = format!("{} of node-{node} ends", fault.inject.kind());
                let undo = Undo::OfCluster { what: what.clone() };
                lock(&self.journal).intend(number, &fault.title(), &[undo])?;
                self.of_cluster.insert(number, (index, node));
                local.begin(node, &fault.inject).await?;
                let begun = Begun {
                    number,
                    target: format!("node-{node} of its own cluster"),
                    acts: vec![format!("{} of node-{node}", fault.inject.kind())],
                    undo: vec![what],
                    failed: None,
                };
                self.works.spawn(async { Some(Done::Begun(begun)) });
                return Ok(());
            }
            let (process, by) = (local.process(node)?, ProcessMatch::default());
            resolved = Some(Resolved::Process { process, by, restart: None });
        }
        let (journal, allow) = (self.journal.clone(), self.allow.clone());
        let id = format!("{}-{number}", self.run);
        self.works.spawn_blocking(move || {
            let mut journal = lock(&journal);
            let begun = begin(&mut journal, number, &fault, &target, resolved, &allow, &id);
            Some(Done::Begun(begun))
        });
        Ok(())
    }

    /// Takes a fault back; `done` tells how it went.
    pub(super) fn end(&mut self, number: usize) {
        let by_handle = self.of_cluster_ends(number);
        let journal = self.journal.clone();
        self.works.spawn_blocking(move || {
            let mut undone = lock(&journal).undo(number)?;
            if let (Some(how), Ok(_)) = (by_handle, &undone.how) {
                undone.how = how.map(|how| vec![how]).map_err(|why| vec![why]);
            }
            Some(Done::Ended(undone))
        });
    }

    /// Takes back what only the cluster's handle can; gives how, when it was such a fault.
    fn of_cluster_ends(&mut self, number: usize) -> Option<Result<String, String>> {
        let (index, node) = self.of_cluster.remove(&number)?;
        let inject = &self.spec.faults.get(index)?.inject;
        let undone = self.local.as_mut()?.undo(node, inject);
        let kind = inject.kind();
        Some(match undone {
            Ok(()) => Ok(format!("the {kind} of node-{node} is over")),
            Err(error) => Err(format!("{kind} of node-{node}: {error:#}")),
        })
    }

    /// Takes back every fault that is in force. What is under way comes to its end first.
    pub(super) async fn end_all(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        while self.busy() {
            done.extend(self.done().await);
        }
        let pending = lock(&self.journal).pending().to_vec();
        for fault in pending.iter().rev().filter(|fault| fault.number != CLUSTER) {
            self.end(fault.number);
            while self.busy() {
                done.extend(self.done().await);
            }
        }
        done
    }

    /// Ends the cluster, and closes the journal; gives what is left in it.
    pub(super) async fn dismiss(mut self) -> Vec<String> {
        let journal = self.journal.clone();
        let closed = tokio::task::spawn_blocking(move || {
            let mut journal = lock(&journal);
            journal.undo(CLUSTER);
            let mut left: Vec<String> = Vec::new();
            for fault in journal.pending() {
                left.extend(fault.undo.iter().map(|undo| format!("{}: {undo}", fault.name)));
            }
            if left.is_empty()
                && let Err(error) = journal.end()
            {
                left.push(format!("nothing, but the journal does not say so: {error}"));
            }
            left
        });
        let left = closed.await.unwrap_or_else(|error| vec![error.to_string()]);
        self.local.take();
        left
    }
}

/// Finds, plans, notes, acts.
fn begin(
    journal: &mut Journal,
    number: usize,
    fault: &FaultSpec,
    target: &TargetSpec,
    resolved: Option<Resolved>,
    allow: &AllowSpec,
    id: &str,
) -> Begun {
    let mut begun =
        Begun { number, target: String::new(), acts: Vec::new(), undo: Vec::new(), failed: None };
    let work = || {
        let resolved = match resolved {
            Some(resolved) => resolved,
            None => resolve(target, &[&fault.inject], allow)?,
        };
        begun.target = resolved.to_string();
        let planned = fault::plan(&fault.inject, &resolved, id)?;
        begun.undo = planned.undo.iter().map(Undo::to_string).collect();
        if !planned.undo.is_empty() {
            journal.intend(number, &fault.title(), &planned.undo)?;
        }
        for act in &planned.acts {
            begun.acts.push(act.to_string());
            act.perform()?;
        }
        Ok::<(), Trouble>(())
    };
    let failed = work().err();
    if let Some(error) = failed {
        let mut said = error.to_string();
        // Half a fault is taken back at once.
        if let Some(Undone { how: Err(why), .. }) = journal.undo(number) {
            said += &format!("; and what was begun could not be undone: {}", why.join("; "));
        }
        begun.failed = Some(said);
    }
    begun
}
