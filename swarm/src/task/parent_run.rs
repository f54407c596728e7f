//! What is under way at one parent: following its availability, and fetching runs of pieces.
//!
//! Every piece is compared with its signed digest before it is written; a parent whose bytes do
//! not match has lied, whatever it meant.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use protocol::{
    AttemptId, Host, HostId, Layout, PieceDigest, PieceIndex, TaskId, availability::Tell,
    scheduler::ParentFailure,
};
use tokio::sync::mpsc;

use super::{Message, TaskFailure};
use crate::{
    peer::{Asker, PieceClient, PieceRun},
    store::{StoreError, StoredTask},
};

/// A run of pieces to fetch from one parent.
#[derive(Debug)]
pub(crate) struct ParentRun {
    pub(crate) parent: Host,
    pub(crate) task: TaskId,
    pub(crate) attempt: AttemptId,
    pub(crate) layout: Layout,
    pub(crate) pieces: Range<u32>,
    /// One signed digest for every piece of the run.
    pub(crate) digests: Vec<PieceDigest>,
    /// What this host is to the other.
    pub(crate) asker: Asker,
    pub(crate) file: Arc<StoredTask>,
}

/// Why a run ended before its last piece.
enum Broken {
    Parent(ParentFailure),
    Store(StoreError),
}

// === impl ParentRun ===

impl ParentRun {
    /// Fetches the run; tells the driver of every piece, or of the failure.
    pub(crate) async fn go(self, client: PieceClient, driver: mpsc::Sender<Message>) {
        let (parent, first) = (self.parent.id.clone(), self.pieces.start);
        let told = match self.fetch(&client, &driver).await {
            Ok(()) => return,
            Err(Broken::Parent(ParentFailure::Busy)) => Message::RunRefused(parent, first),
            Err(Broken::Parent(failure)) => Message::ParentFailed(parent, failure),
            // The disk is this host's own fault, and no other parent makes it better.
            Err(Broken::Store(error)) => Message::StoreFailed(TaskFailure::of_store(error)),
        };
        // A driver that is gone wants to know nothing.
        let _ = driver.send(told).await;
    }

    async fn fetch(
        self,
        client: &PieceClient,
        driver: &mpsc::Sender<Message>,
    ) -> Result<(), Broken> {
        let run = PieceRun {
            task: self.task,
            attempt: self.attempt,
            layout: self.layout,
            pieces: self.pieces.clone(),
            asker: self.asker,
        };
        let mut stream = client.fetch(&self.parent, run);
        for (piece, digest) in self.pieces.clone().map(PieceIndex).zip(self.digests) {
            let bytes = match stream.next().await {
                Some(Ok((index, bytes))) if index == piece => bytes,
                Some(Ok(_)) => return Err(Broken::Parent(ParentFailure::Lied)),
                Some(Err(error)) => return Err(Broken::Parent(error.parent_failure())),
                None => return Err(Broken::Parent(ParentFailure::Unreachable)),
            };
            let file = self.file.clone();
            let landed =
                tokio::task::spawn_blocking(move || land(&file, piece, &bytes, &digest)).await;
            match landed {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Err(Broken::Parent(ParentFailure::Lied)),
                Ok(Err(error)) => return Err(Broken::Store(error)),
                Err(_) => return Err(Broken::Parent(ParentFailure::Gone)),
            }
            let message = Message::ParentPiece(self.parent.id.clone(), piece);
            if driver.send(message).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Blocking. Writes the piece if it is what was signed.
fn land(
    file: &StoredTask,
    piece: PieceIndex,
    bytes: &Bytes,
    signed: &PieceDigest,
) -> Result<bool, StoreError> {
    if blake3::hash(bytes) != *signed {
        return Ok(false);
    }
    file.land_known(piece, bytes, *signed)?;
    Ok(true)
}

/// Hands what `parent` tells of the task to the driver, until the stream ends.
pub(crate) async fn follow(
    parent: HostId,
    mut tells: mpsc::Receiver<Tell>,
    driver: mpsc::Sender<Message>,
) {
    while let Some(tell) = tells.recv().await {
        if driver
            .send(Message::Parent(parent.clone(), tell))
            .await
            .is_err()
        {
            return;
        }
    }
    let _ = driver
        .send(Message::ParentFailed(parent, ParentFailure::Unreachable))
        .await;
}
