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
use http::{
    Method, Response,
    uri::{self, Authority, PathAndQuery, Scheme, Uri},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use swarm::source::Tunnels;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    activity::{Activity, Underway},
    body::AnswerBody,
    challenge::Vouchers,
    config::Config,
    engine::{Engine, Upstream},
    intercept::{Certificates, Handover, Interceptor, Met, Next},
    line::{Cut, Ending, Line},
    manifest::tags::Tags,
    metrics::Metrics,
    rights::Rights,
};

/// The mirror.
#[derive(Debug)]
pub struct Proxy {
    config: watch::Sender<Arc<Config>>,
    pub(crate) intercept: Interceptor,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tags: Tags,
    pub(crate) rights: Rights,
    pub(crate) vouchers: Vouchers,
}

/// What the composition root gives the proxy.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub engine: Arc<dyn Engine>,
    pub upstream: Arc<dyn Upstream>,
    /// Connects to what clients tunnel to.
    pub tunnels: Tunnels,
    /// Proves to clients to be the hosts that are intercepted.
    pub certificates: Arc<dyn Certificates>,
    pub metrics: Metrics,
    /// The wall clock: tells how old answers for tags are.
    pub clock: fn() -> SystemTime,
}

/// The connection on which requests come, and for whom they are.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) met: Met,
    /// The host as which this connection is answered, whatever its requests say.
    pub(crate) inside: Option<Authority>,
    pub(crate) is_http2: bool,
    pub(crate) is_tls: bool,
}

/// A head longer than this is refused. Bearer tokens of some clouds alone take 8 KiB.
pub(crate) const HEAD_LEN_MAX: usize = 64 * 1024;

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
            intercept: Interceptor::new(parts.tunnels, parts.certificates),
            engine: parts.engine,
            upstream: parts.upstream,
            metrics: Arc::new(parts.metrics),
            tags,
            rights: Rights::new(parts.clock),
            vouchers: Vouchers::new(),
        })
    }

    /// Runs on `config` from now on; a request under way ends as it began. What was set up by the old
    /// one (listeners, and the tags on disk) stays.
    pub fn reload(&self, config: Config) {
        self.tags.reload(&config);
        self.config.send_replace(Arc::new(config));
        self.rights.forget_all();
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Serves one connection until either side is done with it. When `shutdown` is cancelled, the
    /// answer under way is finished and no further request is read. `activity` is told what is under
    /// way; while nothing is, the connection may be dropped.
    pub async fn serve_connection<S>(
        self: Arc<Self>,
        mut stream: S,
        met: Met,
        shutdown: CancellationToken,
        activity: Arc<dyn Activity>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _open = self.metrics.connection();
        let cut = Cut::new(Ending::Fin, Underway::new(activity));
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
        let line = Line::new(
            stream,
            ahead,
            Arc::clone(&cut),
            self.config().client_stall_timeout,
        );
        if has_spoken && first[0] == TLS_HANDSHAKE {
            Box::pin(self.speak_tls(line, met, &shutdown)).await;
        } else if has_spoken {
            let stage = Arc::new(Stage {
                proxy: Arc::clone(&self),
                met,
                inside: None,
                is_http2: false,
                is_tls: false,
            });
            let (line, next) = Self::speak(&stage, line, cut, shutdown.clone()).await;
            match next {
                Some(next) => Box::pin(self.go_on(line, next, met, &shutdown)).await,
                None => line.close().await,
            }
        } else {
            line.close().await;
        }
    }

    /// TLS on the mirror's own port, where that is wanted.
    async fn speak_tls<S>(self: &Arc<Self>, line: Line<S>, met: Met, shutdown: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let left = match self.config().tls {
            true => self.serve_loopback(line, met, shutdown).await,
            false => Some(line),
        };
        if let Some(mut line) = left {
            let _ = timeout(FIRST_BYTE_TIMEOUT, line.write_all(NOT_TLS)).await;
            line.close().await;
        }
    }

    /// Answers the requests of one connection; gives it back, with what is next where a CONNECT was
    /// answered.
    pub(crate) async fn speak<S>(
        stage: &Arc<Stage>,
        line: Line<S>,
        cut: Arc<Cut>,
        shutdown: CancellationToken,
    ) -> (Line<S>, Option<Next>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handover = Handover::default();
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let (stage, cut) = (Arc::clone(stage), Arc::clone(&cut));
            let (handover, answering) = (Arc::clone(&handover), cut.begin());
            Box::pin(async move {
                let mut response = stage.respond(request, cut, Some(&handover)).await;
                response.body_mut().ends(answering);
                Ok::<_, Infallible>(response)
            })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(stage.proxy.config().idle_timeout)
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
        let parts = connection.into_parts();
        let mut line = parts.io.into_inner();
        let next = handover.lock().ok().and_then(|mut next| next.take());
        if next.is_some() {
            line.unread(parts.read_buf);
        }
        (line, next)
    }
}

// === impl Stage ===

impl Stage {
    /// The answer to one request. A CONNECT is answered only where `handover` takes what is next.
    pub(crate) async fn respond(
        &self,
        request: hyper::Request<hyper::body::Incoming>,
        cut: Arc<Cut>,
        handover: Option<&Handover>,
    ) -> Response<AnswerBody> {
        let (mut parts, body) = request.into_parts();
        match (&self.inside, handover) {
            (None, Some(handover)) if parts.method == Method::CONNECT => {
                return self.proxy.connect(parts, self.met, handover, cut).await;
            }
            (Some(inside), _) => parts.uri = address(Some(inside), &parts.uri),
            // HTTP/2 has no origin form; the mirror is asked in it all the same.
            (None, _) if self.is_http2 => parts.uri = address(None, &parts.uri),
            (None, _) => {}
        }
        let scheme = if self.is_tls { "https" } else { "http" };
        let whence = self.met.whence(scheme);
        self.proxy.answer(parts, body, cut, whence).await
    }
}

/// The path of `uri` at `authority`, or alone.
fn address(authority: Option<&Authority>, uri: &Uri) -> Uri {
    let mut parts = uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    if let Some(authority) = authority {
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(authority.clone());
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
    }
    Uri::from_parts(parts).unwrap_or_default()
}
