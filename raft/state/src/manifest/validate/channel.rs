//! Channels: addresses that can be dialled, secrets that stay within their tenant, rules that let
//! something through.

use super::{Found, MAX_RATE, MAX_SPAN};
use crate::manifest::{
    ChannelRules, ChannelSpec, DEFAULT_TENANT, EmailSpec, EmailTls, SecretRef, SlackSpec,
};

/// Beginning of the environment variables that a channel may name: everything else in a node's
/// environment is none of its business.
const ENV_PREFIX: &str = "MEDIC_SECRET_";
/// Receivers of a mail.
const MAX_RECEIVERS: usize = 50;

pub(super) fn check(found: &mut Found, tenant: &str, channel: &ChannelSpec) {
    let (kind, rules) = match channel {
        ChannelSpec::Webhook { url, rules } => {
            check_url(found, "spec.webhook.url", url);
            ("webhook", rules)
        }
        ChannelSpec::Slack(slack) => {
            check_slack(found, tenant, slack);
            ("slack", &slack.rules)
        }
        ChannelSpec::Pagerduty(pagerduty) => {
            check_secret(found, "spec.pagerduty.routingKey", tenant, &pagerduty.routing_key);
            if let Some(url) = &pagerduty.url {
                check_url(found, "spec.pagerduty.url", url);
            }
            ("pagerduty", &pagerduty.rules)
        }
        ChannelSpec::Email(email) => {
            check_email(found, tenant, email);
            ("email", &email.rules)
        }
    };
    if let Some(rules) = rules {
        check_rules(found, &format!("spec.{kind}.rules"), rules);
    }
}

fn check_url(found: &mut Found, path: &str, url: &str) {
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        found.add(path, "it is no http or https URL");
    }
}

fn check_slack(found: &mut Found, tenant: &str, slack: &SlackSpec) {
    match (&slack.url, &slack.url_from) {
        (Some(url), None) => check_url(found, "spec.slack.url", url),
        (None, Some(secret)) => check_secret(found, "spec.slack.urlFrom", tenant, secret),
        (Some(_), Some(_)) => {
            found.add("spec.slack.urlFrom", "`url` is given too: leave one of the two out");
        }
        (None, None) => found.add("spec.slack", "it needs `urlFrom` (or `url`)"),
    }
}

/// A tenant names secrets that were given to it, and no other file or variable of a node.
fn check_secret(found: &mut Found, path: &str, tenant: &str, secret: &SecretRef) {
    match secret {
        SecretRef::Env(name) => {
            let legal =
                |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            let rest = name.strip_prefix(ENV_PREFIX).unwrap_or_default();
            if rest.is_empty() || name.len() > 128 || !rest.bytes().all(legal) {
                let text = format!("a variable's name is {ENV_PREFIX} and capitals, digits or `_`");
                found.add(&format!("{path}.env"), &text);
            }
            if tenant != DEFAULT_TENANT {
                let text = "variables are for tenant `default`: use `file` in another one";
                found.add(&format!("{path}.env"), text);
            }
        }
        SecretRef::File(name) => found.name(&format!("{path}.file"), name),
    }
}

fn check_email(found: &mut Found, tenant: &str, email: &EmailSpec) {
    let host = match email.server.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => host,
        Some(_) | None => {
            found.add("spec.email.server", "it is no `host:port`, such as mail.example.com:587");
            return;
        }
    };
    let here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    if email.tls == EmailTls::None && !here {
        let text = "without TLS mail goes to a relay on the same host alone (localhost, 127.0.0.1)";
        found.add("spec.email.tls", text);
    }
    match (&email.username, &email.password) {
        (Some(name), Some(secret)) => {
            found.not_empty("spec.email.username", name);
            check_secret(found, "spec.email.password", tenant, secret);
        }
        (None, None) => {}
        (Some(_), None) => found.add("spec.email.password", "a `username` needs a `password`"),
        (None, Some(_)) => found.add("spec.email.username", "a `password` needs a `username`"),
    }
    check_address(found, "spec.email.from", &email.from);
    if email.to.is_empty() {
        found.add("spec.email.to", "nobody would get the mail");
    }
    found.at_most("spec.email.to", email.to.len(), MAX_RECEIVERS);
    for (at, to) in email.to.iter().enumerate() {
        check_address(found, &format!("spec.email.to[{at}]"), to);
    }
}

/// The form alone: the mail server knows the rest.
fn check_address(found: &mut Found, path: &str, address: &str) {
    let sound = address.split_once('@').is_some_and(|(user, domain)| {
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"<>@,;:\\\"()[]".contains(&byte);
        let part = |part: &str| !part.is_empty() && part.bytes().all(legal);
        part(user) && part(domain)
    });
    if !sound || address.len() > 254 {
        found.add(path, "it is no address such as sre@example.com");
    }
}

fn check_rules(found: &mut Found, path: &str, rules: &ChannelRules) {
    found.parse(&format!("{path}.match"), &rules.matchers);
    if let Some(rate) = rules.limit
        && (rate.count == 0 || rate.count > MAX_RATE || rate.per.0 == 0 || rate.per > MAX_SPAN)
    {
        let text = format!("a limit is 1 to {MAX_RATE} per up to {MAX_SPAN}, such as 20/10m");
        found.add(&format!("{path}.limit"), &text);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        ids::Millis,
        law::tests::lab::manifest,
        manifest::{PagerdutySpec, Rate, Spec, validate},
    };

    fn paths(tenant: &str, channel: ChannelSpec) -> Vec<String> {
        let manifest = manifest("pager", tenant, Spec::Channel(channel));
        validate(&manifest).into_iter().map(|problem| problem.path).collect()
    }

    fn env(name: &str) -> SecretRef {
        SecretRef::Env(name.into())
    }

    fn pagerduty(routing_key: SecretRef, url: Option<&str>) -> ChannelSpec {
        let url = url.map(ToOwned::to_owned);
        ChannelSpec::Pagerduty(PagerdutySpec { routing_key, url, rules: None })
    }

    fn email() -> EmailSpec {
        EmailSpec {
            server: "mail.example.com:587".into(),
            tls: EmailTls::Starttls,
            username: Some("medic".into()),
            password: Some(SecretRef::File("smtp".into())),
            from: "medic@example.com".into(),
            to: vec!["sre@example.com".into()],
            rules: None,
        }
    }

    #[test]
    fn sound_channels_have_no_problems() {
        let none: [&str; 0] = [];
        assert_eq!(paths("default", pagerduty(env("MEDIC_SECRET_PD"), None)), none);
        assert_eq!(paths("team", pagerduty(SecretRef::File("pd.key".into()), None)), none);
        assert_eq!(paths("team", ChannelSpec::Email(email())), none);
        let here = EmailSpec { server: "127.0.0.1:25".into(), tls: EmailTls::None, ..email() };
        assert_eq!(paths("team", ChannelSpec::Email(here)), none);
    }

    #[test]
    fn a_secret_is_one_that_the_tenant_was_given() {
        for name in ["HOME", "MEDIC_SECRET_", "MEDIC_SECRET_a", "MEDIC_SECRET_A=B"] {
            let found = paths("default", pagerduty(env(name), None));
            assert_eq!(found, ["spec.pagerduty.routingKey.env"], "{name}");
        }
        let found = paths("team", pagerduty(env("MEDIC_SECRET_PD"), None));
        assert_eq!(found, ["spec.pagerduty.routingKey.env"]);
        for name in ["../default/pd", "/etc/shadow", "..", ""] {
            let found = paths("team", pagerduty(SecretRef::File(name.into()), None));
            assert_eq!(found, ["spec.pagerduty.routingKey.file"], "{name}");
        }
    }

    #[test]
    fn each_spoilt_channel_is_told_where() {
        let slack = |url: Option<&str>, url_from| {
            let url = url.map(ToOwned::to_owned);
            ChannelSpec::Slack(SlackSpec { url, url_from, rules: None })
        };
        let rules = |rules| ChannelSpec::Webhook { url: "http://x/".into(), rules: Some(rules) };
        let mail = |spoil: fn(&mut EmailSpec)| {
            let mut email = email();
            spoil(&mut email);
            ChannelSpec::Email(email)
        };
        for (channel, path) in [
            (ChannelSpec::Webhook { url: "ftp://x".into(), rules: None }, "spec.webhook.url"),
            (slack(None, None), "spec.slack"),
            (slack(Some("x"), None), "spec.slack.url"),
            (slack(Some("http://x"), Some(env("MEDIC_SECRET_S"))), "spec.slack.urlFrom"),
            (pagerduty(env("MEDIC_SECRET_S"), Some("x")), "spec.pagerduty.url"),
            (mail(|mail| mail.server = "mail".into()), "spec.email.server"),
            (mail(|mail| mail.tls = EmailTls::None), "spec.email.tls"),
            (mail(|mail| mail.password = None), "spec.email.password"),
            (mail(|mail| mail.username = None), "spec.email.username"),
            (mail(|mail| mail.from = "medic".into()), "spec.email.from"),
            (mail(|mail| mail.to.clear()), "spec.email.to"),
            (mail(|mail| mail.to.push("a@b\r\nBcc: c@d".into())), "spec.email.to[1]"),
            (
                rules(ChannelRules { matchers: vec!["a=b".into()], ..ChannelRules::default() }),
                "spec.webhook.rules.match[0]",
            ),
            (
                rules(ChannelRules {
                    limit: Some(Rate { count: 0, per: Millis(1) }),
                    ..ChannelRules::default()
                }),
                "spec.webhook.rules.limit",
            ),
        ] {
            assert_eq!(paths("default", channel.clone()), [path], "{channel:?}");
        }
    }
}
