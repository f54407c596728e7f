//! Reads a task in order while its pieces come, from the store that everybody shares.
//!
//! The end of a whole body is withheld until its digest holds, also where a range asks for all of it;
//! a part needs its pieces only.
//! Nothing is buffered for a slow reader: each read goes to the file when it is asked for, on this
//! thread where the bytes lie in memory already, and on one that may block where they do not.
//! Where the store fails, or has lost the task, a body that has begun goes on from the source.

mod step;
mod storeless;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use protocol::PieceSet;
use tokio::sync::{mpsc, watch};

use self::step::Step;
use crate::{
    conductor::{Event, ReaderId},
    engine::Swarm,
    open::{How, OpenRequest},
    source::SourceError,
    store::{StoreError, StoredTask},
    task::{ActiveTask, Message, Progress, TaskFailure},
};

/// The bytes of one open content, in order.
pub struct Reader {
    stream: BoxStream<'static, Result<Bytes, ReadError>>,
    served: Arc<Served>,
}

/// Why a body ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Source(Arc<SourceError>),
    #[error("the content does not match its digest")]
    Corrupt,
    #[error("the disk fails: {0}")]
    Disk(String),
    #[error("the download was given up")]
    Cancelled,
}

/// Bytes that a reader has yielded, by where they came from.
#[derive(Debug, Default)]
pub struct Served {
    hit: AtomicU64,
    joined: AtomicU64,
    swarm: AtomicU64,
    source: AtomicU64,
}

/// What a reader needs to go on.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) swarm: Swarm,
    pub(crate) request: OpenRequest,
    pub(crate) progress: watch::Receiver<Progress>,
    /// Present while the task is being fetched.
    pub(crate) interest: Option<InterestGuard>,
    /// All of the body is asked for, be it by a range.
    pub(crate) is_whole: bool,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    /// What was there when the reader came.
    pub(crate) held_before: PieceSet,
    pub(crate) how: How,
    pub(crate) buffer: Buffer,
    /// What comes straight from the source, once the store has failed.
    pub(crate) rest: Option<Reader>,
}

/// The memory of the last chunk, for the next one.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Bytes);

/// Tells the driver when the reader moves, and when it is gone.
#[derive(Debug)]
pub struct InterestGuard {
    pub(crate) reader: ReaderId,
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) told: u64,
}

/// A reader tells the driver that it has moved this far, and not more often.
const TELL_EVERY: u64 = 1 << 20;

// === impl Reader ===

impl Reader {
    pub(crate) fn new(reading: Reading) -> Self {
        let served = Arc::new(Served::default());
        let counted = served.clone();
        let stream = futures_util::stream::unfold(Some(reading), move |state| {
            let counted = counted.clone();
            async move {
                let mut reading = state?;
                match reading.next(&counted).await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Self {
            stream: stream.boxed(),
            served,
        }
    }

    /// A body that comes straight from the source, with no store between.
    pub(crate) fn direct(stream: BoxStream<'static, Result<Bytes, ReadError>>) -> Self {
        let served = Arc::new(Served::default());
        let counted = served.clone();
        let stream = stream.inspect(move |item| {
            if let Ok(bytes) = item {
                counted
                    .source
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        });
        Self {
            stream: stream.boxed(),
            served,
        }
    }

    /// The counters of this reader; they go on counting while it is read.
    pub fn served(&self) -> Arc<Served> {
        self.served.clone()
    }
}

impl Stream for Reader {
    type Item = Result<Bytes, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("served", &self.served)
            .finish_non_exhaustive()
    }
}

// === impl ReadError ===

impl From<TaskFailure> for ReadError {
    fn from(failure: TaskFailure) -> Self {
        match failure {
            TaskFailure::Source(error) => Self::Source(error),
            TaskFailure::Corrupt => Self::Corrupt,
            TaskFailure::NoRoom => Self::Disk("no room, or it is broken".to_owned()),
            TaskFailure::Removed => Self::Disk("the content was removed".to_owned()),
            TaskFailure::Cancelled => Self::Cancelled,
        }
    }
}

// === impl Served ===

impl Served {
    pub fn bytes(&self, how: How) -> u64 {
        self.counter(how).load(Ordering::Relaxed)
    }

    fn counter(&self, how: How) -> &AtomicU64 {
        match how {
            How::Hit => &self.hit,
            How::Joined => &self.joined,
            How::Swarm => &self.swarm,
            How::Source => &self.source,
        }
    }
}

// === impl Reading ===

impl Reading {
    async fn next(&mut self, served: &Served) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(rest) = &mut self.rest {
                let next = rest.next().await.transpose()?;
                let length = next.as_ref().map_or(0, |bytes| bytes.len() as u64);
                served
                    .counter(How::Source)
                    .fetch_add(length, Ordering::Relaxed);
                return Ok(next);
            }
            let step = step::next(
                &self.progress.borrow_and_update(),
                self.offset,
                self.end,
                self.is_whole,
            );
            match step {
                Step::End => return Ok(None),
                Step::Failed(TaskFailure::NoRoom | TaskFailure::Removed) => {
                    self.leave_store().await?;
                }
                Step::Failed(failure) => return Err(failure.into()),
                Step::Wait => self.wait().await?,
                Step::Read { bytes, is_partial } => {
                    if let Some(bytes) = self.read(bytes, is_partial, served).await? {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    async fn wait(&mut self) -> Result<(), ReadError> {
        if self.progress.changed().await.is_ok() {
            return Ok(());
        }
        // The driver is gone. What it said last is final; where that was nothing, a new one goes on.
        match step::is_final(&self.progress.borrow()) {
            true => Ok(()),
            false => Err(ReadError::Cancelled),
        }
    }

    /// Reads from the file; `None` where that could not be, and another look tells how to go on.
    async fn read(
        &mut self,
        bytes: std::ops::Range<u64>,
        is_partial: bool,
        served: &Served,
    ) -> Result<Option<Bytes>, ReadError> {
        let Some(file) = self.progress.borrow().file.clone() else {
            return Err(ReadError::Cancelled);
        };
        if let Some(read) = self.buffer.fill(&file, &bytes, is_partial) {
            self.give(&bytes, served);
            return Ok(Some(read));
        }
        let range = bytes.clone();
        // Made here and not where it is filled: the allocator keeps what each thread has freed, and
        // there are far more threads for blocking work than for this.
        let mut buffer = Vec::with_capacity((range.end - range.start) as usize);
        let read = tokio::task::spawn_blocking(move || {
            let read = match is_partial {
                true => file.read_partial(range, &mut buffer),
                false => file.read(range, &mut buffer),
            };
            read.map(|()| Bytes::from(buffer))
        });
        match read.await {
            Ok(Ok(read)) => {
                self.give(&bytes, served);
                Ok(Some(read))
            }
            Ok(Err(StoreError::Corrupt { piece })) => {
                self.mend(Event::Lost(piece)).await?;
                Ok(None)
            }
            Ok(Err(error)) => {
                tracing::warn!(task = %self.request.task, %error, "the store cannot be read");
                self.leave_store().await?;
                Ok(None)
            }
            Err(_) => Err(ReadError::Cancelled),
        }
    }

    /// Has the driver fetch again what the disk has lost; starts one where none is at work.
    async fn mend(&mut self, lost: Event) -> Result<(), ReadError> {
        tracing::warn!(task = %self.request.task, ?lost, "the disk lost a piece; fetching it again");
        let is_running = !step::is_final(&self.progress.borrow());
        if let Some(interest) = self.interest.as_ref().filter(|_| is_running) {
            interest
                .inbox
                .send(Message::Plan(lost))
                .await
                .map_err(|_| ReadError::Cancelled)?;
            return self.wait().await;
        }
        let ActiveTask { inbox, progress } = self.swarm.start_again(&self.request).await;
        self.interest = Some(
            self.swarm
                .interest(&inbox, &self.request, self.offset..self.end)
                .await,
        );
        self.progress = progress;
        self.wait().await
    }

    fn give(&mut self, bytes: &std::ops::Range<u64>, served: &Served) {
        self.count(bytes.start, bytes.end - bytes.start, served);
        self.advance(bytes.end);
    }

    fn advance(&mut self, offset: u64) {
        self.offset = offset;
        let Some(interest) = &mut self.interest else {
            return;
        };
        if interest.told + TELL_EVERY <= offset {
            interest.told = offset;
            // A full queue means a busy driver; the next move tells it.
            let _ = interest
                .inbox
                .try_send(Message::Plan(Event::ReaderMoved(interest.reader, offset)));
        }
    }

    fn count(&self, start: u64, length: u64, served: &Served) {
        let progress = self.progress.borrow();
        let Some(content) = &progress.content else {
            return;
        };
        let piece = content.layout.piece_at(start);
        let how = match self.how {
            How::Hit => How::Hit,
            _ if self.held_before.contains(piece) => How::Hit,
            How::Joined => How::Joined,
            How::Swarm | How::Source if progress.from_source.contains(piece) => How::Source,
            How::Swarm | How::Source if progress.held.contains(piece) => How::Swarm,
            How::Swarm | How::Source => How::Source,
        };
        served.counter(how).fetch_add(length, Ordering::Relaxed);
    }
}

// === impl Buffer ===

impl Buffer {
    /// The bytes, if they can be had without waiting. Once the chunk before was sent and let go,
    /// its memory is used again: neither allocated nor cleared anew.
    fn fill(
        &mut self,
        file: &StoredTask,
        bytes: &std::ops::Range<u64>,
        is_partial: bool,
    ) -> Option<Bytes> {
        let last = std::mem::take(&mut self.0);
        let mut buffer = last.try_into_mut().unwrap_or_else(|_| BytesMut::new());
        buffer.resize((bytes.end - bytes.start) as usize, 0);
        let is_filled = match is_partial {
            true => file.read_partial_at_once(bytes.start, &mut buffer),
            false => file.read_at_once(bytes.start, &mut buffer),
        };
        let chunk = buffer.freeze();
        self.0 = chunk.clone();
        is_filled.then_some(chunk)
    }
}

// === impl InterestGuard ===

impl Drop for InterestGuard {
    fn drop(&mut self) {
        let left = Message::Plan(Event::ReaderLeft(self.reader));
        if let Err(mpsc::error::TrySendError::Full(_)) = self.inbox.try_send(left) {
            // The driver finds the reader gone when it finds nobody else; until then it fetches on.
            tracing::debug!(reader = ?self.reader, "a busy driver was not told that a reader left");
        }
    }
}
