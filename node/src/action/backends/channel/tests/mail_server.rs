//! A mail server that writes down what it is told, and can be in a bad mood.

use std::sync::{Arc, Mutex};

use lettre::transport::smtp::client::Certificate;
use medic_state::manifest::EmailTls;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// It offers no STARTTLS.
    NoTls,
    /// It takes nothing for now.
    Busy,
    /// It knows no receiver.
    NoSuchUser,
    /// It refuses the text.
    NotTaken,
    /// It does not even greet.
    SilentAtFirst,
    /// It takes the text and says nothing.
    SilentAtLast,
    /// It takes the text and is gone.
    HangsUpAtLast,
}

/// See the module.
pub(super) struct MailServer {
    pub(super) address: String,
    root: Vec<u8>,
    got: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    /// Serves one connection after the other until the runtime ends.
    pub(super) async fn start(tls: EmailTls, mood: Mood) -> Self {
        let names = vec!["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let got = Arc::new(Mutex::new(Vec::new()));
        let server = Self { address, root: certificate.to_vec(), got: got.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let talk = Talk { mood, got: got.clone(), acceptor: acceptor.clone() };
                talk.serve(stream, tls).await;
            }
        });
        server
    }

    pub(super) fn root(&self) -> Certificate {
        Certificate::from_der(self.root.clone()).unwrap()
    }

    /// Every line it was told, those of mails among them.
    pub(super) fn got(&self) -> Vec<String> {
        self.got.lock().unwrap().clone()
    }
}

/// One conversation.
struct Talk {
    mood: Mood,
    got: Arc<Mutex<Vec<String>>>,
    acceptor: TlsAcceptor,
}

impl Talk {
    async fn serve(&self, stream: TcpStream, tls: EmailTls) {
        if self.mood == Mood::SilentAtFirst {
            std::future::pending::<()>().await;
        }
        if tls == EmailTls::Implicit {
            if let Ok(stream) = self.acceptor.accept(stream).await {
                self.talk(BufStream::new(stream), true, false).await;
            }
            return;
        }
        let offers = tls == EmailTls::Starttls && self.mood != Mood::NoTls;
        let upgraded = self.talk(BufStream::new(stream), true, offers).await;
        if let Some(stream) = upgraded
            && let Ok(stream) = self.acceptor.accept(stream.into_inner()).await
        {
            self.talk(BufStream::new(stream), false, false).await;
        }
    }

    /// Talks until the other side leaves; gives the stream back when TLS is to begin on it.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: BufStream<S>,
        greet: bool,
        offers_tls: bool,
    ) -> Option<BufStream<S>> {
        if greet {
            say(&mut stream, "220 mail ready").await;
        }
        loop {
            let line = self.line(&mut stream).await?;
            let answer = match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" if offers_tls => "250-mail\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN",
                "EHLO" => "250-mail\r\n250 AUTH PLAIN LOGIN",
                "STARTTLS" => {
                    say(&mut stream, "220 go on").await;
                    return Some(stream);
                }
                "AUTH" => "235 welcome",
                "MAIL" if self.mood == Mood::Busy => "451 come back later",
                "RCPT" if self.mood == Mood::NoSuchUser => "550 no such user",
                "DATA" => {
                    say(&mut stream, "354 go on").await;
                    while self.line(&mut stream).await? != "." {}
                    match self.mood {
                        Mood::SilentAtLast => std::future::pending::<&str>().await,
                        Mood::HangsUpAtLast => return None,
                        Mood::NotTaken => "554 not that",
                        Mood::Well
                        | Mood::NoTls
                        | Mood::Busy
                        | Mood::NoSuchUser
                        | Mood::SilentAtFirst => "250 taken",
                    }
                }
                "QUIT" => "221 bye",
                _ => "250 fine",
            };
            say(&mut stream, answer).await;
        }
    }

    async fn line<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut BufStream<S>,
    ) -> Option<String> {
        let mut line = String::new();
        match stream.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => {
                let line = line.trim_end().to_owned();
                self.got.lock().unwrap().push(line.clone());
                Some(line)
            }
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>, text: &str) {
    let text = format!("{text}\r\n");
    let said = async {
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "who has left does not hear it");
    }
}
