//! The sessions of this host with its schedulers: opened, kept open, and opened again.
//!
//! A task belongs to the scheduler that the ring names for it, over those with an open session; what
//! any other says of it is not heard, so that a task that has moved has one scheduler. Whoever has no
//! open session goes on without: the callers here never wait for a scheduler that is away.

use std::{sync::Arc, time::Duration};

use protocol::{
    Down, HostId, Scheduler, TaskId, Up, ring,
    scheduler::{Hello, Session, TASKS_PER_MESSAGE_MAX},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A message that the scheduler's full queue does not take in this time is dropped with the session.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause before a lost session is opened again: doubles from the first to the second.
const REOPEN_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// One scheduler that the configuration or the composition root names.
#[derive(Debug, Clone)]
pub struct SchedulerAt {
    pub id: HostId,
    pub scheduler: Arc<dyn Scheduler>,
}

/// What a session brings to this host.
#[async_trait::async_trait]
pub(crate) trait Inbox: Send + Sync + std::fmt::Debug {
    /// The tasks that are held whole, to be told when a session opens.
    async fn tasks_held(&self) -> Vec<TaskId>;
    /// A session has opened or is lost: whoever is fetching may have another scheduler now.
    async fn sessions_changed(&self);
    /// `scheduler` says `down`.
    async fn told(&self, scheduler: &HostId, down: Down);
}

/// The senders of all sessions, as far as they are open.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    links: Arc<Vec<Link>>,
}

#[derive(Debug)]
struct Link {
    at: SchedulerAt,
    open: watch::Sender<Option<mpsc::Sender<Up>>>,
}

// === impl Sessions ===

impl Sessions {
    pub(crate) fn new(schedulers: Vec<SchedulerAt>) -> Self {
        let link = |at| Link {
            at,
            open: watch::Sender::new(None),
        };
        Self {
            links: Arc::new(schedulers.into_iter().map(link).collect()),
        }
    }

    /// Sends `message`, which speaks of `task`, to that task's scheduler. `false` where there is
    /// no session, or one that does not take it.
    pub(crate) async fn send(&self, task: TaskId, message: Up) -> bool {
        match self.link_of(task) {
            Some(link) => link.send(message).await,
            None => false,
        }
    }

    /// Sends `message` to the scheduler `id`, whichever tasks are its own.
    pub(crate) async fn send_to(&self, id: &HostId, message: Up) -> bool {
        match self.links.iter().find(|link| link.at.id == *id) {
            Some(link) => link.send(message).await,
            None => false,
        }
    }

    /// The scheduler that `task` belongs to now.
    pub(crate) fn responsible(&self, task: TaskId) -> Option<&HostId> {
        self.link_of(task).map(|link| &link.at.id)
    }

    /// Tells every open session what this host gives to others. One whose queue is full is passed
    /// over: by the time it could take the message, the numbers would be old.
    pub(crate) fn tell_load(&self, uploads: u32, upload_rate: u64) {
        for link in self.links.iter() {
            if let Some(sender) = link.open.borrow().as_ref() {
                let _ = sender.try_send(Up::Load {
                    uploads,
                    upload_rate,
                });
            }
        }
    }

    /// Whether there is any scheduler to have a session with.
    pub(crate) fn are_named(&self) -> bool {
        !self.links.is_empty()
    }

    /// How many sessions are open, of how many.
    pub(crate) fn count(&self) -> (usize, usize) {
        let open = self
            .links
            .iter()
            .filter(|link| link.open.borrow().is_some())
            .count();
        (open, self.links.len())
    }

    /// Keeps every session open until `shutdown`.
    pub(crate) async fn run(
        self,
        hello: Hello,
        inbox: Arc<dyn Inbox>,
        shutdown: CancellationToken,
    ) {
        let keep = |index: usize| self.keep_open(index, hello.clone(), inbox.clone());
        let all = futures_util::future::join_all((0..self.links.len()).map(keep));
        shutdown.run_until_cancelled(all).await;
        for link in self.links.iter() {
            link.open.send_replace(None);
        }
    }

    fn link_of(&self, task: TaskId) -> Option<&Link> {
        let open = || {
            self.links
                .iter()
                .filter(|link| link.open.borrow().is_some())
        };
        let id = ring::responsible(task, open().map(|link| &link.at.id))?;
        self.links.iter().find(|link| link.at.id == *id)
    }

    async fn keep_open(&self, index: usize, hello: Hello, inbox: Arc<dyn Inbox>) {
        let link = &self.links[index];
        let mut pause = REOPEN_PAUSE.0;
        loop {
            match link.at.scheduler.open(hello.clone()).await {
                Ok(session) => {
                    tracing::info!(scheduler = %link.at.id, "session open");
                    pause = REOPEN_PAUSE.0;
                    self.serve(link, session, inbox.as_ref()).await;
                    tracing::warn!(scheduler = %link.at.id, "session lost; opening it again");
                    link.open.send_replace(None);
                    inbox.sessions_changed().await;
                }
                Err(error) => {
                    tracing::warn!(scheduler = %link.at.id, %error, retry_in = ?pause, "no session");
                }
            }
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(REOPEN_PAUSE.1);
        }
    }

    /// Announces what is held, then hands on what the scheduler says until the session ends.
    async fn serve(&self, link: &Link, mut session: Session, inbox: &dyn Inbox) {
        for tasks in inbox.tasks_held().await.chunks(TASKS_PER_MESSAGE_MAX) {
            let held = Up::Held {
                tasks: tasks.to_vec(),
            };
            if session.up.send(held).await.is_err() {
                return;
            }
        }
        link.open.send_replace(Some(session.up));
        inbox.sessions_changed().await;
        while let Some(down) = session.down.recv().await {
            if self.may_tell(&link.at.id, &down) {
                inbox.told(&link.at.id, down).await;
            }
        }
    }

    /// Any scheduler may order a host to warm: it has one download of a task at most, and tells all
    /// that ordered it how that goes.
    fn may_tell(&self, scheduler: &HostId, down: &Down) -> bool {
        matches!(down, Down::Warm { .. }) || self.responsible(down.task()) == Some(scheduler)
    }
}

// === impl Link ===

impl Link {
    async fn send(&self, message: Up) -> bool {
        let sender = self.open.borrow().clone();
        match sender {
            Some(sender) => sender.send_timeout(message, SEND_TIMEOUT).await.is_ok(),
            None => false,
        }
    }
}
