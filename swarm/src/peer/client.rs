//! Fetches runs of pieces from parents over pooled, kept-alive connections.
//!
//! A request whose stream is dropped is read to its end in the background, within a bound, so that
//! its connection is kept. What the bytes are worth is not judged here.

use std::{future::Future, ops::Range, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper_util::{client::legacy, rt::TokioTimer};
use protocol::{
    AttemptId, Host, Identity, Layout, PieceIndex, TaskId, identity::IdentityError,
    scheduler::ParentFailure,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    dial::Dialer,
    exchange::{Connections, Exchange},
    metrics::{Fetch, PeerMetrics},
    request::Asker,
};
use crate::bandwidth::{Demand, Pace, Throttle};

/// Whole pieces that wait for the reader of a [`PieceStream`]; the parent waits beyond them.
const PIECES_WAITING: usize = 1;

/// Asks parents for pieces. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PieceClient {
    inner: Arc<Inner>,
    pace: Pace,
}

/// The bounds of a [`PieceClient`].
#[derive(Debug, Clone)]
pub struct PieceClientConfig {
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// For a whole run, without what it waits for this host's own limit; the conductor gives up
    /// earlier.
    pub run_timeout: Duration,
    /// Below the idle time of the peer server, so that this side closes first.
    pub idle_timeout: Duration,
    pub idle_connections_per_host: usize,
    /// A dropped run with more than this still to come loses its connection.
    pub drain_bytes_max: u64,
    pub drain_timeout: Duration,
    /// What all runs together keep to.
    pub throttle: Throttle,
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
    client: Connections,
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
        let pace = Pace::new(config.throttle.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                config,
                metrics,
                tasks,
                stop,
            }),
            pace,
        })
    }

    /// The same client, for runs that keep to `prefetch` as well until `demand` is raised.
    pub(crate) fn until(&self, demand: &Demand, prefetch: &Throttle) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            pace: self.pace.until(demand, prefetch),
        }
    }

    /// Whether runs wait now for this host's own limit, so that no parent is to blame for being
    /// slow.
    pub fn is_throttled(&self) -> bool {
        self.pace.is_short()
    }

    /// Asks `parent` for `run`. What goes wrong is told by the stream.
    pub fn fetch(&self, parent: &Host, run: PieceRun) -> PieceStream {
        let (sender, arriving) = mpsc::channel(PIECES_WAITING);
        let due = run.pieces.clone();
        let (inner, parent) = (Arc::clone(&self.inner), parent.clone());
        let exchange = Exchange {
            run,
            pace: self.pace.clone(),
            sender,
        };
        self.inner.tasks.spawn(async move {
            let stop = inner.stop.clone();
            let fetching = pin!(inner.fetch(&parent, exchange));
            stop.run_until_cancelled(fetching).await;
        });
        PieceStream { arriving, due }
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.inner.client
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
            throttle: Throttle::default(),
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
    async fn fetch(&self, parent: &Host, exchange: Exchange) {
        let sender = &exchange.sender;
        let mut going = pin!(exchange.go(&self.client, &self.config, &self.metrics, parent));
        let finished = tokio::select! {
            finished = &mut going => finished,
            () = sender.closed() => {
                // Nobody wants it any more. What is on its way is read, for the connection's sake.
                let _ = timeout(self.config.drain_timeout, &mut going).await;
                self.metrics.fetched(Fetch::Cancelled);
                return;
            }
        };
        match finished {
            Ok(()) => self.metrics.fetched(Fetch::Complete),
            Err(error) => {
                self.metrics.fetched(error.outcome());
                let _ = sender.send(Err(error)).await;
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
