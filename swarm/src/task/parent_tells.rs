//! What a parent says, taken with care: nothing it tells counts before a signature proves it.

use protocol::{
    HostId, PieceSet, Proof, SignedBatch, Visibility, availability::Tell, batch::BatchError,
    scheduler::ParentFailure,
};

use super::{
    begin::Begin,
    driver::{Driver, wall_clock},
};
use crate::conductor::Event;

impl Driver {
    pub(super) async fn parent_tells(&mut self, parent: HostId, tell: Tell) {
        let told = match tell {
            Tell::Begins {
                attempt,
                layout,
                media_type,
                ..
            } => {
                let visibility = Visibility::Public;
                let begin = Begin {
                    attempt: Some(attempt),
                    layout,
                    media_type,
                    visibility,
                };
                self.parent_begins(begin).await
            }
            Tell::Batch(batch) => self.parent_signs(batch),
            Tell::Holds { attempt, new, .. } if attempt == self.attempt.id() => {
                let proven = self.attempt.proven(&new);
                self.plan(Event::Holds(parent.clone(), proven));
                Ok(())
            }
            Tell::Ended { attempt, size, .. } if attempt == self.attempt.id() => {
                if let Some(layout) = self.attempt.ended_at(size) {
                    self.plan(Event::Ended(layout));
                }
                Ok(())
            }
            Tell::Holds { .. } | Tell::Ended { .. } | Tell::Gone { .. } => Err(ParentFailure::Gone),
        };
        if let Err(failure) = told {
            self.plan(Event::SupplierFailed(parent, failure));
        }
    }

    /// The scheduler handed on what proves a content of one piece: its parents need not be asked
    /// what they hold. It is believed no more than they are.
    pub(super) async fn parents_hold(&mut self, parents: Vec<HostId>, proof: &Proof) {
        let batch = &proof.batch.batch;
        let begin = Begin {
            attempt: Some(batch.attempt),
            layout: batch.layout,
            media_type: proof.media_type.clone(),
            visibility: Visibility::Public,
        };
        if self.parent_begins(begin).await.is_err()
            || self.parent_signs(proof.batch.clone()).is_err()
        {
            tracing::debug!(task = %self.wish.task, "the scheduler's proof is of no use here");
            return;
        }
        let proven = self.attempt.proven(&PieceSet::of_range(0..1));
        for parent in parents {
            self.plan(Event::Holds(parent, proven.clone()));
        }
    }

    /// Another attempt than the one under way here is of no use to it.
    async fn parent_begins(&mut self, begin: Begin) -> Result<(), ParentFailure> {
        let is_spoiled = begin
            .attempt
            .is_some_and(|attempt| self.host.spoiled.is_spoiled(self.wish.task, attempt));
        if is_spoiled || !self.attempt.may_become(&begin) {
            return Err(ParentFailure::Gone);
        }
        self.begin(begin).await;
        Ok(())
    }

    fn parent_signs(&mut self, signed: SignedBatch) -> Result<(), ParentFailure> {
        let batch = &signed.batch;
        if batch.task != self.wish.task || batch.attempt != self.attempt.id() {
            return Err(ParentFailure::Gone);
        }
        if self.attempt.layout().map(|layout| layout.piece_len()) != Some(batch.layout.piece_len())
        {
            return Err(ParentFailure::Lied);
        }
        if batch
            .digests
            .iter()
            .all(|(piece, _)| self.attempt.is_proven(*piece))
        {
            return Ok(());
        }
        if let Err(error) = signed.verify(&self.host.identity, self.attempt.fetcher(), wall_clock())
        {
            tracing::warn!(task = %self.wish.task, %error, "a batch of piece digests does not hold");
            return Err(match error {
                // Who has the grant is the scheduler's word, which another host may have had at
                // another time: no lie, and no use.
                BatchError::NoRight(_) => ParentFailure::Gone,
                BatchError::Certificate(_) | BatchError::Signature | BatchError::Malformed(_) => {
                    ParentFailure::Lied
                }
            });
        }
        let bytes = signed.to_bytes();
        if self.attempt.take_batch(signed) {
            self.keep_batch(bytes);
        }
        Ok(())
    }
}
