//! The attempt that a driver works on: its content, its file, and the digests that prove it.
//!
//! Invariant: a piece is told to others only after a signed batch that covers it, and every batch says
//! who may see the content: what is private stays so on every host.

mod batches;

use std::{ops::Range, sync::Arc};

use protocol::{
    AttemptId, Content, ContentKind, HostId, Identity, Layout, PieceDigest, PieceIndex, PieceSet,
    TaskId, Visibility,
    scheduler::{Failure, Outcome},
};
use tokio::sync::watch;

use super::{
    Asking, Progress, SharedBatch, TaskFailure, begin::Begin, proofs::valid_batches,
    source_run::Place,
};
use crate::store::{Store, StoreError, StoredTask};

/// One try at a task.
#[derive(Debug)]
pub(crate) struct Attempt {
    task: TaskId,
    id: AttemptId,
    content: Option<Content>,
    file: Option<Arc<StoredTask>>,
    /// Found in the store, and neither the source nor a parent has confirmed it yet.
    is_unconfirmed: bool,
    /// Nobody vouches for some of its digests: clients wait until the whole holds.
    is_unvouched: bool,
    held: PieceSet,
    digests: Vec<Option<PieceDigest>>,
    covered: PieceSet,
    unsigned: Vec<(PieceIndex, PieceDigest)>,
    batches: Vec<SharedBatch>,
    /// With which this host signs.
    certificate: Vec<u8>,
    /// Some batch is signed anew, and nobody was shown it yet.
    is_renewed: bool,
    partial: Range<u64>,
    from_source: PieceSet,
    fetcher: Option<HostId>,
    /// The upstream let in the client whose wish this download is.
    is_let_in: bool,
}

/// On whose word a batch counts before the digest of the whole holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// A seed's, or that of the host with the grant.
    Vouched,
    /// Some host's of the cluster: enough to fetch by, and not to give to clients.
    Anybodys,
}

// === impl Attempt ===

impl Attempt {
    pub(crate) fn new(task: TaskId) -> Self {
        Self {
            task,
            id: AttemptId(rand::random()),
            content: None,
            file: None,
            is_unconfirmed: false,
            is_unvouched: false,
            held: PieceSet::default(),
            digests: Vec::new(),
            covered: PieceSet::default(),
            unsigned: Vec::new(),
            batches: Vec::new(),
            certificate: Vec::new(),
            is_renewed: false,
            partial: 0..0,
            from_source: PieceSet::default(),
            fetcher: None,
            is_let_in: false,
        }
    }

    /// Takes up what the store has of the task, from before.
    pub(crate) async fn load(&mut self, store: &Store, identity: &Identity) {
        let (store, task) = (store.clone(), self.task);
        let found = tokio::task::spawn_blocking(move || store.lookup(task)).await;
        let Ok(Some(file)) = found else { return };
        let content = file.content();
        if content.layout.size().is_none() {
            return;
        }
        self.id = content.attempt;
        self.held = file.held();
        self.certificate = identity.certificate();
        let (batches, word) = valid_batches(&file, &content, identity);
        self.batches = batches;
        self.is_unvouched = word == Word::Anybodys;
        // Also of pieces that are not held: whoever brings them is measured by that.
        for batch in self.batches.clone() {
            for (piece, digest) in &batch.batch.digests {
                self.covered.insert(*piece);
                self.know(*piece, *digest);
            }
        }
        for piece in self.held.clone().iter() {
            if let Some(digest) = file.digest_of(piece) {
                self.know(piece, digest);
            }
        }
        self.content = Some(content);
        self.file = Some(file);
        self.is_unconfirmed = true;
    }

    /// Makes the place for the attempt that `begin` tells of, or goes on with the one there is.
    pub(crate) async fn begin(
        &mut self,
        store: &Store,
        kind: ContentKind,
        begin: Begin,
    ) -> Result<Place, TaskFailure> {
        if let (Some(content), Some(file)) = (&self.content, &self.file) {
            let is_same = begin.attempt.is_none_or(|attempt| attempt == self.id)
                && begin.layout.size() == content.layout.size()
                && (begin.visibility == content.visibility || !self.is_unconfirmed);
            if is_same {
                self.is_unconfirmed = false;
                return Ok(Place {
                    file: file.clone(),
                    layout: content.layout,
                });
            }
            if !self.is_unconfirmed && !self.is_empty_like(&begin) {
                return Err(TaskFailure::Corrupt);
            }
        }
        let fresh = Self::new(self.task);
        let fetcher = self.fetcher.take();
        *self = Self {
            id: begin.attempt.unwrap_or(fresh.id),
            fetcher,
            is_let_in: self.is_let_in,
            ..fresh
        };
        let content = Content {
            attempt: self.id,
            layout: begin.layout,
            media_type: begin.media_type,
            visibility: begin.visibility,
        };
        let (store, task, wanted) = (store.clone(), self.task, content.clone());
        let made = tokio::task::spawn_blocking(move || store.create(task, kind, &wanted)).await;
        let file = match made {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => return Err(TaskFailure::of_store(error)),
            Err(_) => return Err(TaskFailure::Cancelled),
        };
        let place = Place {
            file: file.clone(),
            layout: content.layout,
        };
        self.content = Some(content);
        self.file = Some(file);
        Ok(place)
    }

    pub(crate) fn id(&self) -> AttemptId {
        self.id
    }

    pub(crate) fn layout(&self) -> Option<Layout> {
        self.content.as_ref().map(|content| content.layout)
    }

    pub(crate) fn piece_count(&self) -> Option<u32> {
        self.layout().and_then(|layout| layout.piece_count())
    }

    pub(crate) fn held(&self) -> &PieceSet {
        &self.held
    }

    pub(crate) fn place(&self) -> Option<Place> {
        let layout = self.layout()?;
        self.file.clone().map(|file| Place { file, layout })
    }

    /// Who may see it, where that is known.
    pub(crate) fn visibility(&self) -> Option<&Visibility> {
        self.content.as_ref().map(|content| &content.visibility)
    }

    /// The upstream let this host's own client in.
    pub(crate) fn let_in(&mut self) {
        self.is_let_in = true;
    }

    /// The host to whom the scheduler granted the source, beside the seeds.
    pub(crate) fn grant_to(&mut self, fetcher: Option<HostId>) {
        if fetcher.is_some() {
            self.fetcher = fetcher;
        }
    }

    pub(crate) fn fetcher(&self) -> Option<&HostId> {
        self.fetcher.as_ref()
    }

    pub(crate) fn wrote(&mut self, offset: u64) {
        if let Some(layout) = self.layout() {
            self.partial = layout.bytes_of(layout.piece_at(offset)).start..offset;
        }
    }

    /// This host's own fetch brought `piece`: it is to be signed.
    pub(crate) fn fetched(&mut self, piece: PieceIndex, digest: PieceDigest) {
        self.know(piece, digest);
        self.from_source.insert(piece);
        if !self.covered.contains(piece) {
            self.unsigned.push((piece, digest));
        }
    }

    pub(crate) fn has(&mut self, piece: PieceIndex) {
        self.held.insert(piece);
    }

    pub(crate) fn lost(&mut self, piece: PieceIndex) {
        self.held.remove(piece);
    }

    /// A body that began with no size is over; its layout, if it was such a body.
    pub(crate) fn ended_at(&mut self, size: u64) -> Option<Layout> {
        let content = self
            .content
            .as_mut()
            .filter(|content| content.layout.size().is_none())?;
        content.layout = content.layout.ended_at(size);
        if let Some(file) = &self.file
            && let Err(error) = file.end_at(size)
        {
            tracing::warn!(task = %self.task, %error, "the end of a body could not be written down");
        }
        Some(content.layout)
    }

    /// The digests of pieces that batches have proven.
    pub(crate) fn digests_of(&self, pieces: Range<u32>) -> Vec<PieceDigest> {
        pieces
            .filter_map(|index| self.digests.get(index as usize).copied().flatten())
            .collect()
    }

    /// The digest of one piece, as far as a batch or this host's own fetch has told it.
    pub(crate) fn digest_of(&self, piece: PieceIndex) -> Option<PieceDigest> {
        self.digests.get(piece.0 as usize).copied().flatten()
    }

    /// Whether a parent's attempt can be gone on with here.
    pub(crate) fn may_become(&self, begin: &Begin) -> bool {
        let is_same = begin.attempt == Some(self.id)
            && self
                .layout()
                .is_none_or(|layout| layout.piece_len() == begin.layout.piece_len());
        self.content.is_none() || self.is_unconfirmed || is_same
    }

    /// Whether clients may have nothing of it before the whole holds.
    pub(crate) fn is_unvouched(&self) -> bool {
        self.is_unvouched
    }

    /// Whether nothing is here of an attempt at a content as large as that of `begin`, so that
    /// nobody would notice another in its place.
    pub(crate) fn is_empty_like(&self, begin: &Begin) -> bool {
        let is_empty = self.held.is_empty() && self.partial.is_empty();
        let is_same = self.visibility() == Some(&begin.visibility);
        is_empty && is_same && begin.attempt.is_some() && self.layout() == Some(begin.layout)
    }

    /// Shows everybody on this host how far the attempt has come.
    pub(crate) fn publish(&mut self, progress: &watch::Sender<Progress>, asking: Asking) {
        if self.is_unconfirmed {
            return;
        }
        let is_renewed = std::mem::take(&mut self.is_renewed);
        progress.send_if_modified(|seen| {
            let is_news = is_renewed
                || seen.held.len() != self.held.len()
                || seen.batches.len() != self.batches.len()
                || seen.partial != self.partial
                || seen.content != self.content
                || seen.is_let_in != self.is_let_in
                // Whoever waits for a first word wants to know whom this host waits for.
                || (seen.content.is_none() && seen.asking != asking);
            if is_news {
                seen.content.clone_from(&self.content);
                seen.file.clone_from(&self.file);
                seen.held.clone_from(&self.held);
                seen.is_unvouched = self.is_unvouched;
                seen.is_let_in = self.is_let_in;
                seen.partial = self.partial.clone();
                seen.from_source.clone_from(&self.from_source);
                seen.asking = asking;
                seen.batches.clone_from(&self.batches);
            }
            is_news
        });
    }

    /// Leaves in the store what is worth keeping after `outcome`.
    pub(crate) async fn close(&mut self, store: &Store, outcome: Outcome) {
        let Some(file) = self.file.clone() else {
            return;
        };
        let (store, task) = (store.clone(), self.task);
        let is_worthless = self.held.is_empty() && outcome != Outcome::Complete;
        let closed = tokio::task::spawn_blocking(move || match outcome {
            Outcome::Complete => file.complete(),
            Outcome::Failed(Failure::Corrupt) => forget(&store, task),
            Outcome::Left | Outcome::Failed(_) if is_worthless => forget(&store, task),
            Outcome::Left | Outcome::Failed(_) => Ok(()),
        });
        match closed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(task = %self.task, %error, "the store could not be kept in order")
            }
            Err(error) => tracing::error!(task = %self.task, %error, "closing a task failed"),
        }
    }

    fn know(&mut self, piece: PieceIndex, digest: PieceDigest) {
        let index = piece.0 as usize;
        if self.digests.len() <= index {
            self.digests.resize(index + 1, None);
        }
        self.digests[index] = Some(digest);
    }
}

/// Whether it was there does not matter.
fn forget(store: &Store, task: TaskId) -> Result<(), StoreError> {
    store.remove(task);
    Ok(())
}
