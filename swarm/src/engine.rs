//! The engine of one host: finds or begins the one download of a task that all its readers share.
//!
//! Invariant: a task has at most one driver on this host at any time.

mod flight;
mod opening;
mod public;
mod shelf;
mod stored;
mod upkeep;

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use moka::future::Cache;
use protocol::{
    Host, HostId, Identity, Origin, TaskId, Want, availability::Availability, scheduler::Hello,
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::flight::{Entry, Flight};
use crate::{
    bandwidth::{Demand, Throttle},
    conductor::{self, Event, ReaderId},
    metrics::Metrics,
    open::{OpenError, OpenRequest, Wanted},
    peer::{Bans, Hub, HubConfig, Lent, PeerServer, PieceClient},
    reader::InterestGuard,
    session::{SchedulerAt, Sessions},
    source::Upstreams,
    store::Store,
    task::{
        ActiveTask, Message, Progress, Stage, TaskFailure,
        driver::{Driver, NOBODY},
        spoiled::Spoiled,
        surroundings::Surroundings,
    },
};

/// Downloads under way at once; the next is refused.
const TASKS_MAX: usize = 4096;

/// Orders to warm a task that wait before a scheduler's next one is dropped.
const WARM_QUEUE: usize = 1024;

/// The swarm on this host.
#[derive(Debug, Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

/// What the composition root gives the swarm.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub upstreams: Upstreams,
    pub identity: Identity,
    pub schedulers: Vec<SchedulerAt>,
    pub availability: Arc<dyn Availability>,
    pub pieces: PieceClient,
    pub seeds: Vec<Host>,
    pub limits: conductor::Limits,
    /// What orders keep to while nobody waits for what they want.
    pub prefetch: Throttle,
    pub metrics: Metrics,
}

/// A scheduler's order to have a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmOrder {
    pub task: TaskId,
    pub origin: Origin,
    /// The parts to have; none is the whole.
    pub wants: Vec<Want>,
    /// The scheduler that waits for it, which need not be the one that the ring names for the task
    /// here.
    pub by: HostId,
}

#[derive(Debug)]
struct Inner {
    surroundings: Surroundings,
    tasks: Mutex<HashMap<TaskId, Flight>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    next_reader: AtomicU64,
    warm: mpsc::Sender<WarmOrder>,
    prefetch: Throttle,
    /// Seeds that did not answer a moment ago.
    left: Cache<HostId, ()>,
    metrics: Metrics,
}

// === impl Swarm ===

impl Swarm {
    /// The swarm, and the orders to warm a task that schedulers give to this host.
    pub fn new(parts: Parts) -> (Self, mpsc::Receiver<WarmOrder>) {
        let (warm, orders) = mpsc::channel(WARM_QUEUE);
        let tracker = TaskTracker::new();
        let surroundings = Surroundings {
            store: parts.store,
            upstreams: parts.upstreams,
            identity: parts.identity,
            sessions: Sessions::new(parts.schedulers),
            hub: Hub::new(parts.availability, HubConfig::default()),
            pieces: parts.pieces,
            seeds: Arc::new(parts.seeds),
            limits: parts.limits,
            bans: Bans::default(),
            spoiled: Spoiled::default(),
            lent: Lent::default(),
        };
        let inner = Inner {
            surroundings,
            tasks: Mutex::default(),
            tracker,
            shutdown: CancellationToken::new(),
            next_reader: AtomicU64::new(NOBODY.0 + 1),
            warm,
            prefetch: parts.prefetch,
            left: Cache::builder()
                .max_capacity(public::LEFT_MAX)
                .time_to_live(public::LEFT_FOR)
                .build(),
            metrics: parts.metrics,
        };
        (
            Self {
                inner: Arc::new(inner),
            },
            orders,
        )
    }

    /// Keeps the sessions with the schedulers, who hear of the uploads of `server`, until
    /// `shutdown`, then ends every download: whoever reads one is cut, so `shutdown` is for when
    /// nobody does, or may any longer.
    pub async fn run(&self, hello: Hello, server: PeerServer, shutdown: CancellationToken) {
        let sessions = self.inner.surroundings.sessions.clone();
        let sessions = sessions.run(hello, Arc::new(self.clone()), shutdown.clone());
        tokio::join!(
            sessions,
            shutdown.run_until_cancelled(self.keep_up()),
            shutdown.run_until_cancelled(self.tell_load(server)),
        );
        self.store().stop();
        self.inner.shutdown.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
        self.inner.surroundings.hub.shutdown().await;
        self.inner.surroundings.pieces.shutdown().await;
    }

    pub(crate) fn upstreams(&self) -> &Upstreams {
        &self.inner.surroundings.upstreams
    }

    /// Open sessions with schedulers, of how many.
    pub fn sessions(&self) -> (usize, usize) {
        self.inner.surroundings.sessions.count()
    }

    /// The scheduler that decides about `task`; `None` while there is no session with any.
    pub fn scheduler_of(&self, task: TaskId) -> Option<HostId> {
        let sessions = &self.inner.surroundings.sessions;
        sessions.responsible(task).cloned()
    }

    /// Downloads under way: pieces had, of how many where that is known.
    pub fn downloads(&self) -> Vec<(TaskId, u32, Option<u32>)> {
        let tasks = self.flights();
        let told = tasks.iter().map(|(task, flight)| {
            let progress = flight.active.progress.borrow();
            let total = progress
                .content
                .as_ref()
                .and_then(|content| content.layout.piece_count());
            (*task, progress.held.len(), total)
        });
        told.collect()
    }

    /// A driver for `request` whatever the store has: a piece of it was lost.
    pub(crate) async fn start_again(&self, request: &OpenRequest) -> ActiveTask {
        match self.join_or_start(request, Wanting::Reader) {
            Ok((active, _)) => active,
            Err(_) => {
                let (inbox, _) = mpsc::channel(1);
                let failed = Stage::Failed(TaskFailure::Cancelled);
                let (_, progress) = watch::channel(Progress {
                    stage: failed,
                    ..Progress::default()
                });
                ActiveTask { inbox, progress }
            }
        }
    }

    /// Tells the driver what a new reader wants.
    pub(crate) async fn interest(
        &self,
        inbox: &mpsc::Sender<Message>,
        request: &OpenRequest,
        range: Range<u64>,
    ) -> InterestGuard {
        let reader = self.new_reader();
        let interest = request.wanted.interest_in(&range);
        // A driver that is gone is found out by whoever waits for its progress.
        let _ = inbox
            .send(Message::Plan(Event::ReaderJoined(reader, interest)))
            .await;
        InterestGuard {
            reader,
            inbox: inbox.clone(),
            told: range.start,
        }
    }

    /// Every download under way.
    fn flights(&self) -> MutexGuard<'_, HashMap<TaskId, Flight>> {
        let tasks = &self.inner.tasks;
        tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the driver of `task` is told something, if it is under way.
    fn inbox_of(&self, task: TaskId) -> Option<mpsc::Sender<Message>> {
        let flights = self.flights();
        flights.get(&task).map(|flight| flight.active.inbox.clone())
    }

    fn new_reader(&self) -> ReaderId {
        ReaderId(self.inner.next_reader.fetch_add(1, Ordering::Relaxed))
    }

    fn join_or_start(
        &self,
        request: &OpenRequest,
        wanting: Wanting,
    ) -> Result<(ActiveTask, Entry), OpenError> {
        let mut tasks = self.flights();
        let own = request
            .credential
            .as_ref()
            .map(|credential| credential.fingerprint());
        if let Some(flight) = tasks.get(&request.task)
            && !flight.active.inbox.is_closed()
        {
            wanting.raise(&flight.demand);
            return Ok((
                flight.active.clone(),
                Entry::Joined(flight.begun(request, own)),
            ));
        }
        if self.inner.shutdown.is_cancelled() {
            return Err(OpenError::ShuttingDown);
        }
        if TASKS_MAX <= tasks.len() {
            return Err(OpenError::Overloaded);
        }
        let demand = Demand::default();
        wanting.raise(&demand);
        let (driver, inbox, progress) = Driver::new(self.surroundings(&demand), request.clone());
        let active = ActiveTask {
            inbox: inbox.clone(),
            progress,
        };
        tasks.insert(
            request.task,
            Flight {
                active: active.clone(),
                origin: request.origin.clone(),
                credential: own,
                demand,
            },
        );
        self.inner.metrics.tasks.set(tasks.len() as i64);
        drop(tasks);
        self.inner
            .tracker
            .spawn(self.clone().drive(driver, request.task, inbox));
        Ok((active, Entry::Started))
    }

    /// What a driver needs, limited while nobody waits for the task.
    fn surroundings(&self, demand: &Demand) -> Surroundings {
        let Inner {
            surroundings,
            prefetch,
            ..
        } = self.inner.as_ref();
        Surroundings {
            upstreams: surroundings.upstreams.until(demand, prefetch),
            pieces: surroundings.pieces.until(demand, prefetch),
            ..surroundings.clone()
        }
    }

    async fn drive(self, driver: Driver, task: TaskId, inbox: mpsc::Sender<Message>) {
        let ended = self
            .inner
            .shutdown
            .clone()
            .run_until_cancelled_owned(Box::pin(driver.run()))
            .await;
        if let Some(Stage::Failed(TaskFailure::Corrupt)) = ended {
            tracing::warn!(%task, "the body did not match its digest; nothing of it is kept");
        }
        self.inner.metrics.ended(ended.as_ref());
        let mut tasks = self.flights();
        // A new download may have begun meanwhile.
        if tasks
            .get(&task)
            .is_some_and(|flight| flight.active.inbox.same_channel(&inbox))
        {
            tasks.remove(&task);
        }
        self.inner.metrics.tasks.set(tasks.len() as i64);
    }

    /// The missing tail would complete a body whose head was wrong.
    fn refuse_resume_of_spoiled(&self, request: &OpenRequest) -> Result<(), OpenError> {
        let is_resume = !matches!(request.wanted, Wanted::Whole | Wanted::From { start: 0 });
        let spoiled = &self.inner.surroundings.spoiled;
        match is_resume && spoiled.is_suspect(clock(), request.task) {
            true => Err(OpenError::ResumeRefused),
            false => Ok(()),
        }
    }
}

/// For whom a download is begun or joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanting {
    /// Somebody waits for the bytes.
    Reader,
    /// It is to be had for later.
    Order,
}

impl Wanting {
    fn raise(self, demand: &Demand) {
        match self {
            Self::Reader => demand.raise(),
            Self::Order => {}
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the engine is the clock of its memory"
)]
fn clock() -> Instant {
    Instant::now()
}
