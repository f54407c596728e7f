//! Serves pieces to other hosts, and tells them what anybody may read, over HTTP/1.1 on connections that the appliance has accepted and
//! whose certificates it has checked, and takes in their availability streams.
//!
//! Only pieces of public content are served, and only those that are held and that a signed batch
//! covers. A connection on which nothing moves is closed, whatever the child is waiting for.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header, uri::PathAndQuery};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::{
    HostId, PeerIdentity,
    availability::{Subscriber, Subscribers},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admission::Ask,
    metrics::{PeerMetrics, Upload},
    public,
    request::PieceRequest,
    seats::Spreads,
    slots::Slots,
    subscribers,
    upload::{self, Answering, Held, UploadBody},
};
use crate::{
    bandwidth::Throttle,
    source::Question,
    task::{Shared, Shelf},
};

/// Bytes that hyper buffers of a connection, and so the longest request head. A body of which more
/// than this is unsent is not read on.
const CONNECTION_BUFFER: usize = 64 * 1024;

/// The peer server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerServer {
    inner: Arc<Inner>,
}

/// The bounds of a [`PeerServer`].
#[derive(Debug, Clone)]
pub struct PeerServerConfig {
    /// Requests for pieces that are answered at once; whoever gets no slot is told to come back.
    pub upload_slots: u32,
    /// Reads from the store that run at once.
    pub reads_at_once: usize,
    /// A connection on which nothing moved for so long is closed. Above the idle time of the piece
    /// client, so that the child closes first.
    pub idle_timeout: Duration,
    /// Availability streams of children.
    pub streams_max: usize,
    /// What all bodies together keep to.
    pub throttle: Throttle,
}

#[derive(Debug)]
struct Inner {
    shelf: Arc<dyn Shelf>,
    config: PeerServerConfig,
    metrics: PeerMetrics,
    slots: Slots,
    reads: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    spreads: Spreads,
    /// Whatever a child is being given: a task that it follows, an answer under way.
    fed: TaskTracker,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What one connection remembers between its requests.
#[derive(Debug)]
struct Connection {
    server: Arc<Inner>,
    child: HostId,
    /// Told of every sign of life: a request, or a part of a body taken.
    pulse: Arc<Notify>,
    /// The task that was asked for last, since most requests ask for the same.
    last: tokio::sync::Mutex<Option<(protocol::TaskId, Shared)>>,
}

// === impl PeerServer ===

impl PeerServer {
    pub fn new(shelf: Arc<dyn Shelf>, config: PeerServerConfig, metrics: PeerMetrics) -> Self {
        let slots = Slots::new(config.upload_slots, metrics.clone());
        let reads = Arc::new(Semaphore::new(config.reads_at_once));
        let streams = Arc::new(Semaphore::new(config.streams_max));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let inner = Inner {
            shelf,
            config,
            metrics,
            slots,
            reads,
            streams,
            spreads: Spreads::default(),
            fed: TaskTracker::new(),
            tasks,
            stop,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Answers the requests of `peer` on `io` until it leaves, is idle for too long, or `shutdown`
    /// is cancelled and the answer under way has ended.
    pub async fn serve_pieces<IO>(&self, io: IO, peer: PeerIdentity, shutdown: CancellationToken)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pulse = Arc::new(Notify::new());
        let connection = Arc::new(Connection {
            server: Arc::clone(&self.inner),
            child: peer.id.clone(),
            pulse: Arc::clone(&pulse),
            last: tokio::sync::Mutex::default(),
        });
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(connection.answer(&request).await) }
        });
        let idle_timeout = self.inner.config.idle_timeout;
        let mut serving = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(idle_timeout)
                .max_buf_size(CONNECTION_BUFFER)
                .serve_connection(TokioIo::new(io), service)
        );
        let mut is_draining = false;
        loop {
            tokio::select! {
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(child = %peer.id, %error, "a piece connection broke");
                    }
                    return;
                }
                () = shutdown.cancelled(), if !is_draining => {
                    is_draining = true;
                    serving.as_mut().graceful_shutdown();
                }
                moved = timeout(idle_timeout, pulse.notified()) => if moved.is_err() {
                    return tracing::debug!(child = %peer.id, "a piece connection stood still");
                },
            }
        }
    }

    /// Requests that are being answered with pieces now.
    pub fn uploads(&self) -> u32 {
        self.inner.slots.in_use()
    }

    /// Bytes of pieces given to other hosts since the start.
    pub fn bytes_sent(&self) -> u64 {
        self.inner.metrics.upload_bytes.get()
    }

    /// From here on no child may follow a task that it does not follow yet; waits until none
    /// follows any, and every answer is given.
    pub async fn finish(&self) {
        self.inner.fed.close();
        self.inner.fed.wait().await;
    }

    /// Ends the availability streams and waits for them. Connections end by their own token.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

#[async_trait::async_trait]
impl Subscribers for PeerServer {
    /// Serves the stream on a task of its own. One stream too many is dropped, by which it ends.
    async fn accept(&self, subscriber: Subscriber) {
        let inner = Arc::clone(&self.inner);
        let Ok(permit) = Arc::clone(&inner.streams).try_acquire_owned() else {
            return tracing::warn!(child = %subscriber.child, "too many availability streams");
        };
        self.inner.tasks.spawn(async move {
            inner.metrics.upload_streams.inc();
            let (shelf, spreads) = (Arc::clone(&inner.shelf), inner.spreads.clone());
            let serving = subscribers::serve(shelf, spreads, inner.fed.clone(), subscriber);
            inner.stop.run_until_cancelled(serving).await;
            inner.metrics.upload_streams.dec();
            drop(permit);
        });
    }
}

impl Default for PeerServerConfig {
    fn default() -> Self {
        Self {
            upload_slots: 64,
            reads_at_once: 8,
            idle_timeout: Duration::from_secs(60),
            streams_max: 4096,
            throttle: Throttle::default(),
        }
    }
}

// === impl Connection ===

impl Connection {
    async fn answer(&self, request: &Request<Incoming>) -> Response<UploadBody> {
        self.pulse.notify_one();
        if let Some(question) = public::question(request.uri().path()) {
            return self.public(request, &question).await;
        }
        let (outcome, response) = match self.pieces(request).await {
            Ok(response) => (Upload::Served, response),
            Err(refusal) => (refusal, refused(refusal)),
        };
        self.server.metrics.uploaded(outcome);
        response
    }

    /// What anybody may read.
    async fn public(
        &self,
        request: &Request<Incoming>,
        question: &Question,
    ) -> Response<UploadBody> {
        if request.method() != Method::HEAD || !request.body().is_end_stream() {
            return refused(Upload::Malformed);
        }
        let age_max = public::age_max(request.headers());
        match self.server.shelf.public(question, age_max).await {
            Some(told) => public::head(&told)
                .body(upload::empty())
                .unwrap_or_else(|_| refused(Upload::Malformed)),
            None => refused(Upload::Gone),
        }
    }

    async fn pieces(&self, request: &Request<Incoming>) -> Result<Response<UploadBody>, Upload> {
        if request.method() != Method::GET || !request.body().is_end_stream() {
            return Err(Upload::Malformed);
        }
        let (uri, server) = (request.uri(), &self.server);
        let asked = uri.path_and_query().map(PathAndQuery::as_str);
        let asked = asked.and_then(PieceRequest::parse);
        let asked = asked.ok_or(Upload::Malformed)?;
        server.slots.check_any_free().map_err(Upload::Busy)?;
        let held = self.held(&asked).await?;
        let ask = Ask {
            asker: asked.asker,
            host: self.child.clone(),
            task: asked.task,
            size: held.size,
        };
        let answering = Answering {
            _slot: server.slots.admit(ask).map_err(Upload::Busy)?,
            _fed: server.fed.token(),
            metrics: server.metrics.clone(),
            pulse: Arc::clone(&self.pulse),
            reads: Arc::clone(&server.reads),
            throttle: server.config.throttle.clone(),
            _giving: server
                .spreads
                .giving(asked.task, held.layout, asked.pieces.clone()),
        };
        let length = held.bytes.end - held.bytes.start;
        let body = upload::body(held, answering).await.map_err(|error| {
            tracing::warn!(task = %asked.task, %error, "held pieces cannot be read");
            Upload::Gone
        })?;
        Response::builder()
            .header(header::CONTENT_LENGTH, length)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(body)
            .map_err(|_| Upload::Malformed)
    }

    /// Where the pieces that are asked for lie, if they may be given out.
    async fn held(&self, asked: &PieceRequest) -> Result<Held, Upload> {
        let mut last = self.last.lock().await;
        if let Some((task, shared)) = last.as_ref()
            && *task == asked.task
            && let Ok(held) = Held::find(asked, &shared.progress.borrow())
        {
            return Ok(held);
        }
        *last = None;
        let shared = self
            .server
            .shelf
            .follow(asked.task)
            .await
            .ok_or(Upload::Gone)?;
        let held = Held::find(asked, &shared.progress.borrow());
        *last = Some((asked.task, shared));
        held
    }
}

fn refused(refusal: Upload) -> Response<UploadBody> {
    let mut response = Response::new(upload::empty());
    *response.status_mut() = match refusal {
        Upload::Served => StatusCode::OK,
        Upload::Gone => StatusCode::NOT_FOUND,
        Upload::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        Upload::Malformed => StatusCode::BAD_REQUEST,
    };
    response
}
