//! The signed batches that a log kept, as far as they still prove something; and what this host
//! signs in their place.

use std::{cell::Cell, sync::Arc};

use protocol::{
    Content, Identity, PieceBatch, PieceDigest, PieceIndex, PieceSet, SignedBatch, TaskId,
    batch::{BATCH_PIECES_MAX, BatchError},
};
use rustls_pki_types::UnixTime;

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
        let (held, on) = held_now(signed, identity, now)?;
        if on == Word::Anybodys {
            word.set(on);
        }
        Some(held)
    });
    (told, word.get())
}

/// What this host itself says of a content whose digest it has seen to hold: whoever signed it before
/// may have no certificate that holds any more. `None` where it is not here whole.
pub(crate) fn own_word(
    file: &StoredTask,
    content: &Content,
    identity: &Identity,
) -> Option<Vec<SharedBatch>> {
    let pieces = (0..content.layout.piece_count()?).map(PieceIndex);
    let digests = pieces.map(|piece| Some((piece, file.digest_of(piece)?)));
    let digests: Vec<_> = digests.collect::<Option<_>>()?;
    file.is_complete()
        .then(|| sign(file.task(), content, &digests, identity))
}

/// `digests`, signed in as few batches as it takes.
pub(crate) fn sign(
    task: TaskId,
    content: &Content,
    digests: &[(PieceIndex, PieceDigest)],
    identity: &Identity,
) -> Vec<SharedBatch> {
    let batch = |digests: &[(PieceIndex, PieceDigest)]| PieceBatch {
        task,
        attempt: content.attempt,
        layout: content.layout,
        visibility: content.visibility.clone(),
        digests: digests.to_vec(),
    };
    let signed = digests
        .chunks(BATCH_PIECES_MAX)
        .map(|digests| batch(digests).sign(identity));
    signed.map(Arc::new).collect()
}

/// A batch of the log as it is told now, and on whose word it counts. This host's own word is that of
/// the certificate that it shows now.
fn held_now(
    signed: SignedBatch,
    identity: &Identity,
    now: UnixTime,
) -> Option<(SignedBatch, Word)> {
    match signed.verify(identity, Some(identity.id()), now) {
        Ok(signer) if signer.id == *identity.id() => {
            let renewed = signed.renewed(identity, now);
            Some((renewed.unwrap_or(signed), Word::Vouched))
        }
        Ok(_) => Some((signed, Word::Vouched)),
        Err(BatchError::NoRight(_)) => Some((signed, Word::Anybodys)),
        Err(BatchError::Untimely) => {
            let renewed = signed.renewed(identity, now);
            renewed.map(|renewed| (renewed, Word::Vouched))
        }
        Err(BatchError::Certificate(_) | BatchError::Signature | BatchError::Malformed(_)) => None,
    }
}

/// Those of `kept` that hold, as `held` says, the last that was written first, since it says most: one
/// that tells nothing beyond those after it is left out, and not even checked.
fn telling(
    kept: Vec<SignedBatch>,
    held: impl Fn(SignedBatch) -> Option<SignedBatch>,
) -> Vec<SharedBatch> {
    let (mut told, mut proven) = (Vec::new(), PieceSet::default());
    for signed in kept.into_iter().rev() {
        let digests = &signed.batch.digests;
        let pieces: PieceSet = digests.iter().map(|(piece, _)| *piece).collect();
        let is_news = pieces.iter().any(|piece| !proven.contains(piece));
        if is_news && let Some(signed) = held(signed) {
            proven.union(&pieces);
            told.push(Arc::new(signed));
        }
    }
    told
}

#[cfg(test)]
mod tests;
