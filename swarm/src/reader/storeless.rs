//! How a reader goes on when the store fails it in the middle of a body, or the task is removed:
//! straight from its source, from where it is, with its own credential.
//!
//! Invariant: the end of a whole body goes out only when its digest holds over what the store gave
//! and what comes from the source, together.

use std::{ops::Range, sync::Arc};

use protocol::{ContentHasher, TaskId};

use super::{ReadError, Reading};
use crate::{
    direct::{self, Rest},
    store::{StoreError, StoredTask},
};

/// Bytes that are hashed between two looks whether the reader is still there.
const HASH_BYTES: u64 = 4 << 20;

impl Reading {
    /// Has the rest come from the source. What the reader was given is read once more, for its hash.
    pub(super) async fn leave_store(&mut self) -> Result<(), ReadError> {
        tracing::info!(task = %self.request.task, offset = self.offset, "a body goes on without the store");
        self.interest = None;
        let (file, content) = {
            let seen = self.progress.borrow();
            (seen.file.clone(), seen.content.clone())
        };
        let given = match self.is_whole {
            true => Some(hash_given(self.request.task, file, self.offset).await?),
            false => None,
        };
        let rest = Rest {
            offset: self.offset,
            end: Some(self.end).filter(|end| !self.is_whole && *end < u64::MAX),
            size: content.and_then(|content| content.layout.size()),
            given,
        };
        let request = self.request.clone();
        let rest = direct::go_on(self.swarm.upstreams(), request, rest).await?;
        self.rest = Some(rest);
        Ok(())
    }
}

/// What has seen the first `length` bytes of what `file` has of `task`.
async fn hash_given(
    task: TaskId,
    file: Option<Arc<StoredTask>>,
    length: u64,
) -> Result<ContentHasher, ReadError> {
    let mut hasher = task.0.hasher();
    let mut hashed = 0;
    while hashed < length {
        let part = hashed..length.min(hashed + HASH_BYTES);
        hashed = part.end;
        let file = file.clone().ok_or(ReadError::Cancelled)?;
        let hashing = tokio::task::spawn_blocking(move || hash(&file, part, hasher));
        hasher = hashing
            .await
            .map_err(|_| ReadError::Cancelled)?
            .map_err(|error| ReadError::Disk(error.to_string()))?;
    }
    Ok(hasher)
}

/// Blocking. What was given was verified before, as far as it could be.
fn hash(
    file: &StoredTask,
    bytes: Range<u64>,
    mut hasher: ContentHasher,
) -> Result<ContentHasher, StoreError> {
    let mut buffer = Vec::new();
    file.read_partial(bytes, &mut buffer)?;
    hasher.update(&buffer);
    Ok(hasher)
}
