//! What `darter cache` shows and removes.

use std::{fmt, time::SystemTime};

use bytesize::ByteSize;
use protocol::{ContentKind, Digest, TaskId, Visibility};
use serde::{Deserialize, Serialize};
use swarm::store::{PINNED_PERCENT_MAX, Pinned, Store, TaskSummary};

/// Everything in the store, the last used first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CacheList {
    pub(crate) entries: Vec<CacheEntry>,
}

/// One content in the store.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CacheEntry {
    digest: String,
    kind: String,
    /// Bytes of the whole body, once known.
    size: Option<u64>,
    /// Bytes on the disk.
    allocated: u64,
    complete: bool,
    private: bool,
    pinned: bool,
    /// Seconds since 1970.
    last_used: u64,
}

/// What a removal came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CacheRemoval {
    pub(crate) removed: bool,
}

/// What became of a wish to pin, or to unpin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CachePin {
    /// What stood in the way; nothing where it was done.
    pub(crate) problem: Option<String>,
}

// === impl CacheList ===

impl CacheList {
    /// Blocking: reads one log for each content.
    pub(crate) fn of(store: &Store) -> Self {
        let mut entries: Vec<_> = store.list().map(CacheEntry::from).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.last_used));
        Self { entries }
    }
}

impl fmt::Display for CacheList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            let size = entry
                .size
                .map_or("?".to_owned(), |size| ByteSize::b(size).to_string());
            let state = if entry.complete {
                "complete"
            } else {
                "partial"
            };
            let visibility = if entry.private { "private" } else { "public" };
            let pinned = if entry.pinned { "  pinned" } else { "" };
            let CacheEntry { digest, kind, .. } = entry;
            writeln!(
                f,
                "{digest}  {kind:<8}  {size:>10}  {state:<8}  {visibility}{pinned}"
            )?;
        }
        let allocated = self.entries.iter().map(|entry| entry.allocated).sum();
        write!(
            f,
            "{} contents, {} on the disk",
            self.entries.len(),
            ByteSize::b(allocated)
        )
    }
}

impl From<TaskSummary> for CacheEntry {
    fn from(summary: TaskSummary) -> Self {
        let used = summary.last_used.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            digest: summary.task.to_string(),
            kind: match summary.kind {
                ContentKind::Blob => "blob".to_owned(),
                ContentKind::Manifest => "manifest".to_owned(),
            },
            size: summary.size,
            allocated: summary.allocated,
            complete: summary.complete,
            private: summary.visibility != Visibility::Public,
            pinned: summary.pinned,
            last_used: used.map_or(0, |used| used.as_secs()),
        }
    }
}

// === impl CacheRemoval ===

impl CacheRemoval {
    /// Blocking. Whoever reads the content now reads on.
    pub(crate) fn of(store: &Store, digest: Digest) -> Self {
        Self {
            removed: store.remove(TaskId(digest)),
        }
    }
}

// === impl CachePin ===

impl CachePin {
    /// Blocking.
    pub(crate) fn pin(store: &Store, digest: Digest) -> Self {
        let problem = match store.pin(TaskId(digest)) {
            Ok(Pinned::Stays) => None,
            Ok(Pinned::Missing) => Some(format!("{digest} is not in the store")),
            Ok(Pinned::NoShare) => Some(format!(
                "pins may take {PINNED_PERCENT_MAX} % of the quota, and {digest} would take more; unpin something, or raise swarm.storage_quota"
            )),
            Err(error) => Some(error.to_string()),
        };
        Self { problem }
    }

    /// Blocking.
    pub(crate) fn unpin(store: &Store, digest: Digest) -> Self {
        let problem = match store.unpin(TaskId(digest)) {
            Ok(true) => None,
            Ok(false) => Some(format!("{digest} is not pinned")),
            Err(error) => Some(error.to_string()),
        };
        Self { problem }
    }
}
