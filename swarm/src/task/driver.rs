//! The driver of one task: feeds the conductor and carries out what it decides.
//!
//! The only writer of the task's [`Progress`]. Ends when the whole is held and its digest holds,
//! when the task has failed, or when nobody wants it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use protocol::{Host, HostId, Layout, PieceDigest, PieceIndex, PieceSet, Role};
use rustls_pki_types::UnixTime;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{
    Asking, Message, Progress, SourceReport, Stage, TASK_QUEUE, TaskFailure,
    attempt::Attempt,
    begin::Begin,
    hashing::{Hashed, Hashing},
    report::Report,
    surroundings::Surroundings,
    wanted::Told,
};
use crate::{
    conductor::{Conductor, Event, ReaderId, RunId},
    open::OpenRequest,
    source::Access,
};

/// The reader that stands for an order to have it all, with nobody reading.
pub(crate) const NOBODY: ReaderId = ReaderId(0);

/// One download.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(super) host: Surroundings,
    pub(super) wish: OpenRequest,
    pub(super) conductor: Conductor,
    pub(super) attempt: Attempt,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) hashing: Hashing,
    pub(super) report: Report,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) own: mpsc::Sender<Message>,
    pub(super) jobs: JoinSet<()>,
    /// Batches on their way to the log; a download is not over before they are there.
    pub(super) keeping: JoinSet<()>,
    pub(super) candidates: HashMap<HostId, Host>,
    /// What parents say that the attempt is, until a batch of theirs proves it.
    pub(super) offers: HashMap<HostId, Begin>,
    /// What is under way at each supplier: the run that began with a piece, or following it.
    pub(super) at_parents: HashMap<HostId, Vec<(Option<u32>, AbortHandle)>>,
    pub(super) at_source: HashMap<RunId, AbortHandle>,
    /// Whether a scheduler sent this host to the source, so that others believe what it signs.
    pub(super) is_granted: bool,
    /// Seeds that were asked because no scheduler answered.
    pub(super) asked_seeds: Vec<HostId>,
    /// Whether it will go to the source for want of anybody who answers.
    pub(super) is_falling_through: bool,
    pub(super) told: Told,
    pub(super) unwanted_since: Option<Instant>,
    ended: Option<Stage>,
}

// === impl Driver ===

impl Driver {
    /// A driver for `wish`, and the handles to it.
    pub(crate) fn new(
        host: Surroundings,
        wish: OpenRequest,
    ) -> (Self, mpsc::Sender<Message>, watch::Receiver<Progress>) {
        let (own, inbox) = mpsc::channel(TASK_QUEUE);
        let (progress, seen) = watch::channel(Progress::default());
        let task = wish.task;
        let driver = Self {
            conductor: Conductor::new(host.limits, 0, PieceSet::default()),
            attempt: Attempt::new(task),
            hashing: Hashing::new(task.0),
            report: Report::new(task, host.sessions.clone()),
            jobs: JoinSet::new(),
            keeping: JoinSet::new(),
            candidates: HashMap::new(),
            offers: HashMap::new(),
            at_parents: HashMap::new(),
            at_source: HashMap::new(),
            is_granted: false,
            asked_seeds: Vec::new(),
            is_falling_through: false,
            told: Told::default(),
            unwanted_since: None,
            ended: None,
            own: own.clone(),
            inbox,
            progress,
            host,
            wish,
        };
        (driver, own, seen)
    }

    /// Drives the download to its end, and publishes it.
    pub(crate) async fn run(mut self) -> Stage {
        self.attempt
            .load(&self.host.store, &self.host.identity)
            .await;
        // The same on every start, so that a resumed herd does not crowd at one piece.
        let salt = salt_of(self.host.identity.id());
        self.conductor = Conductor::new(self.host.limits, salt, self.attempt.held().clone());
        if self.is_seed() {
            self.conductor = self.conductor.for_all();
        }
        if let Some(layout) = self.attempt.layout() {
            self.plan(Event::Begun(layout));
        }
        if self.attempt.is_unvouched() {
            self.want_whole();
        }
        self.ask().await;
        let stage = loop {
            // Before the wait: the verdict on the whole may be the last thing that happens.
            self.hash();
            if let Some(stage) = self.ended.take() {
                break stage;
            }
            self.carry_out().await;
            self.tell_wants();
            self.publish();
            self.step().await;
        };
        self.close(&stage).await;
        self.progress.send_modify(|progress| {
            progress.stage = stage.clone();
            progress.partial = 0..0;
        });
        stage
    }

    /// Waits for one message or deadline, and takes what else is there.
    async fn step(&mut self) {
        let now = clock();
        let deadline = [
            self.conductor.poll_timeout(now),
            self.report.due(now),
            self.given_up_at(),
        ];
        let deadline = deadline.into_iter().flatten().min();
        let sleep =
            tokio::time::sleep_until(deadline.unwrap_or(now + Duration::from_secs(3600)).into());
        tokio::select! {
            Some(message) = self.inbox.recv() => self.handle(message).await,
            Some(_) = self.jobs.join_next(), if !self.jobs.is_empty() => {}
            () = sleep => self.time_passed(),
        }
        for _ in 0..TASK_QUEUE {
            let Ok(message) = self.inbox.try_recv() else {
                break;
            };
            self.handle(message).await;
        }
        let (attempt, total) = (self.attempt.id(), self.attempt.piece_count());
        self.report.tell(clock(), attempt, total).await;
        self.check_wanted();
    }

    fn time_passed(&mut self) {
        if self.host.pieces.is_throttled() {
            self.plan(Event::Throttled);
        }
        self.conductor.handle_timeout(clock());
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Plan(event) => {
                if let Event::Lost(piece) = event {
                    self.lost(piece);
                } else {
                    self.plan(event);
                }
            }
            Message::Sized(size) => {
                self.progress.send_modify(|seen| seen.told_size = size);
                self.plan(Event::Sized(size.map(|size| Layout::for_size(Some(size)))));
            }
            Message::Scheduler(down) => self.told(down).await,
            Message::Ordered(scheduler) => self.ordered(scheduler).await,
            Message::SessionsChanged => self.register_again().await,
            Message::NobodyElse => self.nobody_else(),
            Message::Parent(parent, tell) => self.parent_tells(parent, tell).await,
            Message::ParentPiece(parent, piece) => {
                self.has(piece, Event::Brought(parent, piece));
            }
            Message::RunRefused(parent, first) => self.plan(Event::RunRefused(parent, first)),
            Message::ParentFailed(parent, failure) => {
                self.plan(Event::SupplierFailed(parent, failure));
            }
            Message::StoreFailed(failure) => self.fail(failure),
            Message::Source(run, report) => self.source_tells(run, report).await,
            Message::Hashed(hashed) => self.hashed(hashed),
        }
    }

    pub(super) fn plan(&mut self, event: Event) {
        self.conductor.handle(clock(), event);
    }

    pub(super) fn fail(&mut self, failure: TaskFailure) {
        self.ended = Some(Stage::Failed(failure));
    }

    async fn source_tells(&mut self, run: RunId, report: SourceReport) {
        match report {
            SourceReport::Began(answer, reply) => {
                let begin = Begin::from_source(&answer, &self.wish.origin);
                if answer.access == Access::Caller && !answer.is_lent {
                    self.attempt.let_in();
                }
                if let Some(place) = self.begin(begin).await {
                    // A run that was stopped meanwhile wants no place.
                    let _ = reply.send(place);
                }
            }
            SourceReport::Wrote(offset) => self.attempt.wrote(offset),
            SourceReport::Piece(piece, digest) => self.fetched(piece, digest),
            SourceReport::Ended(offset, pieces) => {
                self.at_source.remove(&run);
                for (piece, digest) in pieces {
                    self.fetched(piece, digest);
                }
                if let Some(layout) = self.attempt.ended_at(offset) {
                    self.plan(Event::Ended(layout));
                }
                self.plan(Event::SourceRunEnded(run));
            }
            SourceReport::Failed(failure) => {
                self.at_source.remove(&run);
                self.fail(failure);
            }
        }
    }

    /// Makes the place where the pieces of the attempt go; publishes its content.
    pub(super) async fn begin(&mut self, begin: Begin) -> Option<super::source_run::Place> {
        let before = self.attempt.id();
        match self
            .attempt
            .begin(&self.host.store, self.wish.origin.kind, begin)
            .await
        {
            Ok(place) => {
                // A new attempt may have replaced what the store had.
                for piece in self.conductor.pieces_had().clone().iter() {
                    if !self.attempt.held().contains(piece) {
                        self.lost(piece);
                    }
                }
                if self.attempt.id() != before {
                    self.plan(Event::Anew);
                }
                self.plan(Event::Begun(place.layout));
                self.publish();
                Some(place)
            }
            Err(failure) => {
                self.fail(failure);
                None
            }
        }
    }

    fn fetched(&mut self, piece: PieceIndex, digest: PieceDigest) {
        // Whoever signed it had another body: this attempt is nobody's truth.
        if self
            .attempt
            .digest_of(piece)
            .is_some_and(|signed| signed != digest)
        {
            self.fail(TaskFailure::Corrupt);
            return;
        }
        self.attempt.fetched(piece, digest);
        self.has(piece, Event::Had(piece));
    }

    fn has(&mut self, piece: PieceIndex, how: Event) {
        self.attempt.has(piece);
        self.report.has(clock(), piece);
        self.plan(how);
    }

    fn lost(&mut self, piece: PieceIndex) {
        self.attempt.lost(piece);
        self.hashing.lost(piece);
        self.plan(Event::Lost(piece));
    }

    fn hash(&mut self) {
        let Some(place) = self.attempt.place() else {
            return;
        };
        if let Some(job) = self.hashing.begin(self.conductor.pieces_had()) {
            let own = self.own.clone();
            self.jobs.spawn(async move {
                let hashed =
                    tokio::task::spawn_blocking(move || job.run(&place.file, place.layout)).await;
                if let Ok(hashed) = hashed {
                    let _ = own.send(Message::Hashed(hashed)).await;
                }
            });
        }
        let count = self.attempt.piece_count();
        let Some(is_right) = count.and_then(|count| self.hashing.verdict(count)) else {
            return;
        };
        self.ended = Some(match is_right {
            true => {
                self.attempt.confirm();
                Stage::Complete
            }
            false => Stage::Failed(TaskFailure::Corrupt),
        });
    }

    fn hashed(&mut self, hashed: Hashed) {
        if let Some((piece, error)) = self.hashing.resume(hashed) {
            tracing::warn!(task = %self.wish.task, %error, "a piece is unreadable; fetching it again");
            self.lost(piece);
        }
    }

    pub(super) fn publish(&mut self) {
        self.attempt.renew(&self.host.identity);
        // What was fetched without the right is of use here alone, until the right comes.
        if self.is_granted || self.is_seed() {
            for batch in self.attempt.sign(&self.host.identity) {
                self.keep_batch(batch.to_bytes());
            }
        }
        self.attempt.publish(&self.progress, self.asking());
    }

    pub(super) fn is_seed(&self) -> bool {
        self.host.identity.roles().contains(Role::Seed)
    }

    /// A seed whose view names nobody is a host by itself, with a grant of its own.
    fn asking(&self) -> Asking {
        let is_alone = self.is_seed() && self.host.seeds.is_empty();
        match self.at_source.is_empty() {
            true => Asking::Others,
            false if self.is_granted && !is_alone => Asking::ForAll,
            false => Asking::Alone,
        }
    }

    /// Writes a batch down beside the pieces that it proves.
    pub(super) fn keep_batch(&mut self, bytes: Vec<u8>) {
        let Some(place) = self.attempt.place() else {
            return;
        };
        while self.keeping.try_join_next().is_some() {}
        self.keeping.spawn_blocking(move || {
            if let Err(error) = place.file.append_batch(&bytes) {
                tracing::debug!(%error, "a batch could not be kept; it is told again when asked");
            }
        });
    }
}

/// Differs from host to host, so that they begin with different pieces.
fn salt_of(host: &HostId) -> u64 {
    let hash = blake3::hash(host.as_str().as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash is longer"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver is the clock of its conductor"
)]
pub(super) fn clock() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are judged by wall time"
)]
pub(super) fn wall_clock() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}
