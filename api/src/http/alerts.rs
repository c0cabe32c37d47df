//! The doors that alerts come in by: Alertmanager's webhook, and its own API.
//!
//! Who may speak, and of what, the sink decides from manifests: first by what the head of a request
//! says, so that a stranger's body is never parsed. Bounded: the bytes of bodies, the alerts of one
//! call, the labels of one alert, and the calls being taken at once.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use medic_state::{Millis, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    HttpDoor,
    caller::{Caller, Sender},
    default_tenant, problem, retry_after,
    turns::{NoRoom, discard},
};

/// Bytes of a body: some thousand alerts.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// Alerts taken from one call; Alertmanager groups rarely exceed a hundred.
pub const ALERTS_MAX: usize = 1_000;
/// Labels of an alert, and its annotations: as many as a series may have.
pub const PAIRS_MAX: usize = 64;
/// After so long an alert is over that was posted to the API without an end, unless it is posted again:
/// Alertmanager's `resolve_timeout`.
pub const RESOLVE_TIMEOUT: Millis = Millis::from_secs(300);

/// One alert as Alertmanager describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncomingAlert {
    /// Firing, or resolved.
    pub firing: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it began; zero: not said.
    pub starts_at: Timestamp,
    /// When it is over unless it is sent again; none: whoever sent it will say so.
    pub ends_at: Option<Timestamp>,
    /// Which alert it is among those of one name, as its sender says; none: its labels tell.
    pub fingerprint: Option<String>,
}

/// Why alerts were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertRefusal {
    /// The request is wrong; sending it again will not help.
    Wrong(String),
    /// Its sender may not speak for this tenant.
    Denied(String),
    /// Too many at once; again after so many seconds.
    Slow(String, u64),
    /// Not now; Alertmanager tries again.
    Later(String),
}

/// The other side of the webhook.
#[async_trait]
pub trait AlertSink: Send + Sync + 'static {
    /// Whether this sender may be heard now. Asked before its body is read.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, sender: &Sender) -> Result<(), AlertRefusal>;

    /// Takes alerts; gives notes for the answer (what could not be mapped or was refused).
    ///
    /// # Errors
    /// When none was taken.
    async fn take(
        &self,
        sender: &Sender,
        alerts: Vec<IncomingAlert>,
    ) -> Result<Vec<String>, AlertRefusal>;
}

pub(super) fn routes() -> Router<HttpDoor> {
    Router::new()
        .route("/api/v1/alertmanager/{tenant}", post(webhook))
        .route("/api/v2/alerts", post(alerts_v2))
        .route("/t/{tenant}/api/v2/alerts", post(alerts_v2_of))
}

/// A body that cannot be read as alerts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAlerts {
    /// Not of the form.
    #[error("{0}")]
    Form(String),
    /// Too many.
    #[error("more than {ALERTS_MAX} alerts in one call: at most {ALERTS_MAX} are taken")]
    TooMany,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertForm {
    /// Alertmanager's webhook, version 4.
    Webhook,
    /// Alertmanager's API, version 2.
    Api,
}

/// Reads a body; `now` tells which alerts have ended.
///
/// # Errors
/// When it is not of the form, or has too many alerts.
pub fn read(form: AlertForm, body: &[u8], now: Timestamp) -> Result<Vec<IncomingAlert>, BadAlerts> {
    let bad = |what: &str, error: serde_json::Error| BadAlerts::Form(format!("{what}: {error}"));
    let alerts = match form {
        AlertForm::Webhook => {
            serde_json::from_slice::<Webhook>(body)
                .map_err(|error| bad("not an Alertmanager webhook", error))?
                .alerts
        }
        AlertForm::Api => serde_json::from_slice::<Few<WireAlert>>(body)
            .map_err(|error| bad("not a list of alerts", error))?,
    };
    if alerts.too_many {
        return Err(BadAlerts::TooMany);
    }
    Ok(alerts.kept.into_iter().map(|alert| alert.read(form, now)).collect())
}

/// Alertmanager's webhook; fields that do not matter here are ignored.
#[derive(Deserialize)]
struct Webhook {
    alerts: Few<WireAlert>,
}

/// An alert in the webhook and in the v2 API. `status` is the webhook's; the v2 API tells a
/// resolved alert by an `endsAt` in the past.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAlert {
    #[serde(default)]
    status: Option<String>,
    labels: Pairs,
    #[serde(default)]
    annotations: Pairs,
    #[serde(default)]
    starts_at: Option<String>,
    #[serde(default)]
    ends_at: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
}

impl WireAlert {
    /// Resolved by its status, or by an `endsAt` that has passed. Alertmanager writes the year 1
    /// for "not known", which is no time here.
    ///
    /// Whoever posts to the API says by when it will have posted again; the webhook is called when an
    /// alert is over, however long that takes, so an end to come is none of its.
    fn read(self, form: AlertForm, now: Timestamp) -> IncomingAlert {
        let time = |text: Option<String>| medic_state::time::parse_rfc3339(&text?).ok();
        let ends = time(self.ends_at);
        IncomingAlert {
            firing: self.status.as_deref() != Some("resolved") && ends.is_none_or(|at| at > now),
            labels: self.labels.0,
            annotations: self.annotations.0,
            starts_at: time(self.starts_at).unwrap_or_default(),
            ends_at: match form {
                AlertForm::Webhook => None,
                AlertForm::Api => Some(ends.unwrap_or_else(|| now.plus(RESOLVE_TIMEOUT))),
            },
            fingerprint: self.fingerprint.filter(|text| !text.is_empty()),
        }
    }
}

/// A list of which no more than [`ALERTS_MAX`] are kept.
struct Few<T> {
    kept: Vec<T>,
    too_many: bool,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Few<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of alerts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T>, A::Error> {
                let mut few = Few { kept: Vec::new(), too_many: false };
                while few.kept.len() < ALERTS_MAX {
                    match seq.next_element()? {
                        Some(alert) => few.kept.push(alert),
                        None => return Ok(few),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    (few.kept, few.too_many) = (Vec::new(), true);
                }
                Ok(few)
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// Labels or annotations, no more than [`PAIRS_MAX`].
#[derive(Default)]
struct Pairs(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels or annotations")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    pairs.insert(name, value);
                    if pairs.len() > PAIRS_MAX {
                        let text = format!("more than {PAIRS_MAX} labels or annotations");
                        return Err(A::Error::custom(text));
                    }
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

async fn webhook(
    State(door): State<HttpDoor>,
    Path(tenant): Path<String>,
    caller: Caller,
    body: Body,
) -> Response {
    take(&door, AlertForm::Webhook, tenant, &caller, body).await
}

async fn alerts_v2(State(door): State<HttpDoor>, caller: Caller, body: Body) -> Response {
    let tenant = caller.tenant.clone().unwrap_or_else(default_tenant);
    take(&door, AlertForm::Api, tenant, &caller, body).await
}

async fn alerts_v2_of(
    State(door): State<HttpDoor>,
    Path(tenant): Path<String>,
    caller: Caller,
    body: Body,
) -> Response {
    take(&door, AlertForm::Api, tenant, &caller, body).await
}

/// Takes a call: whose it is, its body, its turn; the sink does the rest.
async fn take(
    door: &HttpDoor,
    form: AlertForm,
    tenant: String,
    caller: &Caller,
    body: Body,
) -> Response {
    if !is_json(&caller.headers) {
        discard(body).await;
        let text = "send `content-type: application/json`";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let sender = caller.sender(door, tenant);
    if let Err(refusal) = door.alerts.admit(&sender) {
        discard(body).await;
        return refused(refusal);
    }
    let lane = &door.turns.alerts;
    let kept = match lane.read(caller.address, body, BODY_BYTES_MAX).await {
        Ok(kept) => kept,
        Err(why) => return no_room(&why),
    };
    let _turn = match lane.turn().await {
        Ok(turn) => turn,
        Err(why) => return no_room(&why),
    };
    let (bytes, _room) = kept.into_parts();
    let alerts = match read(form, &bytes, door.clock.now()) {
        Ok(alerts) => alerts,
        Err(error @ BadAlerts::Form(_)) => {
            return problem(StatusCode::BAD_REQUEST, &error.to_string());
        }
        Err(error @ BadAlerts::TooMany) => {
            return problem(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string());
        }
    };
    drop(bytes);
    match door.alerts.take(&sender, alerts).await {
        Ok(notes) => (StatusCode::OK, Json(serde_json::json!({ "notes": notes }))).into_response(),
        Err(refusal) => refused(refusal),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str);
    kind.is_none_or(|kind| {
        kind.is_ok_and(|kind| kind.is_empty() || kind.starts_with("application/json"))
    })
}

fn refused(refusal: AlertRefusal) -> Response {
    match refusal {
        AlertRefusal::Wrong(text) => problem(StatusCode::UNPROCESSABLE_ENTITY, &text),
        AlertRefusal::Denied(text) => problem(StatusCode::UNAUTHORIZED, &text),
        AlertRefusal::Later(text) => problem(StatusCode::SERVICE_UNAVAILABLE, &text),
        AlertRefusal::Slow(text, seconds) => {
            retry_after(problem(StatusCode::TOO_MANY_REQUESTS, &text), seconds)
        }
    }
}

/// Of what Alertmanager is answered it repeats 429 and 5xx alone: a body that came too slowly is no fault
/// that is mended by dropping it.
fn no_room(why: &NoRoom) -> Response {
    match why {
        NoRoom::Broken(error) => {
            problem(StatusCode::BAD_REQUEST, &format!("the body cannot be read: {error}"))
        }
        NoRoom::TooLarge(bytes_max) => {
            let text =
                format!("the body is larger than {bytes_max} bytes: send fewer alerts at a time");
            problem(StatusCode::PAYLOAD_TOO_LARGE, &text)
        }
        NoRoom::TooSlow => problem(StatusCode::SERVICE_UNAVAILABLE, "the body came too slowly"),
        NoRoom::Crowded => {
            let text = "too many alerts at once";
            retry_after(problem(StatusCode::TOO_MANY_REQUESTS, text), 1)
        }
    }
}

#[cfg(test)]
mod tests;
