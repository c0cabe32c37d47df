//! Tests of how endpoints are spoken to: real servers behind TLS that want to know who asks.

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate for a name that it has given itself, and its key.
struct Identity {
    cert: String,
    key: String,
}

impl Identity {
    fn of(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    /// A server that is this; with `clients`, one that asks who is there.
    fn serves(&self, clients: Option<&Identity>) -> TlsAcceptor {
        provide_crypto();
        let builder = match clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client.certificate()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let config = builder.with_single_cert(vec![self.certificate()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server that writes down what it is asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers by what it is asked: all of it up to the empty line.
    async fn start(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { port, asked: asked.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => talk(stream, &asked, &answer).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            talk(stream, &asked, &answer).await;
                        }
                    }
                }
            }
        });
        server
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    asked: &Mutex<Vec<String>>,
    answer: impl Fn(&str) -> String,
) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let answer = answer(&head);
    asked.lock().unwrap().push(head);
    stream.write_all(answer.as_bytes()).await.unwrap();
    // The other side may be gone already.
    drop(stream.shutdown().await);
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Shows its heat to those who send this header, and to nobody else.
fn wants(header: &'static str) -> impl Fn(&str) -> String {
    move |asked: &str| {
        if asked.lines().any(|line| line.eq_ignore_ascii_case(header)) {
            ok("heat 5\n")
        } else {
            "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
    }
}

fn scraped(server: &Server, how: &str) -> Lab {
    let port = server.port;
    let spec = format!(
        "{{type: scrape, serviceLabel: job, instanceLabel: pod, scrape: {{labels: {{job: web, pod: web-1}}, \
         targets: ['127.0.0.1:{port}'], {how}}}}}"
    );
    lab(&spec, "", None)
}

async fn trouble(lab: &Lab) -> String {
    let round = lab.round().await;
    assert_eq!(round.landed, 0, "{round:?}");
    round.trouble().unwrap()
}

#[tokio::test]
async fn a_token_is_sent_over_tls_and_read_anew_for_each_round() {
    let (it, stranger) = (Identity::of("127.0.0.1"), Identity::of("127.0.0.1"));
    let server =
        Server::start(Some(it.serves(None)), wants("authorization: Bearer new-token")).await;
    let lab = scraped(
        &server,
        "scheme: https, tls: {caFile: ca.pem}, authorization: {credentialsFile: token}",
    );
    // What is missing is named, and nobody is asked.
    let said = trouble(&lab).await;
    assert!(said.starts_with("authorization.credentialsFile: secret /"), "{said}");
    assert!(said.contains("default/token: No such file"), "{said}");
    lab.secret("token", "old-token\n");
    let said = trouble(&lab).await;
    assert!(said.starts_with("tls.caFile: secret /") && said.contains("default/ca.pem"), "{said}");
    lab.secret("ca.pem", "old-token");
    let said = trouble(&lab).await;
    assert_eq!(said, "tls.caFile: there is no certificate (PEM) in secret `ca.pem`");
    assert!(server.asked().is_empty());
    // Whoever it is, it is not whom the source trusts: it is told no token.
    lab.secret("ca.pem", &stranger.cert);
    let said = trouble(&lab).await;
    assert!(said.contains("the certificate is by an issuer that is not trusted"), "{said}");
    assert!(server.asked().is_empty());
    lab.secret("ca.pem", &it.cert);
    let said = trouble(&lab).await;
    assert!(said.ends_with("scrape answered HTTP status 401"), "{said}");
    assert!(!said.contains("old-token"), "{said}");
    lab.secret("token", "new-token\n");
    let round = lab.round().await;
    assert_eq!((round.landed, round.trouble()), (1, None));
    assert_eq!(lab.heat("web", "web-1").await, Some(5.0));
    lab.secret("token", "with\ncontrol");
    let said = trouble(&lab).await;
    assert!(said.contains("no line of text") && !said.contains("with"), "{said}");
}

#[tokio::test]
async fn a_server_may_ask_who_is_there_and_be_known_by_another_name() {
    let (it, me) = (Identity::of("web.internal"), Identity::of("medic"));
    let server = Server::start(Some(it.serves(Some(&me))), |_| ok("heat 6\n")).await;
    let shown = "certFile: cert.pem, keyFile: key.pem";
    let nameless = scraped(&server, &format!("scheme: https, tls: {{caFile: ca.pem, {shown}}}"));
    let named = scraped(
        &server,
        &format!("scheme: https, tls: {{caFile: ca.pem, serverName: web.internal, {shown}}}"),
    );
    for lab in [&nameless, &named] {
        lab.secret("ca.pem", &it.cert);
        lab.secret("cert.pem", &me.cert);
        lab.secret("key.pem", &me.key);
    }
    let said = trouble(&nameless).await;
    assert!(said.contains("the certificate is for another name"), "{said}");
    let round = named.round().await;
    assert_eq!((round.landed, round.trouble()), (1, None));
    assert_eq!(named.heat("web", "web-1").await, Some(6.0));
    let host = format!("host: 127.0.0.1:{}", server.port);
    assert!(server.asked()[0].lines().any(|line| line.eq_ignore_ascii_case(&host)));
    // A key that is another's, and one that is none: its words are nobody's business.
    named.secret("key.pem", &it.key);
    let said = trouble(&named).await;
    assert!(said.starts_with("tls.certFile `cert.pem` and tls.keyFile `key.pem`: "), "{said}");
    named.secret("key.pem", "-----BEGIN PRIVATE KEY-----c2VjcmV0");
    assert_eq!(
        trouble(&named).await,
        "tls.keyFile: there is no private key (PEM) in secret `key.pem`"
    );
    named.secret("key.pem", &me.key);
    // Without a certificate to show it is sent away.
    let stranger = scraped(&server, "scheme: https, tls: {insecureSkipVerify: true}");
    assert!(trouble(&stranger).await.contains("scrape failed"));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn any_certificate_is_taken_where_the_source_says_so() {
    let server =
        Server::start(Some(Identity::of("else.where").serves(None)), |_| ok("heat 4\n")).await;
    let lab = scraped(&server, "scheme: https, tls: {insecureSkipVerify: true}");
    assert_eq!(lab.round().await.landed, 1);
    assert_eq!(lab.heat("web", "web-1").await, Some(4.0));
    // The same server without that word.
    let lab = scraped(&server, "scheme: https, tls: {caFile: ca.pem}");
    lab.secret("ca.pem", &Identity::of("127.0.0.1").cert);
    assert!(trouble(&lab).await.contains("issuer that is not trusted"));
}

#[tokio::test]
async fn credentials_follow_no_redirect() {
    let thief = Server::start(None, |_| ok("heat 1\n")).await;
    let to = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{}/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        thief.port
    );
    let server = Server::start(None, move |_| to.clone()).await;
    let lab = scraped(&server, "basicAuth: {username: medic, passwordFile: password}");
    lab.secret("password", "pass word");
    assert!(trouble(&lab).await.ends_with("scrape answered HTTP status 302"));
    assert!(server.asked()[0].contains("uthorization: Basic bWVkaWM6cGFzcyB3b3Jk\r\n"));
    assert!(thief.asked().is_empty());
}

#[tokio::test]
async fn a_prometheus_is_asked_with_credentials_and_endpoints_with_parameters() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let answer = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"job":"web","instance":"web-1"}},"value":[{},"3"]}}]}}}}"#,
        now.as_secs()
    );
    let it = Identity::of("127.0.0.1");
    let server = Server::start(Some(it.serves(None)), move |_| ok(&answer)).await;
    let spec = format!(
        "{{type: prometheus, serviceLabel: job, query: {{url: 'https://127.0.0.1:{}', tls: {{caFile: ca.pem}}, \
         authorization: {{type: Token, credentialsFile: token}}, queries: [{{name: heat, query: heat}}]}}}}",
        server.port
    );
    let lab = lab(&spec, "", None);
    lab.secret("ca.pem", &it.cert);
    lab.secret("token", "t0");
    let round = lab.round().await;
    assert_eq!((round.landed, round.trouble()), (1, None));
    assert_eq!(lab.heat("web", "web-1").await, Some(3.0));
    assert!(server.asked()[0].contains("uthorization: Token t0\r\n"), "{:?}", server.asked());

    let blackbox = Server::start(None, |_| ok("heat 2\n")).await;
    let lab = scraped(&blackbox, "path: /probe, params: {module: [http_2xx], target: ['a b']}");
    assert_eq!(lab.round().await.landed, 1);
    let asked = blackbox.asked();
    assert!(
        asked[0].starts_with("GET /probe?module=http%5F2xx&target=a%20b HTTP/1.1\r\n"),
        "{asked:?}"
    );
}
