//! Channels against receivers in this process: HTTP servers and a mail server that write down what
//! they get, answer as told, or not at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mail_server;

use std::time::Duration;

use medic_state::{
    Fence, IncidentId, Timestamp,
    manifest::{EmailSpec, EmailTls, PagerdutySpec, SecretRef},
    notice::{Notice, NoticeKind},
    symptom::Severity,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use self::mail_server::{MailServer, Mood};
use super::*;

const SECRET: &str = "R0UT1NG-KEY";

fn notice(incident: u64, kind: NoticeKind) -> Notice {
    let text = format!("INC-{incident} (web/w) needs a human: <no> & \"more\"");
    let (incident, severity) = (IncidentId(incident), Severity::Critical);
    Notice { incident, thread: incident, kind, severity, text, delivered: 0, in_doubt: false }
}

fn telling(notices: Vec<Notice>) -> Telling {
    let (tenant, channel) = ("team".to_owned(), "pager".to_owned());
    Telling { tenant, channel, not_before: Timestamp(0), notices }
}

fn about() -> About {
    let target =
        Target { tenant: "team".to_owned(), service: "web".to_owned(), instance: "w".to_owned() };
    About {
        target: Some(target),
        class: "application/crash".to_owned(),
        opened_at: Timestamp(1_000),
    }
}

/// Channels of a node that has the secret `key`, and its folder.
fn channels() -> (Channels, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("team")).unwrap();
    std::fs::write(folder.path().join("team/key"), SECRET).unwrap();
    let mut channels = Channels::new("demo".to_owned(), Some(folder.path().to_owned()));
    channels.poster = Poster::with_timeout(Duration::from_millis(500));
    (channels, folder)
}

/// A server that gives one answer (empty: none), and the request it got.
async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        loop {
            let read = stream.read_buf(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request).into_owned();
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let head = head.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                length.is_some_and(|length| body.len() >= length.parse().unwrap())
            });
            if read == 0 || whole {
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                return text;
            }
        }
    });
    (url, served)
}

const OK: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BUSY: &str = "HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BAD: &str =
    "HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\nconnection: close\r\n\r\ninvalid";

fn body(request: &str) -> serde_json::Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn pagerduty(url: String) -> ChannelSpec {
    let routing_key = SecretRef::File("key".to_owned());
    ChannelSpec::Pagerduty(PagerdutySpec { routing_key, url: Some(url), rules: None })
}

fn slack(url: String) -> ChannelSpec {
    ChannelSpec::Slack(SlackSpec { url: Some(url), url_from: None, rules: None })
}

#[tokio::test]
async fn a_webhook_gets_json_and_a_key_that_stays_the_same() {
    let (channels, _folder) = channels();
    let telling = telling(vec![notice(42, NoticeKind::NeedsHuman)]);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let (url, served) = server(OK).await;
        let channel = ChannelSpec::Webhook { url, rules: None };
        assert_eq!(channels.tell(&channel, &telling, &about()).await, Delivery::Delivered);
        let request = served.await.unwrap();
        let head = request.to_lowercase();
        let key = head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap();
        assert!(key.starts_with("demo/team/pager/inc-42/0/"), "{key}");
        keys.push(key.to_owned());
        let body = body(&request);
        assert_eq!(body["source"], "medic");
        assert_eq!(body["text"], telling.notices[0].text);
        assert_eq!(body["notices"][0]["incident"], "INC-42");
        assert_eq!((&body["severity"], &body["target"]), (&"critical".into(), &"web/w".into()));
    }
    assert_eq!(keys[0], keys[1]);
    let mut later = telling.clone();
    later.notices[0].delivered = 1;
    assert_ne!(payload::key("demo", &later), payload::key("demo", &telling));
}

#[tokio::test]
async fn slack_gets_text_in_which_nothing_is_taken_for_markup() {
    let (channels, folder) = channels();
    let (url, served) = server(OK).await;
    let one = telling(vec![notice(42, NoticeKind::NeedsHuman)]);
    assert_eq!(channels.tell(&slack(url), &one, &about()).await, Delivery::Delivered);
    let text = body(&served.await.unwrap())["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("*critical* INC-42") && text.contains("&lt;no&gt; &amp;"), "{text}");

    // The URL from a file; several notices in one message.
    let (url, served) = server(OK).await;
    std::fs::write(folder.path().join("team/chat"), url).unwrap();
    let url_from = Some(SecretRef::File("chat".to_owned()));
    let channel = ChannelSpec::Slack(SlackSpec { url: None, url_from, rules: None });
    let many = telling(vec![notice(1, NoticeKind::NeedsHuman), notice(2, NoticeKind::Resolved)]);
    assert_eq!(channels.tell(&channel, &many, &about()).await, Delivery::Delivered);
    let text = body(&served.await.unwrap())["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("2 notices in one message"), "{text}");
    assert!(text.contains("*critical* INC-1") && text.contains("_resolved_ INC-2"), "{text}");
}

#[tokio::test]
async fn pagerduty_gets_events_of_one_alert_per_incident() {
    let (channels, _folder) = channels();
    let mut alerts = Vec::new();
    for (kind, action) in [
        (NoticeKind::NeedsHuman, "trigger"),
        (NoticeKind::Acknowledged, "acknowledge"),
        (NoticeKind::Resolved, "resolve"),
    ] {
        let (url, served) = server(OK).await;
        let telling = telling(vec![notice(42, kind)]);
        let fate = channels.tell(&pagerduty(url), &telling, &about()).await;
        assert_eq!(fate, Delivery::Delivered);
        let event = body(&served.await.unwrap());
        assert_eq!(event["event_action"], action);
        assert_eq!(event["routing_key"], SECRET);
        alerts.push(event["dedup_key"].as_str().unwrap().to_owned());
        if action == "trigger" {
            let payload = &event["payload"];
            assert_eq!(
                (&payload["severity"], &payload["source"]),
                (&"critical".into(), &"web/w".into())
            );
            assert_eq!(payload["class"], "application/crash");
        } else {
            assert!(event.get("payload").is_none());
        }
    }
    assert_eq!(alerts, ["demo/INC-42"; 3]);

    let (url, served) = server(OK).await;
    let many = telling(vec![notice(1, NoticeKind::NeedsHuman), notice(2, NoticeKind::NeedsHuman)]);
    channels.tell(&pagerduty(url), &many, &about()).await;
    let event = body(&served.await.unwrap());
    assert_eq!(event["dedup_key"], "demo/team/pager/summary");
    assert!(event["payload"]["custom_details"]["text"].as_str().unwrap().contains("INC-2"));
}

#[tokio::test]
async fn a_secret_stands_in_no_outcome() {
    let (channels, _folder) = channels();
    let telling = telling(vec![notice(1, NoticeKind::NeedsHuman)]);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secret_url = format!("http://{}/{SECRET}", closed.local_addr().unwrap());
    drop(closed);
    let fate = channels.tell(&slack(secret_url), &telling, &about()).await;
    assert!(matches!(&fate, Delivery::Failed(why) if why.contains("nothing was sent")), "{fate:?}");
    assert!(!format!("{fate:?}").contains(SECRET), "{fate:?}");
    let (silent, served) = server("").await;
    let fate = channels.tell(&slack(format!("{silent}/{SECRET}")), &telling, &about()).await;
    assert!(matches!(&fate, Delivery::Unknown(why) if why.contains("no answer")), "{fate:?}");
    assert!(!format!("{fate:?}").contains(SECRET), "{fate:?}");
    served.abort();
    let missing = SecretRef::File("missing".to_owned());
    let channel =
        ChannelSpec::Pagerduty(PagerdutySpec { routing_key: missing, url: None, rules: None });
    let fate = channels.tell(&channel, &telling, &about()).await;
    assert!(matches!(&fate, Delivery::Failed(why) if why.contains("team/missing")), "{fate:?}");
}

#[tokio::test]
async fn an_answer_says_whether_people_were_told() {
    let (channels, _folder) = channels();
    let telling = telling(vec![notice(1, NoticeKind::NeedsHuman)]);
    let (url, _served) = server(BUSY).await;
    let fate = channels.tell(&pagerduty(url), &telling, &about()).await;
    assert!(matches!(&fate, Delivery::Failed(why) if why.contains("429")), "{fate:?}");
    let (url, _served) = server(BAD).await;
    let fate = channels.tell(&pagerduty(url), &telling, &about()).await;
    assert!(matches!(&fate, Delivery::Refused(why) if why.contains("invalid")), "{fate:?}");
}

fn email(server: &MailServer, tls: EmailTls) -> ChannelSpec {
    ChannelSpec::Email(EmailSpec {
        server: server.address.clone(),
        tls,
        username: Some("medic".to_owned()),
        password: Some(SecretRef::File("key".to_owned())),
        from: "medic@example.com".to_owned(),
        to: vec!["a@example.com".to_owned(), "b@example.com".to_owned()],
        rules: None,
    })
}

/// Mails something to a server; gives the fate, and what the server got.
async fn mailed(tls: EmailTls, mood: Mood) -> (Delivery, Vec<String>) {
    let (mut channels, _folder) = channels();
    let server = MailServer::start(tls, mood).await;
    channels.mailer = Mailer::with(vec![server.root()], Duration::from_millis(500));
    let telling = telling(vec![notice(42, NoticeKind::NeedsHuman)]);
    let fate = channels.tell(&email(&server, tls), &telling, &about()).await;
    (fate, server.got())
}

#[tokio::test]
async fn mail_arrives_plain_by_starttls_and_by_implicit_tls() {
    for tls in [EmailTls::None, EmailTls::Starttls, EmailTls::Implicit] {
        let (fate, got) = mailed(tls, Mood::Well).await;
        assert_eq!(fate, Delivery::Delivered, "{tls:?}: {got:#?}");
        let all = got.join("\n");
        for line in [
            "MAIL FROM:<medic@example.com>",
            "RCPT TO:<a@example.com>",
            "RCPT TO:<b@example.com>",
            "Subject: [critical] INC-42",
            "Message-ID: <demo.team.pager.INC-42.0.",
            "References: <INC-42@demo.medic.invalid>",
            "Auto-Submitted: auto-generated",
            "medic explain INC-42",
        ] {
            assert!(all.contains(line), "{tls:?}: no `{line}` in\n{all}");
        }
        assert_eq!(all.contains("STARTTLS"), tls == EmailTls::Starttls);
        assert!(all.contains("AUTH PLAIN"), "{all}");
    }
}

#[tokio::test]
async fn what_a_mail_server_says_tells_whether_the_mail_is_there() {
    for (mood, word) in [
        (Mood::NoTls, "failed"),
        (Mood::Busy, "failed"),
        (Mood::NoSuchUser, "refused"),
        (Mood::NotTaken, "refused"),
        (Mood::SilentAtFirst, "failed"),
        (Mood::SilentAtLast, "unknown"),
        (Mood::HangsUpAtLast, "unknown"),
    ] {
        let (fate, got) = mailed(EmailTls::Starttls, mood).await;
        let found = match &fate {
            Delivery::Failed(_) => "failed",
            Delivery::Refused(_) => "refused",
            Delivery::Unknown(_) => "unknown",
            Delivery::Delivered | Delivery::Sending(Fence(_)) => "delivered",
        };
        assert_eq!(found, word, "{mood:?}: {fate:?} after {got:#?}");
        assert!(!format!("{fate:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn mail_goes_to_no_server_whose_certificate_nobody_knows() {
    let (mut channels, _folder) = channels();
    let server = MailServer::start(EmailTls::Implicit, Mood::Well).await;
    channels.mailer = Mailer::with(Vec::new(), Duration::from_millis(500));
    let telling = telling(vec![notice(42, NoticeKind::NeedsHuman)]);
    let fate = channels.tell(&email(&server, EmailTls::Implicit), &telling, &about()).await;
    assert!(matches!(&fate, Delivery::Failed(_)), "{fate:?}");
    assert!(!server.got().iter().any(|line| line.contains("AUTH")));
}
