//! One admitted connection: TLS, what it counts against, and what ends it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::{Identity, accept::Admission};

/// An admitted connection.
pub(super) struct Conn {
    stream: TlsStream<TcpStream>,
    identity: Identity,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    expires: Pin<Box<Sleep>>,
    over: bool,
    _admission: Admission,
}

impl Conn {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        identity: Identity,
        valid_for: Duration,
        killed: WaitForCancellationFutureOwned,
        admission: Admission,
    ) -> Self {
        Self {
            stream,
            identity,
            killed: Box::pin(killed),
            expires: Box::pin(tokio::time::sleep(valid_for)),
            over: false,
            _admission: admission,
        }
    }

    /// Asked by reads, which are always pending on an idle connection: so the end wakes its task.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.over {
            if self.killed.as_mut().poll(cx).is_ready() {
                self.over = true;
            } else if self.expires.as_mut().poll(cx).is_ready() {
                self.over = true;
                let principal = &self.identity.principal;
                tracing::warn!(%principal, "certificate expired; closing its connection");
            }
        }
        if self.over { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl Connected for Conn {
    type ConnectInfo = Identity;

    fn connect_info(&self) -> Identity {
        self.identity.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
