//! `medic silence`: silences without writing YAML. What it makes is an ordinary manifest, which `medic
//! get silences -o yaml` shows and `medic apply` could have made.

use std::collections::BTreeMap;

use medic_api::manifest::{parse_bundle, to_yaml};
use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};
use medic_state::{
    Timestamp,
    manifest::{Kind, Manifest, Metadata, ScheduleSpec, SilenceSpec, Spec},
    matcher::Matcher,
    time::{format_rfc3339, parse_rfc3339},
};

use super::{
    args::{AddSilenceArgs, ExpireSilenceArgs, ListSilencesArgs, SilenceCommand},
    error::CliError,
    list::pages,
    operate::{command, report},
    out::Out,
    render::{Style, Table, span},
    session::{Session, request_id},
};

/// Silences shown at most: a tenant has far fewer.
const SHOWN_MAX: usize = 10_000;

pub(super) async fn run(command: SilenceCommand) -> Result<(), CliError> {
    match command {
        SilenceCommand::Add(args) => add(args).await,
        SilenceCommand::List(args) => list(args).await,
        SilenceCommand::Expire(args) => expire(args).await,
    }
}

async fn add(args: AddSilenceArgs) -> Result<(), CliError> {
    let session = Session::open(&args.connect)?;
    let made_up = format!("silence-{:08x}", rand::random::<u32>());
    let manifest = manifest(&args, &session.one_tenant(), made_up, SystemClock.now())?;
    let text = to_yaml(&manifest).map_err(CliError::failed)?;
    // Here first: nothing has happened yet, and it is plain what is wrong.
    if let Err(problems) = parse_bundle(&text) {
        let problems: Vec<&str> = problems.iter().map(|one| one.message.as_str()).collect();
        return Err(CliError::Usage(problems.join("; ")));
    }
    let request = pb::ApplyManifestsRequest {
        text,
        dry_run: false,
        request_id: request_id(),
        // A name that is taken is somebody's.
        expected_digest: "0".repeat(64),
    };
    let response = session
        .ask(request, |api, request| async move { api.manifests().apply(request).await })
        .await?;
    let (name, length) = (&manifest.metadata.name, args.duration);
    Out::new(args.connect.output.output).value(&response, |_| {
        format!("silence {name} is in force for {length}; medic silence expire {name} ends it")
    })
}

/// The manifest that was meant.
fn manifest(
    args: &AddSilenceArgs,
    tenant: &str,
    made_up: String,
    now: Timestamp,
) -> Result<Manifest, CliError> {
    let usage = |error: &dyn std::fmt::Display| CliError::Usage(error.to_string());
    let starts_at = match &args.from {
        Some(text) => parse_rfc3339(text).map_err(|error| usage(&error))?,
        None => now,
    };
    let matchers = args.matchers.iter().map(|text| matcher(text)).collect::<Result<_, _>>()?;
    let schedule = args.cron.clone().map(|cron| ScheduleSpec {
        cron,
        timezone: args.timezone.clone(),
        starts: Vec::new(),
    });
    let spec = SilenceSpec {
        matchers,
        starts_at,
        ends_at: starts_at.plus(args.duration),
        comment: args.reason.clone(),
        schedule,
        duration: args.lasting,
    };
    let name = args.name.clone().unwrap_or(made_up);
    let metadata = Metadata { name, tenant: tenant.to_owned(), labels: BTreeMap::new() };
    Ok(Manifest { metadata, spec: Spec::Silence(spec) })
}

/// `name=value` as `name="value"`; what is quoted already stays as it is.
fn matcher(text: &str) -> Result<String, CliError> {
    let end = text.find(['=', '!']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let sign = ["=~", "!~", "!=", "="].into_iter().find(|sign| rest.starts_with(sign));
    let quoted = match sign.and_then(|sign| Some((sign, rest.strip_prefix(sign)?))) {
        Some((sign, value)) if !value.starts_with('"') => {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{name}{sign}\"{value}\"")
        }
        Some(_) | None => text.to_owned(),
    };
    match quoted.parse::<Matcher>() {
        Ok(_) => Ok(quoted),
        Err(error) => Err(CliError::Usage(error.to_string())),
    }
}

async fn list(args: ListSilencesArgs) -> Result<(), CliError> {
    let out = Out::new(args.connect.output.output);
    let session = Session::open(&args.connect)?;
    let s = &session;
    let (found, _) = pages(SHOWN_MAX, |page_size, page_token| async move {
        let request = pb::ListManifestsRequest {
            tenant: s.tenant(),
            kind: Kind::Silence.to_string(),
            with_yaml: true,
            page_size,
            page_token,
            ..Default::default()
        };
        let response = s
            .ask(request, |api, request| async move { api.manifests().list(request).await })
            .await?;
        Ok((response.manifests, response.next_page_token))
    })
    .await?;
    let (now, style) = (SystemClock.now(), Style::new(out.color()));
    let shown: Vec<pb::ManifestInfo> =
        found.into_iter().filter(|one| args.all || !is_over(one, now)).collect();
    out.list(&shown, |shown| table(shown, now, style))
}

/// What the manifest says; its times worked out.
fn spec(one: &pb::ManifestInfo) -> Option<SilenceSpec> {
    parse_bundle(&one.yaml).ok()?.into_iter().find_map(|manifest| match manifest.spec {
        Spec::Silence(spec) => Some(spec),
        _ => None,
    })
}

fn is_over(one: &pb::ManifestInfo, now: Timestamp) -> bool {
    spec(one).is_some_and(|spec| spec.ends_at <= now)
}

fn table(shown: &[pb::ManifestInfo], now: Timestamp, style: Style) -> String {
    if shown.is_empty() {
        return "nothing is silenced".to_owned();
    }
    let mut table = Table::new(["TENANT", "NAME", "NOW", "MATCHES", "UNTIL", "BY", "WHY"]);
    for one in shown {
        let Some(spec) = spec(one) else { continue };
        let (state, until) = match spec.until(now) {
            Some(until) => (style.warn("silenced"), until),
            None if spec.ends_at <= now => (style.dim("over"), spec.ends_at),
            None if now < spec.starts_at => ("to come".to_owned(), spec.ends_at),
            None => ("between times".to_owned(), spec.ends_at),
        };
        let left = match until.since(now).0 {
            0 => String::new(),
            left => format!(" ({})", span(left)),
        };
        table.row([
            one.tenant.clone(),
            one.name.clone(),
            state,
            spec.matchers.join(", "),
            format!("{}{left}", format_rfc3339(until)),
            one.by.clone(),
            spec.comment,
        ]);
    }
    table.render(&style)
}

async fn expire(args: ExpireSilenceArgs) -> Result<(), CliError> {
    let session = Session::open(&args.connect)?;
    let said = format!("silence {} is over", args.name);
    let (kind, tenant) = (Kind::Silence.to_string(), session.one_tenant());
    let request =
        pb::DeleteManifestRequest { kind, tenant, name: args.name, request_id: request_id() };
    command!(session, &args.connect, manifests.delete, said, request)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    const NOW: Timestamp = Timestamp(1_764_288_000_000);

    fn typed(more: &[&str]) -> AddSilenceArgs {
        let words = ["medic", "silence", "add"].iter().chain(more);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Silence(SilenceCommand::Add(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn made(more: &[&str]) -> Result<Manifest, CliError> {
        manifest(&typed(more), "default", "silence-1".to_owned(), NOW)
    }

    #[test]
    fn words_become_a_manifest_that_the_door_takes() {
        let words = ["service=orders", "severity!=critical", "instance=~a|b\\d"];
        let words = [&words[..], &["--for", "2h", "--reason", "slow \"query\": known"]].concat();
        let manifest = made(&words).unwrap();
        let text = to_yaml(&manifest).unwrap();
        let read = parse_bundle(&text).unwrap();
        assert_eq!(read, std::slice::from_ref(&manifest), "{text}");
        let Spec::Silence(spec) = &manifest.spec else { panic!() };
        let parts = [r#"service="orders""#, r#"severity!="critical""#, r#"instance=~"a|b\\d""#];
        assert_eq!(spec.matchers, parts);
        assert_eq!((spec.starts_at, spec.ends_at), (NOW, Timestamp(NOW.0 + 7_200_000)));
        assert_eq!(manifest.metadata.name, "silence-1");
    }

    #[test]
    fn one_that_comes_again_is_worked_out_by_the_door() {
        let words = ["service=reports", "--for", "30d", "--cron", "0 2 * * SUN", "--lasting", "1h"];
        let more = ["--timezone", "Europe/Berlin", "--reason", "batch", "--name", "weekly"];
        let manifest = made(&[&words[..], &more].concat()).unwrap();
        let read = parse_bundle(&to_yaml(&manifest).unwrap()).unwrap();
        let Spec::Silence(spec) = &read[0].spec else { panic!() };
        let starts = &spec.schedule.as_ref().unwrap().starts;
        assert!((4..=5).contains(&starts.len()), "{starts:?}");
        let (before, at) = (Timestamp(starts[0].0 - 1), starts[0]);
        assert_eq!([before, at].map(|now| spec.until(now).is_some()), [false, true]);
    }

    #[test]
    fn what_is_no_matcher_or_no_time_is_refused_with_a_reason() {
        for word in ["orders", "=orders", "service=~("] {
            let refused = made(&[word, "--for", "1h", "--reason", "x"]).unwrap_err().to_string();
            assert!(refused.contains("matcher") || refused.contains("regex"), "{refused}");
        }
        let words = ["a=b", "--for", "1h", "--reason", "x", "--from", "tomorrow"];
        assert!(matches!(made(&words), Err(CliError::Usage(_))));
        let without = ["medic", "silence", "add", "a=b", "--for", "1h", "--reason", "x"];
        let lasting = [&without[..], &["--lasting", "1h"]].concat();
        assert!(Cli::try_parse_from(lasting).is_err(), "how long of what?");
        assert!(Cli::try_parse_from(&without[..4]).is_err(), "for how long?");
    }

    #[test]
    fn a_list_says_what_is_silenced_now() {
        let info = |more: &[&str], name: &str| {
            let manifest = made(&[more, &["--reason", "known", "--name", name]].concat()).unwrap();
            let yaml = to_yaml(&manifest).unwrap();
            let (tenant, name) = ("default".to_owned(), name.to_owned());
            let by = "user:ann".to_owned();
            pb::ManifestInfo { tenant, name, by, yaml, ..Default::default() }
        };
        let soon = ["a=b", "--for", "1h", "--from", "2030-01-01T00:00:00Z"];
        let shown = [info(&["a=b", "--for", "2h"], "now"), info(&soon, "soon")];
        let at = |secs: u64| Timestamp(NOW.0 + secs * 1_000);
        let text = table(&shown, at(3_600), Style::default());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("silenced") && lines[1].contains("(1h"), "{text}");
        assert!(lines[2].contains("to come"), "{text}");
        assert_eq!([7_199, 7_200].map(|secs| is_over(&shown[0], at(secs))), [false, true]);
        assert_eq!(table(&[], NOW, Style::default()), "nothing is silenced");
    }
}
