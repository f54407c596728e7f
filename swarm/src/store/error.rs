//! Why the store could not do something, and what the caller is to make of it.

use std::{io, path::PathBuf};

use protocol::layout::PieceIndex;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// At start: the directory cannot be made, read or written.
    #[error("the store cannot use {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// At start: another process has the directory.
    #[error("{} is in use by another darter; give each its own data_dir", path.display())]
    Locked { path: PathBuf },
    /// At start: written by a later release.
    #[error("{} was written by a newer darter; use that release or another data_dir", path.display())]
    NewerFormat { path: PathBuf },
    /// Quota or `min_free` leave no room, even with everything idle evicted.
    #[error("no room for {needed} bytes in the store")]
    NoRoom { needed: u64 },
    /// The disk is full or failing.
    #[error("the disk failed to {doing}: {source}")]
    Disk {
        doing: &'static str,
        source: io::Error,
    },
    /// The piece log of this task has reached its bound.
    #[error("the piece log is full")]
    LogFull,
    /// A piece that is asked for is not held.
    #[error("piece {} is not held", piece.0)]
    NotHeld { piece: PieceIndex },
    /// The bytes on the disk are not those that were landed. The piece is held no more.
    #[error("piece {} was damaged on the disk", piece.0)]
    Corrupt { piece: PieceIndex },
    /// This attempt was removed or replaced; what is held of it can still be read.
    #[error("the task was removed from the store")]
    Removed,
    /// The caller contradicts the layout of the task.
    #[error("the store was asked for what cannot be: {0}")]
    Contradiction(&'static str),
}

// === impl StoreError ===

impl StoreError {
    /// For `map_err`: the disk failed while `doing`.
    pub(super) fn disk<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Disk {
            doing,
            source: source.into(),
        }
    }
}
