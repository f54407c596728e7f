//! One task on this host: its plan, its driver, and what everybody else may see of it.

mod acting;
mod asking;
pub(crate) mod attempt;
mod begin;
pub(crate) mod driver;
mod ending;
mod hashing;
mod parent_run;
mod parent_tells;
pub mod progress;
pub(crate) mod proofs;
mod report;
mod source_run;
pub(crate) mod spoiled;
pub(crate) mod surroundings;
mod wanted;

use protocol::{
    Down, HostId, PieceDigest, PieceIndex, SignedBatch, availability::Tell,
    scheduler::ParentFailure,
};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::progress::{Asking, Progress, Shared, Shelf, Stage, TaskFailure};
use crate::conductor::{Event, RunId};

/// Messages that wait for a task's driver before their sender waits.
pub(crate) const TASK_QUEUE: usize = 128;

/// What reaches the driver of a task.
#[derive(Debug)]
pub(crate) enum Message {
    /// A reader came, moved or left; or a piece turned out to be unreadable.
    Plan(Event),
    Scheduler(Down),
    /// This scheduler has ordered the task, and wants to hear of it.
    Ordered(HostId),
    SessionsChanged,
    /// The pause before this host goes to the source for want of anybody else is over.
    NobodyElse,
    Parent(HostId, Tell),
    /// A supplier brought a piece that matched, and it was written.
    ParentPiece(HostId, PieceIndex),
    /// A supplier has no slot for the run that began with this piece.
    RunRefused(HostId, u32),
    ParentFailed(HostId, ParentFailure),
    /// What a supplier brought could not be kept.
    StoreFailed(TaskFailure),
    Source(RunId, SourceReport),
    Hashed(hashing::Hashed),
    /// The size that the source told, if it told one.
    Sized(Option<u64>),
}

/// What a request to the source has to say.
#[derive(Debug)]
pub(crate) enum SourceReport {
    /// The source has answered. The reply says where the pieces go.
    Began(source_run::Answer, oneshot::Sender<source_run::Place>),
    /// Bytes of a piece that is still arriving were written, up to this offset.
    Wrote(u64),
    Piece(PieceIndex, PieceDigest),
    /// The request is over, after this offset of the body and with these last pieces: told in one,
    /// since a short last piece can be read only by who knows that the body ends there.
    Ended(u64, Vec<(PieceIndex, PieceDigest)>),
    Failed(TaskFailure),
}

/// A task that is being fetched, as the engine knows it.
#[derive(Debug, Clone)]
pub(crate) struct ActiveTask {
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) progress: watch::Receiver<Progress>,
}

/// A batch is shared by everybody who passes it on.
pub(crate) type SharedBatch = std::sync::Arc<SignedBatch>;
