//! Pure: how many bytes each share of the store takes, and which tasks go when there is no room.
//!
//! Times are milliseconds since the epoch. About 200 bytes of memory for each task on the disk, of
//! which there are at most as many as the quotas have room for.

use std::collections::{BTreeSet, HashMap};

use protocol::content::{ContentKind, TaskId};

/// The shares and every task that is known to lie in them.
#[derive(Debug)]
pub(super) struct Room {
    blobs: Share,
    manifests: Share,
    entries: HashMap<TaskId, Entry>,
    /// Bytes that were promised but are not on the disk yet.
    unwritten: u64,
}

/// What is known of a task that lies on the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) kind: ContentKind,
    pub(super) bytes: u64,
    pub(super) last_used: u64,
    /// This process has verified every piece of it.
    pub(super) verified: bool,
    /// It stays, whatever else wants its room.
    pub(super) pinned: bool,
}

/// How full one share of the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareUsage {
    /// Bytes allocated or promised.
    pub bytes: u64,
    pub quota: u64,
    pub tasks: u64,
}

/// What a task to come asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) kind: ContentKind,
    pub(super) bytes: u64,
    /// How much of the file system may be taken before `min_free` is touched.
    pub(super) free: u64,
}

#[derive(Debug)]
struct Share {
    quota: u64,
    used: u64,
    /// Least recently used first.
    order: BTreeSet<(u64, TaskId)>,
}

// === impl Room ===

impl Room {
    pub(super) fn new(storage_quota: u64, manifest_quota: u64) -> Self {
        Self {
            blobs: Share::new(storage_quota),
            manifests: Share::new(manifest_quota),
            entries: HashMap::new(),
            unwritten: 0,
        }
    }

    /// Takes in a task that was found on the disk, unless it is known already.
    pub(super) fn find(&mut self, task: TaskId, entry: Entry) {
        if !self.entries.contains_key(&task) {
            self.share(entry.kind).used += entry.bytes;
            self.insert(task, entry);
        }
    }

    /// Takes in a new task, whose bytes are promised.
    pub(super) fn admit(&mut self, task: TaskId, entry: Entry) {
        self.unwritten += entry.bytes;
        self.find(task, entry);
    }

    /// Promises `bytes` more to a task.
    pub(super) fn grow(&mut self, task: TaskId, bytes: u64) {
        if let Some(entry) = self.entries.get_mut(&task) {
            entry.bytes += bytes;
            let kind = entry.kind;
            self.share(kind).used += bytes;
            self.unwritten += bytes;
        }
    }

    /// Some of what was promised is on the disk now, or will never be.
    pub(super) fn written(&mut self, bytes: u64) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
    }

    /// The task takes exactly `bytes`.
    pub(super) fn settle(&mut self, task: TaskId, bytes: u64, verified: bool) {
        if let Some(entry) = self.entries.get_mut(&task) {
            let before = std::mem::replace(&mut entry.bytes, bytes);
            entry.verified = verified;
            let kind = entry.kind;
            let share = self.share(kind);
            share.used = share.used.saturating_sub(before) + bytes;
        }
    }

    pub(super) fn pin(&mut self, task: TaskId, pinned: bool) {
        if let Some(entry) = self.entries.get_mut(&task) {
            entry.pinned = pinned;
        }
    }

    /// What pins take of the share of `kind`, `but` one left out.
    pub(super) fn pinned_bytes(&self, kind: ContentKind, but: TaskId) -> u64 {
        let pinned =
            |(task, entry): &(&TaskId, &Entry)| entry.pinned && entry.kind == kind && **task != but;
        let pinned = self.entries.iter().filter(pinned);
        pinned.map(|(_, entry)| entry.bytes).sum()
    }

    /// The task was used. Time that goes backwards changes nothing.
    pub(super) fn touch(&mut self, task: TaskId, now: u64) {
        if let Some(entry) = self.entries.get_mut(&task)
            && entry.last_used < now
        {
            let before = std::mem::replace(&mut entry.last_used, now);
            let kind = entry.kind;
            let order = &mut self.share(kind).order;
            order.remove(&(before, task));
            order.insert((now, task));
        }
    }

    pub(super) fn entry(&self, task: TaskId) -> Option<Entry> {
        self.entries.get(&task).copied()
    }

    /// Forgets a task. Its bytes count until they are given to [`Room::release`].
    pub(super) fn forget(&mut self, task: TaskId) -> Option<Entry> {
        let entry = self.entries.remove(&task)?;
        self.share(entry.kind)
            .order
            .remove(&(entry.last_used, task));
        Some(entry)
    }

    /// The bytes of a forgotten task are free.
    pub(super) fn release(&mut self, kind: ContentKind, bytes: u64) {
        let share = self.share(kind);
        share.used = share.used.saturating_sub(bytes);
    }

    /// The tasks that must go to make room for `need`: none where there is room, `None` where even
    /// all that may go are not enough. Manifests go for manifests alone; blobs go for blobs and to
    /// keep the file system from filling up.
    pub(super) fn plan(&self, need: Need, in_use: impl Fn(TaskId) -> bool) -> Option<Vec<TaskId>> {
        let is_pinned = |task| self.entries.get(&task).is_some_and(|entry| entry.pinned);
        let in_use = |task| in_use(task) || is_pinned(task);
        let share = self.share_of(need.kind);
        let mut over = (share.used + need.bytes).saturating_sub(share.quota);
        let mut short = (self.unwritten + need.bytes).saturating_sub(need.free);
        let mut victims = Vec::new();
        for task in share.idle(&in_use) {
            if over == 0 && (short == 0 || need.kind == ContentKind::Manifest) {
                break;
            }
            let bytes = self.entries.get(&task).map_or(0, |entry| entry.bytes);
            over = over.saturating_sub(bytes);
            short = short.saturating_sub(bytes);
            victims.push(task);
        }
        if need.kind == ContentKind::Manifest && over == 0 {
            for task in self.blobs.idle(&in_use) {
                if short == 0 {
                    break;
                }
                short =
                    short.saturating_sub(self.entries.get(&task).map_or(0, |entry| entry.bytes));
                victims.push(task);
            }
        }
        (over == 0 && short == 0).then_some(victims)
    }

    /// The most recently used task, of any share, that was used before `cursor`.
    pub(super) fn used_before(&self, cursor: (u64, TaskId)) -> Option<(u64, TaskId)> {
        let before = |share: &Share| share.order.range(..cursor).next_back().copied();
        before(&self.blobs).max(before(&self.manifests))
    }

    /// The most recently used task of any share.
    pub(super) fn last_used(&self) -> Option<(u64, TaskId)> {
        self.blobs
            .order
            .last()
            .max(self.manifests.order.last())
            .copied()
    }

    pub(super) fn usage(&self, kind: ContentKind) -> ShareUsage {
        let share = self.share_of(kind);
        ShareUsage {
            bytes: share.used,
            quota: share.quota,
            tasks: share.order.len() as u64,
        }
    }

    fn insert(&mut self, task: TaskId, entry: Entry) {
        self.share(entry.kind).order.insert((entry.last_used, task));
        self.entries.insert(task, entry);
    }

    fn share(&mut self, kind: ContentKind) -> &mut Share {
        match kind {
            ContentKind::Blob => &mut self.blobs,
            ContentKind::Manifest => &mut self.manifests,
        }
    }

    fn share_of(&self, kind: ContentKind) -> &Share {
        match kind {
            ContentKind::Blob => &self.blobs,
            ContentKind::Manifest => &self.manifests,
        }
    }
}

// === impl Share ===

impl Share {
    fn new(quota: u64) -> Self {
        Self {
            quota,
            used: 0,
            order: BTreeSet::new(),
        }
    }

    /// The tasks that may go, least recently used first.
    fn idle(&self, in_use: impl Fn(TaskId) -> bool) -> impl Iterator<Item = TaskId> {
        self.order
            .iter()
            .map(|(_, task)| *task)
            .filter(move |task| !in_use(*task))
    }
}
