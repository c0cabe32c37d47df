//! What a campaign left behind, read from each node, agent, service and file by itself: a source that
//! cannot be read costs its own part of the evidence, counts as a violation, and hides no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use medic_proto::v1 as pb;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::{stage::Stage, watch::stale};
use crate::{
    check::{
        Verdict, Violation,
        acts::Starts,
        chain::Chain,
        journal::{self, Journal},
    },
    harness::Client,
};

/// One source is tried for so long: a node that has just come back may need a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// One reading of it may take so long; the chain of a long campaign has many pages.
const READING_MAX: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// Incidents a page.
const PAGE: u32 = 500;

/// Every plan that was seen or committed, as it is now.
pub(super) type Plans = BTreeMap<String, pb::Remediation>;
/// The chain of every node.
pub(super) type Chains = BTreeMap<u64, Vec<pb::AuditRecord>>;

/// How many sources of each kind were read, and which could not be.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<(u8, &'static str), (usize, Vec<Violation>)>);

impl Sources {
    /// Notes one source of an invariant's evidence; gives what was read.
    pub(super) fn note<T>(
        &mut self,
        (invariant, kind): (u8, &'static str),
        name: &str,
        read: anyhow::Result<T>,
    ) -> Option<T> {
        let (checked, violations) = self.0.entry((invariant, kind)).or_default();
        *checked += 1;
        match read {
            Ok(found) => Some(found),
            Err(error) => {
                violations.push(
                    Violation::new(format!("{name} cannot be read")).with([format!("{error:#}")]),
                );
                None
            }
        }
    }

    /// A verdict for each kind.
    pub(super) fn verdicts(self) -> impl Iterator<Item = Verdict> {
        self.0.into_iter().map(|((invariant, kind), (checked, violations))| {
            Verdict::new(invariant, checked, kind, violations)
        })
    }
}

/// Tries until it succeeds or the patience is over; gives the last error.
async fn patiently<T, F>(patience: Duration, mut read: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        let tried = tokio::time::timeout(READING_MAX, read()).await;
        let error = match tried {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("not read within {READING_MAX:?}"),
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The chain of every node, from its own records.
pub(super) async fn chains(stage: &Stage, sources: &mut Sources) -> Chains {
    let mut chains = Chains::new();
    for node in stage.arena.members.clone() {
        let read = patiently(PATIENCE, || chain_of(stage, node)).await;
        if let Some(records) = sources.note((7, "members read"), &format!("node-{node}"), read) {
            chains.insert(node, records);
        }
    }
    chains
}

async fn chain_of(stage: &Stage, node: u64) -> anyhow::Result<Vec<pb::AuditRecord>> {
    let mut client = stage.arena.dialer.dial(node).await?;
    let request = stale(pb::ExportAuditRequest { after_index: 0 });
    let mut stream = client.audit().export(request).await?.into_inner();
    let mut records = Vec::new();
    while let Some(page) = stream.message().await? {
        records.extend(page.records);
    }
    Ok(records)
}

/// Every plan of these ids, as it is now, and the ids that were not answered for. One that no node
/// knows is in neither, to be found missing.
pub(super) async fn plans(
    stage: &Stage,
    ids: impl Iterator<Item = String>,
    sources: &mut Sources,
) -> (Plans, BTreeSet<String>) {
    let (mut plans, mut unread) = (Plans::new(), BTreeSet::new());
    let mut client: Option<Client> = None;
    // When nobody answers, the rest is not waited for one by one.
    let mut patience = PATIENCE;
    for id in ids {
        let deadline = Instant::now() + patience;
        let read = loop {
            let tried = tokio::time::timeout(READING_MAX, plan_of(stage, &mut client, &id)).await;
            let tried = tried.unwrap_or_else(|_| bail_late());
            match tried {
                Err(_) if Instant::now() < deadline => {
                    client = None;
                    tokio::time::sleep(PAUSE).await;
                }
                tried => break tried,
            }
        };
        patience = if read.is_ok() { PATIENCE } else { Duration::ZERO };
        match sources.note((6, "plans read"), &id, read) {
            Some(Some(plan)) => {
                plans.insert(id, plan);
            }
            Some(None) => {}
            None => {
                unread.insert(id);
            }
        }
    }
    (plans, unread)
}

fn bail_late<T>() -> anyhow::Result<T> {
    bail!("not read within {READING_MAX:?}")
}

async fn plan_of(
    stage: &Stage,
    client: &mut Option<Client>,
    id: &str,
) -> anyhow::Result<Option<pb::Remediation>> {
    let client = match client {
        Some(client) => client,
        None => client.insert(stage.arena.cluster.client("admin").await?),
    };
    let request = pb::GetRemediationRequest { id: id.to_owned() };
    match client.remediations().get(request).await {
        Ok(response) => Ok(response.into_inner().remediation),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status).context("asking for it"),
    }
}

/// All incidents, oldest first.
pub(super) async fn incidents(stage: &Stage, sources: &mut Sources) -> Vec<pb::IncidentSummary> {
    let read = patiently(PATIENCE, || all_incidents(stage)).await;
    let mut found =
        sources.note((7, "lists of incidents read"), "the list", read).unwrap_or_default();
    found.sort_by_key(|incident| number_of(&incident.id));
    found
}

async fn all_incidents(stage: &Stage) -> anyhow::Result<Vec<pb::IncidentSummary>> {
    let mut client = stage.arena.cluster.client("admin").await?;
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            pb::ListIncidentsRequest { page_size: PAGE, page_token, ..Default::default() };
        let page = client.incidents().list(request).await?.into_inner();
        found.extend(page.incidents);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

/// The number in `INC-57`: the log index of what opened it.
pub(super) fn number_of(id: &str) -> u64 {
    id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Journals of the agents. The agents are stopped.
pub(super) fn journals(stage: &Stage, sources: &mut Sources) -> Vec<Journal> {
    let folder = stage.arena.cluster.dir().join("agents");
    let mut found = Vec::new();
    for agent in &stage.arena.agents {
        let read = journal::read(agent, &folder.join(format!("{agent}.state/journal")));
        found.extend(sources.note((3, "journals of agents read"), agent, read));
    }
    found
}

/// What the services noted of their starts.
pub(super) fn starts(stage: &Stage, sources: &mut Sources) -> Starts {
    let mut found = Starts::new();
    for instance in stage.arena.fleet.instances.values() {
        let path = instance.starts();
        let read = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))
            .and_then(|text| {
                let pids: Result<Vec<u64>, _> = text.lines().map(str::parse).collect();
                pids.with_context(|| format!("{} has lines that are no numbers", path.display()))
            });
        if let Some(pids) = sources.note((4, "notes of services read"), &instance.name, read) {
            found.insert(instance.name.clone(), (path, pids));
        }
    }
    found
}

/// 8, offline: the product's own verifier over the data of each stopped node.
pub(super) async fn offline(stage: &Stage) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for node in stage.arena.members.clone() {
        let dir = stage.arena.cluster.data_dir(node);
        let mut command = tokio::process::Command::new(&stage.medic);
        command.args(["audit", "verify", "--dir"]).arg(&dir).stdin(Stdio::null());
        let problem = match command.output().await {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        checked += 1;
        if let Some(problem) = problem {
            let text = format!("node-{node}: `medic audit verify` says: {problem}");
            violations.push(Violation::new(text).see(dir));
        }
    }
    Verdict::new(8, checked, "nodes verified offline", violations)
}

/// Ids of all plans there were: those seen while they ran, and those in a chain.
pub(super) fn plan_ids<'a>(
    seen: impl Iterator<Item = &'a String>,
    chains: &'a BTreeMap<u64, Chain>,
) -> BTreeSet<String> {
    let committed = chains.values().flat_map(|chain| chain.plans.keys());
    seen.chain(committed).cloned().collect()
}

/// What is run: version and digest of the binary, and the checkout that this is run in.
pub(super) fn build(medic: &Path) -> String {
    let said = |program: &Path, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).stdin(Stdio::null()).output();
        let output = output.ok().filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let version =
        said(medic, &["version"]).unwrap_or_else(|| "medic of unknown version".to_owned());
    let digest = std::fs::File::open(medic).and_then(|mut file| {
        let mut hasher = Sha256::new();
        std::io::copy(&mut file, &mut Hashing(&mut hasher))?;
        Ok(hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>())
    });
    let digest = digest.unwrap_or_else(|error| format!("unreadable: {error}"));
    let commit = said(Path::new("git"), &["describe", "--always", "--dirty", "--abbrev=12"])
        .filter(|_| Path::new("chaos/Cargo.toml").exists())
        .map(|commit| format!(", from a checkout at {commit}"));
    let planted = std::env::var(super::PLANTED).map(|name| format!(", with {name} planted"));
    let name = medic.file_name().unwrap_or_default().to_string_lossy();
    let (commit, planted) = (commit.unwrap_or_default(), planted.unwrap_or_default());
    format!("{version}; {name} with SHA-256 {digest}…{commit}{planted}")
}

/// Takes bytes into a hash.
struct Hashing<'a>(&'a mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_cannot_be_read_is_a_violation_and_hides_no_other() {
        let mut sources = Sources::default();
        let kind = (7, "members read");
        assert_eq!(sources.note(kind, "node-1", Ok(5)), Some(5));
        let refused: anyhow::Result<u8> = Err(anyhow::anyhow!("connection refused"));
        assert_eq!(sources.note(kind, "node-3", refused), None);
        assert_eq!(sources.note((3, "journals of agents read"), "host-a", Ok(1)), Some(1));
        let verdicts: Vec<Verdict> = sources.verdicts().collect();
        assert_eq!((verdicts[0].invariant, verdicts[0].checked), (3, 1));
        assert!(verdicts[0].holds());
        let members = &verdicts[1];
        assert_eq!((members.invariant, members.checked), (7, 2));
        assert_eq!(members.violations[0].what, "node-3 cannot be read");
        assert_eq!(members.violations[0].evidence, ["connection refused"]);
    }

    #[tokio::test]
    async fn a_node_that_has_just_come_back_is_asked_again_and_one_that_stays_away_is_given_up() {
        let mut tries = 0;
        let read = patiently(PATIENCE, || {
            tries += 1;
            let answer = if tries < 3 { Err(anyhow::anyhow!("not yet")) } else { Ok(tries) };
            std::future::ready(answer)
        });
        assert_eq!(read.await.ok(), Some(3));
        let never = || std::future::ready(Err::<(), _>(anyhow::anyhow!("connection refused")));
        let given_up = patiently(Duration::ZERO, never).await;
        assert!(given_up.is_err_and(|error| error.to_string() == "connection refused"));
    }

    #[test]
    fn plans_that_nobody_saw_run_are_looked_at_too() {
        let mut chain = Chain::default();
        chain.plans.insert("PLAN-9".to_owned(), 9);
        let chains = BTreeMap::from([(1, chain), (2, Chain::default())]);
        let seen = ["PLAN-5".to_owned()];
        let ids: Vec<String> = plan_ids(seen.iter(), &chains).into_iter().collect();
        assert_eq!(ids, ["PLAN-5", "PLAN-9"]);
    }
}
