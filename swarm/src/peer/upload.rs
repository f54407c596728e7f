//! The body of one answer: held pieces, read from the store chunk by chunk as the child takes them.
//!
//! An answer holds its upload slot until its last chunk was handed on or the child has left.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use protocol::{Layout, PieceIndex};
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    admission::TaskSize,
    metrics::{PeerMetrics, Upload},
    request::PieceRequest,
    seats::Giving,
    slots::Slot,
};
use crate::{
    bandwidth::Throttle,
    store::StoredTask,
    task::{Progress, Stage},
};

/// Bytes that are read at once; with the upload slots, what uploads take of memory.
const CHUNK: u64 = 256 * 1024;

pub(super) type UploadBody = UnsyncBoxBody<Bytes, io::Error>;

/// Bytes that may be given out.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Range<u64>,
    pub(super) layout: Layout,
    pub(super) size: TaskSize,
    file: Arc<StoredTask>,
}

/// What an answer under way needs of its server and its connection.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) metrics: PeerMetrics,
    pub(super) pulse: Arc<Notify>,
    pub(super) reads: Arc<Semaphore>,
    pub(super) throttle: Throttle,
    pub(super) _slot: Slot,
    pub(super) _giving: Giving,
    pub(super) _fed: TaskTrackerToken,
}

// === impl Held ===

impl Held {
    /// The bytes that `asked` names, if all of them are held and covered by batches.
    pub(super) fn find(asked: &PieceRequest, progress: &Progress) -> Result<Self, Upload> {
        let (Some(content), Some(file)) = (&progress.content, &progress.file) else {
            return Err(Upload::Gone);
        };
        let is_over = matches!(progress.stage, Stage::Failed(_)) || file.is_removed();
        if is_over || content.attempt != asked.attempt {
            return Err(Upload::Gone);
        }
        let bytes = asked.bytes(&content.layout).ok_or(Upload::Malformed)?;
        let is_held = progress.held.contains_all(asked.pieces.clone());
        if !is_held || !are_proven(asked, progress) {
            return Err(Upload::Gone);
        }
        let size = match content.layout.piece_count() {
            Some(0 | 1) => TaskSize::Small,
            Some(_) | None => TaskSize::Large,
        };
        Ok(Self {
            bytes,
            layout: content.layout,
            size,
            file: Arc::clone(file),
        })
    }
}

/// Whether batches of this attempt name every piece that is asked for.
fn are_proven(asked: &PieceRequest, progress: &Progress) -> bool {
    let counts = |piece: &PieceIndex| asked.pieces.contains(&piece.0);
    let proven: protocol::PieceSet = progress
        .batches
        .iter()
        .map(|signed| &signed.batch)
        .filter(|batch| batch.attempt == asked.attempt)
        .flat_map(|batch| batch.digests.iter().map(|(piece, _)| *piece))
        .filter(counts)
        .collect();
    proven.len() as usize == asked.pieces.len()
}

// === impl Answering ===

impl Answering {
    /// Takes the next chunk off the front of `held`; `None` once all was taken.
    async fn read(&self, held: &mut Held) -> io::Result<Option<Bytes>> {
        self.pulse.notify_one();
        if held.bytes.is_empty() {
            return Ok(None);
        }
        let end = held.bytes.end.min(held.bytes.start + CHUNK);
        let chunk = held.bytes.start..end;
        held.bytes.start = end;
        let bytes = match at_once(&held.file, &chunk) {
            Some(bytes) => bytes,
            None => self.read_waiting(Arc::clone(&held.file), chunk).await?,
        };
        self.metrics.upload_bytes.inc_by(bytes.len() as u64);
        Ok(Some(bytes.into()))
    }

    async fn read_waiting(&self, file: Arc<StoredTask>, chunk: Range<u64>) -> io::Result<Vec<u8>> {
        let permit = Arc::clone(&self.reads)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        // The permit goes along: a child that leaves does not make its read end any sooner.
        let reading = tokio::task::spawn_blocking(move || {
            let mut buffer = Vec::with_capacity((chunk.end - chunk.start) as usize);
            let read = file.read(chunk, &mut buffer).map(|()| buffer);
            drop(permit);
            read
        });
        reading
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }
}

/// What is in memory is read here and now: to have another thread do it costs more than the reading.
fn at_once(file: &StoredTask, chunk: &Range<u64>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; (chunk.end - chunk.start) as usize];
    file.read_at_once(chunk.start, &mut buffer)
        .then_some(buffer)
}

/// A body of the bytes of `held`. Its first chunk is read now, so that a store that fails is known
/// before the head of the answer is sent.
pub(super) async fn body(mut held: Held, answering: Answering) -> io::Result<UploadBody> {
    let first = answering.read(&mut held).await?;
    let start = (first, held, answering);
    let chunks = stream::try_unfold(start, |(ready, mut held, answering)| async move {
        let chunk = match ready {
            Some(chunk) => Some(chunk),
            None => answering.read(&mut held).await?,
        };
        if let Some(bytes) = &chunk {
            answering.throttle.take(bytes.len() as u64).await;
        }
        Ok(chunk.map(|chunk| (Frame::data(chunk), (None, held, answering))))
    });
    Ok(StreamBody::new(chunks).boxed_unsync())
}

pub(super) fn empty() -> UploadBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
