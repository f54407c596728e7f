//! The room that one task was promised, and when it was used.
//!
//! Invariant: what is promised and not on the disk yet is counted as taken until the task is
//! settled, completed or let go.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use protocol::{layout::PieceIndex, piece_set::PieceSet};

use super::{
    directory::allocated,
    error::StoreError,
    shelf::{Shelf, lock, milliseconds},
    task::StoredTask,
};

/// The time of last use is written to the disk at most this often.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// The room that was promised to this task.
#[derive(Debug, Default)]
pub(super) struct Charge {
    /// Pieces whose bytes are promised or on the disk.
    pub(super) pieces: PieceSet,
    /// Of what is promised, what is not on the disk yet.
    pub(super) unwritten: u64,
    pub(super) touched: Option<SystemTime>,
    pub(super) place: Place,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    InStore,
    /// Unlinked; its bytes are free when the last handle goes.
    Removed { bytes: u64 },
}

impl StoredTask {
    /// The task is being used: it is evicted after those that were used before.
    pub fn touch(&self, now: SystemTime) {
        let Some(shelf) = self.shelf.upgrade() else {
            return;
        };
        lock(&shelf.room).touch(self.task, milliseconds(Some(now)));
        {
            let mut charge = lock(&self.charge);
            let since = charge
                .touched
                .and_then(|touched| now.duration_since(touched).ok());
            if since.is_some_and(|since| since < TOUCH_INTERVAL) {
                return;
            }
            charge.touched = Some(now);
        }
        // An order that is a little wrong after the next start is the worst that can come of it.
        let _ = lock(&self.log).file().set_modified(now);
    }

    /// No more is promised to the task than what it takes now.
    pub(super) fn settle(&self, shelf: &Shelf) {
        let allocated = allocated(&self.data, lock(&self.log).file());
        let verified = lock(&self.ledger).is_verified();
        let mut charge = lock(&self.charge);
        let unwritten = std::mem::take(&mut charge.unwritten);
        charge.pieces = self.held();
        let mut room = lock(&shelf.room);
        room.written(unwritten);
        if let (Ok(bytes), Place::InStore) = (allocated, &charge.place) {
            room.settle(self.task, bytes, verified);
        }
    }

    /// The task was unlinked; the room still counts `bytes` for it.
    pub(super) fn leave(&self, bytes: u64) {
        let mut charge = lock(&self.charge);
        charge.place = Place::Removed { bytes };
        let unwritten = std::mem::take(&mut charge.unwritten);
        if let Some(shelf) = self.shelf.upgrade() {
            lock(&shelf.room).written(unwritten);
        }
    }

    /// Has room promised for the pieces that have none yet.
    pub(super) fn charge_for(&self, pieces: Range<u32>) -> Result<(), StoreError> {
        let layout = lock(&self.ledger).layout();
        let fresh: PieceSet = {
            let charge = lock(&self.charge);
            pieces
                .map(PieceIndex)
                .filter(|piece| !charge.pieces.contains(*piece))
                .collect()
        };
        self.refuse_removed()?;
        if fresh.is_empty() {
            return Ok(());
        }
        let range_len = |range: Range<u64>| range.end - range.start;
        let bytes = fresh
            .iter()
            .map(|piece| range_len(layout.bytes_of(piece)))
            .sum();
        let shelf = self.shelf.upgrade().ok_or(StoreError::Removed)?;
        shelf.grow(self, bytes)?;
        let mut charge = lock(&self.charge);
        charge.pieces.union(&fresh);
        charge.unwritten += bytes;
        Ok(())
    }

    pub(super) fn wrote(&self, bytes: u64) {
        let mut charge = lock(&self.charge);
        let bytes = bytes.min(charge.unwritten);
        charge.unwritten -= bytes;
        if let Some(shelf) = self.shelf.upgrade() {
            lock(&shelf.room).written(bytes);
        }
    }
}

impl Drop for StoredTask {
    fn drop(&mut self) {
        let charge = lock(&self.charge);
        if let (Place::Removed { bytes }, Some(shelf)) = (&charge.place, self.shelf.upgrade()) {
            lock(&shelf.room).release(self.kind, *bytes);
        }
    }
}
