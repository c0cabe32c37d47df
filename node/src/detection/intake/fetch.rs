//! Sources that are asked: a Prometheus by queries, exposition endpoints by scrapes.
//!
//! ```text
//!   each second: Sources of the shards this node owns ─► due? ─► round: ask or scrape ─┬─► Hub (as if pushed)
//!                                                               bounded by the interval └─► each answer as it lands
//! ```
//!
//! A source belongs to the shard of its own name, so that one node asks it, and another does when that
//! one is gone. What it says goes the way of pushes to whoever watches the instances it speaks of.
//! Every request is bounded in time and bytes, and every round by its source's interval: one target that
//! hangs keeps nobody's news back, and who was left out is named and comes first next time. A round that
//! fails, or panics, is asked again at the next interval, and said once. Files of targets are read at each
//! round, and so are those of certificates and credentials: what changes in one counts from the next round on.

mod round;
#[cfg(test)]
mod tests;
mod voice;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{
    State,
    manifest::{Kind as ManifestKind, ManifestKey, SourceSpec, Spec},
    symptom::Target,
};
use metrics::{counter, gauge};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::round::Round;
use super::hub::Hub;
use crate::{
    detection::{
        metrics::Metric,
        probe::{self, Certificates},
    },
    secrets::Secrets,
};

/// Between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sources being asked at once.
const ROUNDS_MAX: usize = 16;
/// Time after which a source that fails in another way than before is spoken of again.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Asks sources until it is told to stop.
pub struct Fetcher {
    ledger: Arc<dyn Ledger>,
    hub: Arc<Hub>,
    client: reqwest::Client,
    folder: PathBuf,
    secrets: Secrets,
    certificates: Certificates,
    /// Name servers; absent: the system's.
    servers: Option<Vec<SocketAddr>>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

/// What is known of the rounds of all sources.
#[derive(Default)]
struct Rounds {
    tasks: JoinSet<Round>,
    running: HashMap<Id, ManifestKey>,
    known: BTreeMap<ManifestKey, Known>,
}

/// What is known of one source.
struct Known {
    due: Instant,
    running: bool,
    /// Where among its targets the next round begins.
    from: usize,
    /// What was said of it last, and when.
    said: Option<(String, Instant)>,
}

impl Fetcher {
    /// `folder`: where `file_sd` files lie; `secrets`: where certificates and credentials do.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        hub: Arc<Hub>,
        folder: PathBuf,
        secrets: Secrets,
    ) -> Result<Arc<Self>, String> {
        let client = probe::client().map_err(|error| format!("HTTP client: {error}"))?;
        let certificates = Certificates::default();
        Ok(Arc::new(Self { ledger, hub, client, folder, secrets, certificates, servers: None }))
    }

    /// Until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut rounds = Rounds::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(joined) = rounds.tasks.join_next_with_id() => rounds.ended(joined),
                _ = look.tick() => {
                    gauge!(Metric::IntakeSeries.name()).set(self.hub.series() as f64);
                    let wanted = self.ledger.read(|state| own(state, self.ledger.node()));
                    rounds.begin(wanted, |key, source, from| self.clone().round(key, source, from));
                }
            }
        }
    }
}

impl Rounds {
    /// Begins the rounds that are due.
    fn begin<F: Future<Output = Round> + Send + 'static>(
        &mut self,
        wanted: BTreeMap<ManifestKey, SourceSpec>,
        mut round: impl FnMut(ManifestKey, SourceSpec, usize) -> F,
    ) {
        self.known.retain(|key, known| known.running || wanted.contains_key(key));
        let now = Instant::now();
        for (key, source) in wanted {
            let fresh = Known { due: now, running: false, from: 0, said: None };
            let known = self.known.entry(key.clone()).or_insert(fresh);
            if known.running || known.due > now || self.running.len() >= ROUNDS_MAX {
                continue;
            }
            known.running = true;
            known.due = now + round::interval(&source);
            let task = self.tasks.spawn(round(key.clone(), source, known.from));
            self.running.insert(task.id(), key);
        }
    }

    /// Notes how a round ended. One that panicked is a failure like another: its source is asked again.
    fn ended(&mut self, joined: Result<(Id, Round), JoinError>) {
        let (id, round) = match joined {
            Ok((id, round)) => (id, round),
            Err(error) => {
                counter!(Metric::TaskPanics.name()).increment(1);
                (error.id(), Round::broken(&error))
            }
        };
        let Some(key) = self.running.remove(&id) else { return };
        let Some(known) = self.known.get_mut(&key) else { return };
        (known.running, known.from) = (false, round.next);
        known.note(&key, &round);
    }
}

impl Known {
    /// Says what fails when it is news.
    fn note(&mut self, key: &ManifestKey, round: &Round) {
        let trouble = round.trouble();
        let outcome = match (&trouble, round.landed) {
            (None, _) => "good",
            (Some(_), 1..) => "partly",
            (Some(_), 0) => "failed",
        };
        counter!(Metric::SourceRounds.name(), "result" => outcome).increment(1);
        let Some(error) = trouble else {
            if self.said.take().is_some() {
                tracing::info!(source = %key, "the source answers again");
            }
            return;
        };
        let news = self
            .said
            .as_ref()
            .is_none_or(|(said, at)| gist(said) != gist(&error) && at.elapsed() >= SAY_AGAIN);
        if news {
            tracing::warn!(source = %key, error, "the source cannot be asked, or not in full");
            self.said = Some((error, Instant::now()));
        }
    }
}

/// What is said, whatever the numbers in it.
fn gist(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// A text as a form's value.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
        out
    })
}

/// The sources of owned shards that are asked.
fn own(state: &State, me: medic_state::NodeId) -> BTreeMap<ManifestKey, SourceSpec> {
    let first =
        ManifestKey { kind: ManifestKind::Source, tenant: String::new(), name: String::new() };
    let sources =
        state.manifests.range(first..).take_while(|(key, _)| key.kind == ManifestKind::Source);
    sources
        .filter_map(|(key, stored)| {
            let Spec::Source(spec) = &stored.manifest.spec else { return None };
            let whole = Target {
                tenant: key.tenant.clone(),
                service: format!("source/{}", key.name),
                instance: String::new(),
            };
            let owner = state.shards.get(&State::shard_of(&whole)).and_then(|shard| shard.owner);
            let asked = spec.query.is_some() || spec.scrape.is_some();
            (asked && owner == Some(me)).then(|| (key.clone(), spec.clone()))
        })
        .collect()
}
