//! What is complete in the store: opened with no message to anybody.

use std::sync::Arc;

use protocol::{PieceSet, Role, TaskId};
use tokio::sync::watch;

use super::{
    Swarm,
    opening::{Refusal, refusal},
};
use crate::{
    direct,
    open::{Held, How, OpenError, OpenRequest, Opened},
    store::{Store, StoredTask},
    task::{
        Progress, Stage,
        proofs::{own_word, valid_batches},
        surroundings::Surroundings,
    },
};

impl Swarm {
    /// What this host knows of a content without asking anybody.
    pub async fn held(&self, task: TaskId) -> Option<Held> {
        let file = self.stored(task).await?;
        let content = file.content();
        Some(Held {
            size: content.layout.size(),
            media_type: content.media_type,
            visibility: content.visibility,
            complete: file.is_complete(),
        })
    }

    /// Counts the content as used until `until`: it goes after what was used before that.
    pub async fn retain(&self, task: TaskId, until: std::time::SystemTime) {
        if let Some(file) = self.stored(task).await {
            file.touch(until);
        }
    }

    /// The store, for `darter cache`.
    pub fn store(&self) -> &Store {
        &self.inner.surroundings.store
    }

    pub(super) async fn open_stored(
        &self,
        request: &OpenRequest,
    ) -> Result<Option<Opened>, OpenError> {
        let Some(file) = self
            .stored(request.task)
            .await
            .filter(|file| file.is_complete())
        else {
            return Ok(None);
        };
        let content = file.content();
        match refusal(&content.visibility, request) {
            Some(Refusal::NotProven) => return Err(OpenError::NotProven),
            Some(Refusal::OtherOrigin) => {
                let upstreams = &self.inner.surroundings.upstreams;
                return direct::open(upstreams, request.clone()).await.map(Some);
            }
            None => {}
        }
        file.touch(wall_clock());
        let progress = finished(file, Vec::new());
        let told = (content, How::Hit, PieceSet::default());
        self.reading(request.clone(), progress, None, told)
            .map(Some)
    }

    /// The complete content of the store with the batches that prove it, or that this host signs now.
    pub(super) async fn shareable(&self, task: TaskId) -> Option<watch::Receiver<Progress>> {
        let file = self.stored(task).await.filter(|file| file.is_complete())?;
        let content = file.content();
        let Surroundings {
            identity, seeds, ..
        } = &self.inner.surroundings;
        let (batches, _) = valid_batches(&file, &content, identity);
        let proven = batches
            .iter()
            .map(|batch| batch.batch.digests.len())
            .sum::<usize>();
        if content.layout.piece_count()? as usize <= proven {
            return Some(finished(file, batches));
        }
        // Batches of a cluster that is no more, or that expired, prove nothing to others; and the word
        // of this host counts where it is a seed, or where there is none.
        let may_vouch = identity.roles().contains(Role::Seed) || seeds.is_empty();
        let batches = may_vouch.then(|| own_word(&file, &content, identity))??;
        Some(finished(file, batches))
    }

    async fn stored(&self, task: TaskId) -> Option<Arc<StoredTask>> {
        let store = self.inner.surroundings.store.clone();
        // What is open is found in memory: another thread would take longer to wake than to find it.
        if let Some(open) = store.lookup_open(task) {
            return Some(open);
        }
        tokio::task::spawn_blocking(move || store.lookup(task))
            .await
            .ok()
            .flatten()
    }
}

/// The progress of a task that will never change.
fn finished(
    file: Arc<StoredTask>,
    batches: Vec<crate::task::SharedBatch>,
) -> watch::Receiver<Progress> {
    let progress = Progress {
        content: Some(file.content()),
        held: file.held(),
        file: Some(file),
        batches,
        stage: Stage::Complete,
        ..Progress::default()
    };
    watch::channel(progress).1
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of last use outlives the process"
)]
pub(super) fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
