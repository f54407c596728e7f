//! What proves the pieces of an attempt: batches that others signed, and those that this host signs.

use std::sync::Arc;

use protocol::{
    Identity, PieceBatch, PieceDigest, PieceIndex, PieceSet, Proof, SignedBatch,
    batch::BATCH_PIECES_MAX,
};

use super::{Attempt, SharedBatch, Word};

impl Attempt {
    /// The digest of the whole holds: nobody else need confirm what the store had.
    ///
    /// What this host fetched piece by piece is signed once more, all together, so that whoever
    /// comes later checks one signature and not one for each piece.
    pub(crate) fn confirm(&mut self) {
        self.is_unconfirmed = false;
        let digest_of = |piece: PieceIndex| self.digests.get(piece.0 as usize).copied().flatten();
        let fetched = self.from_source.iter();
        let all: Vec<_> = fetched
            .filter_map(|piece| digest_of(piece).map(|digest| (piece, digest)))
            .collect();
        if all.len().div_ceil(BATCH_PIECES_MAX) < self.batches.len() {
            self.unsigned = all;
        }
    }

    /// What proves the whole, where it has one piece.
    pub(crate) fn proof(&self) -> Option<Proof> {
        let media_type = self.content.as_ref()?.media_type.clone();
        let whole = |batch: &SharedBatch| Proof::new(batch.as_ref().clone(), media_type.clone());
        self.batches.iter().find_map(whole)
    }

    pub(crate) fn batches(&self) -> &[SharedBatch] {
        &self.batches
    }

    /// Those of `pieces` whose digest a batch has told.
    pub(crate) fn proven(&self, pieces: &PieceSet) -> PieceSet {
        pieces
            .iter()
            .filter(|piece| self.covered.contains(*piece))
            .collect()
    }

    pub(crate) fn is_proven(&self, piece: PieceIndex) -> bool {
        self.covered.contains(piece)
    }

    /// Takes over a batch that was checked; `false` where it tells nothing new.
    pub(crate) fn take_batch(&mut self, batch: SignedBatch, word: Word) -> bool {
        let mut is_new = false;
        for (piece, digest) in &batch.batch.digests {
            if self.covered.insert(*piece) {
                self.know(*piece, *digest);
                is_new = true;
            }
        }
        if is_new {
            self.is_unvouched |= word == Word::Anybodys;
            self.batches.push(Arc::new(batch));
        }
        is_new
    }

    /// Signs what this host fetched itself; the batches made.
    pub(crate) fn sign(&mut self, identity: &Identity) -> Vec<SharedBatch> {
        let Some(content) = self.content.as_ref().filter(|_| !self.unsigned.is_empty()) else {
            return Vec::new();
        };
        let unsigned = std::mem::take(&mut self.unsigned);
        let batch = |digests: &[(PieceIndex, PieceDigest)]| PieceBatch {
            task: self.task,
            attempt: self.id,
            layout: content.layout,
            visibility: content.visibility.clone(),
            digests: digests.to_vec(),
        };
        let signed = unsigned
            .chunks(BATCH_PIECES_MAX)
            .map(|digests| batch(digests).sign(identity));
        let made: Vec<SharedBatch> = signed.map(Arc::new).collect();
        self.covered
            .union(&unsigned.iter().map(|(piece, _)| *piece).collect());
        self.batches.extend(made.iter().cloned());
        made
    }
}
