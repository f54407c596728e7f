//! Signed piece digests: the word of the one who fetched from the source.
//!
//! A batch names the task, the attempt, its layout and its visibility, so it cannot be replayed
//! into another; it carries the certificate of its signer, so any host of the cluster can check it
//! whoever handed it over. Private content is never in a batch that leaves the host.

use rustls_pki_types::UnixTime;

mod encoding;
#[cfg(test)]
mod tests;

use crate::{
    content::{AttemptId, TaskId, Visibility},
    host::{HostId, Role},
    identity::{ChainFault, Identity, IdentityError, PeerIdentity, Signed},
    layout::{Layout, PieceIndex},
};

/// The BLAKE3 digest of one piece.
pub type PieceDigest = [u8; 32];

/// Pieces in one batch; a batch is at most about 40 KiB long.
pub const BATCH_PIECES_MAX: usize = 1024;

/// Registries that one private batch may name.
pub const BATCH_ORIGINS_MAX: usize = 16;

/// Piece digests of one attempt, before they are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceBatch {
    pub task: TaskId,
    pub attempt: AttemptId,
    pub layout: Layout,
    pub visibility: Visibility,
    pub digests: Vec<(PieceIndex, PieceDigest)>,
}

/// A batch with the signature and the certificate of its signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBatch {
    pub batch: PieceBatch,
    /// The signer's certificate, DER.
    pub certificate: Vec<u8>,
    pub signature: Vec<u8>,
}

/// Why a batch does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the signer's certificate is not of this cluster: {0}")]
    Certificate(String),
    /// All else holds: it was right once, or will be.
    #[error("the signer's certificate does not hold at this time")]
    Untimely,
    #[error("the signature does not match")]
    Signature,
    #[error("{0} may not fetch from the source")]
    NoRight(HostId),
    #[error("the batch is malformed: {0}")]
    Malformed(&'static str),
}

// === impl BatchError ===

impl BatchError {
    /// Whether whoever handed the batch over has lied. Who has the grant is the scheduler's word,
    /// which another host may have had at another time; and a certificate ends while what it signed
    /// is under way, or is newer than a clock knows. Then the batch is of no use, and nobody's fault.
    pub fn is_lie(&self) -> bool {
        match self {
            Self::NoRight(_) | Self::Untimely => false,
            Self::Certificate(_) | Self::Signature | Self::Malformed(_) => true,
        }
    }
}

// === impl PieceBatch ===

impl PieceBatch {
    /// Signs the batch with the key of this host. The digests are put in ascending order of their
    /// pieces, the only order that is ever accepted; the caller keeps to the two bounds above.
    pub fn sign(mut self, identity: &Identity) -> SignedBatch {
        self.digests.sort_unstable_by_key(|(piece, _)| *piece);
        let Signed {
            certificate,
            signature,
        } = identity.sign(&encoding::signed_message(&self));
        SignedBatch {
            batch: self,
            certificate,
            signature,
        }
    }
}

// === impl SignedBatch ===

impl SignedBatch {
    /// Who signed the batch, if it was a host of this cluster that may fetch: one with the seed
    /// role, or `fetcher`, whom the scheduler has told to hold the grant of this task.
    ///
    /// # Errors
    /// The batch does not hold; [`BatchError::is_lie`] tells whether anybody is to blame.
    pub fn verify(
        &self,
        identity: &Identity,
        fetcher: Option<&HostId>,
        now: UnixTime,
    ) -> Result<PeerIdentity, BatchError> {
        let signer = self.signer(identity, now)?;
        if signer.roles.contains(Role::Seed) || fetcher == Some(&signer.id) {
            return Ok(signer);
        }
        Err(BatchError::NoRight(signer.id))
    }

    /// Who signed the batch, whatever right it had to.
    ///
    /// # Errors
    /// As [`SignedBatch::verify`], but for [`BatchError::NoRight`].
    pub fn signer(&self, identity: &Identity, now: UnixTime) -> Result<PeerIdentity, BatchError> {
        encoding::check(&self.batch)?;
        let message = encoding::signed_message(&self.batch);
        let (certificate, signature) = (&self.certificate, &self.signature);
        match identity.verify(certificate, &message, signature, now) {
            Err(IdentityError::Chain(ChainFault::Expired | ChainFault::NotYet)) => {
                let once = identity.verify_once(certificate, &message, signature, now);
                once.map_err(batch_error).and(Err(BatchError::Untimely))
            }
            judged => judged.map_err(batch_error),
        }
    }

    /// The same word with the certificate that this host shows now, where it is the word of an
    /// earlier certificate of this very host.
    pub fn renewed(&self, identity: &Identity, now: UnixTime) -> Option<Self> {
        if identity.shows(&self.certificate) {
            return None;
        }
        encoding::check(&self.batch).ok()?;
        let message = encoding::signed_message(&self.batch);
        let signer = identity.verify_once(&self.certificate, &message, &self.signature, now);
        let is_own = signer.is_ok_and(|signer| signer.id == *identity.id());
        is_own.then(|| self.batch.clone().sign(identity))
    }

    /// The batch as it lies in the log and travels between hosts.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::write_signed(self)
    }

    /// Reads what [`SignedBatch::to_bytes`] wrote, and nothing else: every batch has exactly one
    /// encoding. It says nothing about the signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BatchError> {
        encoding::read_signed(bytes)
    }
}

fn batch_error(error: IdentityError) -> BatchError {
    match error {
        IdentityError::Signature => BatchError::Signature,
        other => BatchError::Certificate(other.to_string()),
    }
}
