//! Verifies what lies on the disk, a piece at a time, when there is nothing better to do.
//!
//! The most recently used tasks come first, and each once in the life of a process.

use std::sync::Arc;

use protocol::{content::TaskId, layout::PieceIndex};

use super::{
    error::StoreError,
    shelf::{Shelf, lock},
    task::StoredTask,
};

/// What one step of the scrub found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubStep {
    /// The piece is what was landed, or could not be looked at now.
    Checked { task: TaskId, piece: PieceIndex },
    /// The piece was damaged and is held no more.
    Dropped { task: TaskId, piece: PieceIndex },
    /// Nothing is left to verify.
    Done,
}

/// How far the scrub has come.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    cursor: Option<(u64, TaskId)>,
    current: Option<Arc<StoredTask>>,
}

/// Verifies one piece.
pub(super) fn step(shelf: &Arc<Shelf>) -> ScrubStep {
    let mut scrub = lock(&shelf.scrub);
    loop {
        let Some(handle) = scrub.current.take() else {
            let Some(handle) = scrub.next_task(shelf) else {
                return ScrubStep::Done;
            };
            scrub.current = handle;
            continue;
        };
        let task = handle.task();
        let Some(piece) = handle.first_unverified().filter(|_| !handle.is_removed()) else {
            drop(handle);
            shelf.close_idle(task);
            continue;
        };
        return match handle.verify(piece) {
            Ok(()) | Err(StoreError::NotHeld { .. }) => {
                scrub.current = Some(handle);
                ScrubStep::Checked { task, piece }
            }
            Err(StoreError::Corrupt { .. }) => {
                scrub.current = Some(handle);
                ScrubStep::Dropped { task, piece }
            }
            // A piece that cannot be read at all is left to those who read it.
            Err(_) => ScrubStep::Checked { task, piece },
        };
    }
}

// === impl Scrub ===

impl Scrub {
    /// Opens the next task that is not verified; the outer `None` where there is none.
    fn next_task(&mut self, shelf: &Arc<Shelf>) -> Option<Option<Arc<StoredTask>>> {
        let (cursor, verified) = {
            let room = lock(&shelf.room);
            let next = self
                .cursor
                .map_or_else(|| room.last_used(), |at| room.used_before(at))?;
            (next, room.entry(next.1).is_some_and(|entry| entry.verified))
        };
        self.cursor = Some(cursor);
        Some(if verified {
            None
        } else {
            shelf.lookup(cursor.1)
        })
    }
}
