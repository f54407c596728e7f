//! One accepted connection: HTTP/2 over a stream whose handshake is done.
//!
//! Every task that a connection starts is tracked, and has ended when [`serve`] returns.

use std::{convert::Infallible, pin::pin};

use hyper::{rt::Executor, server::conn::http2};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, service::Routes};

use super::{
    DRAIN_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, OPEN_TIMEOUT, PROTOCOL_VERSION,
    STREAM_WINDOW, stream::Over,
};
use crate::scheduler::SessionError;

/// Streams that one host may have open on one connection; it needs one, and a second while it
/// reopens.
const STREAMS_MAX: u32 = 4;

/// Bytes of request headers that are read.
const HEADERS_LEN_MAX: u32 = 16 * 1024;

/// Why a connection ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    #[error("the connection opened no stream in time")]
    Silent,
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// What the streams of one connection share.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    tracker: TaskTracker,
    /// Cancelled when the connection is to end.
    ending: CancellationToken,
    /// Cancelled when the first stream has opened.
    opened: CancellationToken,
}

#[derive(Debug, Clone)]
struct TrackedExecutor(TaskTracker);

// === impl Connection ===

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            ending: CancellationToken::new(),
            opened: CancellationToken::new(),
        }
    }

    /// Notes that a stream has opened; what it gives ends with the connection.
    pub(super) fn stream_opened(&self) -> Over {
        self.opened.cancel();
        Over::under(&self.ending)
    }

    /// Runs `task` as part of this connection.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }
}

/// Serves `routes` on `io` until the peer closes it, it breaks, or `drain` comes; then the open
/// streams are ended in good order.
pub(super) async fn serve<IO>(
    io: IO,
    routes: Routes,
    connection: Connection,
    drain: impl Future<Output = ()> + Send,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TrackedExecutor(connection.tracker.clone()));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_LEN_MAX);
    let service = TowerToHyperService::new(routes.prepare());
    let ended = {
        let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            ended = &mut served => ended.map_err(|error| ServeError::Broken(error.to_string())),
            Err(silent) = opened_in_time(&connection) => Err(silent),
            () = drain => {
                connection.ending.cancel();
                served.as_mut().graceful_shutdown();
                // A peer that does not read its last messages is cut off.
                let _ = timeout(DRAIN_TIMEOUT, served).await;
                Ok(())
            }
        }
    };
    finish(connection).await;
    ended
}

/// The first message of a stream must come soon, and be of our version.
pub(super) async fn first<M>(messages: &mut tonic::Streaming<M>) -> Result<M, Status> {
    let message = timeout(OPEN_TIMEOUT, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the first message did not come in time"))?
        .map_err(|status| super::stream::blamed(&status))?;
    message.ok_or_else(|| Status::invalid_argument("the stream ended before its first message"))
}

/// Whether the other end speaks our version of the protocol.
pub(super) fn check_version(told: u32) -> Result<(), Status> {
    if told == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "the other end speaks version {told} of the protocol, this one version {PROTOCOL_VERSION}"
    )))
}

/// What a caller is told whom the service turns away.
pub(super) fn refusal(error: SessionError) -> Status {
    match error {
        SessionError::Refused(problem) => Status::permission_denied(problem),
        SessionError::Unreachable(problem) => Status::unavailable(problem),
    }
}

async fn opened_in_time(connection: &Connection) -> Result<Infallible, ServeError> {
    match timeout(OPEN_TIMEOUT, connection.opened.cancelled()).await {
        Ok(()) => std::future::pending().await,
        Err(_) => Err(ServeError::Silent),
    }
}

/// What came in before the end may still be read for a while; then the pumps are stopped.
async fn finish(connection: Connection) {
    connection.tracker.close();
    if timeout(DRAIN_TIMEOUT, connection.tracker.wait())
        .await
        .is_err()
    {
        connection.ending.cancel();
        connection.tracker.wait().await;
    }
}

impl<F> Executor<F> for TrackedExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
