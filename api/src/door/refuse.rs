//! Tells a verified stranger why nothing here opens: answers its calls with the reason, then closes.
//!
//! Without this the other side would see a reset, and its operator would look for a network fault.

use std::{convert::Infallible, time::Duration};

use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::{Status, body::Body};

/// Enough for one call to be sent and answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers every call on the connection with `PERMISSION_DENIED` and the reason, for a moment.
pub(super) async fn tell(stream: TlsStream<TcpStream>, reason: String) {
    let answer = service_fn(move |_: Request<Incoming>| {
        let status = Status::permission_denied(reason.clone());
        async move { Ok::<Response<Body>, Infallible>(status.into_http()) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(4)
        .max_header_list_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(PATIENCE, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a refused connection broke"),
    }
}
