//! The small HTTP server behind the admin port and the control socket.

use std::{convert::Infallible, future::Future, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// A client that takes longer to write its request is left.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer, whole or in parts that come as they are made.
pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Serves one connection; once `closing` is cancelled the running request is the last.
pub(crate) async fn serve<S, F>(
    stream: S,
    closing: CancellationToken,
    answer: impl Fn(Request<Incoming>) -> F + Send,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = Answer> + Send,
{
    let service = service_fn(|request| {
        let answered = answer(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a local connection broke");
    }
}

/// A short answer in plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body.into())
}

/// An answer of the given media type.
pub(crate) fn answer(status: StatusCode, media_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(media_type),
    );
    answer
}
