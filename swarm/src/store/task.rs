//! One attempt at a task that is kept on the disk: what is written to it and what is known of it.
//!
//! Invariant: a piece is held only after its bytes were written whole, and its record follows its
//! bytes. Bytes of a held piece are not written again.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, Weak, atomic::Ordering},
};

use protocol::{
    batch::PieceDigest,
    content::{Content, ContentKind, TaskId, Visibility},
    layout::PieceIndex,
    piece_set::PieceSet,
};

use super::{
    charge::{Charge, Place},
    error::StoreError,
    ledger::{Ledger, Trust},
    log::Log,
    record::Record,
    shelf::{Shelf, lock},
};

/// A task in the store, open. Whoever has a handle keeps the task from being evicted.
#[derive(Debug)]
pub struct StoredTask {
    pub(super) task: TaskId,
    pub(super) kind: ContentKind,
    pub(super) shelf: Weak<Shelf>,
    pub(super) data: File,
    pub(super) log: Mutex<Log>,
    /// Taken after the log where both are taken, and never while a file is written.
    pub(super) ledger: Mutex<Ledger>,
    pub(super) charge: Mutex<Charge>,
    /// Whoever writes a piece: the kernel has one writer of a file at a time, for whom others would
    /// wait there without rest.
    pub(super) writing: Mutex<()>,
}

// === impl StoredTask ===

impl StoredTask {
    pub(super) fn created(
        shelf: &Arc<Shelf>,
        task: TaskId,
        data: File,
        (log, ledger): (Log, Ledger),
        promised: u64,
    ) -> Arc<Self> {
        let pieces = PieceSet::of_range(0..ledger.layout().piece_count().unwrap_or(0));
        let charge = Charge {
            pieces,
            unwritten: promised,
            ..Charge::default()
        };
        Self::new(shelf, task, data, (log, ledger), charge)
    }

    pub(super) fn opened(
        shelf: &Arc<Shelf>,
        task: TaskId,
        data: File,
        (log, ledger): (Log, Ledger),
    ) -> Arc<Self> {
        let charge = Charge {
            pieces: ledger.held.clone(),
            ..Charge::default()
        };
        Self::new(shelf, task, data, (log, ledger), charge)
    }

    fn new(
        shelf: &Arc<Shelf>,
        task: TaskId,
        data: File,
        (log, ledger): (Log, Ledger),
        charge: Charge,
    ) -> Arc<Self> {
        Arc::new(Self {
            task,
            kind: ledger.kind,
            shelf: Arc::downgrade(shelf),
            data,
            log: Mutex::new(log),
            ledger: Mutex::new(ledger),
            charge: Mutex::new(charge),
            writing: Mutex::default(),
        })
    }

    pub fn task(&self) -> TaskId {
        self.task
    }

    pub fn kind(&self) -> ContentKind {
        self.kind
    }

    /// The content as known now: its size and visibility may have been told since it began.
    pub fn content(&self) -> Content {
        lock(&self.ledger).content.clone()
    }

    /// The pieces that can be read.
    pub fn held(&self) -> PieceSet {
        lock(&self.ledger).held.clone()
    }

    /// Whether every byte of `range` is in a held piece.
    pub fn holds(&self, range: &Range<u64>) -> bool {
        let ledger = lock(&self.ledger);
        ledger.may_cover(range) && ledger.held.contains_all(ledger.layout().pieces_of(range))
    }

    /// Where the held bytes that begin at `offset` end; `offset` itself where none do.
    pub fn held_to(&self, offset: u64) -> u64 {
        let ledger = lock(&self.ledger);
        if !ledger.may_cover(&(offset..offset)) {
            return offset;
        }
        let first = ledger.layout().piece_at(offset);
        let missing = ledger.held.first_missing(first.0);
        if missing == first.0 {
            return offset;
        }
        ledger
            .layout()
            .bytes_of(PieceIndex(missing - 1))
            .end
            .max(offset)
    }

    /// Whether every piece is held and [`StoredTask::complete`] was called.
    pub fn is_complete(&self) -> bool {
        lock(&self.ledger).is_complete()
    }

    /// Whether the task was removed or replaced by a new attempt.
    pub fn is_removed(&self) -> bool {
        lock(&self.charge).place != Place::InStore
    }

    /// The digest that was last landed for `piece`, also where the piece itself was lost since.
    pub fn digest_of(&self, piece: PieceIndex) -> Option<PieceDigest> {
        lock(&self.ledger).digest_of(piece)
    }

    /// Writes bytes of pieces that are still arriving. What lies in held pieces is passed over.
    pub fn write_partial(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        let layout = {
            let ledger = lock(&self.ledger);
            if !ledger.may_cover(&range) {
                return Err(StoreError::Contradiction("bytes past the end of the body"));
            }
            ledger.layout()
        };
        let pieces = layout.pieces_of(&range);
        self.charge_for(pieces.clone())?;
        for piece in pieces.map(PieceIndex) {
            if self.is_sound(piece)? {
                continue;
            }
            let of_piece = layout.bytes_of(piece);
            let (start, end) = (of_piece.start.max(range.start), of_piece.end.min(range.end));
            let part = &bytes[(start - offset) as usize..(end - offset) as usize];
            self.data
                .write_all_at(part, start)
                .map_err(StoreError::disk("write a part of a piece"))?;
        }
        Ok(())
    }

    /// Writes a whole piece and holds it; tells its digest. A piece that is held stays as it is.
    ///
    /// The last piece of a body that began with no size lands after [`StoredTask::end_at`].
    pub fn land(&self, piece: PieceIndex, bytes: &[u8]) -> Result<PieceDigest, StoreError> {
        self.land_known(piece, bytes, *blake3::hash(bytes).as_bytes())
    }

    /// As [`StoredTask::land`], for bytes of which it was seen that they have `digest`.
    pub(crate) fn land_known(
        &self,
        piece: PieceIndex,
        bytes: &[u8],
        digest: PieceDigest,
    ) -> Result<PieceDigest, StoreError> {
        let range = {
            let ledger = lock(&self.ledger);
            ledger
                .has_piece(piece)
                .then(|| ledger.layout().bytes_of(piece))
        };
        let range = range.ok_or(StoreError::Contradiction(
            "a piece past the end of the body",
        ))?;
        if range.end - range.start != bytes.len() as u64 {
            return Err(StoreError::Contradiction("a piece of another length"));
        }
        if self.is_sound(piece)?
            && let Some(digest) = self.digest_of(piece)
        {
            return Ok(digest);
        }
        self.charge_for(piece.0..piece.0 + 1)?;
        {
            let _turn = lock(&self.writing);
            self.data
                .write_all_at(bytes, range.start)
                .map_err(StoreError::disk("write a piece"))?;
        }
        self.land_written(piece, digest)?;
        Ok(digest)
    }

    /// Holds a piece whose bytes were all written by [`StoredTask::write_partial`] and have `digest`.
    pub fn land_written(&self, piece: PieceIndex, digest: PieceDigest) -> Result<(), StoreError> {
        if self.is_sound(piece)? {
            return Ok(());
        }
        let mut log = lock(&self.log);
        let layout = {
            let ledger = lock(&self.ledger);
            if !ledger.has_piece(piece) {
                return Err(StoreError::Contradiction(
                    "a piece past the end of the body",
                ));
            }
            ledger.layout()
        };
        self.refuse_removed()?;
        log.append(&Record::Piece(piece, digest), layout)?;
        lock(&self.ledger).land(piece, digest, Trust::Verified);
        drop(log);
        let range = layout.bytes_of(piece);
        self.wrote(range.end - range.start);
        Ok(())
    }

    /// Keeps a signed batch, as bytes.
    pub fn append_batch(&self, batch: &[u8]) -> Result<(), StoreError> {
        let place = self.append(&Record::Batch(batch.to_vec()))?;
        lock(&self.ledger).batches.push(place);
        Ok(())
    }

    /// The batches, in the order they were appended. One that the disk has damaged is left out.
    pub fn batches(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let places = lock(&self.ledger).batches.clone();
        let log = lock(&self.log);
        let read = places
            .into_iter()
            .filter_map(|place| log.batch(place).transpose());
        read.collect::<Result<_, _>>()
            .map_err(StoreError::disk("read a batch"))
    }

    /// The body that began with no size has ended.
    pub fn end_at(&self, size: u64) -> Result<(), StoreError> {
        let mut log = lock(&self.log);
        let (layout, may_end) = {
            let ledger = lock(&self.ledger);
            (ledger.layout(), ledger.may_end_at(size))
        };
        if !may_end {
            return Err(StoreError::Contradiction(
                "an end before the last piece or unlike the size",
            ));
        }
        if layout.size().is_none() {
            self.refuse_removed()?;
            log.append(&Record::Ended(size), layout)?;
            lock(&self.ledger).end_at(size);
        }
        Ok(())
    }

    /// The digest of the whole held. All pieces must be held.
    pub fn complete(&self) -> Result<(), StoreError> {
        let mut log = lock(&self.log);
        let layout = {
            let ledger = lock(&self.ledger);
            if let Some(piece) = ledger.first_missing() {
                return Err(StoreError::NotHeld { piece });
            }
            ledger.layout()
        };
        self.refuse_removed()?;
        log.append(&Record::Complete, layout)?;
        lock(&self.ledger).complete();
        drop(log);
        if let Some(shelf) = self.shelf.upgrade() {
            self.settle(&shelf);
        }
        Ok(())
    }

    /// From now on the content may be seen by these.
    pub fn set_visibility(&self, visibility: &Visibility) -> Result<(), StoreError> {
        self.append(&Record::Seen(visibility.clone()))?;
        lock(&self.ledger).content.visibility = visibility.clone();
        Ok(())
    }

    /// Removes this attempt; who has it open reads on. `false` if it was removed before.
    pub fn remove(&self) -> bool {
        self.shelf
            .upgrade()
            .is_some_and(|shelf| shelf.remove_attempt(self))
    }

    /// Drops a piece whose bytes do not match; `false` if it was landed or dropped meanwhile.
    pub(super) fn drop_damaged(&self, piece: PieceIndex, trust: Trust) -> bool {
        let mut log = lock(&self.log);
        let layout = {
            let mut ledger = lock(&self.ledger);
            let verified = ledger.verified.contains(piece);
            if !ledger.held.contains(piece) || (verified && trust == Trust::Logged) {
                return false;
            }
            ledger.drop_piece(piece);
            ledger.layout()
        };
        // Without the record the next start believes the log until it reads the piece.
        let _ = log.append(&Record::Dropped(piece), layout);
        if let Some(shelf) = self.shelf.upgrade() {
            shelf.counts.damaged.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Whether `piece` is held and its bytes are what was landed.
    fn is_sound(&self, piece: PieceIndex) -> Result<bool, StoreError> {
        match self.verify(piece) {
            Ok(()) => Ok(true),
            Err(StoreError::NotHeld { .. } | StoreError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn append(&self, record: &Record) -> Result<super::ledger::BatchPlace, StoreError> {
        self.refuse_removed()?;
        let layout = lock(&self.ledger).layout();
        lock(&self.log).append(record, layout)
    }

    pub(super) fn refuse_removed(&self) -> Result<(), StoreError> {
        if self.is_removed() {
            Err(StoreError::Removed)
        } else {
            Ok(())
        }
    }
}
