//! Hashes the whole body behind the pieces as they become contiguous, off the async threads.
//!
//! Reads back what was written, which is still in the page cache; one hash job at a time, so the
//! order of the bytes is the order of the body whoever brought them.

use std::sync::Arc;

use protocol::{ContentHasher, Digest, Layout, PieceIndex, PieceSet};

use crate::store::{StoreError, StoredTask};

/// Pieces hashed in one job, so that a job is short.
const PIECES_PER_JOB: u32 = 64;

/// How far the hash of the whole has come.
#[derive(Debug)]
pub(crate) struct Hashing {
    digest: Digest,
    /// Away while a job works with it.
    state: Option<(ContentHasher, u32)>,
}

/// What a hash job brings back.
#[derive(Debug)]
pub(crate) enum Hashed {
    Through(ContentHasher, u32),
    /// A piece could not be read back.
    Unreadable(PieceIndex, StoreError, ContentHasher, u32),
}

/// One job: the pieces from `next` to `end`.
#[derive(Debug)]
pub(crate) struct HashJob {
    hasher: ContentHasher,
    next: u32,
    end: u32,
}

// === impl Hashing ===

impl Hashing {
    pub(crate) fn new(digest: Digest) -> Self {
        Self {
            digest,
            state: Some((digest.hasher(), 0)),
        }
    }

    /// The next job, if there is something to hash and no job is under way.
    pub(crate) fn begin(&mut self, held: &PieceSet) -> Option<HashJob> {
        let (_, next) = self.state.as_ref()?;
        let end = held.first_missing(*next).min(next + PIECES_PER_JOB);
        if end == *next {
            return None;
        }
        let (hasher, next) = self.state.take()?;
        Some(HashJob { hasher, next, end })
    }

    pub(crate) fn resume(&mut self, hasher: ContentHasher, next: u32) {
        self.state = Some((hasher, next));
    }

    /// Whether the body holds, once all `count` pieces are hashed.
    pub(crate) fn verdict(&self, count: u32) -> Option<bool> {
        match &self.state {
            Some((hasher, next)) if *next >= count => Some(hasher.clone().finish() == self.digest),
            Some(_) | None => None,
        }
    }
}

// === impl HashJob ===

impl HashJob {
    /// Blocking.
    pub(crate) fn run(mut self, file: &Arc<StoredTask>, layout: Layout) -> Hashed {
        let mut buffer = Vec::with_capacity(layout.piece_len() as usize);
        for index in self.next..self.end {
            buffer.clear();
            if let Err(error) = file.read(layout.bytes_of(PieceIndex(index)), &mut buffer) {
                return Hashed::Unreadable(PieceIndex(index), error, self.hasher, index);
            }
            self.hasher.update(&buffer);
        }
        Hashed::Through(self.hasher, self.end)
    }
}
