//! Pure: what the records of one piece log add up to: which pieces are held, their digests, and
//! which of them this process has verified.
//!
//! Invariant: a piece that is verified is held, and every held piece has a digest.

use std::ops::Range;

use protocol::{
    batch::PieceDigest,
    content::{Content, ContentKind},
    layout::{Layout, PieceIndex},
    piece_set::{PIECES_MAX, PieceSet},
};

use super::record::{Begin, Record};

/// What is known of one attempt at a task.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) kind: ContentKind,
    pub(super) content: Content,
    pub(super) held: PieceSet,
    pub(super) verified: PieceSet,
    pub(super) batches: Vec<BatchPlace>,
    digests: Vec<Option<PieceDigest>>,
    completed: bool,
}

/// Where a batch lies in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchPlace {
    pub(super) offset: u64,
    pub(super) len: u32,
    /// The checksum of the record before it.
    pub(super) chain: u64,
}

/// Whether a landed piece was read from the disk or written by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Logged,
    Verified,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn begin(begin: Begin) -> Self {
        Self {
            kind: begin.kind,
            content: begin.content,
            held: PieceSet::default(),
            verified: PieceSet::default(),
            batches: Vec::new(),
            digests: Vec::new(),
            completed: false,
        }
    }

    /// Takes in one more record of the log; `false` where it cannot follow those before.
    pub(super) fn replay(&mut self, record: Record, place: BatchPlace) -> bool {
        match record {
            Record::Begin(_) => false,
            Record::Piece(piece, digest) => self.land(piece, digest, Trust::Logged),
            Record::Batch(_) => {
                self.batches.push(place);
                true
            }
            Record::Ended(size) => self.end_at(size),
            Record::Complete => self.complete(),
            Record::Dropped(piece) => {
                self.drop_piece(piece);
                true
            }
            Record::Seen(visibility) => {
                self.content.visibility = visibility;
                true
            }
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.content.layout
    }

    /// Whether there is a piece of this index.
    pub(super) fn has_piece(&self, piece: PieceIndex) -> bool {
        piece.0
            < self
                .layout()
                .piece_count()
                .unwrap_or(PIECES_MAX)
                .min(PIECES_MAX)
    }

    /// Whether a body of this layout may have the bytes of `range`.
    pub(super) fn may_cover(&self, range: &Range<u64>) -> bool {
        let end_max = self.layout().piece_len() * u64::from(PIECES_MAX);
        range.start <= range.end
            && range.end <= self.layout().size().unwrap_or(end_max).min(end_max)
    }

    /// Holds `piece` from now on; `false` where there is no such piece.
    pub(super) fn land(&mut self, piece: PieceIndex, digest: PieceDigest, trust: Trust) -> bool {
        if !self.has_piece(piece) {
            return false;
        }
        let index = piece.0 as usize;
        if self.digests.len() <= index {
            self.digests.resize(index + 1, None);
        }
        self.digests[index] = Some(digest);
        self.held.insert(piece);
        match trust {
            Trust::Logged => self.verified.remove(piece),
            Trust::Verified => self.verified.insert(piece),
        };
        true
    }

    /// Holds `piece` no more. Its digest is still known.
    pub(super) fn drop_piece(&mut self, piece: PieceIndex) {
        self.held.remove(piece);
        self.verified.remove(piece);
        self.completed = false;
    }

    /// The digest that was last landed for `piece`.
    pub(super) fn digest_of(&self, piece: PieceIndex) -> Option<PieceDigest> {
        self.digests.get(piece.0 as usize).copied().flatten()
    }

    /// Whether a body may end at `size` after what is known of it.
    pub(super) fn may_end_at(&self, size: u64) -> bool {
        match self.layout().size() {
            Some(known) => known == size,
            None => {
                // Pieces of a body with no size are whole, so they must all fit below its end.
                let end = self
                    .held
                    .iter()
                    .last()
                    .map_or(0, |piece| self.layout().bytes_of(piece).end);
                let pieces = size.div_ceil(self.layout().piece_len());
                end <= size && pieces <= u64::from(PIECES_MAX)
            }
        }
    }

    pub(super) fn end_at(&mut self, size: u64) -> bool {
        let may_end = self.may_end_at(size);
        if may_end {
            self.content.layout = self.layout().ended_at(size);
        }
        may_end
    }

    /// The first piece that is missing; `None` when every piece is held.
    pub(super) fn first_missing(&self) -> Option<PieceIndex> {
        let missing = self.held.first_missing(0);
        (Some(missing) != self.layout().piece_count()).then_some(PieceIndex(missing))
    }

    /// Records that the digest of the whole held; `false` while pieces are missing.
    pub(super) fn complete(&mut self) -> bool {
        self.completed = self.first_missing().is_none();
        self.completed
    }

    pub(super) fn is_complete(&self) -> bool {
        self.completed
    }

    /// Whether this process has seen that every held piece is what was landed.
    pub(super) fn is_verified(&self) -> bool {
        self.held == self.verified
    }

    /// This process has verified every piece before, and the files were only its own since.
    pub(super) fn trust_all(&mut self) {
        self.verified = self.held.clone();
    }
}
