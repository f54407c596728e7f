//! What all handles of one store share: the directory, the open tasks and the room that is left.
//!
//! Locks are taken in this order: `structure`, the table, those of a task, the room. `structure`
//! is held while directories appear or vanish; the others for a few lines without any file access
//! but those of an idle task.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::content::{Content, ContentKind, TaskId};

use super::{
    Config,
    directory::{Directory, EMPTY_TASK_BYTES, rounded},
    error::StoreError,
    ledger::Ledger,
    log::Log,
    record::Begin,
    room::{Entry, Need, Room},
    scrub::Scrub,
    table::Table,
    task::StoredTask,
};

/// Removed tasks that wait to be told of; past it the oldest are forgotten, since hosts announce
/// what they hold again and again.
const REMOVALS_MAX: usize = 4096;

/// What the log of one piece takes: its record and its part of a batch.
const LOG_BYTES_PER_PIECE: u64 = 128;

#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) config: Config,
    pub(super) directory: Directory,
    pub(super) started: SystemTime,
    pub(super) structure: Mutex<()>,
    pub(super) table: Mutex<Table>,
    pub(super) room: Mutex<Room>,
    pub(super) removals: Mutex<VecDeque<TaskId>>,
    pub(super) scrub: Mutex<Scrub>,
    pub(super) scanned: AtomicBool,
    pub(super) stopping: AtomicBool,
    pub(super) counts: Counts,
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) evicted: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) damaged: AtomicU64,
}

// === impl Shelf ===

impl Shelf {
    pub(super) fn open(config: Config, now: SystemTime) -> Result<Self, StoreError> {
        Ok(Self {
            directory: Directory::open(&config.dir, now)?,
            room: Mutex::new(Room::new(config.storage_quota, config.manifest_quota)),
            config,
            started: now,
            structure: Mutex::default(),
            table: Mutex::default(),
            removals: Mutex::default(),
            scrub: Mutex::default(),
            scanned: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    /// The task, opened if it lies on the disk.
    pub(super) fn lookup(self: &Arc<Self>, task: TaskId) -> Option<Arc<StoredTask>> {
        if let Some(open) = lock(&self.table).get(task) {
            return Some(open);
        }
        let _structure = lock(&self.structure);
        if let Some(open) = lock(&self.table).get(task) {
            return Some(open);
        }
        match self.open_from_disk(task) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%task, %error, "a stored task cannot be opened");
                None
            }
        }
    }

    /// Starts a new attempt in place of any older one.
    pub(super) fn create(self: &Arc<Self>, begin: &Begin) -> Result<Arc<StoredTask>, StoreError> {
        let _structure = lock(&self.structure);
        let task = begin.task;
        self.detach(task);
        let bytes = room_for(&begin.content);
        self.make_room(begin.kind, bytes)?;
        let created = self.create_files(begin);
        let (files, log, ledger) = created.inspect_err(|_| {
            // What was made of it is of no use, and the disk may have no room for more.
            let _ = self.directory.discard(task);
        })?;
        let last_used = milliseconds(log.file().metadata().and_then(|told| told.modified()).ok());
        let entry = Entry {
            kind: begin.kind,
            bytes,
            last_used,
            verified: false,
            pinned: false,
        };
        lock(&self.room).admit(task, entry);
        let handle = StoredTask::created(self, task, files, (log, ledger), bytes);
        self.keep_open(&handle);
        Ok(handle)
    }

    /// Removes the task; who has it open reads on.
    pub(super) fn remove(&self, task: TaskId) -> bool {
        let _structure = lock(&self.structure);
        self.detach(task)
    }

    /// Removes the task if `handle` is its current attempt.
    pub(super) fn remove_attempt(&self, handle: &StoredTask) -> bool {
        let _structure = lock(&self.structure);
        !handle.is_removed() && self.detach(handle.task())
    }

    /// Promises `bytes` more to a task that is in use.
    pub(super) fn grow(&self, handle: &StoredTask, bytes: u64) -> Result<(), StoreError> {
        let _structure = lock(&self.structure);
        if handle.is_removed() {
            return Err(StoreError::Removed);
        }
        self.make_room(handle.kind(), bytes)?;
        lock(&self.room).grow(handle.task(), bytes);
        Ok(())
    }

    /// Evicts until `bytes` more fit. `structure` must be held.
    pub(super) fn make_room(&self, kind: ContentKind, bytes: u64) -> Result<(), StoreError> {
        let available = self
            .directory
            .available()
            .map_err(StoreError::disk("tell its free space"))?;
        let need = Need {
            kind,
            bytes,
            free: available.saturating_sub(self.config.min_free),
        };
        let roomy = lock(&self.room).plan(need, |_| true).is_some();
        if roomy {
            return Ok(());
        }
        let abandoned = lock(&self.table).take_idle_incomplete();
        self.settle_closed(abandoned);
        let mut table = lock(&self.table);
        let plan = lock(&self.room).plan(need, |task| table.in_use(task));
        let victims = plan.ok_or(StoreError::NoRoom { needed: bytes })?;
        let closed: Vec<_> = victims
            .iter()
            .filter_map(|task| table.take(*task))
            .collect();
        drop(table);
        self.settle_closed(closed);
        for victim in victims {
            tracing::debug!(task = %victim, "evicted");
            self.counts.evicted.fetch_add(1, Ordering::Relaxed);
            self.detach(victim);
        }
        Ok(())
    }

    /// Closes the task if nobody else has it open.
    pub(super) fn close_idle(&self, task: TaskId) {
        let _structure = lock(&self.structure);
        let idle = lock(&self.table).take_idle(task);
        self.settle_closed(idle);
    }

    fn open_from_disk(self: &Arc<Self>, task: TaskId) -> std::io::Result<Option<Arc<StoredTask>>> {
        let Some(files) = self.directory.open_task(task)? else {
            // Half of a task: what a crash in the middle of a creation leaves.
            self.directory.discard(task)?;
            return Ok(None);
        };
        let last_used = files.log.metadata()?.modified()?.min(self.started);
        let Some((log, mut ledger)) = Log::open(files.log, task)? else {
            self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%task, "the log of a stored task is unreadable; the task is removed");
            self.detach(task);
            return Ok(None);
        };
        let bytes = super::directory::allocated(&files.data, log.file())?;
        let entry = {
            let mut room = lock(&self.room);
            let last_used = milliseconds(Some(last_used));
            room.find(
                task,
                Entry {
                    kind: ledger.kind,
                    bytes,
                    last_used,
                    verified: false,
                    pinned: self.directory.is_pinned(task),
                },
            );
            room.entry(task)
        };
        if entry.is_some_and(|entry| entry.verified) {
            ledger.trust_all();
        }
        let handle = StoredTask::opened(self, task, files.data, (log, ledger));
        self.keep_open(&handle);
        Ok(Some(handle))
    }

    fn create_files(&self, begin: &Begin) -> Result<(std::fs::File, Log, Ledger), StoreError> {
        let files = self
            .directory
            .create(begin.task)
            .map_err(StoreError::disk("make a task's files"))?;
        let (log, ledger) = Log::create(files.log, begin)?;
        Ok((files.data, log, ledger))
    }

    /// Takes the task out of everything and unlinks it. `structure` must be held.
    pub(super) fn detach(&self, task: TaskId) -> bool {
        let open = lock(&self.table).take(task);
        let entry = lock(&self.room).forget(task);
        match (open, entry) {
            // Its bytes are free when the last who has it open lets go.
            (Some(handle), Some(entry)) => handle.leave(entry.bytes),
            (Some(handle), None) => handle.leave(0),
            (None, Some(entry)) => lock(&self.room).release(entry.kind, entry.bytes),
            (None, None) => {}
        }
        let mut removals = lock(&self.removals);
        if removals.len() == REMOVALS_MAX {
            removals.pop_front();
        }
        if entry.is_some() {
            removals.push_back(task);
        }
        drop(removals);
        self.directory.discard(task).unwrap_or_else(|error| {
            tracing::warn!(%task, %error, "a stored task cannot be unlinked");
            entry.is_some()
        })
    }

    fn keep_open(&self, handle: &Arc<StoredTask>) {
        let mut table = lock(&self.table);
        table.insert(Arc::clone(handle));
        let surplus = table.take_surplus();
        drop(table);
        self.settle_closed(surplus);
    }

    /// Tasks that were taken from the table take what they take, and no more is promised to them.
    fn settle_closed(&self, closed: impl IntoIterator<Item = Arc<StoredTask>>) {
        for handle in closed {
            handle.settle(self);
        }
    }
}

/// A guard, whether or not another thread has panicked: each change under our locks is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since the epoch.
pub(super) fn milliseconds(time: Option<SystemTime>) -> u64 {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.unwrap_or(Duration::ZERO).as_millis() as u64
}

/// What a new task is promised: all of it where the size is known.
fn room_for(content: &Content) -> u64 {
    let pieces = u64::from(content.layout.piece_count().unwrap_or(0));
    let body = rounded(content.layout.size().unwrap_or(0));
    EMPTY_TASK_BYTES + body + pieces * LOG_BYTES_PER_PIECE
}
