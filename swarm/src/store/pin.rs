//! Pins: contents that stay, whatever else wants their room.
//!
//! A pin is a mark beside the content's files, so it goes when the content is removed and lasts when
//! the process ends. Pins never take more than a share of the quota, so that there is always room to
//! work with.

use protocol::content::TaskId;

use super::{Store, StoreError, shelf::lock};

/// The share of each quota that pins may take, in percent.
pub const PINNED_PERCENT_MAX: u64 = 50;

/// What became of a wish to pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    Stays,
    /// It is not in the store.
    Missing,
    /// With it, pins would take more than their share of the quota.
    NoShare,
}

impl Store {
    /// Keeps the content until it is unpinned or removed.
    pub fn pin(&self, task: TaskId) -> Result<Pinned, StoreError> {
        // Opened, it is known how much room it takes.
        let Some(stored) = self.lookup(task) else {
            return Ok(Pinned::Missing);
        };
        let shelf = &self.shelf;
        let _structure = lock(&shelf.structure);
        let mut room = lock(&shelf.room);
        let Some(entry) = room.entry(task).filter(|_| !stored.is_removed()) else {
            return Ok(Pinned::Missing);
        };
        let quota = room.usage(entry.kind).quota;
        let others = room.pinned_bytes(entry.kind, task);
        if quota / 100 * PINNED_PERCENT_MAX < others + entry.bytes {
            return Ok(Pinned::NoShare);
        }
        shelf
            .directory
            .pin(task)
            .map_err(StoreError::disk("mark a content as pinned"))?;
        room.pin(task, true);
        Ok(Pinned::Stays)
    }

    /// Lets the content go when its room is wanted; tells whether it was pinned.
    pub fn unpin(&self, task: TaskId) -> Result<bool, StoreError> {
        let _structure = lock(&self.shelf.structure);
        let was_pinned = self
            .shelf
            .directory
            .unpin(task)
            .map_err(StoreError::disk("unpin a content"))?;
        lock(&self.shelf.room).pin(task, false);
        Ok(was_pinned)
    }
}
