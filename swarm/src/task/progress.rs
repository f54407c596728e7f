//! What everybody on this host sees of a task: readers, the peer server, `darter status`.
//!
//! The task's driver is the only writer; everybody else holds a `watch::Receiver<Progress>`.

use std::{ops::Range, sync::Arc, time::Duration};

use protocol::{Content, Origin, PieceSet, Right, SignedBatch, TaskId, Want};
use tokio::sync::watch;

use crate::{
    reader::InterestGuard,
    source::{Question, SourceError, Told},
    store::{StoreError, StoredTask},
};

/// One attempt at a task, as far as it has come.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Known once the source or a parent has answered.
    pub content: Option<Content>,
    /// The size that the source told before it was asked for the body, as it is when every reader
    /// begins inside: a range past the end can be refused, and nothing is fetched for it.
    pub told_size: Option<u64>,
    /// Where the pieces are; set together with `content`.
    pub file: Option<Arc<StoredTask>>,
    /// Pieces that are verified and can be read.
    pub held: PieceSet,
    /// Nobody with the right to vouches for them: clients on this host may have none before the
    /// whole holds.
    pub is_unvouched: bool,
    /// The upstream let in the client whose wish began this download, by that client's own credential.
    pub is_let_in: bool,
    /// Bytes of pieces still arriving that this host's own fetch has written. Readers on this host
    /// may have them; nobody else may.
    pub partial: Range<u64>,
    /// Pieces that this host fetched from the source itself.
    pub from_source: PieceSet,
    /// Signed digests in the order they came. Grows only; followers remember how many they sent.
    pub batches: Vec<Arc<SignedBatch>>,
    pub asking: Asking,
    pub stage: Stage,
}

/// Whether this host asks the upstream itself, and for whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Asking {
    /// It does not: others fetch, or are about to.
    #[default]
    Others,
    /// For its own clients, who may as well go there themselves.
    Alone,
    /// For the cluster: a client that went there itself would ask a second time.
    ForAll,
}

/// How far a task has come.
#[derive(Debug, Clone, Default)]
pub enum Stage {
    #[default]
    Running,
    /// Every piece is held and the digest of the whole holds.
    Complete,
    Failed(TaskFailure),
}

/// Why an attempt ended with nothing.
#[derive(Debug, Clone)]
pub enum TaskFailure {
    Source(Arc<SourceError>),
    /// The whole did not match the digest that names it.
    Corrupt,
    /// There is no room, or the disk fails: readers fetch for themselves.
    NoRoom,
    /// It was removed from the store: readers fetch the rest for themselves, and whoever comes now
    /// begins anew.
    Removed,
    /// Nobody wanted it any more, or the node is shutting down.
    Cancelled,
}

/// A task that is shared with other hosts: with pieces, or about to have some.
#[derive(Debug, Clone)]
pub struct Shared {
    pub progress: watch::Receiver<Progress>,
}

/// Where the peer server finds the tasks that it shares.
#[async_trait::async_trait]
pub trait Shelf: Send + Sync + std::fmt::Debug {
    /// The task, if this host holds it or is fetching it. `None` at once where it does not.
    async fn follow(&self, task: TaskId) -> Option<Shared>;

    /// As `follow`; a seed that does not have the task begins to.
    async fn bring(&self, task: TaskId, origin: Origin) -> Option<Shared>;

    /// Another host lends a right to read the task at `origin`; one that is no seed has no use for it.
    async fn lend(&self, task: TaskId, origin: Origin, right: Right);

    /// What a registry tells anybody, asked no longer than `age_max` ago; `None` where it tells nothing,
    /// and from one that is no seed.
    async fn public(&self, question: &Question, age_max: Duration) -> Option<Told>;

    /// Another host that follows the task wants this of it, for as long as what is returned lives.
    async fn want(&self, task: TaskId, wants: Vec<Want>) -> Vec<InterestGuard>;
}

// === impl TaskFailure ===

impl TaskFailure {
    /// A disk that is full or failing is no fault of the content: readers go on without it.
    pub(crate) fn of_store(error: StoreError) -> Self {
        match error {
            StoreError::Removed => Self::Removed,
            // What is written comes from a source, and it is the source that contradicts itself.
            StoreError::Contradiction(how) => Self::Source(Arc::new(SourceError::Malformed(how))),
            StoreError::NoRoom { .. }
            | StoreError::Disk { .. }
            | StoreError::LogFull
            | StoreError::NotHeld { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Directory { .. }
            | StoreError::Locked { .. }
            | StoreError::NewerFormat { .. } => {
                tracing::warn!(%error, "the store does not take a task");
                Self::NoRoom
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: StoreError, expect: &str) {
        let seen = match TaskFailure::of_store(error) {
            TaskFailure::NoRoom => "no room".to_owned(),
            TaskFailure::Removed => "removed".to_owned(),
            TaskFailure::Source(error) => error.to_string(),
            other => format!("{other:?}"),
        };
        assert!(seen.contains(expect), "{seen}, not {expect}");
    }

    #[test]
    fn a_removal_and_a_source_that_contradicts_itself_are_no_lack_of_room() {
        check(StoreError::NoRoom { needed: 1 }, "no room");
        check(StoreError::LogFull, "no room");
        let full = std::io::ErrorKind::StorageFull.into();
        let doing = "write a piece";
        check(
            StoreError::Disk {
                doing,
                source: full,
            },
            "no room",
        );
        check(StoreError::Removed, "removed");
        check(StoreError::Contradiction("it sent more"), "it sent more");
    }
}
