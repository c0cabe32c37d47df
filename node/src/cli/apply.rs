//! `medic apply` and `medic delete`.

use medic_proto::v1 as pb;
use similar::{ChangeTag, TextDiff};

use super::{
    args::{ApplyArgs, DeleteArgs},
    error::CliError,
    list::kind_of,
    local,
    operate::{command, report},
    out::Out,
    render::{Style, words::plural},
    session::{Session, request_id},
};

/// `medic apply`.
pub(super) async fn apply(args: ApplyArgs) -> Result<(), CliError> {
    let out = Out::new(args.connect.output.output);
    let sources = local::sources(&args.files)?;
    // Here first: the problems name files and lines, and nothing has happened yet.
    let (manifests, problems) = local::parse(&sources);
    if !problems.is_empty() {
        let text = local::problem_text(&problems);
        return Err(CliError::Failed(format!("nothing was applied:\n{text}")));
    }
    if manifests.is_empty() {
        return Err(CliError::Usage("there is no manifest in these files".to_owned()));
    }
    let session = Session::open(&args.connect)?;
    let text =
        sources.iter().map(|source| source.text.as_str()).collect::<Vec<_>>().join("\n---\n");
    let request = pb::ApplyManifestsRequest {
        text,
        dry_run: args.dry_run,
        request_id: request_id(),
        expected_digest: String::new(),
    };
    let response = session
        .ask(request, |api, request| async move { api.manifests().apply(request).await })
        .await?;
    let style = Style::new(out.color());
    out.value(&response, |response| {
        if response.dry_run { preview(response, style) } else { summary(response, style) }
    })?;
    let refused = response.manifests.iter().filter(|one| !one.refusal.is_empty()).count();
    if refused > 0 {
        return Err(CliError::Refused(format!("{} would be refused", plural(refused, "manifest"))));
    }
    Ok(())
}

fn verb(one: &pb::AppliedManifest, style: Style) -> String {
    match (one.created, one.changed) {
        (true, _) => style.good("created"),
        (false, true) => style.warn("changed"),
        (false, false) => style.dim("unchanged"),
    }
}

fn title(one: &pb::AppliedManifest) -> String {
    format!("{}/{} (tenant {})", one.kind, one.name, one.tenant)
}

/// One line per manifest.
fn summary(response: &pb::ApplyManifestsResponse, style: Style) -> String {
    let lines: Vec<String> = response
        .manifests
        .iter()
        .map(|one| format!("{} {}", title(one), verb(one, style)))
        .collect();
    lines.join("\n")
}

/// What would change, line by line.
fn preview(response: &pb::ApplyManifestsResponse, style: Style) -> String {
    let mut text = String::new();
    for one in &response.manifests {
        text += &format!("{} would be {}\n", style.head(&title(one)), verb(one, style));
        if one.created || one.changed {
            text += &diff(&one.before, &one.after, style);
        }
        if !one.refusal.is_empty() {
            text += &format!("  {} {}\n", style.bad("but refused:"), one.refusal);
        }
    }
    text
}

fn diff(before: &str, after: &str, style: Style) -> String {
    /// Unchanged lines shown around a change.
    const AROUND: usize = 3;
    let mut text = String::new();
    for (i, group) in TextDiff::from_lines(before, after).grouped_ops(AROUND).iter().enumerate() {
        if i > 0 {
            text += &format!("{}\n", style.dim("  …"));
        }
        let diff = TextDiff::from_lines(before, after);
        for change in group.iter().flat_map(|op| diff.iter_changes(op).collect::<Vec<_>>()) {
            let line = change.value().trim_end_matches('\n');
            text += &match change.tag() {
                ChangeTag::Delete => style.bad(&format!("- {line}")),
                ChangeTag::Insert => style.good(&format!("+ {line}")),
                ChangeTag::Equal => format!("  {line}"),
            };
            text.push('\n');
        }
    }
    text
}

/// `medic delete`.
pub(super) async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let session = Session::open(&args.connect)?;
    let kind = kind_of(&args.kind)?.to_string();
    let said = format!("{kind}/{} is deleted", args.name);
    let (tenant, name, request_id) = (session.one_tenant(), args.name, request_id());
    let request = pb::DeleteManifestRequest { kind, tenant, name, request_id };
    command!(session, &args.connect, manifests.delete, said, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_shows_the_lines_that_change() {
        let one = pb::AppliedManifest {
            kind: "Playbook".to_owned(),
            tenant: "default".to_owned(),
            name: "restart".to_owned(),
            changed: true,
            before: "a: 1\nb: 2\nc: 3\n".to_owned(),
            after: "a: 1\nb: 5\nc: 3\n".to_owned(),
            refusal: "user:ann lacks `configure`".to_owned(),
            ..Default::default()
        };
        let response = pb::ApplyManifestsResponse { manifests: vec![one], dry_run: true };
        insta::assert_snapshot!(preview(&response, Style::default()), @r"
        Playbook/restart (tenant default) would be changed
          a: 1
        - b: 2
        + b: 5
          c: 3
          but refused: user:ann lacks `configure`
        ");
    }
}
