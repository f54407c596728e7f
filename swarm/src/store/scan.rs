//! Walks over all tasks on the disk: once after a start to know how full the store is, and for
//! whoever wants a list. One task is looked at at a time.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use protocol::content::{ContentKind, TaskId, Visibility};

use super::{
    directory::{Files, allocated},
    log,
    room::Entry,
    shelf::{Shelf, lock, milliseconds},
};

/// One line of a list of what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSummary {
    pub task: TaskId,
    pub kind: ContentKind,
    /// Bytes of the whole body, once known.
    pub size: Option<u64>,
    /// Bytes on the disk.
    pub allocated: u64,
    pub complete: bool,
    pub visibility: Visibility,
    /// The media type that the source told; of manifests, mostly.
    pub media_type: Option<String>,
    pub last_used: SystemTime,
    pub pinned: bool,
}

/// Takes every task that is not known yet into account, then evicts what is over the quotas.
pub(super) fn scan(shelf: &Shelf) {
    if let Err(error) = shelf.directory.empty_trash() {
        tracing::warn!(%error, "removed tasks cannot be unlinked");
    }
    for task in shelf.directory.tasks() {
        if shelf.stopping.load(Ordering::Relaxed) {
            return;
        }
        if lock(&shelf.room).entry(task).is_some() {
            continue;
        }
        match find(shelf, task) {
            Ok(Some(entry)) => {
                // Not if it was removed since: nothing vanishes while `structure` is held.
                let _structure = lock(&shelf.structure);
                if shelf.directory.holds(task) {
                    lock(&shelf.room).find(task, entry);
                }
            }
            Ok(None) => remove_unreadable(shelf, task),
            Err(error) => tracing::warn!(%task, %error, "a stored task cannot be read"),
        }
    }
    let _structure = lock(&shelf.structure);
    for kind in [ContentKind::Blob, ContentKind::Manifest] {
        if let Err(error) = shelf.make_room(kind, 0) {
            tracing::warn!(%error, "the store is over its quota");
        }
    }
    shelf.scanned.store(true, Ordering::Release);
}

/// Everything that is stored, in no order. Reads one log for each item.
pub(super) fn list(shelf: &Arc<Shelf>) -> impl Iterator<Item = TaskSummary> + use<> {
    let shelf = Arc::clone(shelf);
    shelf
        .directory
        .tasks()
        .filter_map(move |task| summary(&shelf, task).ok().flatten())
}

fn find(shelf: &Shelf, task: TaskId) -> io::Result<Option<Entry>> {
    let Some(files) = shelf.directory.open_task(task)? else {
        return Ok(None);
    };
    let Some(begin) = log::inspect_begin(&files.log, task)? else {
        return Ok(None);
    };
    let bytes = allocated(&files.data, &files.log)?;
    let last_used = milliseconds(Some(modified(shelf, &files)?));
    Ok(Some(Entry {
        kind: begin.kind,
        bytes,
        last_used,
        verified: false,
        pinned: shelf.directory.is_pinned(task),
    }))
}

fn summary(shelf: &Shelf, task: TaskId) -> io::Result<Option<TaskSummary>> {
    let Some(files) = shelf.directory.open_task(task)? else {
        return Ok(None);
    };
    let Some(ledger) = log::inspect(&files.log, task)? else {
        return Ok(None);
    };
    Ok(Some(TaskSummary {
        task,
        kind: ledger.kind,
        size: ledger.layout().size(),
        allocated: allocated(&files.data, &files.log)?,
        complete: ledger.is_complete(),
        visibility: ledger.content.visibility,
        media_type: ledger.content.media_type,
        last_used: modified(shelf, &files)?,
        pinned: shelf.directory.is_pinned(task),
    }))
}

/// A log that is being created now looks unreadable too, so it is read again where none can be.
fn remove_unreadable(shelf: &Shelf, task: TaskId) {
    let structure = lock(&shelf.structure);
    let known = lock(&shelf.room).entry(task).is_some();
    let unreadable = !known && matches!(find(shelf, task), Ok(None));
    if unreadable && shelf.directory.holds(task) {
        shelf.counts.unreadable.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%task, "the log of a stored task is unreadable; the task is removed");
        shelf.detach(task);
    }
    drop(structure);
}

/// When the task was last used. A time to come, which a clock that was wrong has left, would keep
/// the task for good.
fn modified(shelf: &Shelf, files: &Files) -> io::Result<SystemTime> {
    Ok(files.log.metadata()?.modified()?.min(shelf.started))
}
