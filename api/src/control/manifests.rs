//! `medic.v1.Manifests`.
//!
//! Everything is rehearsed before anything is applied: the bundle runs through the law itself, on a
//! copy of the state. So a dry run gives exactly the answers that applying would give now.

use std::collections::BTreeMap;

use medic_proto::v1::{self as pb, manifests_server::Manifests};
use medic_raft::LedgerExt as _;
use medic_state::{
    Command, Digest, Refusal, Reply, RequestId, State,
    command::ApplyManifest,
    manifest::{DEFAULT_TENANT, Kind, Manifest, ManifestKey, Stored},
    text::clip_to,
};
use tonic::{Request, Response, Status};

use super::{
    Control,
    access::Grant,
    call::grant_of,
    errors::{invalid, not_found, refusal_status, reworded},
    page::{Labels, Paging, Sight},
};
use crate::{convert, manifest};

/// Problems named in one error; the rest are counted.
const PROBLEMS_SHOWN: usize = 20;
/// Bytes of one of them: a long one must not hide the others.
const PROBLEM_BYTES_MAX: usize = 400;

#[tonic::async_trait]
impl Manifests for Control {
    async fn apply(
        &self,
        request: Request<pb::ApplyManifestsRequest>,
    ) -> Result<Response<pb::ApplyManifestsResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.into_inner();
        let bundle = read_bundle(&ask.text)?;
        let expected = expected(&ask.expected_digest, bundle.len())?;
        let request_id = self.request_id(&ask.request_id)?;
        self.ledger.linearize().await.map_err(|error| super::errors::ledger_status(&error))?;
        self.has_begun(&bundle)?;
        let rehearsed = self.rehearse(&grant, &bundle, expected, &request_id);
        if ask.dry_run {
            let response = pb::ApplyManifestsResponse { manifests: rehearsed.0, dry_run: true };
            return Ok(Response::new(response));
        }
        if let Some(status) = rehearsed.1 {
            return Err(status);
        }
        let count = bundle.len();
        let mut done = Vec::with_capacity(count);
        for ((manifest, mut shown), i) in bundle.into_iter().zip(rehearsed.0).zip(0..) {
            let key = manifest.key();
            let command = Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected }));
            let id = position(&request_id, i);
            let (reply, receipt) = self
                .commit(&grant, &id, command)
                .await
                .map_err(|status| partial(&status, &key, i, count, &request_id))?;
            if let Reply::Stored { digest, changed } = reply {
                shown.digest = digest.to_string();
                shown.changed = changed;
            }
            shown.receipt = Some(receipt);
            done.push(shown);
        }
        Ok(Response::new(pb::ApplyManifestsResponse { manifests: done, dry_run: false }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteManifestRequest>,
    ) -> Result<Response<pb::DeleteManifestResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.into_inner();
        let key = key(&ask.kind, &ask.tenant, &ask.name)?;
        let tenant = if key.tenant == "*" { "" } else { &key.tenant };
        self.fresh(|state| grant.check(state, tenant)).await?;
        let (_, receipt) =
            self.commit(&grant, &ask.request_id, Command::DeleteManifest(key)).await?;
        Ok(Response::new(pb::DeleteManifestResponse { receipt: Some(receipt) }))
    }

    async fn get(
        &self,
        request: Request<pb::GetManifestRequest>,
    ) -> Result<Response<pb::GetManifestResponse>, Status> {
        let ask = request.get_ref();
        let key = key(&ask.kind, &ask.tenant, &ask.name)?;
        self.view(&request, |state, grant| {
            let stored = state.manifests.get(&key).filter(|_| grant.opens(state, &key.tenant));
            let stored = stored.ok_or_else(|| not_found(&key))?;
            Ok(pb::GetManifestResponse { manifest: Some(info(stored, true)?) })
        })
        .await
    }

    async fn list(
        &self,
        request: Request<pb::ListManifestsRequest>,
    ) -> Result<Response<pb::ListManifestsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let after = paging.after::<Token>()?;
        let kind = if ask.kind.is_empty() { None } else { Some(read_kind(&ask.kind)?) };
        self.view(&request, |state, grant| {
            let sight = Sight::of(state, grant, &ask.tenant)?;
            let items = state
                .manifests
                .iter()
                .filter(|(key, _)| after.as_ref().is_none_or(|after| **key > after.0))
                .filter(|(key, _)| kind.is_none_or(|kind| key.kind == kind))
                .filter(|(key, _)| sight.sees(&key.tenant))
                .filter(|(_, stored)| paging.matches(|| manifest_labels(&stored.manifest)))
                .map(|(key, stored)| (Token(key.clone()).to_string(), stored));
            let (manifests, next_page_token) =
                paging.cut(items, |stored| info(stored, ask.with_yaml));
            let manifests = manifests.into_iter().collect::<Result<_, _>>()?;
            Ok(pb::ListManifestsResponse { manifests, next_page_token })
        })
        .await
    }
}

impl Control {
    /// A cluster that has just begun waits for its members to say which commands they understand.
    /// What needs to know that is to be asked again, not refused.
    fn has_begun(&self, bundle: &[Manifest]) -> Result<(), Status> {
        let members = self.cluster.status().members;
        let newest = bundle.iter().max_by_key(|manifest| manifest.spec.since());
        let Some((since, newest)) = newest.map(|newest| (newest.spec.since(), newest)) else {
            return Ok(());
        };
        self.ledger.read(|state| {
            let behind = state.nodes.values().any(|node| node.understands < since);
            if since <= state.cluster_version || behind {
                return Ok(());
            }
            let silent = members.iter().find(|member| !state.nodes.contains_key(&member.node));
            let why = silent.map_or_else(
                || "the leader has yet to switch it on".to_owned(),
                |member| format!("{} has not said yet whether it knows that", member.node),
            );
            Err(Status::unavailable(format!(
                "{} needs cluster version {since}, and {why}: ask again; nothing was applied",
                newest.key()
            )))
        })
    }

    /// What applying would do, in order; and the first refusal.
    fn rehearse(
        &self,
        grant: &Grant,
        bundle: &[Manifest],
        expected: Option<Digest>,
        request_id: &str,
    ) -> (Vec<pb::AppliedManifest>, Option<Status>) {
        let mut copy = self.ledger.read(State::for_manifests);
        let (mut shown, mut first) = (Vec::with_capacity(bundle.len()), None);
        for (manifest, i) in bundle.iter().zip(0..) {
            let key = manifest.key();
            // What is there is shown to those alone who may change it.
            let tenant = if key.tenant == "*" { "" } else { &key.tenant };
            let open = grant.opens(&copy, tenant);
            let before = copy.manifests.get(&key).filter(|_| open).cloned();
            let mut one = applied(manifest, &key, before.as_ref());
            let manifest = manifest.clone();
            let entry = self.ledger.entry_for(
                grant.principal.clone(),
                Some(RequestId(position(request_id, i))),
                Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected })),
            );
            let index = copy.applied + 1;
            if let Err(refusal) = copy.apply(index, &entry).answer {
                (one.created, one.changed) = (false, false);
                one.refusal = refusal.to_string();
                first.get_or_insert_with(|| {
                    let status = refusal_status(&refusal);
                    partial(&status, &key, 0, bundle.len(), request_id)
                });
            }
            shown.push(one);
        }
        (shown, first)
    }
}

fn position(request_id: &str, i: usize) -> String {
    if i == 0 { request_id.to_owned() } else { format!("{request_id}/{i}") }
}

/// A refusal within a bundle, with what went before it.
fn partial(status: &Status, key: &ManifestKey, i: usize, count: usize, id: &str) -> Status {
    let message = match (count, i) {
        (1, _) => format!("{key}: {}", status.message()),
        (_, 0) => format!("{key}: {}; nothing was applied", status.message()),
        _ => format!(
            "{key}: {}; {i} of {count} were applied before; retrying under request id {id} is safe",
            status.message()
        ),
    };
    reworded(status, message)
}

fn read_bundle(text: &str) -> Result<Vec<Manifest>, Status> {
    let mut bundle = manifest::parse_bundle(text).map_err(|problems| {
        let mut lines: Vec<String> = problems
            .iter()
            .take(PROBLEMS_SHOWN)
            .map(|problem| clip_to(&problem.to_string(), PROBLEM_BYTES_MAX))
            .collect();
        if problems.len() > PROBLEMS_SHOWN {
            lines.push(format!("and {} more", problems.len() - PROBLEMS_SHOWN));
        }
        invalid(lines.join("\n"))
    })?;
    if bundle.is_empty() {
        return Err(invalid("the text holds no manifest"));
    }
    let rank = |manifest: &Manifest| Kind::ALL.iter().position(|k| *k == manifest.spec.kind());
    bundle.sort_by_key(rank);
    Ok(bundle)
}

fn expected(text: &str, manifests: usize) -> Result<Option<Digest>, Status> {
    match (text, manifests) {
        ("", _) => Ok(None),
        (text, 1) => {
            let digest = text.parse().map_err(|bad| invalid(format!("expected_digest: {bad}")))?;
            Ok(Some(digest))
        }
        _ => Err(invalid("expected_digest goes with exactly one manifest")),
    }
}

fn applied(manifest: &Manifest, key: &ManifestKey, before: Option<&Stored>) -> pb::AppliedManifest {
    let digest = manifest.digest();
    let yaml = |manifest| manifest::to_yaml(manifest).unwrap_or_else(|error| error.to_string());
    pb::AppliedManifest {
        kind: key.kind.to_string(),
        tenant: key.tenant.clone(),
        name: key.name.clone(),
        created: before.is_none(),
        changed: before.is_none_or(|before| before.digest != digest),
        before: before.map(|before| yaml(&before.manifest)).unwrap_or_default(),
        after: yaml(manifest),
        digest: digest.to_string(),
        receipt: None,
        refusal: String::new(),
    }
}

fn info(stored: &Stored, with_yaml: bool) -> Result<pb::ManifestInfo, Status> {
    let key = stored.manifest.key();
    let yaml = if with_yaml {
        manifest::to_yaml(&stored.manifest).map_err(|error| Status::internal(error.to_string()))?
    } else {
        String::new()
    };
    Ok(pb::ManifestInfo {
        kind: key.kind.to_string(),
        tenant: key.tenant,
        name: key.name,
        labels: stored.manifest.metadata.labels.clone(),
        digest: stored.digest.to_string(),
        index: stored.index,
        by: stored.by.clone(),
        at: Some(convert::time(stored.at)),
        yaml,
    })
}

fn manifest_labels(manifest: &Manifest) -> Labels {
    let key = manifest.key();
    let own: BTreeMap<_, _> = manifest.metadata.labels.clone();
    let fixed = [
        ("kind".to_owned(), key.kind.to_string()),
        ("tenant".to_owned(), key.tenant),
        ("name".to_owned(), key.name),
    ];
    own.into_iter().chain(fixed).collect()
}

/// A kind in any case, as people type it.
fn read_kind(text: &str) -> Result<Kind, Status> {
    let found = Kind::ALL.into_iter().find(|kind| kind.to_string().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let known: Vec<String> = Kind::ALL.iter().map(ToString::to_string).collect();
        invalid(format!("`{text}` is no kind of manifest; known are {}", known.join(", ")))
    })
}

fn key(kind: &str, tenant: &str, name: &str) -> Result<ManifestKey, Status> {
    if name.is_empty() {
        return Err(invalid("name the manifest"));
    }
    let tenant = if tenant.is_empty() { DEFAULT_TENANT } else { tenant };
    Ok(ManifestKey { kind: read_kind(kind)?, tenant: tenant.to_owned(), name: name.to_owned() })
}

/// `Kind/tenant/name`.
struct Token(ManifestKey);

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.0.kind, self.0.tenant, self.0.name)
    }
}

impl std::str::FromStr for Token {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::Invalid("page_token".to_owned());
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().ok_or_else(bad);
        let (kind, tenant, name) = (next()?, next()?, next()?);
        let kind = read_kind(kind).map_err(|_| bad())?;
        Ok(Self(ManifestKey { kind, tenant: tenant.to_owned(), name: name.to_owned() }))
    }
}
