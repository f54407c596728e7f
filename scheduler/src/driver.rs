//! Owns the engine: carries messages between sessions and the engine, and is its clock.
//!
//! It decides nothing about tasks. One task runs [`SchedulerDriver::run`] and alone touches the
//! engine; one more per session moves that session's messages. The driver never waits for a host:
//! what a host does not read is kept up to [`OUTBOX`] messages and [`crate::carrier::OVERRUN`] long, then the host
//! is disconnected, since one that missed an answer is better off opening a new session.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use protocol::{
    HostId, Operator, Scheduler, Session, Up,
    operator::{Explanation, PreheatOrder, PreheatProgress, Question, Snapshot},
    scheduler::{Hello, SessionEnd, SessionError},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    carrier::{Carrier, Ending, Heard},
    config::Config,
    engine::{Command, Engine, Event},
    followers::Followers,
    metrics::{Answer, Closed, Metrics},
};

/// Messages for one host that wait here beside those in the session; one more closes the session.
pub const OUTBOX: usize = 4096;

/// Messages from all hosts that wait for the engine; the sessions wait when it is full.
const INBOX: usize = 1024;

/// Calls of the service that wait for the driver; callers wait when it is full.
const REQUESTS: usize = 64;

/// Messages handled before anything else gets its turn.
const BATCH: usize = 64;

/// Opens sessions with, and answers questions about, a running [`SchedulerDriver`].
#[derive(Debug, Clone)]
pub struct SchedulerService {
    requests: mpsc::Sender<Request>,
}

/// The engine and its sessions; nothing happens unless it is run.
#[derive(Debug)]
pub struct SchedulerDriver {
    engine: Engine,
    metrics: Metrics,
    requests: mpsc::Receiver<Request>,
    inbox: mpsc::Receiver<Heard>,
    inbox_sender: mpsc::Sender<Heard>,
    carriers: JoinSet<Ending>,
    sessions: BTreeMap<u64, OpenSession>,
    by_host: BTreeMap<HostId, u64>,
    sessions_opened: u64,
    followers: Followers,
}

#[derive(Debug)]
enum Request {
    Open {
        end: SessionEnd,
        taken: oneshot::Sender<Result<(), SessionError>>,
    },
    Snapshot {
        listed_max: usize,
        reply: oneshot::Sender<Snapshot>,
    },
    Explain {
        question: Question,
        reply: oneshot::Sender<Vec<Explanation>>,
    },
    Preheat {
        order: PreheatOrder,
        taken: oneshot::Sender<Preheating>,
    },
}

type Preheating = Result<mpsc::Receiver<PreheatProgress>, SessionError>;

#[derive(Debug)]
struct OpenSession {
    host: HostId,
    outbox: mpsc::Sender<protocol::Down>,
    carrier: tokio::task::AbortHandle,
}

// === impl SchedulerService ===

impl SchedulerService {
    /// A scheduler of a cluster whose view names `seeds`, and the driver that must be run for it
    /// to answer. Without names, whoever joins as a seed is one.
    pub fn new(
        config: &Config,
        seeds: Vec<HostId>,
        metrics: Metrics,
    ) -> (Arc<Self>, SchedulerDriver) {
        let (request_sender, requests) = mpsc::channel(REQUESTS);
        let (inbox_sender, inbox) = mpsc::channel(INBOX);
        let driver = SchedulerDriver {
            engine: Engine::new(config.limits(), seeds),
            metrics,
            requests,
            inbox,
            inbox_sender,
            carriers: JoinSet::new(),
            sessions: BTreeMap::new(),
            by_host: BTreeMap::new(),
            sessions_opened: 0,
            followers: Followers::default(),
        };
        (
            Arc::new(Self {
                requests: request_sender,
            }),
            driver,
        )
    }

    async fn ask(&self, request: Request) -> Result<(), SessionError> {
        self.requests.send(request).await.map_err(|_| stopped())
    }
}

#[async_trait::async_trait]
impl Scheduler for SchedulerService {
    async fn open(&self, hello: Hello) -> Result<Session, SessionError> {
        let (session, end) = Session::pair(hello);
        let (taken, answer) = oneshot::channel();
        self.ask(Request::Open { end, taken }).await?;
        answer.await.map_err(|_| stopped())??;
        Ok(session)
    }
}

#[async_trait::async_trait]
impl Operator for SchedulerService {
    async fn preheat(&self, order: PreheatOrder) -> Preheating {
        let (taken, answer) = oneshot::channel();
        self.ask(Request::Preheat { order, taken }).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn snapshot(&self, listed_max: usize) -> Result<Snapshot, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Snapshot { listed_max, reply }).await?;
        answer.await.map_err(|_| stopped())
    }

    async fn explain(&self, question: Question) -> Result<Vec<Explanation>, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Explain { question, reply }).await?;
        answer.await.map_err(|_| stopped())
    }
}

fn stopped() -> SessionError {
    SessionError::Unreachable("it has stopped".to_owned())
}

// === impl SchedulerDriver ===

impl SchedulerDriver {
    /// Runs until `shutdown`. Then every session is closed and its carrier has ended.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let timeout = self.engine.poll_timeout();
            let expired = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(request) = self.requests.recv() => self.answer(request),
                // Before the endings: what a host said last is heard before it has left.
                _ = self.inbox.recv_many(&mut batch, BATCH) => self.hear(&mut batch),
                Some(ending) = self.carriers.join_next() => self.ended(ending.ok()),
                () = expired => {}
            }
            while let Some(ending) = self.carriers.try_join_next() {
                self.ended(ending.ok());
            }
            let now = now();
            if self.engine.poll_timeout().is_some_and(|at| at <= now) {
                self.engine.handle_timeout(now);
            }
            self.send_commands();
            self.followers.tell(&mut self.engine, &self.metrics);
            let (hosts, tasks) = self.engine.counts();
            self.metrics.counted(hosts, tasks);
        }
        self.sessions.clear();
        self.carriers.shutdown().await;
    }

    fn answer(&mut self, request: Request) {
        // Whoever asked may have gone; then nobody misses the answer.
        match request {
            Request::Open { end, taken } => {
                let outcome = self.open(end);
                let _ = taken.send(outcome);
            }
            Request::Snapshot { listed_max, reply } => {
                let _ = reply.send(self.engine.snapshot(now(), listed_max));
            }
            Request::Explain { question, reply } => {
                let _ = reply.send(self.engine.answer(now(), &question));
            }
            Request::Preheat { order, taken } => {
                let number = self.engine.preheat(now(), order);
                let progress = number.map(|number| self.followers.add(number));
                let _ = taken.send(progress.map_err(SessionError::Refused));
            }
        }
    }

    fn open(&mut self, end: SessionEnd) -> Result<(), SessionError> {
        let SessionEnd { hello, up, down } = end;
        let host = hello.host.id.clone();
        if let Some(number) = self.by_host.get(&host).copied() {
            self.close(number, Closed::Replaced);
        }
        self.engine.handle(now(), Event::Joined(hello));
        if !self.engine.has_host(&host) {
            self.metrics.closed(Closed::Full);
            return Err(SessionError::Refused(
                "it has as many hosts as it takes".to_owned(),
            ));
        }
        self.sessions_opened += 1;
        let number = self.sessions_opened;
        let (outbox, outbox_receiver) = mpsc::channel(OUTBOX);
        let inbox = self.inbox_sender.clone();
        let carrier = Carrier {
            number,
            up,
            down,
            outbox: outbox_receiver,
            inbox,
        };
        let carrier = self.carriers.spawn(carrier.run());
        self.by_host.insert(host.clone(), number);
        self.sessions.insert(
            number,
            OpenSession {
                host,
                outbox,
                carrier,
            },
        );
        Ok(())
    }

    fn hear(&mut self, batch: &mut Vec<Heard>) {
        for Heard { number, up } in batch.drain(..) {
            self.metrics.message();
            self.said(number, up);
            self.send_commands();
        }
    }

    fn said(&mut self, number: u64, up: Up) {
        // A session that was closed may have left something in the queue.
        if let Some(session) = self.sessions.get(&number) {
            self.engine
                .handle(now(), Event::Said(session.host.clone(), up));
        }
    }

    fn ended(&mut self, ending: Option<Ending>) {
        match ending {
            Some(Ending::Overrun { number }) => self.close(number, Closed::Overrun),
            Some(Ending::Left { number }) => self.forget(number),
            // Cancelled from here, so forgotten already.
            None => {}
        }
    }

    fn send_commands(&mut self) {
        while let Some(host) = self.engine.poll_expired() {
            if let Some(number) = self.by_host.get(&host).copied() {
                self.close(number, Closed::Silent);
            }
        }
        while let Some(host) = self.engine.poll_ban() {
            tracing::warn!(%host, "banned for a while: it gave others what does not match its signature");
            self.metrics.banned();
        }
        while let Some(Command { host, down }) = self.engine.poll_command() {
            let Some(number) = self.by_host.get(&host).copied() else {
                continue;
            };
            let Some(session) = self.sessions.get(&number) else {
                continue;
            };
            let answer = Answer::from(&down);
            match session.outbox.try_send(down) {
                Ok(()) => self.metrics.answered(answer),
                Err(mpsc::error::TrySendError::Full(_)) => self.close(number, Closed::Overrun),
                Err(mpsc::error::TrySendError::Closed(_)) => self.forget(number),
            }
        }
    }

    fn close(&mut self, number: u64, reason: Closed) {
        let Some(session) = self.sessions.get(&number) else {
            return;
        };
        tracing::info!(host = %session.host, ?reason, "session closed");
        session.carrier.abort();
        self.metrics.closed(reason);
        self.forget(number);
    }

    fn forget(&mut self, number: u64) {
        if let Some(session) = self.sessions.remove(&number) {
            self.by_host.remove(&session.host);
            self.engine.handle(now(), Event::Left(session.host));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver is the clock")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
