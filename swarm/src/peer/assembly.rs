//! Pure: cuts the body of an answer into the pieces of a run.

use bytes::{Bytes, BytesMut};
use protocol::PieceIndex;

use super::PieceRun;

/// Cuts a body into the pieces of a run.
#[derive(Debug)]
pub(super) struct Assembly<'a> {
    run: &'a PieceRun,
    next: u32,
    piece: BytesMut,
    /// Bytes of the run that the parent has announced and not sent.
    pub(super) rest: u64,
}

// === impl Assembly ===

impl<'a> Assembly<'a> {
    /// A body of `rest` bytes that is to be cut into the pieces of `run`.
    pub(super) fn new(run: &'a PieceRun, rest: u64) -> Self {
        Self {
            run,
            next: run.pieces.start,
            piece: BytesMut::new(),
            rest,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.next == self.run.pieces.end
    }

    /// Bytes that the piece under way still lacks; 0 once the run is whole.
    pub(super) fn lacking(&self) -> usize {
        if self.next == self.run.pieces.end {
            return 0;
        }
        let bytes = self.run.layout.bytes_of(PieceIndex(self.next));
        (bytes.end - bytes.start) as usize - self.piece.len()
    }

    /// Adds at most what is lacking; gives the piece once it is whole. Where the size of the body
    /// is not known, its last piece is whole when nothing more was announced.
    pub(super) fn add(&mut self, part: Bytes) -> Option<(PieceIndex, Bytes)> {
        if self.piece.is_empty() {
            self.piece.reserve(self.lacking());
        }
        self.piece.extend_from_slice(&part);
        let is_whole = self.lacking() == 0 || self.rest == 0 && self.is_last();
        is_whole.then(|| {
            let index = PieceIndex(self.next);
            self.next += 1;
            (index, std::mem::take(&mut self.piece).freeze())
        })
    }

    fn is_last(&self) -> bool {
        self.next + 1 == self.run.pieces.end && self.run.layout.size().is_none()
    }
}
