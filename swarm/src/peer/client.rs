//! Fetches runs of pieces from parents over pooled, kept-alive connections.
//!
//! Pieces are handed on one by one as each is whole. A request whose stream is dropped is read to
//! its end in the background, within a bound, so that its connection is kept. What the bytes are
//! worth is not judged here, only that they are as many as the layout says.

use std::{future::Future, ops::Range, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper_util::{client::legacy, rt::TokioTimer};
use protocol::{
    AttemptId, Host, Identity, Layout, PieceIndex, TaskId, identity::IdentityError,
    scheduler::ParentFailure,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    assembly::Assembly,
    dial::Dialer,
    metrics::{Fetch, PeerMetrics},
    request::{Asker, PieceRequest},
};

/// Whole pieces that wait for the reader of a [`PieceStream`]; the parent waits beyond them.
const PIECES_WAITING: usize = 1;

/// Asks parents for pieces. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PieceClient {
    inner: Arc<Inner>,
}

/// The bounds of a [`PieceClient`].
#[derive(Debug, Clone)]
pub struct PieceClientConfig {
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// For a whole run; the conductor gives up earlier.
    pub run_timeout: Duration,
    /// Below the idle time of the peer server, so that this side closes first.
    pub idle_timeout: Duration,
    pub idle_connections_per_host: usize,
    /// A dropped run with more than this still to come loses its connection.
    pub drain_bytes_max: u64,
    pub drain_timeout: Duration,
}

/// A run of pieces of one attempt: at most 1 MiB of them, or one piece.
#[derive(Debug, Clone)]
pub struct PieceRun {
    pub task: TaskId,
    pub attempt: AttemptId,
    pub layout: Layout,
    pub pieces: Range<u32>,
    /// What this host is to the one that it asks, by which its slots are given out.
    pub asker: Asker,
}

/// The pieces of one run as they arrive, in order.
#[derive(Debug)]
pub struct PieceStream {
    arriving: mpsc::Receiver<Result<(PieceIndex, Bytes), PieceError>>,
    /// Pieces still to come; empty after an error.
    due: Range<u32>,
}

/// Why a run ended before its last piece. None of these is a lie of the parent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    #[error("no connection to the parent, or it broke: {0}")]
    Unreachable(String),
    #[error("the parent has no upload slot free")]
    Busy,
    #[error("the parent does not hold these pieces")]
    Gone,
    #[error("the parent took too long")]
    Slow,
    #[error("the parent does not speak as it should: {0}")]
    Malformed(&'static str),
}

struct Inner {
    client: legacy::Client<Dialer, Empty<Bytes>>,
    config: PieceClientConfig,
    metrics: PeerMetrics,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Runs hyper's connection tasks on the tracker that shutdown awaits.
#[derive(Clone)]
struct TrackedExecutor {
    tasks: TaskTracker,
    stop: CancellationToken,
}

type Arriving = mpsc::Sender<Result<(PieceIndex, Bytes), PieceError>>;

// === impl PieceClient ===

impl PieceClient {
    /// A client that dials as `identity`.
    ///
    /// # Errors
    /// TLS cannot be set up with this identity.
    pub fn new(
        identity: &Identity,
        config: PieceClientConfig,
        metrics: PeerMetrics,
    ) -> Result<Self, IdentityError> {
        let opened = metrics.fetch_connections.clone();
        let dialer = Dialer::new(identity, config.connect_timeout, opened)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let executor = TrackedExecutor {
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let client = legacy::Client::builder(executor)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.idle_connections_per_host)
            .build(dialer);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                config,
                metrics,
                tasks,
                stop,
            }),
        })
    }

    /// Asks `parent` for `run`. What goes wrong is told by the stream.
    pub fn fetch(&self, parent: &Host, run: PieceRun) -> PieceStream {
        let (sender, arriving) = mpsc::channel(PIECES_WAITING);
        let due = run.pieces.clone();
        let (inner, parent) = (Arc::clone(&self.inner), parent.clone());
        self.inner.tasks.spawn(async move {
            let stop = inner.stop.clone();
            let fetching = pin!(inner.fetch(&parent, &run, sender));
            stop.run_until_cancelled(fetching).await;
        });
        PieceStream { arriving, due }
    }

    /// Ends every run and connection and waits for them.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Default for PieceClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            run_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(45),
            idle_connections_per_host: 8,
            drain_bytes_max: 1024 * 1024,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

// === impl PieceStream ===

impl PieceStream {
    /// The next piece of the run; `None` after the last one or after an error.
    pub async fn next(&mut self) -> Option<Result<(PieceIndex, Bytes), PieceError>> {
        if self.due.is_empty() {
            return None;
        }
        match self.arriving.recv().await {
            Some(Ok(piece)) => {
                self.due.start += 1;
                Some(Ok(piece))
            }
            Some(Err(error)) => {
                self.due = 0..0;
                Some(Err(error))
            }
            None => {
                self.due = 0..0;
                Some(Err(PieceError::Unreachable(
                    "the client was shut down".to_owned(),
                )))
            }
        }
    }
}

// === impl PieceError ===

impl PieceError {
    /// What the scheduler is told of the parent.
    pub fn parent_failure(&self) -> ParentFailure {
        match self {
            Self::Unreachable(_) | Self::Malformed(_) => ParentFailure::Unreachable,
            Self::Busy => ParentFailure::Busy,
            Self::Gone => ParentFailure::Gone,
            Self::Slow => ParentFailure::Slow,
        }
    }

    fn outcome(&self) -> Fetch {
        match self {
            Self::Unreachable(_) => Fetch::Unreachable,
            Self::Busy => Fetch::Busy,
            Self::Gone => Fetch::Gone,
            Self::Slow => Fetch::Slow,
            Self::Malformed(_) => Fetch::Malformed,
        }
    }
}

// === impl Inner ===

impl Inner {
    async fn fetch(&self, parent: &Host, run: &PieceRun, sender: Arriving) {
        let mut exchange = pin!(self.exchange(parent, run, &sender));
        let finished = tokio::select! {
            finished = timeout(self.config.run_timeout, &mut exchange) => finished,
            () = sender.closed() => {
                // Nobody wants it any more. What is on its way is read, for the connection's sake.
                let _ = timeout(self.config.drain_timeout, &mut exchange).await;
                self.metrics.fetched(Fetch::Cancelled);
                return;
            }
        };
        match finished.unwrap_or(Err(PieceError::Slow)) {
            Ok(()) => self.metrics.fetched(Fetch::Complete),
            Err(error) => {
                self.metrics.fetched(error.outcome());
                let _ = sender.send(Err(error)).await;
            }
        }
    }

    async fn exchange(
        &self,
        parent: &Host,
        run: &PieceRun,
        sender: &Arriving,
    ) -> Result<(), PieceError> {
        let (request, announced) = request(parent, run)?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| broken(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(PieceError::Gone),
            StatusCode::SERVICE_UNAVAILABLE => return Err(PieceError::Busy),
            _ => return Err(PieceError::Malformed("the status is unknown")),
        }
        let mut body = response.into_body();
        let rest = checked_length(&body, run, announced)?;
        let mut assembly = Assembly::new(run, rest);
        while let Some(bytes) = next_bytes(&mut body).await? {
            assembly.rest = assembly.rest.saturating_sub(bytes.len() as u64);
            if sender.is_closed() && assembly.rest > self.config.drain_bytes_max {
                return Ok(());
            }
            self.take(&mut assembly, bytes, sender).await;
        }
        match assembly.is_whole() {
            true => Ok(()),
            false => Err(PieceError::Malformed("the body ended early")),
        }
    }

    /// Adds `bytes` to the run and hands on each piece that they make whole.
    async fn take(&self, assembly: &mut Assembly<'_>, mut bytes: Bytes, sender: &Arriving) {
        while !bytes.is_empty() {
            let lacking = assembly.lacking();
            if lacking == 0 {
                return;
            }
            let part = bytes.split_to(lacking.min(bytes.len()));
            if let Some((index, piece)) = assembly.add(part) {
                self.metrics.fetch_bytes.inc_by(piece.len() as u64);
                // A stream that was dropped is being drained: its pieces go nowhere.
                let _ = sender.send(Ok((index, piece))).await;
            }
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PieceClient")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// === impl TrackedExecutor ===

impl<F> hyper::rt::Executor<F> for TrackedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let stop = self.stop.clone();
        self.tasks
            .spawn(async move { stop.run_until_cancelled(task).await });
    }
}

/// The request for `run`, and how many bytes the layout says it has.
fn request(parent: &Host, run: &PieceRun) -> Result<(Request<Empty<Bytes>>, u64), PieceError> {
    const NOT_A_RUN: PieceError = PieceError::Malformed("what is asked is not a run of pieces");
    let asked = PieceRequest {
        task: run.task,
        attempt: run.attempt,
        pieces: run.pieces.clone(),
        asker: run.asker,
    };
    let bytes = asked.bytes(&run.layout).ok_or(NOT_A_RUN)?;
    let uri = Uri::builder()
        .scheme("https")
        .authority(parent.to_string())
        .path_and_query(asked.path_and_query())
        .build()
        .map_err(|_| PieceError::Unreachable(format!("{parent} cannot be dialled")))?;
    let request = Request::get(uri)
        .body(Empty::new())
        .map_err(|_| NOT_A_RUN)?;
    Ok((request, bytes.end - bytes.start))
}

/// How long the body will be, if that is what `run` has. Where the size of the whole body is not
/// known, the last piece may be shorter.
fn checked_length(body: &Incoming, run: &PieceRun, announced: u64) -> Result<u64, PieceError> {
    let told = body
        .size_hint()
        .exact()
        .ok_or(PieceError::Malformed("the body has no length"))?;
    let shortest = match run.layout.size() {
        Some(_) => announced,
        None => announced - run.layout.piece_len() + 1,
    };
    let holds = (shortest..=announced).contains(&told);
    holds
        .then_some(told)
        .ok_or(PieceError::Malformed("the body has the wrong length"))
}

async fn next_bytes(body: &mut Incoming) -> Result<Option<Bytes>, PieceError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn broken(error: &dyn std::error::Error) -> PieceError {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    PieceError::Unreachable(told)
}
