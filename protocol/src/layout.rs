//! Pure: how a task is cut into pieces.
//!
//! Invariant: the layout is a function of the size and of [`LAYOUT_VERSION`] alone, so two hosts
//! that know the same size always cut at the same places. It is never a setting.

use std::ops::Range;

/// Changes whenever the cuts change; hosts of different versions do not exchange pieces.
pub const LAYOUT_VERSION: u8 = 1;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The largest task that is accepted: 4 MiB pieces, 2^20 of them.
pub const SIZE_MAX: u64 = 4096 * GIB;

/// A piece of a task, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

/// Where the pieces of one attempt begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    piece_len: u32,
    size: Option<u64>,
}

// === impl Layout ===

impl Layout {
    /// The layout of a body of `size` bytes; `None` while the source has not told it.
    pub fn for_size(size: Option<u64>) -> Self {
        let piece_len = match size {
            Some(size) if size <= 256 * MIB => 256 * KIB,
            Some(size) if size <= GIB => 512 * KIB,
            Some(size) if size <= 16 * GIB => MIB,
            Some(_) => 4 * MIB,
            None => MIB,
        };
        Self {
            piece_len: piece_len as u32,
            size,
        }
    }

    /// The same cuts, now that a body that began with no size has ended after `size` bytes.
    pub fn ended_at(self, size: u64) -> Self {
        Self {
            size: Some(size),
            ..self
        }
    }

    /// Bytes of every piece but the last.
    pub fn piece_len(&self) -> u64 {
        u64::from(self.piece_len)
    }

    /// Bytes of the whole body.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many pieces there are; an empty body has none.
    pub fn piece_count(&self) -> Option<u32> {
        self.size.map(|size| size.div_ceil(self.piece_len()) as u32)
    }

    /// The piece that holds the byte at `offset`.
    pub fn piece_at(&self, offset: u64) -> PieceIndex {
        PieceIndex((offset / self.piece_len()) as u32)
    }

    /// The bytes of the body that `piece` covers, cut at the end of the body.
    pub fn bytes_of(&self, piece: PieceIndex) -> Range<u64> {
        let start = u64::from(piece.0) * self.piece_len();
        let end = start + self.piece_len();
        match self.size {
            Some(size) => start.min(size)..end.min(size),
            None => start..end,
        }
    }

    /// The pieces that have a byte in `bytes`, as first and one past the last.
    pub fn pieces_of(&self, bytes: &Range<u64>) -> Range<u32> {
        if bytes.is_empty() {
            return 0..0;
        }
        self.piece_at(bytes.start).0..self.piece_at(bytes.end - 1).0 + 1
    }

    /// A layout that a record or a message tells, if it is one this version would make.
    pub fn told(version: u8, piece_len: u32, size: Option<u64>) -> Option<Self> {
        let unknown = Self::for_size(None);
        let fits = piece_len == Self::for_size(size).piece_len || piece_len == unknown.piece_len;
        let told = Self { piece_len, size };
        (version == LAYOUT_VERSION && fits && size.is_none_or(|size| size <= SIZE_MAX))
            .then_some(told)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[track_caller]
    fn check(size: u64, expect: (u64, u32)) {
        let layout = Layout::for_size(Some(size));
        assert_eq!(
            (layout.piece_len(), layout.piece_count().unwrap()),
            expect,
            "{size}"
        );
    }

    #[test]
    fn the_piece_length_follows_the_size() {
        check(0, (256 * KIB, 0));
        check(1, (256 * KIB, 1));
        check(256 * MIB, (256 * KIB, 1024));
        check(256 * MIB + 1, (512 * KIB, 513));
        check(GIB + 1, (MIB, 1025));
        check(16 * GIB, (MIB, 16384));
        check(16 * GIB + 1, (4 * MIB, 4097));
        assert_eq!(Layout::for_size(None).piece_len(), MIB);
    }

    #[test]
    fn a_told_layout_of_other_cuts_is_refused() {
        assert!(Layout::told(1, 256 * 1024, Some(5)).is_some());
        assert!(
            Layout::told(1, 1024 * 1024, Some(5)).is_some(),
            "its size was unknown at first"
        );
        assert!(Layout::told(1, 4096, Some(5)).is_none());
        assert!(Layout::told(2, 256 * 1024, Some(5)).is_none());
        assert!(Layout::told(1, 4 * 1024 * 1024, Some(u64::MAX)).is_none());
    }

    proptest! {
        #[test]
        fn the_pieces_cover_the_body_once(size in 1u64..(20 * GIB)) {
            let layout = Layout::for_size(Some(size));
            let count = layout.piece_count().unwrap();
            prop_assert_eq!(layout.bytes_of(PieceIndex(0)).start, 0);
            prop_assert_eq!(layout.bytes_of(PieceIndex(count - 1)).end, size);
            prop_assert!(!layout.bytes_of(PieceIndex(count - 1)).is_empty());
            prop_assert_eq!(layout.piece_at(size - 1), PieceIndex(count - 1));
            prop_assert_eq!(layout.pieces_of(&(0..size)), 0..count);
        }
    }
}
