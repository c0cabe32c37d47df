//! `medic get` and `medic describe`.

use std::future::Future;

use medic_api::manifest::to_yaml;
use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};
use medic_state::{IncidentId, PlanId, manifest::Kind};
use serde::Serialize;

use super::{
    args::{DescribeArgs, GetArgs, IncidentArgs},
    error::CliError,
    out::Out,
    render::{Style, explain, lists, words},
    session::Session,
};

/// Most items of one page, as the API allows.
const PAGE: usize = 1_000;

/// Collects pages until there are no more, or `limit` items.
pub(super) async fn pages<T, F>(
    limit: usize,
    page: impl Fn(u32, String) -> F,
) -> Result<(Vec<T>, bool), CliError>
where
    F: Future<Output = Result<(Vec<T>, String), CliError>>,
{
    let mut found: Vec<T> = Vec::new();
    let mut token = String::new();
    loop {
        let want = u32::try_from((limit - found.len()).clamp(1, PAGE)).unwrap_or(100);
        let (items, next) = page(want, token).await?;
        found.extend(items);
        if next.is_empty() || found.len() >= limit {
            let more = !next.is_empty() || found.len() > limit;
            found.truncate(limit);
            return Ok((found, more));
        }
        token = next;
    }
}

/// Lists through one RPC: service client, request type, method, field of the response; further
/// fields of the request after `..`.
macro_rules! list {
    ($session:expr, $args:expr, $service:ident, $request:ident, $method:ident, $field:ident $(, $name:ident: $value:expr)*) => {
        pages($args.limit, |page_size, page_token| async move {
            let request = pb::$request {
                matchers: $args.matchers.clone(),
                page_size,
                page_token,
                $($name: $value,)*
            };
            let response = $session
                .ask(request, |api, request| async move { api.$service().$method(request).await })
                .await?;
            Ok((response.$field, response.next_page_token))
        })
        .await?
    };
}

/// `medic get`.
pub(super) async fn get(mut args: GetArgs) -> Result<(), CliError> {
    let out = Out::new(args.connect.output.output);
    let session = Session::open(&args.connect)?;
    let (s, style, now) = (&session, Style::new(out.color()), SystemClock.now().0);
    let what = args.what.to_ascii_lowercase();
    let mut open_only = false;
    if let Some(status) = args.status.take() {
        known_status(&what, &status)?;
        args.matchers.push(format!("status={status:?}"));
    } else if what.starts_with("inc")
        && !args.all
        && !args.matchers.iter().any(|m| m.trim_start().starts_with("status"))
    {
        args.matchers.push("status!=\"resolved\"".to_owned());
        open_only = true;
    }
    let args = &args;
    let tenant = || session.tenant();
    match what.as_str() {
        "incident" | "incidents" | "inc" => {
            let (items, more) =
                list!(s, args, incidents, ListIncidentsRequest, list, incidents, tenant: tenant());
            show(&out, &items, more, |items| lists::incidents(items, now, style))?;
            if open_only && items.is_empty() {
                out.note("no incident is open; --all shows resolved ones too");
            }
            Ok(())
        }
        "decision" | "decisions" => {
            let (items, more) =
                list!(s, args, decisions, ListDecisionsRequest, list, decisions, tenant: tenant());
            show(&out, &items, more, |items| lists::decisions(items, now, style))
        }
        "remediation" | "remediations" | "plan" | "plans" => {
            let (items, more) = list!(s, args, remediations, ListRemediationsRequest, list, remediations, tenant: tenant());
            show(&out, &items, more, |items| lists::remediations(items, now, style))
        }
        "approval" | "approvals" => {
            let (items, more) = list!(s, args, approvals, ListPendingRequest, list_pending, approvals, tenant: tenant());
            show(&out, &items, more, |items| lists::approvals(items, now, style))
        }
        "freeze" | "freezes" => {
            let (items, more) =
                list!(s, args, safety, ListFreezesRequest, list_freezes, freezes, tenant: tenant());
            show(&out, &items, more, |items| lists::freezes(items, now, style))
        }
        "prediction" | "predictions" => {
            super::foresee::predictions(s, args, (&out, now, style)).await
        }
        "health" => super::vitals::health(s, args, (&out, now, style)).await,
        "weight" | "weights" => {
            let (items, more) = list!(s, args, detection, ListWeightsRequest, list_weights, weights, tenant: tenant());
            show(&out, &items, more, |items| lists::weights(items, now, style))?;
            if items.is_empty() {
                out.note("every detector is taken at its word; medic judge changes that");
            }
            Ok(())
        }
        "score" | "scores" => super::foresee::scores(s, args, (&out, style)).await,
        "agent" | "agents" => {
            let (items, more) = list!(s, args, cluster, ListAgentsRequest, list_agents, agents);
            show(&out, &items, more, |items| lists::agents(items, now, style))
        }
        "shard" | "shards" => {
            let (items, more) = list!(s, args, cluster, ListShardsRequest, list_shards, shards);
            show(&out, &items, more, |items| lists::shards(items, now, style))
        }
        "node" | "nodes" => {
            let status = super::cluster::status_by_leader(&args.connect).await?;
            show(&out, &status.nodes, false, |items| lists::nodes(items, now, style))
        }
        other => manifests(s, args, other, &out, style).await,
    }
}

/// A misspelt status would match nothing, and look as if all were well.
fn known_status(what: &str, status: &str) -> Result<(), CliError> {
    let known: Vec<String> = if what == "health" {
        let all = (1..).map_while(|n| pb::HealthStatus::try_from(n).ok());
        all.map(words::health_status).collect()
    } else if what.starts_with("inc") {
        let all = (1..).map_while(|n| pb::IncidentStatus::try_from(n).ok());
        all.map(words::incident_status).collect()
    } else {
        let all = (1..).map_while(|n| pb::RemediationStatus::try_from(n).ok());
        all.map(words::remediation_status).collect()
    };
    if known.iter().any(|one| one == status) {
        return Ok(());
    }
    Err(CliError::Usage(format!("`{status}` is no status; there are {}", known.join(", "))))
}

async fn manifests(
    s: &Session,
    args: &GetArgs,
    what: &str,
    out: &Out,
    style: Style,
) -> Result<(), CliError> {
    let kind = match what {
        "manifest" | "manifests" => String::new(),
        other => kind_of(other)?.to_string(),
    };
    let kind = &kind;
    let playbooks = *kind == Kind::Playbook.to_string();
    let with_yaml = out.for_program() || playbooks;
    let (items, more) = list!(
        s, args, manifests, ListManifestsRequest, list, manifests,
        tenant: s.tenant(), kind: kind.clone(), with_yaml: with_yaml
    );
    let now = SystemClock.now().0;
    if out.is_yaml() {
        // As they are applied: what this prints can be kept, and put back.
        let documents: Vec<String> = items.iter().map(|one| canonical(&one.yaml)).collect();
        out.text(&documents.join("---\n"))?;
        tell_more(out, more);
        return Ok(());
    }
    show(out, &items, more, |items| match playbooks {
        true => lists::playbooks(items, now, style),
        false => lists::manifests(items, now, style),
    })
}

fn show<T: Serialize>(
    out: &Out,
    items: &[T],
    more: bool,
    table: impl FnOnce(&[T]) -> String,
) -> Result<(), CliError> {
    out.list(items, table)?;
    tell_more(out, more);
    Ok(())
}

fn tell_more(out: &Out, more: bool) {
    if more {
        out.note("there are more: raise --limit, or narrow with -l");
    }
}

/// The kind as people type it: `playbook`, `playbooks`, `Playbook`, `policies`.
pub(super) fn kind_of(text: &str) -> Result<Kind, CliError> {
    let flat: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let flat = flat.to_ascii_lowercase();
    let is = |kind: &Kind| {
        let name = kind.to_string().to_ascii_lowercase();
        let plural =
            name.strip_suffix('y').map_or_else(|| format!("{name}s"), |s| format!("{s}ies"));
        flat == name || flat == plural
    };
    Kind::ALL.into_iter().find(is).ok_or_else(|| {
        let kinds: Vec<String> =
            Kind::ALL.iter().map(|k| k.to_string().to_ascii_lowercase()).collect();
        CliError::Usage(format!(
            "`{text}` is nothing that can be listed; try incidents, decisions, remediations, \
             approvals, health, predictions, scores, weights, freezes, nodes, agents, shards, manifests, or one of {}",
            kinds.join(", ")
        ))
    })
}

/// An incident's id as the API spells it.
pub(super) fn incident_id(text: &str) -> Result<String, CliError> {
    text.parse::<IncidentId>().map(|id| id.to_string()).map_err(|e| CliError::Usage(e.to_string()))
}

/// Everything about an incident.
pub(super) async fn story(
    session: &Session,
    incident: &str,
) -> Result<pb::ExplainIncidentResponse, CliError> {
    let request = pb::ExplainIncidentRequest { id: incident_id(incident)? };
    session.ask(request, |api, request| async move { api.incidents().explain(request).await }).await
}

/// `medic explain`.
pub(super) async fn explain_incident(args: IncidentArgs) -> Result<(), CliError> {
    let out = Out::new(args.connect.output.output);
    let session = Session::open(&args.connect)?;
    let story = story(&session, &args.incident).await?;
    let style = Style::new(out.color());
    out.value(&story, |story| explain(story, SystemClock.now().0, style))
}

/// `medic describe`.
pub(super) async fn describe(args: DescribeArgs) -> Result<(), CliError> {
    let out = Out::new(args.connect.output.output);
    let session = Session::open(&args.connect)?;
    // For people, everything there is reads best as YAML.
    let yaml = |value: serde_json::Value| {
        serde_saphyr::to_string(&value).unwrap_or_else(|error| error.to_string())
    };
    let plain =
        |value: Result<serde_json::Value, serde_json::Error>| value.map_err(CliError::failed);
    let Some(name) = args.name else {
        if args.what.to_ascii_uppercase().starts_with("PLAN-") {
            let id = args.what.parse::<PlanId>().map_err(|e| CliError::Usage(e.to_string()))?;
            let request = pb::GetRemediationRequest { id: id.to_string() };
            let response = session
                .ask(request, |api, request| async move { api.remediations().get(request).await })
                .await?;
            let value = plain(serde_json::to_value(&response.remediation))?;
            return out.value(&value, |value| yaml(value.clone()));
        }
        let story = story(&session, &args.what).await?;
        let value = plain(serde_json::to_value(&story.incident))?;
        return out.value(&value, |value| yaml(value.clone()));
    };
    let kind = kind_of(&args.what)?;
    let request =
        pb::GetManifestRequest { kind: kind.to_string(), tenant: session.one_tenant(), name };
    let response = session
        .ask(request, |api, request| async move { api.manifests().get(request).await })
        .await?;
    let info = response.manifest.unwrap_or_default();
    if out.is_yaml() {
        return out.text(&canonical(&info.yaml));
    }
    out.value(&info, |info| {
        let at = super::render::words::ms(info.at.as_ref()).map(super::render::words::date);
        format!(
            "# set by {} at {} UTC, log index {}, digest {}\n{}",
            info.by,
            at.unwrap_or_default(),
            info.index,
            info.digest,
            canonical(&info.yaml)
        )
    })
}

/// The manifest as this release writes it.
fn canonical(yaml: &str) -> String {
    match medic_api::manifest::parse_bundle(yaml).as_deref() {
        Ok([one]) => to_yaml(one).unwrap_or_else(|_| yaml.to_owned()),
        Ok(_) | Err(_) => yaml.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn kinds_are_found_as_people_type_them() {
        for (text, kind) in [
            ("playbook", Kind::Playbook),
            ("Playbooks", Kind::Playbook),
            ("policies", Kind::Policy),
            ("maintenance-windows", Kind::MaintenanceWindow),
            ("rolebinding", Kind::RoleBinding),
        ] {
            assert_eq!(kind_of(text).unwrap(), kind);
        }
        assert!(known_status("incidents", "escalated").is_ok());
        assert!(known_status("plans", "rolled-back").is_ok());
        assert!(known_status("health", "error").is_ok());
        assert!(
            known_status("incidents", "escalate").unwrap_err().to_string().contains("resolved")
        );
        assert!(kind_of("incidnt").unwrap_err().to_string().contains("nothing that can be listed"));
        assert_eq!(incident_id("inc-42").unwrap(), "INC-42");
        assert_eq!(incident_id("42").unwrap(), "INC-42");
    }
}
