//! What proves the pieces of an attempt: batches that others signed, and those that this host signs.

use std::sync::Arc;

use protocol::{Identity, PieceIndex, PieceSet, Proof, SignedBatch, batch::BATCH_PIECES_MAX};

use super::{super::proofs, Attempt, SharedBatch, Word};

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

    /// Signs once more what an earlier certificate of this host has signed, now that it shows another:
    /// whoever asks after the end of that one is told what still holds. Each batch stays in its place,
    /// for those who were told it.
    pub(crate) fn renew(&mut self, identity: &Identity) {
        if identity.shows(&self.certificate) {
            return;
        }
        let earlier = std::mem::replace(&mut self.certificate, identity.certificate());
        for told in &mut self.batches {
            if told.certificate == earlier {
                *told = Arc::new(told.batch.clone().sign(identity));
                self.is_renewed = true;
            }
        }
    }

    /// Signs what this host fetched itself; the batches made.
    pub(crate) fn sign(&mut self, identity: &Identity) -> Vec<SharedBatch> {
        let Some(content) = self.content.as_ref().filter(|_| !self.unsigned.is_empty()) else {
            return Vec::new();
        };
        let unsigned = std::mem::take(&mut self.unsigned);
        let made = proofs::sign(self.task, content, &unsigned, identity);
        self.covered
            .union(&unsigned.iter().map(|(piece, _)| *piece).collect());
        self.batches.extend(made.iter().cloned());
        made
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        AttemptId, Content, Digest, Layout, PieceBatch, Role, TaskId, Visibility,
        identity::Authority,
    };
    use tokio::sync::watch;

    use super::{
        super::super::{Asking, Progress},
        *,
    };

    fn host(authority: &Authority, id: &str) -> Identity {
        let roles = [Role::Seed].into_iter().collect();
        let issued = authority.issue(&id.parse().unwrap(), roles).unwrap();
        Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key).unwrap()
    }

    /// An attempt at four pieces that has none yet.
    fn attempt() -> Attempt {
        let mut attempt = Attempt::new(TaskId(Digest::sha256_of(b"task")));
        attempt.content = Some(Content {
            attempt: AttemptId(1),
            layout: Layout::for_size(Some(1 << 20)),
            media_type: None,
            visibility: Visibility::Public,
        });
        attempt
    }

    #[test]
    fn what_a_host_has_signed_is_signed_anew_in_its_place_when_it_has_another_certificate() {
        let authority = Authority::new("main").unwrap();
        let (own, other) = (host(&authority, "seed-1"), host(&authority, "seed-2"));
        let (mut attempt, (sender, seen)) = (attempt(), watch::channel(Progress::default()));
        let publish = |attempt: &mut Attempt| {
            attempt.renew(&own);
            attempt.sign(&own);
            attempt.publish(&sender, Asking::Others);
            seen.borrow().batches.clone()
        };
        publish(&mut attempt);
        attempt.fetched(PieceIndex(0), [0; 32]);
        publish(&mut attempt);
        let theirs = PieceBatch {
            digests: vec![(PieceIndex(1), [1; 32])],
            ..attempt.batches[0].batch.clone()
        };
        assert!(attempt.take_batch(theirs.sign(&other), Word::Vouched));
        attempt.fetched(PieceIndex(2), [2; 32]);
        let before = publish(&mut attempt);
        own.renew(own.renewal(&host(&authority, "seed-1")).unwrap());
        let after = publish(&mut attempt);
        assert_eq!((before.len(), after.len()), (3, 3));
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before.batch, after.batch);
            assert_eq!(own.shows(&after.certificate), at != 1, "batch {at}");
        }
        assert_eq!(before[1], after[1], "the word of another stays its own");
    }
}
