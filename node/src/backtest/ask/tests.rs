//! A server that answers as Prometheus does, and one that does not.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::security::provide_crypto;

/// What was asked: the head of each request, and its form.
type Asked = Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>;

/// Answers each form with a status and a body.
async fn server(
    answer: impl Fn(&BTreeMap<String, String>) -> (u16, String) + Send + Sync + 'static,
) -> (String, Asked) {
    server_over(None, answer).await
}

/// As [`server`], behind TLS.
async fn server_over(
    tls: Option<TlsAcceptor>,
    answer: impl Fn(&BTreeMap<String, String>) -> (u16, String) + Send + Sync + 'static,
) -> (String, Asked) {
    provide_crypto();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => talk(stream, &heard, &answer).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        talk(stream, &heard, &answer).await;
                    }
                }
            }
        }
    });
    (url, asked)
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    heard: &Asked,
    answer: impl Fn(&BTreeMap<String, String>) -> (u16, String),
) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 4_096];
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let small = head.to_ascii_lowercase();
        let length = small.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse().unwrap() {
            break (head.to_owned(), body.to_owned());
        }
    };
    let form = Url::parse(&format!("http://form/?{body}")).unwrap();
    let form: BTreeMap<String, String> = form.query_pairs().into_owned().collect();
    let (status, text) = answer(&form);
    heard.lock().unwrap().push((head, form));
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\nlocation: /login\r\ncontent-length: {length}\r\n\r\n{text}"
    );
    // Who has read enough may have gone.
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        stream.shutdown().await.unwrap_or_default();
    }
}

/// The points that were asked for, of these series, each the number of its second.
fn matrix(form: &BTreeMap<String, String>, series: &[&str]) -> String {
    let of = |key: &str| form[key].parse::<f64>().unwrap();
    let (start, end, step) = (of("start"), of("end"), of("step"));
    let count = ((end - start) / step).floor() as usize + 1;
    assert!(count <= 11_000, "{count} points");
    let at = |i: usize| step.mul_add(i as f64, start);
    let values: Vec<String> = (0..count).map(|i| format!("[{},\"{}\"]", at(i), at(i))).collect();
    let values = values.join(",");
    let series =
        series.iter().map(|labels| format!(r#"{{"metric":{{{labels}}},"values":[{values}]}}"#));
    let series = series.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"status":"success","warnings":["part of it is away"],"data":{{"resultType":"matrix","result":[{series}]}}}}"#
    )
}

fn queries(texts: &[&str]) -> Vec<Query> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn range(start_ms: i64, end_ms: i64, step: u64) -> Range {
    Range::new(When::At(start_ms), When::At(end_ms), Millis(step), 0).unwrap()
}

async fn asked(
    url: &str,
    texts: &[&str],
    range: Range,
) -> (Result<Vec<Frame>, String>, Vec<String>) {
    let mut told = Vec::new();
    let prometheus = Prometheus::new(url, None, None).unwrap();
    let frames = prometheus.ask(&queries(texts), range, |line| told.push(line.to_owned())).await;
    (frames.map_err(|error| error.to_string()), told)
}

#[tokio::test]
async fn a_long_range_is_asked_for_in_parts_on_one_grid() {
    let (url, heard) =
        server(|form| (200, matrix(form, &[r#""__name__":"up","instance":"a""#]))).await;
    // 25,001 points each 15 s, and a little more than a whole number of steps.
    let all = range(1_000_500, 1_000_500 + 25_000 * 15_000 + 7_000, 15_000);
    let token = Some(Credentials::Token("s3cret".to_owned()));
    let prometheus = Prometheus::new(&format!("{url}/prom/"), token, None).unwrap();
    let mut told = Vec::new();
    let frames = prometheus.ask(&queries(&["up"]), all, |line| told.push(line.to_owned())).await;
    let frames = frames.unwrap();
    assert_eq!((frames.len(), frames[0].entity.as_str(), frames[0].rows.len()), (1, "a", 25_001));
    for (at, (ms, values)) in frames[0].rows.iter().enumerate() {
        assert_eq!(*ms, 1_000_500 + at as i64 * 15_000);
        assert_eq!(values[0], *ms as f64 / 1e3);
    }
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 3);
    for (head, form) in heard.iter() {
        assert!(head.starts_with("POST /prom/api/v1/query_range HTTP/1.1"), "{head}");
        assert!(head.contains("authorization: Bearer s3cret"), "{head}");
        assert_eq!((form["query"].as_str(), form["step"].as_str()), ("up", "15.000"));
    }
    assert_eq!(heard[0].1["start"], "1000.500");
    assert_eq!(heard[1].1["start"], "166000.500");
    assert_eq!(told.last().unwrap(), "query `up`: 25001 of 25001 times");
    assert!(told.contains(&"query `up`: part of it is away".to_owned()), "{told:?}");
    assert!(!format!("{prometheus:?}").contains("s3cret"));
}

#[tokio::test]
async fn what_is_too_much_at_once_is_asked_for_by_halves() {
    let (url, heard) = server(|form| (200, matrix(form, &[""]))).await;
    let ask = async |body_bytes_max| {
        let prometheus = Prometheus::new(&url, None, None).unwrap();
        let bounded = Prometheus { body_bytes_max, ..prometheus };
        bounded.ask(&queries(&["sum(load)"]), range(0, 99_000, 1_000), |_| ()).await
    };
    let frames = ask(500).await.unwrap();
    assert_eq!((frames[0].metrics[0].as_str(), frames[0].rows.len()), ("sum(load)", 100));
    let points = |form: &BTreeMap<String, String>| {
        form["end"].parse::<f64>().unwrap() - form["start"].parse::<f64>().unwrap() + 1.0
    };
    let parts: Vec<f64> = heard.lock().unwrap().iter().map(|(_, form)| points(form)).collect();
    assert!(
        parts.first() == Some(&100.0) && parts.last().is_some_and(|last| *last < 30.0),
        "{parts:?}"
    );
    let error = ask(50).await.unwrap_err().to_string();
    assert!(
        error.ends_with("query `sum(load)`: one point alone is more than 50 bytes: aggregate"),
        "{error}"
    );
}

#[tokio::test]
async fn series_without_a_name_go_by_their_query_and_none_is_told_twice() {
    let (url, _) = server(|form| (200, matrix(form, &[r#""job":"web","instance":"a""#]))).await;
    let times = range(1_000, 3_000, 1_000);
    let (frames, _) = asked(&url, &["error_rate=rate(e[5m])", "rate(r[5m])"], times).await;
    let frames = frames.unwrap();
    assert_eq!((frames[0].entity.as_str(), frames[0].rows.len()), ("web/a", 3));
    assert_eq!(frames[0].metrics, ["error_rate", "rate(r[5m])"]);
    let (twice, _) = asked(&url, &["a=rate(e[5m])", "a=rate(r[5m])"], times).await;
    let twice = twice.unwrap_err();
    assert!(twice.contains("`a` of `web/a` came of another query as well: NAME=EXPR"), "{twice}");
}

#[tokio::test]
async fn what_prometheus_says_is_wrong_is_passed_on() {
    let (url, _) = server(|form| match form["query"].as_str() {
        "bad(" => (
            400,
            r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error"}"#.to_owned(),
        ),
        "login" => (302, String::new()),
        "proxy" => (403, "<h1>go away</h1>".to_owned()),
        "scalar" => {
            (200, r#"{"status":"success","data":{"resultType":"scalar","result":[]}}"#.to_owned())
        }
        "cut" => (200, r#"{"status":"succ"#.to_owned()),
        _ => (200, r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.to_owned()),
    })
    .await;
    let times = range(1_000, 3_000, 1_000);
    for (query, expected) in [
        (
            "bad(",
            "/api/v1/query_range, query `bad(`: HTTP status 400 Bad Request: bad_data: 1:5: parse error",
        ),
        ("login", "HTTP status 302 Found: it is at /login"),
        ("proxy", "HTTP status 403 Forbidden: it is at /login <h1>go away</h1>"),
        ("scalar", "the result is `scalar`, not `matrix`"),
        ("cut", "no answer of Prometheus to a range query"),
        ("nothing", "holds no series"),
    ] {
        let (error, _) = asked(&url, &[query], times).await;
        let error = error.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let (_, told) = asked(&url, &["nothing"], times).await;
    assert_eq!(told, ["query `nothing`: nothing since 1970-01-01T00:00:01Z"]);
    // Nobody listens there: and a password is not shown.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (error, _) = asked(&format!("http://ann:hush@{free}"), &["up"], times).await;
    let error = error.unwrap_err();
    assert!(error.starts_with(&format!("http://{free}/api/v1/query_range: ")), "{error}");
}

/// A certificate for a name that it has given itself, and a server that is this.
fn identity(name: &str) -> (String, TlsAcceptor) {
    provide_crypto();
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    (cert, TlsAcceptor::from(Arc::new(config.unwrap())))
}

#[tokio::test]
async fn only_those_whom_an_authority_vouches_for_are_told_who_asks() {
    let ((ca, it), (stranger, _)) = (identity("127.0.0.1"), identity("127.0.0.1"));
    let (url, heard) = server_over(Some(it), |form| (200, matrix(form, &[""]))).await;
    let ask = async |url: &str, ca: Option<&str>| {
        let (user, password) = ("ann".to_owned(), "hush".to_owned());
        let credentials = Credentials::Basic { user, password };
        let prometheus = Prometheus::new(url, Some(credentials), ca.map(str::as_bytes)).unwrap();
        let frames = prometheus.ask(&queries(&["up"]), range(1_000, 3_000, 1_000), |_| ()).await;
        frames.map(|frames| frames[0].rows.len())
    };
    let refused = |answer: Result<usize, BacktestError>| match answer {
        Err(BacktestError::Unanswered { why, .. }) => why.contains("certificate"),
        answer => panic!("{answer:?}"),
    };
    assert!(refused(ask(&url, Some(&stranger)).await), "another's");
    assert!(refused(ask(&url, None).await), "whom the system trusts");
    assert!(heard.lock().unwrap().is_empty(), "nobody was told anything");
    // One of several is enough.
    assert_eq!(ask(&url, Some(&format!("{stranger}{ca}"))).await.unwrap(), 3);
    let head = heard.lock().unwrap().pop().unwrap().0;
    assert!(head.contains("authorization: Basic YW5uOmh1c2g="), "{head}");
    // It is who it says, and was asked for as somebody else.
    let (ca, it) = identity("prometheus.example");
    let (url, heard) = server_over(Some(it), |form| (200, matrix(form, &[""]))).await;
    assert!(refused(ask(&url, Some(&ca)).await), "another name");
    assert!(heard.lock().unwrap().is_empty());
}

#[test]
fn what_is_no_address_is_not_repeated_for_it_may_hold_a_password() {
    provide_crypto();
    let token = || Some(Credentials::Token("t".to_owned()));
    for (url, credentials, expected) in [
        ("ftp://ann:hush@h", None, "neither http:// nor https://"),
        ("ann:hush@h:9090", None, "neither http:// nor https://"),
        ("http://ann:hush@h:90900", None, "invalid port number"),
        ("http://ann:hush@", None, "empty host"),
        ("http://ann:hu/sh@h", None, "invalid port number"),
        ("//ann:hush@h", None, "relative URL without a base"),
        ("http://ann:hush@h", token(), "names a user already"),
        ("http://ann@h", token(), "names a user already"),
    ] {
        let error = Prometheus::new(url, credentials, None).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!["ann", "hu", "sh@"].iter().any(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn times_and_queries_are_read_as_they_are_typed() {
    let now = 1_700_000_000_000;
    for (text, at) in [
        ("now", now),
        ("7d", now - 7 * 86_400_000),
        ("-90m", now - 5_400_000),
        ("1600000000", 1_600_000_000_000),
        ("1600000000.5", 1_600_000_000_500),
        ("2020-09-13T12:26:40Z", 1_600_000_000_000),
        ("2020-09-13", 1_599_955_200_000),
    ] {
        assert_eq!(text.parse::<When>().map(|when| when.at_ms(now)), Ok(at), "{text}");
    }
    for text in ["", "soon", "-5", "7 days", "1969-01-01T00:00:00Z"] {
        assert!(text.parse::<When>().is_err(), "{text}");
    }
    for (text, name, expr) in [
        ("up", "up", "up"),
        ("up==1", "up==1", "up==1"),
        ("up{job=\"a\"}", "up{job=\"a\"}", "up{job=\"a\"}"),
        ("errors=sum(rate(e[5m])) by (instance)", "errors", "sum(rate(e[5m])) by (instance)"),
    ] {
        let query: Query = text.parse().unwrap();
        assert_eq!((query.name.as_str(), query.expr.as_str()), (name, expr));
    }
    assert!("a=".parse::<Query>().is_err() && "".parse::<Query>().is_err());
    let ago = |at| {
        Range::new(When::Ago(Millis(65_000)), When::Ago(Millis(0)), Millis(15_000), at).unwrap()
    };
    assert_eq!((ago(1_000_000).part(0, 1), ago(1_000_000).points()), ((930_000, 930_000), 5));
    assert_eq!(ago(1_006_000).part(0, 1), (930_000, 930_000), "on the same grid");
    let wrong = |start, end, step| Range::new(start, end, Millis(step), now).unwrap_err();
    assert!(wrong(When::At(5), When::At(5), 1).contains("before --end"));
    assert!(wrong(When::At(0), When::At(5), 0).contains("--step"));
    assert!(wrong(When::At(0), When::Ago(Millis(0)), 15_000).contains("points a series"));
    assert!(Prometheus::new("ftp://a", None, None).is_err());
    assert!(Prometheus::new("http://a", None, Some(b"-----BEGIN CERTIFICATE-----\nno\n")).is_err());
}
