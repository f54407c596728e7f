//! The signed batches that a log kept, as far as they still prove something.

use std::sync::Arc;

use protocol::{Content, Identity, SignedBatch};

use super::{SharedBatch, driver::wall_clock};
use crate::store::StoredTask;

/// The batches of the log that still hold, and speak of this very attempt.
pub(crate) fn valid_batches(
    file: &StoredTask,
    content: &Content,
    identity: &Identity,
) -> Vec<SharedBatch> {
    let now = wall_clock();
    let kept = file.batches().unwrap_or_default();
    let decoded = kept
        .into_iter()
        .filter_map(|bytes| SignedBatch::from_bytes(&bytes).ok());
    let same = decoded.filter(|signed| signed.batch.attempt == content.attempt);
    let valid = same.filter(|signed| signed.verify(identity, Some(identity.id()), now).is_ok());
    valid.map(Arc::new).collect()
}
