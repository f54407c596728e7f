//! Serves connections of container runtimes: one HTTP/1.1 connection after another, each driven to
//! an orderly end. Binds nothing and spawns nothing; whoever accepts connections owns their tasks.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    engine::{Engine, Upstream},
    line::{Cut, Line},
    manifest::tags::Tags,
    metrics::Metrics,
};

/// The mirror.
#[derive(Debug)]
pub struct Proxy {
    config: watch::Sender<Arc<Config>>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tags: Tags,
}

/// What the composition root gives the proxy.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub engine: Arc<dyn Engine>,
    pub upstream: Arc<dyn Upstream>,
    pub metrics: Metrics,
    /// The wall clock: tells how old answers for tags are.
    pub clock: fn() -> SystemTime,
}

/// A head longer than this is refused. Bearer tokens of some clouds alone take 8 KiB.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// A new connection must say something within this time.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// The first byte of a TLS record that holds a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// podman, containerd 2 and others try TLS first, and go on in clear only if they see HTTP.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 46\r\nConnection: close\r\n\r\n\
    this port speaks plain HTTP; use http:// here\n";

// === impl Proxy ===

impl Proxy {
    /// Reads from disk which tags are remembered.
    pub async fn new(parts: Parts) -> io::Result<Self> {
        let tags = Tags::open(&parts.config, parts.clock).await?;
        Ok(Self {
            config: watch::Sender::new(Arc::new(parts.config)),
            engine: parts.engine,
            upstream: parts.upstream,
            metrics: Arc::new(parts.metrics),
            tags,
        })
    }

    /// Runs on `config` from now on; a request under way ends as it began. What was set up by the old
    /// one (listeners, and the tags on disk) stays.
    pub fn reload(&self, config: Config) {
        self.tags.reload(&config);
        self.config.send_replace(Arc::new(config));
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Serves one connection until either side is done with it. When `shutdown` is cancelled, the
    /// answer under way is finished and no further request is read.
    pub async fn serve_connection<S>(self: Arc<Self>, mut stream: S, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.metrics.connections.inc();
        let cut = Arc::new(Cut::default());
        let mut first = [0; 1];
        let opened = tokio::select! {
            read = timeout(FIRST_BYTE_TIMEOUT, stream.read(&mut first)) => read,
            () = shutdown.cancelled() => Ok(Ok(0)),
        };
        let has_spoken = matches!(opened, Ok(Ok(len)) if len > 0);
        let ahead = if has_spoken {
            Bytes::copy_from_slice(&first)
        } else {
            Bytes::new()
        };
        let mut line = Line::new(
            stream,
            ahead,
            Arc::clone(&cut),
            self.config().client_stall_timeout,
        );
        if has_spoken && first[0] == TLS_HANDSHAKE {
            let _ = timeout(FIRST_BYTE_TIMEOUT, line.write_all(NOT_TLS)).await;
        } else if has_spoken {
            line = Self::speak(&self, line, cut, shutdown).await;
        }
        line.close().await;
        self.metrics.connections.dec();
    }

    async fn speak<S>(
        self: &Arc<Self>,
        line: Line<S>,
        cut: Arc<Cut>,
        shutdown: CancellationToken,
    ) -> Line<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let (proxy, cut) = (Arc::clone(self), Arc::clone(&cut));
            Box::pin(async move {
                let (parts, _) = request.into_parts();
                Ok::<_, Infallible>(proxy.answer(parts, cut).await)
            })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config().idle_timeout)
            .max_buf_size(HEAD_LEN_MAX)
            .half_close(true)
            .serve_connection(TokioIo::new(line), service);
        let mut draining = false;
        let mut shutdown = pin!(shutdown.cancelled());
        poll_fn(|context| {
            if !draining && shutdown.as_mut().poll(context).is_ready() {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
            match connection.poll_without_shutdown(context) {
                // What hyper complains of, the client has seen or caused: it is gone, or was answered.
                Poll::Ready(Ok(()) | Err(_)) => Poll::Ready(()),
                Poll::Pending if cut.is_done() => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        connection.into_parts().io.into_inner()
    }
}
