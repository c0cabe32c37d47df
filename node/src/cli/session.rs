//! One command's conversation with the cluster: whichever node answers, until the time is up.
//!
//! A call that got no answer is made again on the next node. That is safe for reads, and for
//! commands because they carry a request id made here: however often it arrives, it is applied once.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use medic_raft::env::{Clock as _, SystemClock};
use tokio::sync::Mutex;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{args::Connect, context, error::CliError};
use crate::security::{self, Material, Unit};

/// A node that does not accept within this is passed over.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// A user's way to the cluster.
pub(super) struct Session {
    nodes: Vec<String>,
    material: Material,
    tenant: String,
    patience: Duration,
    /// The node whose turn it is, and the channel to it once there is one.
    turn: Mutex<(usize, Option<Channel>)>,
}

impl Session {
    /// Reads the context and proves its certificate; talks to nobody yet.
    pub(super) fn open(connect: &Connect) -> Result<Self, CliError> {
        let (context, tenant) = context::choose(connect)?;
        if context.nodes.is_empty() {
            return Err(CliError::Usage("the context names no nodes".to_owned()));
        }
        let now = SystemClock.now();
        let material = security::load(&context.tls(), &context.cluster, Unit::Users, now)?;
        let patience = connect.timeout.as_duration();
        Ok(Self { nodes: context.nodes, material, tenant, patience, turn: Mutex::new((0, None)) })
    }

    /// The tenant to work in; empty: all.
    pub(super) fn tenant(&self) -> String {
        self.tenant.clone()
    }

    /// The tenant for things that belong to one.
    pub(super) fn one_tenant(&self) -> String {
        match self.tenant.as_str() {
            "" => medic_state::manifest::DEFAULT_TENANT.to_owned(),
            tenant => tenant.to_owned(),
        }
    }

    /// Makes a call on whichever node answers.
    pub(super) async fn call<T, F>(&self, operation: impl Fn(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.patience;
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(1))
            .with_jitter()
            .without_max_times()
            .build();
        let mut last = String::new();
        loop {
            for _ in 0..self.nodes.len() {
                let left = deadline.saturating_duration_since(Instant::now());
                let attempt = async {
                    let (at, channel) = self.channel().await?;
                    operation(channel).await.map_err(|status| (at, status))
                };
                let (at, status) = match tokio::time::timeout(left, attempt).await {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err((at, status))) => (at, status),
                    Err(_) => {
                        let text = if last.is_empty() { "no answer" } else { &last };
                        return Err(CliError::Unavailable(format!(
                            "gave up after {}: {text}",
                            super::render::span(self.patience_ms())
                        )));
                    }
                };
                if !retryable(&status) {
                    return Err(status.into());
                }
                last = format!("{}: {}", self.nodes[at], describe(&status));
                self.pass_over(at).await;
            }
            let pause = pauses.next().unwrap_or(Duration::from_secs(1));
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    fn patience_ms(&self) -> u64 {
        u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX)
    }

    /// The node whose turn it is, connected.
    pub(super) async fn channel(&self) -> Result<(usize, Channel), (usize, Status)> {
        let mut turn = self.turn.lock().await;
        let (at, open) = &mut *turn;
        if let Some(channel) = open {
            return Ok((*at, channel.clone()));
        }
        let channel = self.connect(&self.nodes[*at]).await.map_err(|status| (*at, status))?;
        *open = Some(channel.clone());
        Ok((*at, channel))
    }

    /// It is the next node's turn.
    pub(super) async fn pass_over(&self, at: usize) {
        *self.turn.lock().await = ((at + 1) % self.nodes.len(), None);
    }

    async fn connect(&self, address: &str) -> Result<Channel, Status> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let tls = self.material.tonic_client(host.trim_matches(['[', ']']));
        Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| Status::invalid_argument(format!("{address}: {error}")))?
            .connect_timeout(CONNECT_PATIENCE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|error| Status::unavailable(chain(&error)))
    }
}

/// A fresh request id.
pub(super) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn retryable(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        || (status.code() == Code::Unknown && status.message().contains("transport"))
}

fn describe(status: &Status) -> String {
    if status.message().is_empty() {
        status.code().to_string()
    } else {
        status.message().to_owned()
    }
}

/// An error with what caused it: a transport's own text says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
