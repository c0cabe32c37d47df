//! One request: what is sent for an act on a key, and what its answer means for the history.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use medic_proto::v1 as pb;
use tonic::{Response, Status};

use crate::{
    harness::Client,
    history::{Act, Outcome},
};

/// Digest that stands for "there is none".
const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// How a note of ours begins.
const NOTE: &str = "note ";

/// What a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A silence of this name; its value is a label.
    Silence(String),
    /// The freeze of a service of this name; its value is the reason.
    Freeze(String),
    /// The notes on an incident.
    Notes(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(name) => write!(f, "silence/{name}"),
            Self::Freeze(name) => write!(f, "freeze/{name}"),
            Self::Notes(incident) => write!(f, "notes/{incident}"),
        }
    }
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is known.
    Known {
        /// What it was.
        outcome: Outcome,
        /// Log index of the answer.
        index: Option<u64>,
        /// Log index that set what was seen.
        set_at: Option<u64>,
    },
    /// It may have happened.
    Unknown,
    /// It did not happen, for a reason that is none of the register's.
    Refused,
}

/// Values and the digests that go with them.
#[derive(Clone, Debug, Default)]
pub(super) struct Knowledge {
    next: Arc<AtomicU64>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    digests: BTreeMap<u64, String>,
    last: BTreeMap<String, u64>,
}

impl Knowledge {
    /// A value that nobody used before.
    pub(super) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value a register was last seen or made to hold, by anybody.
    pub(super) fn last_of(&self, name: &str) -> Option<u64> {
        self.lock().last.get(name).copied()
    }

    fn learn(&self, name: &str, value: u64, digest: &str) {
        let mut known = self.lock();
        known.digests.insert(value, digest.to_owned());
        known.last.insert(name.to_owned(), value);
    }

    fn digest(&self, value: Option<u64>) -> String {
        let known = value.and_then(|value| self.lock().digests.get(&value).cloned());
        known.unwrap_or_else(|| NONE.to_owned())
    }
}

/// Sends one request.
pub(super) async fn ask(
    client: &mut Client,
    knowledge: &Knowledge,
    key: &Key,
    act: Act,
    request: &str,
) -> Answer {
    let answered = match key {
        Key::Silence(name) => silence(client, knowledge, name, act, request).await,
        Key::Freeze(name) => freeze(client, name, act, request).await,
        Key::Notes(incident) => notes(client, incident, act, request).await,
    };
    answered.unwrap_or_else(|status| failed(&status, act))
}

/// The index in a read's metadata.
fn read_at<T>(response: &Response<T>) -> Option<u64> {
    response.metadata().get("medic-index")?.to_str().ok()?.parse().ok()
}

const fn done(receipt: Option<&pb::Receipt>) -> Answer {
    let index = match receipt {
        Some(receipt) => Some(receipt.index),
        None => None,
    };
    Answer::Known { outcome: Outcome::Done, index, set_at: None }
}

/// What an error means: a refusal names its kind; anything else may have happened.
fn failed(status: &Status, act: Act) -> Answer {
    let kind = status.metadata().get("medic-refusal").and_then(|kind| kind.to_str().ok());
    let missed = Answer::Known { outcome: Outcome::Missed, index: None, set_at: None };
    match (kind, act) {
        (Some("conflict"), Act::Swap(..)) | (Some("not-found"), Act::Delete) => missed,
        (None | Some("outcome-unknown"), _) => Answer::Unknown,
        (Some(kind), _) => {
            tracing::warn!(kind, %status, ?act, "refused");
            Answer::Refused
        }
    }
}

fn manifest(name: &str, value: u64) -> String {
    format!(
        "apiVersion: medic/v1\nkind: Silence\nmetadata: {{name: {name}, labels: {{value: \"{value}\"}}}}\n\
         spec: {{match: ['service=\"nobody\"'], startsAt: 2020-01-01T00:00:00Z, \
         endsAt: 2020-01-02T00:00:00Z, comment: register}}\n"
    )
}

async fn silence(
    client: &mut Client,
    knowledge: &Knowledge,
    name: &str,
    act: Act,
    request: &str,
) -> Result<Answer, Status> {
    let (kind, named) = ("Silence".to_owned(), name.to_owned());
    match act {
        Act::Write(value) | Act::Swap(_, value) => {
            let expected_digest = match act {
                Act::Swap(expected, _) => knowledge.digest(expected),
                _ => String::new(),
            };
            let ask = pb::ApplyManifestsRequest {
                text: manifest(name, value),
                request_id: request.to_owned(),
                expected_digest,
                ..Default::default()
            };
            let applied = client.manifests().apply(ask).await?.into_inner();
            let one = applied.manifests.first().ok_or_else(|| Status::internal("nothing"))?;
            knowledge.learn(name, value, &one.digest);
            Ok(done(one.receipt.as_ref()))
        }
        Act::Delete => {
            let request_id = request.to_owned();
            let ask =
                pb::DeleteManifestRequest { kind, name: named, request_id, ..Default::default() };
            let receipt = client.manifests().delete(ask).await?.into_inner().receipt;
            Ok(done(receipt.as_ref()))
        }
        Act::Read | Act::Append(_) => {
            let ask = pb::GetManifestRequest { kind, name: named, ..Default::default() };
            match client.manifests().get(ask).await {
                Ok(response) => {
                    let index = read_at(&response);
                    let info = response.into_inner().manifest.unwrap_or_default();
                    let value = info.labels.get("value").and_then(|value| value.parse().ok());
                    if let Some(value) = value {
                        knowledge.learn(name, value, &info.digest);
                    }
                    let set_at = Some(info.index);
                    Ok(Answer::Known { outcome: Outcome::Saw(value), index, set_at })
                }
                // An error carries no index.
                Err(status) if refusal_is(&status, "not-found") => {
                    Ok(Answer::Known { outcome: Outcome::Saw(None), index: None, set_at: None })
                }
                Err(status) => Err(status),
            }
        }
    }
}

fn refusal_is(status: &Status, kind: &str) -> bool {
    status.metadata().get("medic-refusal").is_some_and(|found| found == kind)
}

async fn freeze(
    client: &mut Client,
    name: &str,
    act: Act,
    request: &str,
) -> Result<Answer, Status> {
    use pb::freeze_scope::Scope;
    let service = pb::ServiceScope { tenant: "default".to_owned(), service: name.to_owned() };
    let scope = Some(pb::FreezeScope { scope: Some(Scope::Service(service)) });
    let request_id = request.to_owned();
    match act {
        Act::Write(value) => {
            let reason = value.to_string();
            let ask = pb::FreezeRequest { scope, reason, until: None, request_id };
            let receipt = client.safety().freeze(ask).await?.into_inner().receipt;
            Ok(done(receipt.as_ref()))
        }
        Act::Delete => {
            let ask = pb::UnfreezeRequest { scope, request_id };
            let receipt = client.safety().unfreeze(ask).await?.into_inner().receipt;
            Ok(done(receipt.as_ref()))
        }
        Act::Read | Act::Append(_) | Act::Swap(..) => {
            let matchers = vec!["scope=\"service\"".to_owned(), format!("name=\"{name}\"")];
            let ask = pb::ListFreezesRequest { matchers, ..Default::default() };
            let response = client.safety().list_freezes(ask).await?;
            let index = read_at(&response);
            let freezes = response.into_inner().freezes;
            let value = freezes.first().and_then(|freeze| freeze.reason.parse().ok());
            Ok(Answer::Known { outcome: Outcome::Saw(value), index, set_at: None })
        }
    }
}

async fn notes(
    client: &mut Client,
    incident: &str,
    act: Act,
    request: &str,
) -> Result<Answer, Status> {
    let id = incident.to_owned();
    if let Act::Append(value) = act {
        let (note, request_id) = (format!("{NOTE}{value}"), request.to_owned());
        let ask = pb::AddNoteRequest { id, note, request_id };
        let receipt = client.incidents().add_note(ask).await?.into_inner().receipt;
        return Ok(done(receipt.as_ref()));
    }
    let response = client.incidents().get(pb::GetIncidentRequest { id }).await?;
    let index = read_at(&response);
    let timeline = response.into_inner().incident.unwrap_or_default().timeline;
    let notes = timeline
        .iter()
        .filter_map(|item| Some((item.text.strip_prefix(NOTE)?.parse().ok()?, item.index)))
        .collect();
    Ok(Answer::Known { outcome: Outcome::Listed(notes), index, set_at: None })
}
