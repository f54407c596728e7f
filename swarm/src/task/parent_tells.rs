//! What a parent says, taken with care: nothing it tells counts before a signature proves it.

use protocol::{
    HostId, PieceSet, Proof, SignedBatch, Visibility, availability::Tell, batch::BatchError,
    scheduler::ParentFailure,
};

use super::{
    attempt::Word,
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
                // A batch tells it, and what has no pieces has no secret.
                let visibility = self.attempt.visibility().cloned();
                let visibility = visibility.unwrap_or(Visibility::Public);
                let begin = Begin {
                    attempt: Some(attempt),
                    layout,
                    media_type,
                    visibility,
                };
                self.parent_begins(&parent, begin).await
            }
            Tell::Batch(batch) => {
                let offer = self.offers.remove(&parent);
                self.parent_signs(offer, batch).await
            }
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
            visibility: batch.visibility.clone(),
        };
        let signed = proof.batch.clone();
        if self.parent_signs(Some(begin), signed).await.is_err() {
            tracing::debug!(task = %self.wish.task, "the scheduler's proof is of no use here");
            return;
        }
        let proven = self.attempt.proven(&PieceSet::of_range(0..1));
        for parent in parents {
            self.plan(Event::Holds(parent, proven.clone()));
        }
    }

    /// The word of a parent alone makes no attempt: the parents of a true one would be left for it.
    /// It waits for a batch, but where there is none to come.
    async fn parent_begins(&mut self, parent: &HostId, begin: Begin) -> Result<(), ParentFailure> {
        if !self.may_become(&begin) {
            return Err(ParentFailure::Gone);
        }
        let is_known = self.attempt.layout().is_some() && begin.attempt == Some(self.attempt.id());
        if is_known || begin.layout.piece_count() == Some(0) {
            self.begin(begin).await;
        } else {
            self.offers.insert(parent.clone(), begin);
        }
        Ok(())
    }

    /// Another attempt than the one under way here is of no use to it.
    fn may_become(&self, begin: &Begin) -> bool {
        let is_spoiled = begin
            .attempt
            .is_some_and(|attempt| self.host.spoiled.is_spoiled(self.wish.task, attempt));
        // What the source is bringing goes where its attempt is.
        let may_change = self.at_source.is_empty() && self.attempt.is_empty_like(begin);
        !is_spoiled && (may_change || self.attempt.may_become(begin))
    }

    /// On whose word `signed` counts, if it is of a host that may fetch the task.
    ///
    /// Where there is no seed and no host with the grant, the scheduler has forgotten who had it
    /// while others hold what it brought: then any host of the cluster may have been it.
    fn judged(&self, signed: &SignedBatch) -> Result<Word, BatchError> {
        let (identity, fetcher, now) = (&self.host.identity, self.attempt.fetcher(), wall_clock());
        match signed.verify(identity, fetcher, now) {
            Ok(_) => Ok(Word::Vouched),
            Err(BatchError::NoRight(_)) if fetcher.is_none() && self.host.seeds.is_empty() => {
                Ok(Word::Anybodys)
            }
            Err(error) => Err(error),
        }
    }

    /// A batch, and what its parent said of the attempt where no batch of it was seen yet.
    async fn parent_signs(
        &mut self,
        offer: Option<Begin>,
        signed: SignedBatch,
    ) -> Result<(), ParentFailure> {
        let batch = &signed.batch;
        let under_way = self.attempt.layout().filter(|_| offer.is_none());
        let layout = under_way.or(offer.as_ref().map(|offer| offer.layout));
        let attempt = offer
            .as_ref()
            .map_or(Some(self.attempt.id()), |offer| offer.attempt);
        if batch.task != self.wish.task || Some(batch.attempt) != attempt {
            return Err(ParentFailure::Gone);
        }
        if layout.map(|layout| layout.piece_len()) != Some(batch.layout.piece_len()) {
            return Err(ParentFailure::Lied);
        }
        let is_seen = |known: &Visibility| known.is_as_open_as(&batch.visibility);
        if offer.is_none() && !self.attempt.visibility().is_none_or(is_seen) {
            return Err(ParentFailure::Gone);
        }
        let is_old = |(piece, _): &_| self.attempt.is_proven(*piece);
        if offer.is_none() && batch.digests.iter().all(is_old) {
            return Ok(());
        }
        let word = self.judged(&signed).map_err(|error| {
            tracing::warn!(task = %self.wish.task, %error, "a batch of piece digests does not hold");
            match error.is_lie() {
                true => ParentFailure::Lied,
                false => ParentFailure::Gone,
            }
        })?;
        if let Some(offer) = offer {
            // Another parent may have been faster.
            if !self.may_become(&offer) {
                return Err(ParentFailure::Gone);
            }
            let visibility = signed.batch.visibility.clone();
            self.begin(Begin {
                visibility,
                ..offer
            })
            .await;
        }
        let bytes = signed.to_bytes();
        if self.attempt.take_batch(signed, word) {
            self.keep_batch(bytes);
            if word == Word::Anybodys {
                // Clients are given nothing of it before the whole holds.
                self.want_whole();
            }
        }
        Ok(())
    }
}
