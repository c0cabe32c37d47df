//! The leader dies while people are told: before a message goes out, and after it has gone out and
//! before that is in the log. Whoever recognises a repeat hears of it at least once, under one key and
//! in the same words; whoever does not hears of it once at the most.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::support::{OPEN_GROUND, World};

/// What a door was sent: the key, and the body.
type Posts = Arc<Mutex<Vec<(Option<String>, Value)>>>;

/// A door that takes everything; its port.
async fn door() -> (u16, Posts) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let posts = Posts::default();
    let kept = posts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                // A sender that died has sent nothing that counts.
                if let Some(post) = take(stream).await {
                    kept.lock().unwrap().push(post);
                }
            });
        }
    });
    (port, posts)
}

/// Reads one request, and takes it.
async fn take(mut stream: TcpStream) -> Option<(Option<String>, Value)> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut chunk = [0; 4_096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = header(&head, "content-length")?.parse().ok()?;
        if bytes.len() >= end + 4 + length {
            break (head, length);
        }
    };
    let body = serde_json::from_slice(&bytes[bytes.len() - length..]).ok()?;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).await.ok();
    Some((header(&head, "idempotency-key"), body))
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// Posts that ask for a human for an incident.
fn about(posts: &Posts, id: &str) -> Vec<(Option<String>, String)> {
    let needs = format!("{id} (");
    let text = |(key, body): &(Option<String>, Value)| {
        let text = body.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
        let wanted = text.contains(&needs) && text.contains("needs a human");
        wanted.then(|| (key.clone(), text))
    };
    posts.lock().unwrap().iter().filter_map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_while_it_tells_people_loses_no_page_and_adds_none() {
    let mut world = World::start().await;
    let ((hook, hooked), (chat, chatted)) = (door().await, door().await);
    let sample = world.sample("paged", 2);
    world.apply(OPEN_GROUND).await;
    world.apply(&sample.manifest).await;
    let channel = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: medic/v1\nkind: Channel\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let hook = channel("hook", &format!("{{webhook: {{url: 'http://127.0.0.1:{hook}/'}}}}"));
    let chat = channel("chat", &format!("{{slack: {{url: 'http://127.0.0.1:{chat}/'}}}}"));
    world.apply(&format!("{hook}{chat}")).await;
    world.up(&sample).await;

    let boundaries = ["notify_before_send", "notify_after_send"];
    for (boundary, instance) in boundaries.into_iter().zip(&sample.instances) {
        std::fs::write(&world.failpoints, format!("{boundary}\n")).unwrap();
        world.alert(&format!("Trouble-{boundary}"), "paged", instance).await;
        let told = world
            .incident_when("paged", &format!("told of after {boundary}"), |seen| {
                let incident = seen.incident.as_ref();
                let outcome = |channel: &str| {
                    let notices = &incident?.notices;
                    Some(notices.iter().find(|one| one.channel == channel)?.outcome.clone())
                };
                let of = incident.and_then(|one| one.target.as_ref());
                let settled = ["delivered", "unknown"];
                of.is_some_and(|target| target.instance == *instance)
                    && outcome("hook").is_some_and(|outcome| outcome == "delivered")
                    && outcome("chat").is_some_and(|one| settled.contains(&one.as_str()))
            })
            .await;
        assert!(!world.failpoints.exists(), "no leader came past {boundary}");
        let id = told.incident.unwrap().id;
        world.until_one_has_ended().await;
        assert_eq!(world.revive().len(), 1, "{boundary}: exactly one node died");
        world.agree().await;

        let posts = about(&hooked, &id);
        assert!((1..=2).contains(&posts.len()), "{boundary}: {posts:?}");
        assert!(posts[0].0.is_some(), "{boundary}: it has a key");
        assert!(
            posts.iter().all(|post| *post == posts[0]),
            "{boundary}: one key, one meaning: {posts:?}"
        );
        let lines = about(&chatted, &id);
        assert!(lines.len() <= 1, "{boundary}: a repeat would be heard twice: {lines:?}");
        world.resolve(&id).await;
    }
    world.cluster.stop().await.unwrap();
}
