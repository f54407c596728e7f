//! Keeps pieces on the disk: one sparse data file and one piece log for each task.
//!
//! The calls block on the disk; async callers make them on a blocking pool. Nothing grows in memory
//! with the size of a body but 33 bytes for each of its pieces. The store does not hash whole
//! bodies, does not judge who may see them, and does not tell anybody what it holds.
//!
//! Invariant: a byte that [`StoredTask::read`] gives out belongs to a piece that was landed in this
//! process or has been verified by it, whatever a crash has done to the files.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use protocol::{
    content::{Content, ContentKind, TaskId},
    layout::{LAYOUT_VERSION, Layout},
};

mod charge;
mod directory;
mod error;
mod ledger;
mod log;
mod pin;
mod reading;
mod record;
mod room;
mod scan;
mod scrub;
mod shelf;
mod table;
mod task;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use pin::{PINNED_PERCENT_MAX, Pinned};
pub use room::ShareUsage;
pub use scan::TaskSummary;
pub use scrub::ScrubStep;
pub use task::StoredTask;

use record::Begin;
use shelf::{Shelf, lock};

/// Where the store lies and how much it may take, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Made if it is not there. One process has it at a time.
    pub dir: PathBuf,
    /// For blobs.
    pub storage_quota: u64,
    /// For manifests.
    pub manifest_quota: u64,
    /// What the file system keeps free, whatever the quotas say.
    pub min_free: u64,
}

/// A store on the disk. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shelf: Arc<Shelf>,
}

/// How full the store is and what has happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub blobs: ShareUsage,
    pub manifests: ShareUsage,
    /// Before the scan has ended, tasks of earlier runs may be missing above.
    pub scanned: bool,
    /// Tasks that made room for others.
    pub evicted: u64,
    /// Tasks whose log could not be read, removed.
    pub unreadable: u64,
    /// Pieces that were not what had been landed, dropped.
    pub damaged: u64,
}

// === impl Store ===

impl Store {
    /// Opens the store without looking at any task. `now` bounds the times of use that are believed.
    pub fn open(config: Config, now: SystemTime) -> Result<Self, StoreError> {
        Ok(Self {
            shelf: Arc::new(Shelf::open(config, now)?),
        })
    }

    /// Finds out how full the store is, and evicts what is over the quotas. To be run once, in the
    /// background; ends early after [`Store::stop`].
    pub fn scan(&self) {
        scan::scan(&self.shelf);
    }

    /// Makes a scan that is running end soon.
    pub fn stop(&self) {
        self.shelf.stopping.store(true, Ordering::Relaxed);
    }

    /// The task, if it lies in the store; opened if it is not open.
    pub fn lookup(&self, task: TaskId) -> Option<Arc<StoredTask>> {
        self.shelf.lookup(task)
    }

    /// The task, if it is open already. Never touches the disk.
    pub fn lookup_open(&self, task: TaskId) -> Option<Arc<StoredTask>> {
        lock(&self.shelf.table).get(task)
    }

    /// Starts an attempt in place of any older one, whose readers finish on what they have open.
    /// Room for all of a known size is made now, by evicting what was used least recently.
    pub fn create(
        &self,
        task: TaskId,
        kind: ContentKind,
        content: &Content,
    ) -> Result<Arc<StoredTask>, StoreError> {
        let layout = content.layout;
        if Layout::told(LAYOUT_VERSION, layout.piece_len() as u32, layout.size()) != Some(layout) {
            return Err(StoreError::Contradiction(
                "a layout that this version does not make",
            ));
        }
        self.shelf.create(&Begin {
            task,
            kind,
            content: content.clone(),
        })
    }

    /// Removes the task; who has it open reads on. `false` where it was not stored.
    pub fn remove(&self, task: TaskId) -> bool {
        self.shelf.remove(task)
    }

    /// The tasks that were removed, evicted or replaced since the last call, for those to be told
    /// who were told that we hold them.
    pub fn take_removals(&self) -> Vec<TaskId> {
        lock(&self.shelf.removals).drain(..).collect()
    }

    /// Everything that is stored, in no order. Reads one log for each item.
    pub fn list(&self) -> impl Iterator<Item = TaskSummary> + use<> {
        scan::list(&self.shelf)
    }

    /// Verifies one piece that this process has not verified. To be called when idle, after the scan.
    pub fn scrub_step(&self) -> ScrubStep {
        scrub::step(&self.shelf)
    }

    pub fn usage(&self) -> Usage {
        let counts = &self.shelf.counts;
        let room = lock(&self.shelf.room);
        Usage {
            blobs: room.usage(ContentKind::Blob),
            manifests: room.usage(ContentKind::Manifest),
            scanned: self.shelf.scanned.load(Ordering::Acquire),
            evicted: counts.evicted.load(Ordering::Relaxed),
            unreadable: counts.unreadable.load(Ordering::Relaxed),
            damaged: counts.damaged.load(Ordering::Relaxed),
        }
    }
}
