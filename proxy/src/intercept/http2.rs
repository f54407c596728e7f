//! Serves HTTP/2 on a connection whose TLS ended here. A body that breaks off ends its stream with
//! RST_STREAM, and no other.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    line::{Cut, Ending, Line},
    serve::{HEAD_LEN_MAX, Stage},
};

/// Streams of one connection that are open at once.
const STREAMS_MAX: u32 = 100;

/// Bytes that a client may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How often a client that says nothing is asked whether it is there, and how long it may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs the streams of one connection, which end with it.
#[derive(Debug, Clone, Default)]
struct Streams {
    tasks: TaskTracker,
    over: CancellationToken,
}

/// Serves `line` until either side is done with it; once `shutdown` is cancelled, or when no request
/// has come for long, no further stream is begun.
pub(super) async fn serve<S>(line: Line<S>, stage: Arc<Stage>, shutdown: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = Streams::default();
    let (pulse, mut felt) = watch::channel(0_u64);
    let pulse = Arc::new(pulse);
    let (idle_timeout, stall_timeout) = {
        let config = stage.proxy.config();
        (config.idle_timeout, config.client_stall_timeout)
    };
    let underway = Arc::clone(line.underway());
    let service = service_fn(move |request| {
        let (stage, pulse) = (Arc::clone(&stage), Arc::clone(&pulse));
        let cut = Cut::new(Ending::Reset, Arc::clone(&underway));
        let answering = cut.begin();
        async move {
            beat(&pulse);
            let mut response = Box::pin(stage.respond(request, cut, None)).await;
            response.body_mut().ends(answering);
            Ok::<_, Infallible>(response.map(|body| {
                body.map_frame(move |frame| {
                    beat(&pulse);
                    frame
                })
            }))
        }
    });
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_LEN_MAX as u32);
    {
        let mut served = pin!(builder.serve_connection(TokioIo::new(line), service));
        let is_over = tokio::select! {
            // What hyper complains of, the client has seen or caused.
            _ = &mut served => true,
            () = quiet(&mut felt, idle_timeout) => false,
            () = shutdown.cancelled() => false,
        };
        if !is_over {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                _ = &mut served => {}
                () = quiet(&mut felt, stall_timeout) => {}
            }
        }
    }
    // What still runs has nobody to answer.
    streams.over.cancel();
    streams.tasks.close();
    streams.tasks.wait().await;
}

fn beat(pulse: &watch::Sender<u64>) {
    pulse.send_modify(|beats| *beats = beats.wrapping_add(1));
}

/// Until nothing has moved for `limit`.
async fn quiet(felt: &mut watch::Receiver<u64>, limit: Duration) {
    while let Ok(Ok(())) = timeout(limit, felt.changed()).await {}
}

// === impl Streams ===

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let over = self.over.clone();
        let running = async move { over.run_until_cancelled(stream).await };
        self.tasks.spawn(running);
    }
}
