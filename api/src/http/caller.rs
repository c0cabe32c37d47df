//! Who sends a request, as far as it says.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    extract::{FromRequestParts, Query, Request},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use medic_state::Digest;
use serde::Deserialize;

use super::HttpDoor;

/// Who wants to be heard, and for which tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// For which tenant.
    pub tenant: String,
    /// SHA-256 of the bearer token, hexadecimal, when one was given.
    pub token: Option<String>,
    /// The token is the door's own, or the door has none.
    pub vouched: bool,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

/// Notes the other end of a connection with a request of it.
pub(super) fn note_peer(request: &mut Request, address: IpAddr) {
    request.extensions_mut().insert(Peer(address));
}

/// The tenant, for senders that can set no headers.
#[derive(Deserialize)]
struct TenantQuery {
    tenant: Option<String>,
}

/// What a request says of itself besides its body.
pub(super) struct Caller {
    pub(super) headers: HeaderMap,
    /// By `?tenant=`.
    pub(super) tenant: Option<String>,
    pub(super) address: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let query = Query::<TenantQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|rejection| rejection.into_response())?;
        let peer = parts.extensions.get().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(ip)| *ip);
        Ok(Self { headers: parts.headers.clone(), tenant: query.tenant, address: peer })
    }
}

impl Caller {
    /// Who it is for this tenant.
    pub(super) fn sender(&self, door: &HttpDoor, tenant: String) -> Sender {
        let given = self.headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        Sender {
            tenant,
            token: given.map(|token| Digest::of(&[token.as_bytes()]).to_string()),
            vouched: door.vouches(given),
        }
    }
}
