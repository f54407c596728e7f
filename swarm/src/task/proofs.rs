//! The signed batches that a log kept, as far as they still prove something.

use std::{cell::Cell, sync::Arc};

use protocol::{Content, Identity, PieceSet, SignedBatch, batch::BatchError};

use super::{SharedBatch, attempt::Word, driver::wall_clock};
use crate::store::StoredTask;

/// The batches of the log that still hold, and speak of this very attempt; and on whose word they all
/// count now. Who had the grant is not known any more.
pub(crate) fn valid_batches(
    file: &StoredTask,
    content: &Content,
    identity: &Identity,
) -> (Vec<SharedBatch>, Word) {
    let now = wall_clock();
    let kept = file.batches().unwrap_or_default();
    let decoded = kept
        .into_iter()
        .filter_map(|bytes| SignedBatch::from_bytes(&bytes).ok());
    let same = decoded.filter(|signed| signed.batch.attempt == content.attempt);
    let word = Cell::new(Word::Vouched);
    let told = telling(same.collect(), |signed| {
        match signed.verify(identity, Some(identity.id()), now) {
            Ok(_) => true,
            Err(BatchError::NoRight(_)) => {
                word.set(Word::Anybodys);
                true
            }
            Err(_) => false,
        }
    });
    (told, word.get())
}

/// Those of `kept` that hold, the last that was written first, since it says most: one that tells
/// nothing beyond those after it is left out, and not even checked.
fn telling(kept: Vec<SignedBatch>, holds: impl Fn(&SignedBatch) -> bool) -> Vec<SharedBatch> {
    let (mut told, mut proven) = (Vec::new(), PieceSet::default());
    for signed in kept.into_iter().rev() {
        let digests = &signed.batch.digests;
        let pieces: PieceSet = digests.iter().map(|(piece, _)| *piece).collect();
        let is_news = pieces.iter().any(|piece| !proven.contains(piece));
        if is_news && holds(&signed) {
            proven.union(&pieces);
            told.push(Arc::new(signed));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use protocol::{AttemptId, Digest, Layout, PieceBatch, PieceIndex, TaskId, Visibility};

    use super::*;

    fn signed(pieces: Range<u32>) -> SignedBatch {
        SignedBatch {
            batch: PieceBatch {
                task: TaskId(Digest::sha256_of(b"task")),
                attempt: AttemptId(1),
                layout: Layout::for_size(Some(1 << 30)),
                visibility: Visibility::Public,
                digests: pieces.map(|index| (PieceIndex(index), [0; 32])).collect(),
            },
            certificate: Vec::new(),
            signature: Vec::new(),
        }
    }

    /// How many of `kept` are told and how many of them were checked, where those of one piece hold
    /// and longer ones hold if `sums_hold`.
    #[track_caller]
    fn check(kept: &[Range<u32>], sums_hold: bool, expect: (usize, usize)) {
        let checked = Cell::new(0);
        let told = telling(kept.iter().cloned().map(signed).collect(), |signed| {
            checked.set(checked.get() + 1);
            sums_hold || signed.batch.digests.len() == 1
        });
        assert_eq!((told.len(), checked.get()), expect);
    }

    #[test]
    fn what_was_signed_once_more_all_together_stands_for_its_parts() {
        check(&[0..1, 1..2, 2..3, 0..3], true, (1, 1));
        check(&[0..1, 1..2, 2..3], true, (3, 3));
        check(&[0..1, 0..2, 3..4], true, (2, 2));
    }

    #[test]
    fn a_sum_that_does_not_hold_stands_for_nothing() {
        check(&[0..1, 1..2, 0..2], false, (2, 3));
    }
}
