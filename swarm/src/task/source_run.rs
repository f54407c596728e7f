//! One request to the source: writes what arrives, digests it piece by piece, tells the driver.
//!
//! Decides nothing: the driver says where the bytes go and stops the run by dropping it. Bytes are
//! written as they come and told as written, so a reader on this host need not wait for the piece.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use protocol::{Layout, Origin, PieceDigest, PieceIndex, TaskId};
use tokio::sync::{mpsc, oneshot};

use super::{Message, SourceReport, TaskFailure};
use crate::{
    conductor::RunId,
    peer::Lent,
    source::{Access, Body, ByteRange, Credential, Fetch, FetchRequest, SourceError, Upstreams},
    store::{StoreError, StoredTask},
};

/// Bytes gathered before they are written, while more are there to be had at once.
const WRITE_BYTES: usize = 256 << 10;

/// What to fetch.
#[derive(Debug)]
pub(crate) struct SourceRun {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) origin: Origin,
    pub(crate) credential: Option<Credential>,
    /// What a seed may use where it has no credential, or one that is refused.
    pub(crate) lent: Option<Lent>,
    /// From this byte up to, not including, that one; `None` is to the end.
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
}

/// What the source said before the body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) size: Option<u64>,
    pub(crate) media_type: Option<String>,
    pub(crate) access: Access,
    /// It is by a right that another host has lent.
    pub(crate) is_lent: bool,
}

/// Where the driver wants the pieces.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) file: Arc<StoredTask>,
    pub(crate) layout: Layout,
}

/// The offset after the last byte, and the pieces that came with it.
type BodyEnd = (u64, Vec<(PieceIndex, PieceDigest)>);

/// The piece that is arriving.
#[derive(Debug)]
struct Arriving {
    file: Arc<StoredTask>,
    layout: Layout,
    offset: u64,
    hasher: blake3::Hasher,
}

// === impl SourceRun ===

impl SourceRun {
    /// Runs until the body ends, fails, or the driver drops it.
    pub(crate) async fn go(self, upstreams: Upstreams, driver: mpsc::Sender<Message>) {
        let run = self.run;
        let told = match self.fetch(&upstreams, &driver).await {
            Ok((offset, pieces)) => SourceReport::Ended(offset, pieces),
            Err(Some(failure)) => SourceReport::Failed(failure),
            Err(None) => return,
        };
        // A driver that is gone wants to know nothing.
        let _ = driver.send(Message::Source(run, told)).await;
    }

    /// The body, and whether it is had by a right that was lent.
    async fn open(&self, upstreams: &Upstreams) -> (Result<Fetch, SourceError>, bool) {
        let request = |credential| FetchRequest {
            origin: self.origin.clone(),
            digest: self.task.0,
            range: ByteRange {
                start: self.start,
                end: self.end,
            },
            credential,
        };
        let refused = match upstreams.fetch(request(self.credential.clone())).await {
            Err(error) if error.is_no() => error,
            opened => return (opened, false),
        };
        let right = match &self.lent {
            Some(lent) => lent.wait_for(self.task, &self.origin).await,
            None => None,
        };
        match right {
            Some(right) => (upstreams.fetch(request(Some(right))).await, true),
            None => (Err(refused), false),
        }
    }

    /// What the body ended with; `None` for an error is a driver that is gone.
    async fn fetch(
        self,
        upstreams: &Upstreams,
        driver: &mpsc::Sender<Message>,
    ) -> Result<BodyEnd, Option<TaskFailure>> {
        let (fetched, is_lent) = self.open(upstreams).await;
        let Fetch {
            size,
            media_type,
            access,
            body,
        } = fetched.map_err(|error| Some(TaskFailure::Source(Arc::new(error))))?;
        let (reply, place) = oneshot::channel();
        let answer = Answer {
            size,
            media_type,
            access,
            is_lent,
        };
        let report = SourceReport::Began(answer, reply);
        driver
            .send(Message::Source(self.run, report))
            .await
            .map_err(|_| None)?;
        let Place { file, layout } = place.await.map_err(|_| None)?;
        if layout.bytes_of(layout.piece_at(self.start)).start != self.start {
            // The run began where a piece does in the size that was told before.
            let changed = SourceError::Malformed("the size changed between two answers");
            return Err(Some(TaskFailure::Source(Arc::new(changed))));
        }
        let arriving = Arriving {
            file,
            layout,
            offset: self.start,
            hasher: blake3::Hasher::new(),
        };
        arriving.receive(self.run, body, driver).await
    }
}

// === impl Arriving ===

impl Arriving {
    async fn receive(
        mut self,
        run: RunId,
        mut body: Body,
        driver: &mpsc::Sender<Message>,
    ) -> Result<BodyEnd, Option<TaskFailure>> {
        loop {
            let (chunks, next) = gather(&mut body).await;
            let is_end = matches!(next, Next::End);
            let (arriving, pieces) = tokio::task::spawn_blocking(move || {
                let written = self.write(chunks, is_end);
                written.map(|pieces| (self, pieces))
            })
            .await
            .map_err(|_| Some(TaskFailure::Cancelled))?
            .map_err(|error| Some(TaskFailure::of_store(error)))?;
            self = arriving;
            if is_end {
                return Ok((self.offset, pieces));
            }
            for (piece, digest) in pieces {
                let report = SourceReport::Piece(piece, digest);
                driver
                    .send(Message::Source(run, report))
                    .await
                    .map_err(|_| None)?;
            }
            if let Next::Failed(error) = next {
                return Err(Some(TaskFailure::Source(Arc::new(error))));
            }
            let report = SourceReport::Wrote(self.offset);
            driver
                .send(Message::Source(run, report))
                .await
                .map_err(|_| None)?;
        }
    }

    /// Blocking. Writes `chunks`; the pieces that they complete. The last piece ends with the body.
    fn write(
        &mut self,
        chunks: Vec<Bytes>,
        is_end: bool,
    ) -> Result<Vec<(PieceIndex, PieceDigest)>, StoreError> {
        let mut pieces = Vec::new();
        for mut chunk in chunks {
            while !chunk.is_empty() {
                let piece = self.layout.piece_at(self.offset);
                let piece_end = self.layout.bytes_of(piece).end;
                let room = piece_end
                    .saturating_sub(self.offset)
                    .min(chunk.len() as u64);
                if room == 0 {
                    return Err(StoreError::Contradiction(
                        "the source sent more than its size",
                    ));
                }
                let part = chunk.split_to(room as usize);
                self.file.write_partial(self.offset, &part)?;
                self.hasher.update(&part);
                self.offset += room;
                if self.offset == piece_end {
                    pieces.push(self.land(piece)?);
                }
            }
        }
        let piece = self.layout.piece_at(self.offset);
        let is_inside = self.layout.bytes_of(piece).start < self.offset;
        if is_end && self.layout.size().is_none() && is_inside {
            // A short last piece is one only when the store knows that the body ends there.
            self.file.end_at(self.offset)?;
            pieces.push(self.land(piece)?);
        }
        Ok(pieces)
    }

    fn land(&mut self, piece: PieceIndex) -> Result<(PieceIndex, PieceDigest), StoreError> {
        let digest = *self.hasher.finalize().as_bytes();
        self.hasher.reset();
        self.file.land_written(piece, digest)?;
        Ok((piece, digest))
    }
}

/// What comes after the gathered chunks.
enum Next {
    More,
    End,
    Failed(SourceError),
}

/// What has arrived, up to [`WRITE_BYTES`]: waits for the first chunk only.
async fn gather(body: &mut Body) -> (Vec<Bytes>, Next) {
    let mut chunks = Vec::new();
    let mut gathered = 0;
    let mut next = body.next().await;
    loop {
        match next {
            None => return (chunks, Next::End),
            Some(Err(error)) => return (chunks, Next::Failed(error)),
            Some(Ok(chunk)) => {
                gathered += chunk.len();
                chunks.push(chunk);
            }
        }
        if gathered >= WRITE_BYTES {
            return (chunks, Next::More);
        }
        match body.next().now_or_never() {
            Some(more) => next = more,
            None => return (chunks, Next::More),
        }
    }
}
