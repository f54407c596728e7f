//! Pure: a set of pieces, as a bitmap.
//!
//! Invariant: no bit at or past [`PIECES_MAX`] is ever set, so no peer can make it grow without end.

use std::ops::Range;

use crate::layout::PieceIndex;

/// No task has more pieces than this (see [`crate::layout::SIZE_MAX`]).
pub const PIECES_MAX: u32 = 1 << 20;

/// A set of pieces of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PieceSet {
    words: Vec<u64>,
    count: u32,
}

// === impl PieceSet ===

impl PieceSet {
    /// The pieces of `range`.
    pub fn of_range(range: Range<u32>) -> Self {
        range.map(PieceIndex).collect()
    }

    /// Adds `piece`; tells whether it is new. A piece past the bound is not added.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if piece.0 >= PIECES_MAX || self.contains(piece) {
            return false;
        }
        let word = piece.0 as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (piece.0 % 64);
        self.count += 1;
        true
    }

    /// Takes `piece` out; tells whether it was in.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.words[piece.0 as usize / 64] &= !(1 << (piece.0 % 64));
        self.count -= 1;
        true
    }

    pub fn contains(&self, piece: PieceIndex) -> bool {
        let word = self.words.get(piece.0 as usize / 64).copied().unwrap_or(0);
        word & (1 << (piece.0 % 64)) != 0
    }

    /// Whether every piece of `range` is in.
    pub fn contains_all(&self, mut range: Range<u32>) -> bool {
        range.all(|index| self.contains(PieceIndex(index)))
    }

    pub fn len(&self) -> u32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The pieces in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let base = index as u32 * 64;
            (0..64)
                .filter(move |bit| word & (1 << bit) != 0)
                .map(move |bit| PieceIndex(base + bit))
        })
    }

    /// The first piece at or after `start` that is not in.
    pub fn first_missing(&self, start: u32) -> u32 {
        let mut index = start;
        while let Some(word) = self.words.get(index as usize / 64) {
            let run = (word >> (index % 64)).trailing_ones();
            index += run;
            if run == 0 || !index.is_multiple_of(64) {
                break;
            }
        }
        index
    }

    /// Adds every piece of `other`.
    pub fn union(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            self.count += (more & !*word).count_ones();
            *word |= more;
        }
    }

    /// The bitmap, least significant bit first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    }

    /// Reads a bitmap; `None` where it names a piece past the bound.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > PIECES_MAX as usize / 8 {
            return None;
        }
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                chunk
                    .iter()
                    .rev()
                    .fold(0, |word, byte| (word << 8) | u64::from(*byte))
            })
            .collect();
        let count = words.iter().map(|word| word.count_ones()).sum();
        let mut set = Self { words, count };
        while set.words.last() == Some(&0) {
            set.words.pop();
        }
        Some(set)
    }
}

impl FromIterator<PieceIndex> for PieceSet {
    fn from_iter<I: IntoIterator<Item = PieceIndex>>(pieces: I) -> Self {
        let mut set = Self::default();
        for piece in pieces {
            set.insert(piece);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{
        collection::btree_set,
        prelude::{any, prop_assert, prop_assert_eq, proptest},
    };

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_it_was_made_of(indices in btree_set(0u32..2000, 0..100)) {
            let set: PieceSet = indices.iter().copied().map(PieceIndex).collect();
            let read: BTreeSet<u32> = set.iter().map(|piece| piece.0).collect();
            prop_assert_eq!(&read, &indices);
            prop_assert_eq!(set.len() as usize, indices.len());
            prop_assert_eq!(PieceSet::from_bytes(&set.to_bytes()).unwrap(), set);
        }

        #[test]
        fn a_union_has_what_either_has(one in btree_set(0u32..300, 0..50), other in btree_set(0u32..300, 0..50)) {
            let of = |indices: &BTreeSet<u32>| indices.iter().copied().map(PieceIndex).collect::<PieceSet>();
            let mut both = of(&one);
            both.union(&of(&other));
            let expect = of(&one.union(&other).copied().collect());
            prop_assert_eq!(both.len(), expect.len());
            prop_assert_eq!(both.to_bytes(), expect.to_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let set = PieceSet::from_bytes(&bytes).unwrap();
            prop_assert!(set.len() as usize <= bytes.len() * 8);
        }
    }

    #[test]
    fn a_piece_past_the_bound_is_not_taken() {
        let mut set = PieceSet::default();
        assert!(!set.insert(PieceIndex(PIECES_MAX)));
        assert!(PieceSet::from_bytes(&vec![255; PIECES_MAX as usize / 8 + 1]).is_none());
    }

    #[test]
    fn the_first_missing_piece_is_found() {
        let mut set = PieceSet::of_range(0..130);
        assert_eq!(set.first_missing(5), 130);
        set.remove(PieceIndex(64));
        assert_eq!(set.first_missing(5), 64);
        assert!(set.contains_all(65..130));
        assert!(!set.contains_all(64..66));
        assert_eq!(PieceSet::of_range(0..128).first_missing(0), 128);
        assert_eq!(PieceSet::of_range(3..4).first_missing(0), 0);
    }
}
