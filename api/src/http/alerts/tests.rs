//! Tests of what is read as alerts, and of how many are taken at once.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn an_alert_is_over_by_its_status_or_when_its_end_has_passed() {
    let now = medic_state::time::parse_rfc3339("2026-01-01T12:00:00Z").unwrap();
    for (json, firing) in [
        (r#"{"labels":{}}"#, true),
        (r#"{"labels":{},"status":"firing","endsAt":"0001-01-01T00:00:00Z"}"#, true),
        (r#"{"labels":{},"endsAt":"2026-01-01T12:05:00Z"}"#, true),
        (r#"{"labels":{},"endsAt":"2026-01-01T11:55:00Z"}"#, false),
        (r#"{"labels":{},"status":"resolved"}"#, false),
    ] {
        let list = format!("[{json}]");
        let alerts = read(AlertForm::Api, list.as_bytes(), now).unwrap();
        assert_eq!(alerts[0].firing, firing, "{json}");
    }
}

#[test]
fn the_api_says_by_when_an_alert_is_sent_again_and_the_webhook_when_it_is_over() {
    let now = medic_state::time::parse_rfc3339("2026-01-01T12:00:00Z").unwrap();
    let said = |form: AlertForm, ends: &str| {
        let alert = format!(r#"{{"labels":{{}},"fingerprint":"ab"{ends}}}"#);
        let body = match form {
            AlertForm::Api => format!("[{alert}]"),
            AlertForm::Webhook => format!(r#"{{"alerts":[{alert}]}}"#),
        };
        let alert = read(form, body.as_bytes(), now).unwrap().remove(0);
        assert!(alert.firing && alert.fingerprint.as_deref() == Some("ab"));
        alert.ends_at.map(|ends| ends.since(now))
    };
    let (soon, unknown) =
        (r#","endsAt":"2026-01-01T12:04:00Z""#, r#","endsAt":"0001-01-01T00:00:00Z""#);
    assert_eq!(said(AlertForm::Api, soon), Some(Millis::from_secs(240)));
    for ends in [unknown, ""] {
        assert_eq!(said(AlertForm::Api, ends), Some(RESOLVE_TIMEOUT));
    }
    for ends in [soon, unknown, ""] {
        assert_eq!(said(AlertForm::Webhook, ends), None);
    }
}

#[test]
fn more_than_are_taken_are_not_even_kept() {
    let now = Timestamp(0);
    let many = |count: usize| format!("[{}]", vec![r#"{"labels":{}}"#; count].join(","));
    assert_eq!(read(AlertForm::Api, many(ALERTS_MAX).as_bytes(), now).unwrap().len(), ALERTS_MAX);
    let webhook = |list: &str| format!(r#"{{"alerts":{list}}}"#);
    for count in [ALERTS_MAX + 1, 50_000] {
        let body = webhook(&many(count));
        assert_eq!(read(AlertForm::Webhook, body.as_bytes(), now), Err(BadAlerts::TooMany));
    }
    let labels: Vec<String> = (0..=PAIRS_MAX).map(|n| format!("\"l{n}\":\"\"")).collect();
    let wide = format!("[{{\"labels\":{{{}}}}}]", labels.join(","));
    let said = read(AlertForm::Api, wide.as_bytes(), now).unwrap_err().to_string();
    assert!(said.contains("more than 64 labels"), "{said}");
    // What is wrong after the last that is kept is still wrong.
    let torn = &many(2_000)[..20_000];
    assert!(matches!(read(AlertForm::Api, torn.as_bytes(), now), Err(BadAlerts::Form(_))));
}
