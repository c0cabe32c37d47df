//! Those who only listen: a pager that people are told on, and a watch of all events that goes on at
//! another node whenever its own is lost.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use medic_proto::v1 as pb;
use pb::events_response::Kind;
use tokio::task::JoinHandle;

use crate::{
    check::{Verdict, Violation, told::Posted},
    harness::Dialer,
};

/// Before a broken watch is begun again.
const PAUSE: Duration = Duration::from_millis(100);
/// Bookmarks come every few seconds: a stream that says less is on a node that was paused.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Ends its task when dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Messages that a pager keeps: at sixty in ten minutes, those of a day and more.
const POSTED_MAX: usize = 10_000;

/// What a pager was sent: the first [`POSTED_MAX`] messages, and how many there were.
type Pages = Arc<Mutex<(Vec<Posted>, u64)>>;

/// A webhook that keeps what it is told.
#[derive(Debug)]
pub(super) struct Pager {
    address: SocketAddr,
    pages: Pages,
    _task: Task,
}

async fn page(State(pages): State<Pages>, headers: HeaderMap, body: Bytes) {
    let key = headers.get("Idempotency-Key").and_then(|key| key.to_str().ok());
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
    pages.1 += 1;
    if pages.0.len() < POSTED_MAX {
        pages.0.push(Posted { key: key.map(str::to_owned), body });
    }
}

impl Pager {
    /// Opens one on a port that is free.
    pub(super) async fn open(host: Ipv4Addr) -> anyhow::Result<Self> {
        let pages = Pages::default();
        let listener =
            tokio::net::TcpListener::bind((host, 0)).await.context("binding the pager")?;
        let address = listener.local_addr()?;
        let app = Router::new().route("/", post(page)).with_state(pages.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!(%error, "the pager has ended");
            }
        });
        Ok(Self { address, pages, _task: Task(task) })
    }

    /// The channel that leads here.
    pub(super) fn manifest(&self) -> String {
        format!(
            "---\napiVersion: medic/v1\nkind: Channel\nmetadata: {{name: pager}}\n\
             spec: {{webhook: {{url: \"http://{}/\"}}}}\n",
            self.address
        )
    }

    /// What it was sent, and how many messages that were.
    pub(super) fn pages(&self) -> (Vec<Posted>, u64) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a watch has seen.
#[derive(Debug, Default)]
struct Followed {
    indexes: Vec<u64>,
    /// All events up to here were told; bookmarks say so where there is none.
    reached: u64,
    resumed: u64,
}

/// Follows all events from the beginning.
#[derive(Debug)]
pub(super) struct Follower {
    followed: Arc<Mutex<Followed>>,
    task: Task,
}

impl Follower {
    pub(super) fn start(dialer: Dialer) -> Self {
        let followed: Arc<Mutex<Followed>> = Arc::default();
        let task = tokio::spawn(follow(dialer, followed.clone()));
        Self { followed, task: Task(task) }
    }

    /// Waits until the watch has come so far; the verdict says so when it has not.
    pub(super) async fn reach(&self, index: u64, patience: Duration) {
        let deadline = tokio::time::Instant::now() + patience;
        while self.lock().reached < index && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Hears no more. What nodes commit from now on may be in no chain that is read.
    pub(super) async fn stop(&mut self) {
        self.task.0.abort();
        // It was cancelled, or had panicked: nothing comes any more.
        drop((&mut self.task.0).await);
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held against the chain up to the index at which the nodes agreed.
    pub(super) fn verdict(&self, chain: impl Iterator<Item = u64>, agreed: u64) -> Verdict {
        self.lock().verdict(chain, agreed)
    }
}

impl Followed {
    /// Everything up to here was told.
    fn come_to(&mut self, index: u64) {
        self.reached = self.reached.max(index);
    }

    /// Events come in log order, none twice, and none that a node has in its chain is missing. A watch
    /// that stops delivering is found by where it should have come: the index that the nodes agree on.
    fn verdict(&self, chain: impl Iterator<Item = u64>, agreed: u64) -> Verdict {
        let told = &self.indexes;
        let mut violations = Vec::new();
        if self.reached < agreed {
            let text = format!(
                "a watch has come to {} only, and the nodes agree at index {agreed}",
                self.reached
            );
            violations.push(Violation::new(text));
        }
        let until = agreed.max(told.last().copied().unwrap_or(0));
        let expected: Vec<u64> = chain.filter(|index| *index <= until).collect();
        if *told != expected {
            let at = told.iter().zip(&expected).take_while(|(a, b)| a == b).count();
            let around = |list: &[u64]| {
                let from = at.saturating_sub(2);
                format!("{:?}", list.iter().skip(from).take(6).collect::<Vec<_>>())
            };
            let text = format!(
                "a watch was told {} events up to index {until}, and the chain has {}",
                told.len(),
                expected.len()
            );
            violations.push(Violation::new(text).with([
                format!("told: {}", around(told)),
                format!("in the chain: {}", around(&expected)),
            ]));
        }
        let of = format!("watched events (resumed {} times)", self.resumed);
        Verdict::new(1, told.len(), &of, violations)
    }
}

async fn follow(dialer: Dialer, followed: Arc<Mutex<Followed>>) {
    let (mut after, mut turn) = (0, 0);
    loop {
        let nodes = dialer.nodes();
        let node = nodes.get(turn % nodes.len().max(1)).copied().unwrap_or(1);
        after = watch_one(&dialer, node, after, &followed).await;
        followed.lock().unwrap_or_else(PoisonError::into_inner).resumed += 1;
        turn += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Watches at one node until it breaks off; gives the index to go on from.
async fn watch_one(
    dialer: &Dialer,
    node: u64,
    mut after: u64,
    followed: &Arc<Mutex<Followed>>,
) -> u64 {
    let Ok(mut client) = dialer.dial(node).await else { return after };
    let request = pb::EventsRequest { after_index: Some(after), ..Default::default() };
    let opened = tokio::time::timeout(SILENCE_MAX, client.watch().events(request)).await;
    let Ok(Ok(opened)) = opened else { return after };
    let mut stream = opened.into_inner();
    while let Ok(Ok(Some(message))) = tokio::time::timeout(SILENCE_MAX, stream.message()).await {
        let mut followed = followed.lock().unwrap_or_else(PoisonError::into_inner);
        match message.kind {
            Some(Kind::Event(event)) => {
                after = event.index;
                followed.indexes.push(after);
                followed.come_to(after);
            }
            Some(Kind::Bookmark(index)) => followed.come_to(index),
            None => {}
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(indexes: &[u64], reached: u64) -> Followed {
        Followed { indexes: indexes.to_vec(), reached, resumed: 1 }
    }

    fn wrong(followed: &Followed, chain: &[u64], agreed: u64) -> Vec<String> {
        let verdict = followed.verdict(chain.iter().copied(), agreed);
        verdict.violations.into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn a_watch_that_was_told_all_passes_whatever_came_after_it() {
        let all = told(&[3, 5, 8], 9);
        assert_eq!(wrong(&all, &[3, 5, 8], 9), [""; 0]);
        assert_eq!(wrong(&all, &[3, 5, 8, 12], 9), [""; 0], "12 came after they agreed");
        assert_eq!(wrong(&told(&[3, 5, 8], 8), &[3, 5, 8], 7), [""; 0], "it was told more");
    }

    #[test]
    fn a_watch_that_stops_delivering_is_found() {
        let silent = told(&[3], 3);
        assert_eq!(
            wrong(&silent, &[3, 5, 8], 8),
            [
                "a watch has come to 3 only, and the nodes agree at index 8",
                "a watch was told 1 events up to index 8, and the chain has 3"
            ]
        );
        // Not even an event was there to miss.
        assert_eq!(wrong(&told(&[], 0), &[], 4).len(), 1);
    }

    #[test]
    fn what_a_watch_skips_repeats_or_swaps_is_found() {
        for indexes in [&[3, 8][..], &[3, 5, 5, 8], &[3, 8, 5], &[3, 5, 6, 8]] {
            assert_eq!(wrong(&told(indexes, 8), &[3, 5, 8], 8).len(), 1, "{indexes:?}");
        }
    }
}
