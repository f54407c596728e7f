//! Hashes the whole body behind the pieces as they become contiguous, off the async threads.
//!
//! Reads back what was written, which is still in the page cache; one hash job at a time, so the
//! order of the bytes is the order of the body whoever brought them.
//!
//! Invariant: a verdict is of the pieces that are held. When a piece that was hashed is lost, be it
//! with the attempt it belonged to, the hash begins again.

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
    /// Pieces before this one are hashed, or a job is at work on them.
    end: u32,
    /// How often the hash has begun again; a job of an earlier round is of no use.
    round: u32,
}

/// What a hash job brings back.
#[derive(Debug)]
pub(crate) struct Hashed {
    round: u32,
    hasher: ContentHasher,
    next: u32,
    /// Why the piece `next` could not be read back.
    unreadable: Option<StoreError>,
}

/// One job: the pieces from `next` to `end`.
#[derive(Debug)]
pub(crate) struct HashJob {
    round: u32,
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
            end: 0,
            round: 0,
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
        self.end = end;
        Some(HashJob {
            round: self.round,
            hasher,
            next,
            end,
        })
    }

    /// Goes on from where a job has come; the piece that it could not read, and why.
    pub(crate) fn resume(&mut self, hashed: Hashed) -> Option<(PieceIndex, StoreError)> {
        if hashed.round != self.round {
            return None;
        }
        self.end = hashed.next;
        self.state = Some((hashed.hasher, hashed.next));
        let piece = PieceIndex(hashed.next);
        hashed.unreadable.map(|error| (piece, error))
    }

    /// What comes in place of `piece` may be other bytes.
    pub(crate) fn lost(&mut self, piece: PieceIndex) {
        if piece.0 < self.end {
            self.round += 1;
            self.end = 0;
            self.state = Some((self.digest.hasher(), 0));
        }
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
        let mut unreadable = None;
        while self.next < self.end && unreadable.is_none() {
            buffer.clear();
            match file.read(layout.bytes_of(PieceIndex(self.next)), &mut buffer) {
                Ok(()) => {
                    self.hasher.update(&buffer);
                    self.next += 1;
                }
                Err(error) => unreadable = Some(error),
            }
        }
        Hashed {
            round: self.round,
            hasher: self.hasher,
            next: self.next,
            unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: [&[u8]; 3] = [b"one", b"two", b"three"];

    /// Does the job as [`HashJob::run`] would, with these pieces in place of a file.
    fn done(mut job: HashJob, pieces: [&[u8]; 3]) -> Hashed {
        for piece in &pieces[job.next as usize..job.end as usize] {
            job.hasher.update(piece);
        }
        Hashed {
            round: job.round,
            hasher: job.hasher,
            next: job.end,
            unreadable: None,
        }
    }

    fn held(pieces: std::ops::Range<u32>) -> PieceSet {
        pieces.map(PieceIndex).collect()
    }

    #[test]
    fn a_lost_piece_that_was_hashed_is_hashed_anew() {
        let other: [&[u8]; 3] = [b"one", b"TWO", b"three"];
        let mut hashing = Hashing::new(Digest::sha256_of(&BODY.concat()));
        let job = hashing.begin(&held(0..2)).unwrap();
        hashing.resume(done(job, BODY));
        // Piece 1 is lost, and something else has come in its place.
        hashing.lost(PieceIndex(1));
        let job = hashing.begin(&held(0..3)).unwrap();
        hashing.resume(done(job, other));
        assert_eq!(hashing.verdict(3), Some(false));
    }

    #[test]
    fn a_job_that_was_at_work_on_a_lost_piece_counts_for_nothing() {
        let mut hashing = Hashing::new(Digest::sha256_of(&BODY.concat()));
        let early = hashing.begin(&held(0..3)).unwrap();
        hashing.lost(PieceIndex(0));
        hashing.resume(done(early, BODY));
        assert_eq!(hashing.verdict(3), None);
        let job = hashing.begin(&held(0..3)).unwrap();
        hashing.resume(done(job, BODY));
        assert_eq!(hashing.verdict(3), Some(true));
    }

    #[test]
    fn a_lost_piece_that_was_not_hashed_yet_changes_nothing() {
        let mut hashing = Hashing::new(Digest::sha256_of(&BODY.concat()));
        let job = hashing.begin(&held(0..2)).unwrap();
        hashing.resume(done(job, BODY));
        hashing.lost(PieceIndex(2));
        let job = hashing.begin(&held(0..3)).unwrap();
        assert_eq!(job.next, 2);
    }
}
